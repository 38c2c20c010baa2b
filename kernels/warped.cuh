// Neighbouring channels that are read bilinearly at the same positions and written to planes.
//
// A thread has `pixels` neighbouring pixels of a row, up to PIXELS, with the corners of each; those beyond have any.
#pragma once

#include <cuda_fp16.h>

#include "bilinear.cuh"
#include "packets.cuh"

// Two features that are stored at once.
template <typename V>
struct PairOf;
template <>
struct PairOf<float> {
    using Word = uint2;
};
template <>
struct PairOf<half> {
    using Word = unsigned;
};

// Stores the values of a thread's pixels, two at once where they are aligned.
template <typename V, int PIXELS>
static __device__ __forceinline__ void store_pixels(V* to, const float (&value)[PIXELS], int pixels) {
    using Word = typename PairOf<V>::Word;
    if (PIXELS == 2 && pixels == 2 && reinterpret_cast<size_t>(to) % sizeof(Word) == 0) {
        Word word;
        V* pair = reinterpret_cast<V*>(&word);
        pair[0] = V(value[0]), pair[1] = V(value[PIXELS - 1]);
        *reinterpret_cast<Word*>(to) = word;
        return;
    }
#pragma unroll
    for (int j = 0; j < PIXELS; ++j)
        if (j < pixels) to[j] = V(value[j]);
}

// Reads `count` planes from `from` on, AT_ONCE at once, and writes as many from `to` on.
template <int AT_ONCE, typename V, int PIXELS>
static __device__ __forceinline__ void warp_some_planes(const V* __restrict__ from, V* __restrict__ to,
                                                        const Corners (&corners)[PIXELS], int count, size_t plane,
                                                        size_t out_plane, int pixels) {
    for (int c = 0; c < count; c += AT_ONCE) {
        float value[AT_ONCE][PIXELS];  // all are read before the first is stored
#pragma unroll
        for (int u = 0; u < AT_ONCE; ++u) {
#pragma unroll
            for (int j = 0; j < PIXELS; ++j) value[u][j] = read_corners(from, corners[j]);
            from += c + u + 1 < count ? plane : 0;  // beyond the last channel it is read again
        }
#pragma unroll
        for (int u = 0; u < AT_ONCE; ++u, to += out_plane) {
            if (c + u >= count) break;
            store_pixels(to, value[u], pixels);
        }
    }
}

// Reads `count` channels from strips, pixels of STRIP channels; `plane` is the size of a strip.
template <int STRIP, typename V>
static __device__ __forceinline__ void warp_some_strips(const V* __restrict__ from, V* __restrict__ to,
                                                        const Corners& corners, int count, size_t plane,
                                                        size_t out_plane) {
#pragma unroll 1
    for (int channel = 0; channel < count; channel += STRIP, from += plane) {
        float sum[STRIP] = {};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            Packet<V, STRIP> packet;
            packet.load(from + static_cast<size_t>(corners.offset[k]) * STRIP);
            packet.add_to(sum, corners.weight[k]);
        }
#pragma unroll
        for (int n = 0; n < STRIP; ++n, to += out_plane)
            if (channel + n < count) *to = V(sum[n]);
    }
}
