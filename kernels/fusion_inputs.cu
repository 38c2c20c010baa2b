// The inputs of Fourier-S's fusion: both frames and their features, warped to a time, and what else the fusion reads.
//
// DTYPE: the type of the features and of the inputs (float, half); motion, times, positions and sums are float.
// CHUNK: warped channels of a block. UNROLL: channels that a thread reads at once, EACH: neighbouring pixels that it
// reads, and BLOCKS: of a multiprocessor at once, at least, of `from_planes`.
#include <cuda_fp16.h>

#include "warped.cuh"

using Feature = DTYPE;

constexpr int WIDTH = 16 / sizeof(Feature);  // channels of a strip
static_assert(CHUNK % WIDTH == 0 && CHUNK % UNROLL == 0 && (EACH == 1 || EACH == 2), "whole strips, groups and pairs");

// The pair of frames that a block reads, and what it makes of them.
//
// The channels of a pair are the features of the first frame, those of the second, the first frame, and the second; in
// planes, or (STRIDE > 1) in strips of STRIDE channels. The inputs of the fusion are the features of the first frame
// and the frame, the same of the second frame, the blend of both frames less 1/2, the motion in 10 pixels, the
// visibility of the first frame, the time, and the time that is left.
template <int STRIDE>
struct Pair {
    const Feature* pair;
    const float* motion;
    Feature* inputs;
    float* base;
    int count;  // features of each frame
    int height, width, y, x, pixels;
    float time;
    size_t plane, pixel;

    __device__ __forceinline__ float share(int frame) const { return frame ? 1.0f - time : time; }

    // The corners of a thread's pixel in a frame; beyond the row's end, those of its first pixel.
    __device__ __forceinline__ Corners follow(int frame, int j) const {
        const int within = j < pixels ? j : 0;
        const float* flow = motion + 2 * frame * plane + pixel + within;
        return find_corners(y + share(frame) * flow[plane], x + within + share(frame) * flow[0], height, width, true,
                            1.0f);
    }

    __device__ __forceinline__ const Feature* channel(int c) const {
        return pair + static_cast<size_t>(c / STRIDE) * STRIDE * plane + c % STRIDE;
    }

    __device__ __forceinline__ float read(int c, const Corners& corners) const {
        const Feature* from = channel(c);
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < 4; ++k)
            sum += corners.weight[k] * static_cast<float>(from[static_cast<size_t>(corners.offset[k]) * STRIDE]);
        return sum;
    }

    __device__ __forceinline__ void write(int c, float value, int j) const {
        inputs[c * plane + pixel + j] = Feature(value);
    }

    // Everything but the warped features, for one of a thread's pixels.
    __device__ __forceinline__ void write_rest(int j) const {
        const float logit = motion[4 * plane + pixel + j];
        // 1 less the visibility by an exponential of its own, as a difference would cancel.
        const float visible = 1.0f / (1.0f + expf(-logit)), hidden = 1.0f / (1.0f + expf(logit));
        const float near = (1.0f - time) * visible + 1e-4f, far = time * hidden + 1e-4f;
        const int blend = 2 * count + 6;
        float blended[3] = {};
#pragma unroll 1
        for (int frame = 0; frame < 2; ++frame) {
            const Corners corners = follow(frame, j);
            const float weight = (frame ? far : near) / (near + far);
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                const float value = read(2 * count + 3 * frame + c, corners);
                write((frame + 1) * count + 3 * frame + c, value, j);
                blended[c] += weight * value;
            }
        }
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            write(blend + c, blended[c] - 0.5f, j);
            if (base != nullptr) base[c * plane + pixel + j] = blended[c];
        }
#pragma unroll 1
        for (int c = 0; c < 4; ++c) write(blend + 3 + c, 0.1f * motion[c * plane + pixel + j], j);
        write(blend + 7, visible, j);
        write(blend + 8, time, j);
        write(blend + 9, 1.0f - time, j);
    }
};

// Returns the pair of a block's pixels; grid.z counts `parts` of each time. `pixels` is not positive beyond a row.
template <int STRIDE>
static __device__ __forceinline__ Pair<STRIDE> pair_of(const Feature* features, const float* motion, const float* time,
                                                       Feature* inputs, float* base, int count, int height, int width,
                                                       int times, int parts, int each) {
    Pair<STRIDE> p;
    const size_t item = blockIdx.z / parts;
    const int channels = (2 * count + 6 + STRIDE - 1) / STRIDE * STRIDE;
    p.plane = static_cast<size_t>(height) * width;
    p.pair = features + item / times * channels * p.plane;
    p.motion = motion + item * 5 * p.plane;
    p.inputs = inputs + item * (2 * count + 16) * p.plane;
    p.base = base == nullptr ? nullptr : base + item * 3 * p.plane;
    p.count = count, p.height = height, p.width = width, p.time = time[item];
    p.x = (blockIdx.x * 32 + threadIdx.x) * each, p.y = blockIdx.y * 8 + threadIdx.y;
    p.pixel = static_cast<size_t>(p.y) * width + p.x;
    p.pixels = p.y < height ? min(each, width - p.x) : 0;
    return p;
}

// features: (B, 2 * count + 6, H, W), the channels of pairs; motion: (B * times, 5, H, W), in pixels, as of the network
// `fourier-s`; time: (B * times,), from 0 to 1. inputs: (B * times, 2 * count + 16, H, W); base: (B * times, 3, H, W),
// the blend, or null. A block has 32 * EACH x 8 pixels of CHUNK features of one frame, or of everything else;
// grid.z: B * times * parts, with the parts of the first frame's features, of the second's, and the rest.
extern "C" __global__ void __launch_bounds__(256, BLOCKS)
from_planes(const Feature* __restrict__ features, const float* __restrict__ motion, const float* __restrict__ time,
            Feature* __restrict__ inputs, float* __restrict__ base, int count, int height, int width, int times) {
    const int chunks = (count + CHUNK - 1) / CHUNK, part = blockIdx.z % (2 * chunks + 1);
    const Pair<1> pair =
        pair_of<1>(features, motion, time, inputs, base, count, height, width, times, 2 * chunks + 1, EACH);
    if (pair.pixels <= 0) return;
    if (part == 2 * chunks) {
#pragma unroll 1
        for (int j = 0; j < pair.pixels; ++j) pair.write_rest(j);
        return;
    }
    const int frame = part / chunks, first = part % chunks * CHUNK;
    Corners corners[EACH];
#pragma unroll
    for (int j = 0; j < EACH; ++j) corners[j] = pair.follow(frame, j);
    warp_some_planes<UNROLL>(pair.channel(frame * count + first),
                             pair.inputs + (frame * (count + 3) + first) * pair.plane + pair.pixel, corners,
                             min(CHUNK, count - first), pair.plane, pair.plane, pair.pixels);
}

// features: (B, S, H, W, WIDTH), the strips of those channels, with `count` a multiple of WIDTH; otherwise as
// `from_planes`, with 32 x 8 pixels of a block.
extern "C" __global__ void __launch_bounds__(256, 4)
from_strips(const Feature* __restrict__ features, const float* __restrict__ motion, const float* __restrict__ time,
            Feature* __restrict__ inputs, float* __restrict__ base, int count, int height, int width, int times) {
    const int chunks = (count + CHUNK - 1) / CHUNK, part = blockIdx.z % (2 * chunks + 1);
    const Pair<WIDTH> pair =
        pair_of<WIDTH>(features, motion, time, inputs, base, count, height, width, times, 2 * chunks + 1, 1);
    if (pair.pixels <= 0) return;
    if (part == 2 * chunks) {
        pair.write_rest(0);
        return;
    }
    const int frame = part / chunks, first = part % chunks * CHUNK;
    warp_some_strips<WIDTH>(pair.channel(frame * count + first),
                            pair.inputs + (frame * (count + 3) + first) * pair.plane + pair.pixel,
                            pair.follow(frame, 0), min(CHUNK, count - first), WIDTH * pair.plane, pair.plane);
}
