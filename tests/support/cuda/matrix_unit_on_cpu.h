// The instructions of matrix_unit.cuh for cuda_on_cpu.h.
//
// Errors: a lane that does not take part; a row that is not aligned to 16 bytes, or not in shared memory.
#pragma once

#include "cuda_fp16.h"

namespace cuda_on_cpu {

// Returns an element of a matrix that a warp has in registers, one word of each lane.
template <typename Word>
half element(const Word* words, int row, int column) {
    half pair[2];
    std::memcpy(pair, &words[row * 4 + column / 2], sizeof pair);
    return pair[column % 2];
}

static inline unsigned pair_of(half first, half second) {
    const half pair[2] = {first, second};
    unsigned word;
    std::memcpy(&word, pair, sizeof word);
    return word;
}

static inline void load_matrices(unsigned (&to)[4], const half* row, bool transpose, int line) {
    const auto* byte = reinterpret_cast<const unsigned char*>(row);
    if (byte < shared_memory || byte + 16 > shared_memory + sizeof shared_memory)
        fail("a row of a matrix is not in shared memory");
    if (reinterpret_cast<uintptr_t>(row) % 16) fail("a row of a matrix is not aligned to 16 bytes");
    Exchange& warp = exchange();
    warp.rows[lane()] = row;
    sync_warp(line);
    for (int i = 0; i < 4; ++i) {
        const int line_of_lane = lane() / 4, first = lane() % 4 * 2;
        const half* const* rows = reinterpret_cast<const half* const*>(warp.rows) + i * 8;
        to[i] = transpose ? pair_of(rows[first][line_of_lane], rows[first + 1][line_of_lane])
                          : pair_of(rows[line_of_lane][first], rows[line_of_lane][first + 1]);
    }
    sync_warp(line);
}

}  // namespace cuda_on_cpu

static inline void load_matrices(unsigned (&to)[4], const half* row, int line = __builtin_LINE()) {
    cuda_on_cpu::load_matrices(to, row, false, line);
}

static inline void load_transposed_matrices(unsigned (&to)[4], const half* row, int line = __builtin_LINE()) {
    cuda_on_cpu::load_matrices(to, row, true, line);
}

static inline unsigned transposed(unsigned matrix, int line = __builtin_LINE()) {
    cuda_on_cpu::Exchange& warp = cuda_on_cpu::exchange();
    const int lane = cuda_on_cpu::lane(), row = lane / 4, column = lane % 4 * 2;
    warp.words[0][lane] = matrix;
    cuda_on_cpu::sync_warp(line);
    const unsigned result = cuda_on_cpu::pair_of(cuda_on_cpu::element(warp.words[0], column, row),
                                                 cuda_on_cpu::element(warp.words[0], column + 1, row));
    cuda_on_cpu::sync_warp(line);
    return result;
}

static inline void add_product(float (&sum)[4], const Left& left, unsigned upper, unsigned lower,
                               int line = __builtin_LINE()) {
    using cuda_on_cpu::element;
    cuda_on_cpu::Exchange& warp = cuda_on_cpu::exchange();
    const int lane = cuda_on_cpu::lane();
    for (int i = 0; i < 4; ++i) warp.words[i][lane] = left.part[i];
    warp.words[4][lane] = upper;
    warp.words[5][lane] = lower;
    cuda_on_cpu::sync_warp(line);
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4, lower_rows = i / 2, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; ++k)
            sum[i] += float(element(warp.words[lower_rows + k / 8 * 2], row, k % 8)) *
                      float(element(warp.words[4 + k / 8], column, k % 8));
    }
    cuda_on_cpu::sync_warp(line);
}
