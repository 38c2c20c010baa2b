// nvcuda::wmma for cuda_on_cpu.h: a warp multiplies 16x16 half matrices into a 16x16 float matrix.
//
// Each lane has 8 elements of a fragment, in an order that kernels cannot rely on. Errors: a lane that does not take
// part; a matrix that is not aligned to 32 bytes, or whose rows are not a multiple of 16 bytes apart.
#pragma once

#include "cuda_fp16.h"

namespace nvcuda::wmma {

struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int M, int N, int K, typename V, typename Layout = void>
struct fragment {
    static_assert(M == 16 && N == 16 && K == 16, "only 16x16x16 is supported");
    static constexpr int num_elements = 8;
    using element_type = V;
    V x[num_elements];
};

// Returns the index, 0 to 255, of a lane's i-th element in its matrix, row by row.
static inline int element(int i) { return i * 32 + (cuda_on_cpu::lane() * 5 + i) % 32; }

template <typename V>
void check(const V* matrix, unsigned stride) {
    if (reinterpret_cast<uintptr_t>(matrix) % 32) cuda_on_cpu::fail("a matrix for wmma is not aligned to 32 bytes");
    if (stride * sizeof(V) % 16) cuda_on_cpu::fail("rows of a matrix for wmma are not a multiple of 16 bytes apart");
}

static inline int offset(int index, unsigned stride, bool rows) {
    const int row = index / 16, column = index % 16;
    return rows ? row * static_cast<int>(stride) + column : column * static_cast<int>(stride) + row;
}

template <typename Use, typename V, typename Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, V, Layout>& out, const V* matrix, unsigned stride,
                      int line = __builtin_LINE()) {
    check(matrix, stride);
    for (int i = 0; i < 8; ++i) out.x[i] = matrix[offset(element(i), stride, std::is_same_v<Layout, row_major>)];
    cuda_on_cpu::sync_warp(line);
}

template <typename V>
void load_matrix_sync(fragment<accumulator, 16, 16, 16, V>& out, const V* matrix, unsigned stride, layout_t layout,
                      int line = __builtin_LINE()) {
    check(matrix, stride);
    for (int i = 0; i < 8; ++i) out.x[i] = matrix[offset(element(i), stride, layout == mem_row_major)];
    cuda_on_cpu::sync_warp(line);
}

template <typename V>
void store_matrix_sync(V* matrix, const fragment<accumulator, 16, 16, 16, V>& in, unsigned stride, layout_t layout,
                       int line = __builtin_LINE()) {
    check(matrix, stride);
    for (int i = 0; i < 8; ++i) matrix[offset(element(i), stride, layout == mem_row_major)] = in.x[i];
    cuda_on_cpu::sync_warp(line);
}

template <typename Use, typename V, typename Layout, typename Value>
void fill_fragment(fragment<Use, 16, 16, 16, V, Layout>& out, const Value& value) {
    for (V& element : out.x) element = V(value);
}

template <typename LayoutA, typename LayoutB>
void mma_sync(fragment<accumulator, 16, 16, 16, float>& out, const fragment<matrix_a, 16, 16, 16, __half, LayoutA>& a,
              const fragment<matrix_b, 16, 16, 16, __half, LayoutB>& b,
              const fragment<accumulator, 16, 16, 16, float>& c, int line = __builtin_LINE()) {
    cuda_on_cpu::Exchange& warp = cuda_on_cpu::exchange();
    for (int i = 0; i < 8; ++i) {
        warp.a[element(i)] = float(a.x[i]);
        warp.b[element(i)] = float(b.x[i]);
    }
    cuda_on_cpu::sync_warp(line);
    for (int i = 0; i < 8; ++i) {
        const int row = element(i) / 16, column = element(i) % 16;
        float sum = c.x[i];
        for (int k = 0; k < 16; ++k) sum += warp.a[row * 16 + k] * warp.b[k * 16 + column];
        out.x[i] = sum;
    }
    cuda_on_cpu::sync_warp(line);
}

}  // namespace nvcuda::wmma
