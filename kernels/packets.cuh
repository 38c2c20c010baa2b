// Neighbouring channels that are read and written by vectors of 16 bytes, and summed in float.
#pragma once

#include <cuda_fp16.h>

// `COUNT` values, a multiple of 16 bytes; addresses are multiples of 16 bytes.
template <typename V, int COUNT>
struct Packet {
    static constexpr int VECTORS = COUNT * static_cast<int>(sizeof(V)) / 16, SIZE = 16 / static_cast<int>(sizeof(V));
    uint4 vector[VECTORS];

    __device__ __forceinline__ void load(const V* __restrict__ from) {
#pragma unroll
        for (int i = 0; i < VECTORS; ++i) vector[i] = reinterpret_cast<const uint4*>(from)[i];
    }

    __device__ __forceinline__ void add_to(float (&sum)[COUNT], float weight) const {
#pragma unroll
        for (int i = 0; i < VECTORS; ++i) {
            const V* value = reinterpret_cast<const V*>(&vector[i]);
#pragma unroll
            for (int n = 0; n < SIZE; ++n) sum[i * SIZE + n] += weight * static_cast<float>(value[n]);
        }
    }

    static __device__ __forceinline__ void store(V* to, const float (&sum)[COUNT]) {
#pragma unroll
        for (int i = 0; i < VECTORS; ++i) {
            uint4 packed;
            V* value = reinterpret_cast<V*>(&packed);
#pragma unroll
            for (int n = 0; n < SIZE; ++n) value[n] = V(sum[i * SIZE + n]);
            reinterpret_cast<uint4*>(to)[i] = packed;
        }
    }
};
