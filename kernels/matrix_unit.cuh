// The matrix unit: a warp multiplies half matrices and sums in float. Written in PTX, so that it needs no header.
//
// All threads of the warp take part in every function. A matrix of 8x8 is one register: lane l has the elements
// (row l / 4, columns l % 4 * 2 and l % 4 * 2 + 1). Rows of matrices in memory are aligned to 16 bytes.
#pragma once

#include <cuda_fp16.h>

// 16 rows by 16 of depth: rows 0-7 and 8-15 of depth 0-7, then of depth 8-15.
struct Left {
    unsigned part[4];
};

// 16 of depth by 16 columns: depth 0-7 and 8-15 of columns 0-7, then of columns 8-15; each part is transposed.
struct Right {
    unsigned part[4];
};

// 16 rows by 16 columns: two halves of 8 columns. A lane has two neighbouring columns in row l / 4 and in row l / 4 + 8.
struct Sums {
    float value[2][4] = {};
};

#ifdef CUDA_ON_CPU
#include "matrix_unit_on_cpu.h"
#else

// Loads four matrices from shared memory; lanes 8n to 8n + 7 give the addresses of the rows of matrix n.
static __device__ __forceinline__ void load_matrices(unsigned (&to)[4], const half* row) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
}

// The same, with each matrix transposed.
static __device__ __forceinline__ void load_transposed_matrices(unsigned (&to)[4], const half* row) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
}

// Returns a matrix transposed.
static __device__ __forceinline__ unsigned transposed(unsigned matrix) {
    unsigned result;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(matrix));
    return result;
}

// Adds the product of a left matrix, 16x16, and a right one, 16x8, to sums, 16x8.
static __device__ __forceinline__ void add_product(float (&sum)[4], const Left& left, unsigned upper, unsigned lower) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(left.part[0]), "r"(left.part[1]), "r"(left.part[2]), "r"(left.part[3]), "r"(upper), "r"(lower));
}
#endif

static __device__ __forceinline__ int lane_of_warp() { return threadIdx.x % 32; }

// Loads from shared memory, [row][depth].
static __device__ __forceinline__ Left load_left(const half* from, int stride) {
    const int lane = lane_of_warp();
    Left left;
    load_matrices(left.part, from + lane % 16 * stride + lane / 16 * 8);
    return left;
}

// Loads from shared memory, [depth][row].
static __device__ __forceinline__ Left load_left_transposed(const half* from, int stride) {
    const int lane = lane_of_warp();
    Left left;
    load_transposed_matrices(left.part, from + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8);
    return left;
}

// Loads from shared memory, [column][depth].
static __device__ __forceinline__ Right load_right_transposed(const half* from, int stride) {
    const int lane = lane_of_warp();
    Right right;
    load_matrices(right.part, from + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8);
    return right;
}

// Loads from any memory, [depth][column].
static __device__ __forceinline__ Right load_right(const half* __restrict__ from, int stride) {
    const int lane = lane_of_warp();
    from += lane / 4 * stride + lane % 4 * 2;
    Right right;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        right.part[i] = transposed(*reinterpret_cast<const unsigned*>(from + i % 2 * 8 * stride + i / 2 * 8));
    }
    return right;
}

// Loads 16 bytes a lane from any memory, in which the parts of a matrix lie lane by lane.
static __device__ __forceinline__ Right load_ordered_right(const half* __restrict__ from) {
    const uint4 packet = reinterpret_cast<const uint4*>(from)[lane_of_warp()];
    return {{packet.x, packet.y, packet.z, packet.w}};
}

static __device__ __forceinline__ void add_product(Sums& sums, const Left& left, const Right& right) {
    add_product(sums.value[0], left, right.part[0], right.part[1]);
    add_product(sums.value[1], left, right.part[2], right.part[3]);
}

// Stores to memory of an even stride, [row][column].
static __device__ __forceinline__ void store_sums(float* to, int stride, const Sums& sums) {
    const int lane = lane_of_warp();
    to += lane / 4 * stride + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float(&half_sums)[4] = sums.value[i / 2];
        *reinterpret_cast<float2*>(to + i % 2 * 8 * stride + i / 2 * 8) =
            make_float2(half_sums[i % 2 * 2], half_sums[i % 2 * 2 + 1]);
    }
}
