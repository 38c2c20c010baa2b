// SIRENs over a run of target pixels at once: the activations stay in shared memory, layer after layer.
//
// DTYPE: the type of features and weights (float, half; HALF is 1 for half); coordinates, flows and sums are float.
// NF: channels of the target features, a multiple of 8.
// ORDERED: 1 if the matrices of weights lie in the order of `load_ordered_right`, in half precision alone.
#pragma once

#include <cuda_fp16.h>

#include "bilinear.cuh"
#if HALF
#include "matrix_unit.cuh"
#endif

using T = DTYPE;

constexpr int FIRST = 64, SECOND = 64, WIDE = 256;  // widths of the sine layers
constexpr int FRAMES = 6;                           // channels of two RGB frames
constexpr int FLOWS = 4;                            // dx, dy for each of two moments
constexpr int MIXED = 4 * FIRST;                    // channels of `mixed`

__host__ __device__ constexpr int padded(int channels) { return (channels + 15) / 16 * 16; }

constexpr int TARGET = padded(NF), LAST = padded(3);
constexpr int FLOW_INPUTS = padded(NF + FRAMES), COLOUR_INPUTS = padded(2 * (NF + FRAMES));

__host__ __device__ constexpr int larger(int a, int b) { return a > b ? a : b; }

constexpr int PIXELS = HALF ? 64 : 32, WARPS = HALF ? 8 : 4, THREADS = 32 * WARPS;
// The 16 bytes put neighbouring rows of activations into different banks.
constexpr int STRIDE = larger(WIDE, COLOUR_INPUTS) + 16 / static_cast<int>(sizeof(T));

static_assert(NF % 8 == 0 && NF <= 256, "channels are read in groups of 8, and a layer has 256 at most");

struct alignas(16) Group {
    T value[8];
};

struct alignas(16) Floats {
    float value[8];
};

static __device__ __forceinline__ Floats floats_at(const float* address) {
    return *reinterpret_cast<const Floats*>(address);
}

static __device__ __forceinline__ void add_group(float* sum, const T* from, float weight) {
    const Group group = *reinterpret_cast<const Group*>(from);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += weight * static_cast<float>(group.value[i]);
}

static __device__ __forceinline__ void add_corners(float* sum, const T* map, int channels, const Corners& corners) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        add_group(sum, map + static_cast<size_t>(corners.offset[k]) * channels, corners.weight[k]);
    }
}

static __device__ __forceinline__ void add(float* sum, const float* from, float weight) {
    const Floats values = floats_at(from);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += weight * values.value[i];
}

static __device__ __forceinline__ void store_group(T* to, const float* values) {
    Group group;
#pragma unroll
    for (int i = 0; i < 8; ++i) group.value[i] = static_cast<T>(values[i]);
    *reinterpret_cast<Group*>(to) = group;
}

// Added and subtracted again, it rounds to a whole number: rintf takes the unit that computes sines.
constexpr float ROUNDING = 12582912.f;

// Returns sin(30 x); the argument is first reduced to half a turn on both sides of 0.
static __device__ __forceinline__ float sine(float x) {
    const float turns = x * 4.77464829276f;  // 30 / (2 pi)
    const float rest = turns - ((turns + ROUNDING) - ROUNDING);
#if HALF
    return __sinf(6.28318530718f * rest);
#else
    const float mirrored = fabsf(rest) > 0.25f ? copysignf(0.5f, rest) - rest : rest;
    const float angle = 6.28318530718f * mirrored, square = angle * angle;
    // Taylor series; the error at a quarter of a turn is 6e-8.
    float sum = -1.f / 39916800.f;
    sum = sum * square + 1.f / 362880.f;
    sum = sum * square - 1.f / 5040.f;
    sum = sum * square + 1.f / 120.f;
    sum = sum * square - 1.f / 6.f;
    return angle + angle * square * sum;
#endif
}

static __device__ __forceinline__ void store_sines(T* to, float* values) {
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = sine(values[i]);
    store_group(to, values);
}

#if HALF
static __device__ __forceinline__ void store_pair(T* to, float first, float second) {
    unsigned pair;
    T* value = reinterpret_cast<T*>(&pair);
    value[0] = static_cast<T>(first), value[1] = static_cast<T>(second);
    *reinterpret_cast<unsigned*>(to) = pair;
}

constexpr int SCRATCH_STRIDE = 20, SCRATCH = 16 * SCRATCH_STRIDE;  // floats of one warp's tile
#else
constexpr int SCRATCH = 0;
#endif

// Shared memory: first the activations, PIXELS rows of STRIDE; then the scratch of the products, which holds the
// corners on target and frames, for two moments, until the first product begins; last the corners on the input.
constexpr int ACTIVATION_BYTES = PIXELS * STRIDE * static_cast<int>(sizeof(T));
constexpr int SCRATCH_BYTES = larger(WARPS * SCRATCH * 4, 4 * PIXELS * static_cast<int>(sizeof(Corners)));
extern __shared__ __align__(128) unsigned char shared_memory[];

struct Memory {
    T* x = reinterpret_cast<T*>(shared_memory);
    float* scratch = reinterpret_cast<float*>(shared_memory + ACTIVATION_BYTES);
    Corners* on_target = reinterpret_cast<Corners*>(shared_memory + ACTIVATION_BYTES);
    Corners* on_frames = on_target + 2 * PIXELS;
    Corners* on_input = reinterpret_cast<Corners*>(shared_memory + ACTIVATION_BYTES + SCRATCH_BYTES);
};

#if HALF
// Sums of a warp in a product: tiles of 16 pixels by 16 outputs, which a grid of DOWN x ACROSS warps covers.
template <int INPUTS, int OUTPUTS>
struct WarpTiles {
    static constexpr int ROWS = PIXELS / 16, COLUMNS = OUTPUTS / 16;
    static constexpr int ACROSS = COLUMNS % 8 == 0 ? 8 : COLUMNS % 4 == 0 ? 4 : COLUMNS % 2 == 0 ? 2 : 1;
    static constexpr int DOWN = WARPS / ACROSS < ROWS ? WARPS / ACROSS : ROWS;
    static constexpr int TILES_ACROSS = COLUMNS / ACROSS, TILES_DOWN = ROWS / DOWN;
    const int row = threadIdx.x / 32 / ACROSS * TILES_DOWN, column = threadIdx.x / 32 % ACROSS * TILES_ACROSS;
    const bool active = threadIdx.x / 32 < ACROSS * DOWN;
    Sums sums[TILES_DOWN][TILES_ACROSS];

    __device__ __forceinline__ void load(Right (&to)[TILES_ACROSS], const T* weights, int k) const {
#pragma unroll
        for (int j = 0; j < TILES_ACROSS; ++j) {
#if ORDERED
            to[j] = load_ordered_right(weights + (k / 16 * COLUMNS + column + j) * 256);
#else
            to[j] = load_right(weights + k * OUTPUTS + 16 * (column + j), OUTPUTS);
#endif
        }
    }

    // Multiplies; the weights of a step are read during the product of the step before.
    __device__ __forceinline__ void multiply(const T* x, const T* __restrict__ weights) {
        if (!active) return;
        Right right[TILES_ACROSS], next[TILES_ACROSS];
        load(right, weights, 0);
        for (int k = 0; k < INPUTS; k += 16) {
            load(next, weights, min(k + 16, INPUTS - 16));
#pragma unroll
            for (int i = 0; i < TILES_DOWN; ++i) {
                const Left left = load_left(x + 16 * (row + i) * STRIDE + k, STRIDE);
#pragma unroll
                for (int j = 0; j < TILES_ACROSS; ++j) add_product(sums[i][j], left, right[j]);
            }
#pragma unroll
            for (int j = 0; j < TILES_ACROSS; ++j) right[j] = next[j];
        }
    }
};
#endif

// Multiplies the activations x, PIXELS rows of INPUTS, by weights (INPUTS, OUTPUTS), and calls finish(pixel, channel,
// sums) with each group of 8 sums. The whole product is complete before the first call, so `finish` may write to x.
template <int INPUTS, int OUTPUTS, class Finish>
static __device__ __forceinline__ void product(const T* x, const T* __restrict__ weights, float* scratch,
                                               const Finish& finish) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#if HALF
    WarpTiles<INPUTS, OUTPUTS> tiles;
    tiles.multiply(x, weights);
    __syncthreads();
    if (tiles.active) {
        float* tile = scratch + warp * SCRATCH;
        const int within = lane % 16, group = lane / 16 * 8;  // puts neighbouring lanes into different banks
#pragma unroll
        for (int i = 0; i < tiles.TILES_DOWN; ++i) {
#pragma unroll
            for (int j = 0; j < tiles.TILES_ACROSS; ++j) {
                store_sums(tile, SCRATCH_STRIDE, tiles.sums[i][j]);
                __syncwarp();
                Floats values = floats_at(tile + within * SCRATCH_STRIDE + group);
                finish(16 * (tiles.row + i) + within, 16 * (tiles.column + j) + group, values.value);
                __syncwarp();
            }
        }
    }
#else
    // A warp has 8 pixels. A lane has one group of 8 outputs; SHARES lanes with the same group split the pixels.
    constexpr int GROUPS = OUTPUTS / 8;
    constexpr int SHARES = GROUPS > 16 ? 1 : GROUPS > 8 ? 2 : GROUPS > 4 ? 4 : 8;
    constexpr int PIXELS_EACH = PIXELS / WARPS / SHARES;
    const int group = lane % GROUPS * 8, share = lane / GROUPS;
    const int pixel = warp * (PIXELS / WARPS) + share * PIXELS_EACH;
    const bool active = share < SHARES;

    float sums[PIXELS_EACH][8] = {};
    if (active) {
#pragma unroll 1
        for (int k = 0; k < INPUTS; k += 4) {
            float4 left[PIXELS_EACH];
#pragma unroll
            for (int i = 0; i < PIXELS_EACH; ++i) {
                left[i] = *reinterpret_cast<const float4*>(x + (pixel + i) * STRIDE + k);
            }
#pragma unroll
            for (int step = 0; step < 4; ++step) {
                const Group right = *reinterpret_cast<const Group*>(weights + (k + step) * OUTPUTS + group);
#pragma unroll
                for (int i = 0; i < PIXELS_EACH; ++i) {
                    const float4& v = left[i];
                    const float value = step == 0 ? v.x : step == 1 ? v.y : step == 2 ? v.z : v.w;
#pragma unroll
                    for (int n = 0; n < 8; ++n) sums[i][n] += value * right.value[n];
                }
            }
        }
    }
    __syncthreads();
    if (active) {
#pragma unroll
        for (int i = 0; i < PIXELS_EACH; ++i) finish(pixel + i, group, sums[i]);
    }
#endif
    __syncthreads();
}

// Applies a sine layer in place.
template <int INPUTS, int OUTPUTS>
static __device__ __forceinline__ void sine_layer(T* x, const T* weights, const float* bias, float* scratch) {
#if HALF
    // The sums of a lane are two neighbouring outputs in each of two rows, and become activations where they are.
    WarpTiles<INPUTS, OUTPUTS> tiles;
    tiles.multiply(x, weights);
    __syncthreads();
    if (tiles.active) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int j = 0; j < 2 * tiles.TILES_ACROSS; ++j) {
            const int channel = 16 * tiles.column + 8 * j + lane % 4 * 2;
            const float2 added = *reinterpret_cast<const float2*>(bias + channel);
#pragma unroll
            for (int i = 0; i < 2 * tiles.TILES_DOWN; ++i) {
                const float* sum = tiles.sums[i / 2][j / 2].value[j % 2] + i % 2 * 2;
                T* to = x + (16 * tiles.row + 8 * i + lane / 4) * STRIDE + channel;
                store_pair(to, sine(sum[0] + added.x), sine(sum[1] + added.y));
            }
        }
    }
    __syncthreads();
#else
    product<INPUTS, OUTPUTS>(x, weights, scratch, [=](int pixel, int channel, float* values) {
        add(values, bias + channel, 1.f);
        store_sines(x + pixel * STRIDE + channel, values);
    });
#endif
}
