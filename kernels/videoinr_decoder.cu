// VideoINR's decoder, for any target size and time, in three kernels: features at every target pixel, the flows from
// there to two moments, and the colours of what is found at both. Each evaluates its SIREN for a run of target pixels
// at once: their activations stay in shared memory, layer after layer.
//
// DTYPE: the type of features and weights (float, half; HALF is 1 for half); coordinates, flows and sums are float.
// NF: channels of the target features, a multiple of 8. OFFICIAL: 1 for VideoINR's `official_sampling`, else 0.
//
// Of each first layer, the part that depends on input pixels alone comes ready in `mixed`, (B, H, W, 4 * FIRST): that of
// the features' SIREN, of the flows' one, and of the colours' one for the first and for the second moment.

#include <cuda_fp16.h>
#if HALF
#include <mma.h>
#endif

#include "bilinear.cuh"

using T = DTYPE;

constexpr int FIRST = 64, SECOND = 64, WIDE = 256;  // widths of the layers of sines
constexpr int FRAMES = 6;                           // channels of two RGB frames
constexpr int FLOWS = 4;                            // dx, dy for each of two moments
constexpr int MIXED = 4 * FIRST;

__host__ __device__ constexpr int padded(int channels) { return (channels + 15) / 16 * 16; }

constexpr int TARGET = padded(NF), LAST = padded(3);
constexpr int FLOW_INPUTS = padded(NF + FRAMES), COLOUR_INPUTS = padded(2 * (NF + FRAMES));

__host__ __device__ constexpr int most(int a, int b) { return a > b ? a : b; }

constexpr int PIXELS = HALF ? 64 : 32, WARPS = HALF ? 8 : 4, THREADS = 32 * WARPS;
// Rows of activations begin in different banks.
constexpr int STRIDE = most(WIDE, COLOUR_INPUTS) + 16 / static_cast<int>(sizeof(T));

static_assert(NF % 8 == 0 && NF <= 256, "channels are read in groups of 8, and a layer has 256 at most");

struct alignas(16) Group {
    T value[8];
};

struct alignas(16) Floats {
    float value[8];
};

static __device__ __forceinline__ Floats floats_at(const float* place) {
    return *reinterpret_cast<const Floats*>(place);
}

static __device__ __forceinline__ void add_group(float* sum, const T* from, float share) {
    const Group group = *reinterpret_cast<const Group*>(from);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += share * static_cast<float>(group.value[i]);
}

static __device__ __forceinline__ void add_corners(float* sum, const T* map, int channels, const Corners& corners) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        add_group(sum, map + static_cast<size_t>(corners.offset[k]) * channels, corners.weight[k]);
    }
}

static __device__ __forceinline__ void add(float* sum, const float* place, float share) {
    const Floats values = floats_at(place);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += share * values.value[i];
}

static __device__ __forceinline__ void store_group(T* to, const float* values) {
    Group group;
#pragma unroll
    for (int i = 0; i < 8; ++i) group.value[i] = static_cast<T>(values[i]);
    *reinterpret_cast<Group*>(to) = group;
}

// sin(30 x), the argument first brought into half a turn around 0.
static __device__ __forceinline__ float sine(float x) {
    const float turns = x * 4.77464829276f;  // 30 / (2 pi)
    const float rest = turns - rintf(turns);
#if HALF
    return __sinf(6.28318530718f * rest);
#else
    const float mirrored = fabsf(rest) > 0.25f ? copysignf(0.5f, rest) - rest : rest;
    const float angle = 6.28318530718f * mirrored, square = angle * angle;
    // Taylor's series, 6e-8 off at a quarter of a turn.
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
constexpr int SCRATCH_STRIDE = 20, SCRATCH = 16 * SCRATCH_STRIDE;  // a float tile of each warp
#else
constexpr int SCRATCH = 0;
#endif

// Shared memory: activations, PIXELS rows of STRIDE; the products' scratch, and before them what is read of target and
// frames, for two moments; what is read of the input.
constexpr int ACTIVATION_BYTES = PIXELS * STRIDE * static_cast<int>(sizeof(T));
constexpr int SCRATCH_BYTES = most(WARPS * SCRATCH * 4, 4 * PIXELS * static_cast<int>(sizeof(Corners)));
extern __shared__ __align__(128) unsigned char shared_memory[];

struct Memory {
    T* x = reinterpret_cast<T*>(shared_memory);
    float* scratch = reinterpret_cast<float*>(shared_memory + ACTIVATION_BYTES);
    Corners* on_target = reinterpret_cast<Corners*>(shared_memory + ACTIVATION_BYTES);
    Corners* on_frames = on_target + 2 * PIXELS;
    Corners* on_input = reinterpret_cast<Corners*>(shared_memory + ACTIVATION_BYTES + SCRATCH_BYTES);
};

// Multiply the activations x, PIXELS rows of INPUTS, with weights (INPUTS, OUTPUTS), and hand over each group of 8 sums:
// finish(pixel, channel, sums). As the product is complete before, `finish` may write to x.
template <int INPUTS, int OUTPUTS, class Finish>
static __device__ __forceinline__ void product(const T* x, const T* __restrict__ weights, float* scratch,
                                               const Finish& finish) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#if HALF
    using namespace nvcuda;
    // Warps stand in a grid over the tiles of 16 pixels by 16 outputs.
    constexpr int ROWS = PIXELS / 16, COLUMNS = OUTPUTS / 16;
    constexpr int ACROSS = COLUMNS % 8 == 0 ? 8 : COLUMNS % 4 == 0 ? 4 : COLUMNS % 2 == 0 ? 2 : 1;
    constexpr int DOWN = WARPS / ACROSS < ROWS ? WARPS / ACROSS : ROWS;
    constexpr int MINE_ACROSS = COLUMNS / ACROSS, MINE_DOWN = ROWS / DOWN;
    const int row = warp / ACROSS * MINE_DOWN, column = warp % ACROSS * MINE_ACROSS;
    const bool working = warp < ACROSS * DOWN;

    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums[MINE_DOWN][MINE_ACROSS];
#pragma unroll
    for (int i = 0; i < MINE_DOWN; ++i) {
#pragma unroll
        for (int j = 0; j < MINE_ACROSS; ++j) wmma::fill_fragment(sums[i][j], 0.f);
    }
    if (working) {
        for (int k = 0; k < INPUTS; k += 16) {
            wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::row_major> right[MINE_ACROSS];
#pragma unroll
            for (int j = 0; j < MINE_ACROSS; ++j) {
                wmma::load_matrix_sync(right[j], weights + k * OUTPUTS + 16 * (column + j), OUTPUTS);
            }
#pragma unroll
            for (int i = 0; i < MINE_DOWN; ++i) {
                wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> left;
                wmma::load_matrix_sync(left, x + 16 * (row + i) * STRIDE + k, STRIDE);
#pragma unroll
                for (int j = 0; j < MINE_ACROSS; ++j) wmma::mma_sync(sums[i][j], left, right[j], sums[i][j]);
            }
        }
    }
    __syncthreads();
    if (working) {
        float* tile = scratch + warp * SCRATCH;
        const int within = lane % 16, group = lane / 16 * 8;  // so that neighbours meet different banks
#pragma unroll
        for (int i = 0; i < MINE_DOWN; ++i) {
#pragma unroll
            for (int j = 0; j < MINE_ACROSS; ++j) {
                wmma::store_matrix_sync(tile, sums[i][j], SCRATCH_STRIDE, wmma::mem_row_major);
                __syncwarp();
                Floats values = floats_at(tile + within * SCRATCH_STRIDE + group);
                finish(16 * (row + i) + within, 16 * (column + j) + group, values.value);
                __syncwarp();
            }
        }
    }
#else
    // A warp has 8 pixels; its lanes share them out where there are fewer groups of 8 outputs than lanes.
    constexpr int GROUPS = OUTPUTS / 8;
    constexpr int SHARES = GROUPS > 16 ? 1 : GROUPS > 8 ? 2 : GROUPS > 4 ? 4 : 8;
    constexpr int MINE = PIXELS / WARPS / SHARES;
    const int group = lane % GROUPS * 8, share = lane / GROUPS;
    const int pixel = warp * (PIXELS / WARPS) + share * MINE;
    const bool working = share < SHARES;

    float sums[MINE][8] = {};
    if (working) {
#pragma unroll 1
        for (int k = 0; k < INPUTS; k += 4) {
            float4 left[MINE];
#pragma unroll
            for (int i = 0; i < MINE; ++i) left[i] = *reinterpret_cast<const float4*>(x + (pixel + i) * STRIDE + k);
#pragma unroll
            for (int step = 0; step < 4; ++step) {
                const Group right = *reinterpret_cast<const Group*>(weights + (k + step) * OUTPUTS + group);
#pragma unroll
                for (int i = 0; i < MINE; ++i) {
                    const float value = step == 0 ? left[i].x : step == 1 ? left[i].y : step == 2 ? left[i].z : left[i].w;
#pragma unroll
                    for (int n = 0; n < 8; ++n) sums[i][n] += value * right.value[n];
                }
            }
        }
    }
    __syncthreads();
    if (working) {
#pragma unroll
        for (int i = 0; i < MINE; ++i) finish(pixel + i, group, sums[i]);
    }
#endif
    __syncthreads();
}

// A layer of sines in place.
template <int INPUTS, int OUTPUTS>
static __device__ __forceinline__ void sine_layer(T* x, const T* weights, const float* bias, float* scratch) {
    product<INPUTS, OUTPUTS>(x, weights, scratch, [=](int pixel, int channel, float* values) {
        add(values, bias + channel, 1.f);
        store_sines(x + pixel * STRIDE + channel, values);
    });
}

// The run of target pixels of this block; a run that is not full repeats the last pixel.
struct Run {
    int first, count, width;
    size_t image;  // index of the batch item's first target pixel

    __device__ __forceinline__ Run(int target_height, int target_width)
        : first(blockIdx.x * PIXELS), count(target_height * target_width), width(target_width),
          image(static_cast<size_t>(blockIdx.y) * target_height * target_width) {}
    __device__ __forceinline__ int place(int pixel) const { return min(first + pixel, count - 1); }
    __device__ __forceinline__ bool holds(int pixel) const { return first + pixel < count; }
};

// biases: first layer, moment, way_y, way_x (FIRST each), then those of the other layers.
extern "C" __global__ void __launch_bounds__(THREADS)
    target_features(const T* __restrict__ mixed, const float* __restrict__ time, const int* __restrict__ nearest_y,
                    const int* __restrict__ nearest_x, const float* __restrict__ way_y,
                    const float* __restrict__ way_x, const T* __restrict__ weights, const float* __restrict__ biases,
                    T* __restrict__ target, int height, int width, int target_height, int target_width) {
    const Memory memory;
    T* x = memory.x;
    float* scratch = memory.scratch;
    const Run run(target_height, target_width);
    const T* image = mixed + static_cast<size_t>(blockIdx.y) * height * width * MIXED;
    const float moment = time[blockIdx.y];
    for (int item = threadIdx.x; item < PIXELS * FIRST / 8; item += THREADS) {
        const int pixel = item / (FIRST / 8), channel = item % (FIRST / 8) * 8;
        const int row = run.place(pixel) / run.width, column = run.place(pixel) % run.width;
        const float* bias = biases + channel;
        float values[8] = {};
        add(values, bias, 1.f);
        add(values, bias + FIRST, moment);
        add(values, bias + 2 * FIRST, way_y[row]);
        add(values, bias + 3 * FIRST, way_x[column]);
        add_group(values, image + (static_cast<size_t>(nearest_y[row]) * width + nearest_x[column]) * MIXED + channel,
                  1.f);
        store_sines(x + pixel * STRIDE + channel, values);
    }
    __syncthreads();

    const float* bias = biases + 4 * FIRST;
    sine_layer<FIRST, SECOND>(x, weights, bias, scratch);
    sine_layer<SECOND, WIDE>(x, weights + FIRST * SECOND, bias + SECOND, scratch);
    const T* last = weights + FIRST * SECOND + SECOND * WIDE;
    product<WIDE, TARGET>(x, last, scratch, [&](int pixel, int channel, float* values) {
        if (channel >= NF || !run.holds(pixel)) return;
        add(values, bias + SECOND + WIDE + channel, 1.f);
        store_group(target + (run.image + run.first + pixel) * NF + channel, values);
    });
}

// What a run reads of the frames, for one moment, into 6 columns of the activations.
static __device__ __forceinline__ void read_frames(T* x, const T* frames, const Corners& corners) {
    for (int channel = 0; channel < FRAMES; ++channel) {
        float sum = 0.f;
        for (int k = 0; k < 4; ++k) {
            sum += corners.weight[k] *
                   static_cast<float>(frames[static_cast<size_t>(corners.offset[k]) * FRAMES + channel]);
        }
        x[channel] = static_cast<T>(sum);
    }
}

// frames: (B, factor * height, factor * width, 6). Activations: target features, frames, zeros.
// biases: first layer, moment (FIRST each), then those of the other layers.
extern "C" __global__ void __launch_bounds__(THREADS)
    target_flows(const T* __restrict__ mixed, const T* __restrict__ frames, const T* __restrict__ target,
                 const float* __restrict__ time, const float* __restrict__ position_y,
                 const float* __restrict__ position_x, const T* __restrict__ weights,
                 const float* __restrict__ biases, float* __restrict__ flows, int height, int width, int factor,
                 int target_height, int target_width) {
    const Memory memory;
    T* x = memory.x;
    float* scratch = memory.scratch;
    Corners* on_input = memory.on_input;
    const Run run(target_height, target_width);
    const size_t batch = blockIdx.y, pixels = static_cast<size_t>(height) * width;
    const T* image = mixed + batch * pixels * MIXED + FIRST;
    const float moment = time[batch];
    for (int pixel = threadIdx.x; pixel < PIXELS; pixel += THREADS) {
        const float px = position_x[run.place(pixel) % run.width], py = position_y[run.place(pixel) / run.width];
        on_input[pixel] = find_corners(py, px, height, width, !OFFICIAL, 1.f);
        const Corners on_frames = find_corners((py + 0.5f) * factor - 0.5f, (px + 0.5f) * factor - 0.5f,
                                               height * factor, width * factor, !OFFICIAL, 1.f);
        T* inputs = x + pixel * STRIDE + NF;
        read_frames(inputs, frames + batch * pixels * factor * factor * FRAMES, on_frames);
        for (int i = FRAMES; i < FLOW_INPUTS - NF; ++i) inputs[i] = static_cast<T>(0.f);
    }
    for (int item = threadIdx.x; item < PIXELS * NF / 8; item += THREADS) {
        const int pixel = item / (NF / 8), channel = item % (NF / 8) * 8;
        *reinterpret_cast<Group*>(x + pixel * STRIDE + channel) =
            *reinterpret_cast<const Group*>(target + (run.image + run.place(pixel)) * NF + channel);
    }
    __syncthreads();

    product<FLOW_INPUTS, FIRST>(x, weights, scratch, [&](int pixel, int channel, float* values) {
        add(values, biases + channel, 1.f);
        add(values, biases + FIRST + channel, moment);
        add_corners(values, image + channel, MIXED, on_input[pixel]);
        store_sines(x + pixel * STRIDE + channel, values);
    });
    const T* second = weights + FLOW_INPUTS * FIRST;
    const float* bias = biases + 2 * FIRST;
    sine_layer<FIRST, SECOND>(x, second, bias, scratch);
    sine_layer<SECOND, WIDE>(x, second + FIRST * SECOND, bias + SECOND, scratch);
    const T* last = second + FIRST * SECOND + SECOND * WIDE;
    product<WIDE, LAST>(x, last, scratch, [&](int pixel, int channel, float* values) {
        if (channel > 0 || !run.holds(pixel)) return;
        add(values, bias + SECOND + WIDE, 1.f);
        float* flow = flows + (run.image + run.first + pixel) * FLOWS;
        for (int i = 0; i < FLOWS; ++i) flow[i] = values[i];
    });
}

// Where a flow leads to from the target pixel `index`, in pixels of the whole target of `size`.
static __device__ __forceinline__ float moved(float index, float flow, float size) {
    const float place = index + flow;
    if (!OFFICIAL) return place;
    // From a grid whose corners are pixel centres to one whose corners are pixel corners.
    const float edge = 1.f - 1e-6f;
    const float grid = 2.f * place / (size - 1.f) - 1.f;
    return ((fminf(fmaxf(grid, -edge), edge) + 1.f) * size - 1.f) / 2.f;
}

// Share of a bilinear reading that lies inside of [0, size).
static __device__ __forceinline__ float inside(float place, float size) {
    return fmaxf(1.f - fmaxf(-place, 0.f) - fmaxf(place - (size - 1.f), 0.f), 0.f);
}

// index_y, index_x: in pixels of the whole target, of size_y by size_x, of which this may be a part.
// Activations: target features at both moments, frames at both, zeros.
// biases: first layer, moment (FIRST each), then those of the other layers.
extern "C" __global__ void __launch_bounds__(THREADS)
    target_colours(const T* __restrict__ mixed, const T* __restrict__ frames, const T* __restrict__ target,
                   const float* __restrict__ flows, const float* __restrict__ time,
                   const float* __restrict__ index_y, const float* __restrict__ index_x,
                   const T* __restrict__ weights, const float* __restrict__ biases, T* __restrict__ colours,
                   float size_y, float size_x, int height, int width, int factor, int target_height,
                   int target_width) {
    const Memory memory;
    T* x = memory.x;
    float* scratch = memory.scratch;
    Corners *on_target = memory.on_target, *on_frames = memory.on_frames, *on_input = memory.on_input;
    const Run run(target_height, target_width);
    const size_t batch = blockIdx.y, pixels = static_cast<size_t>(height) * width;
    const T* image = mixed + batch * pixels * MIXED + 2 * FIRST;
    const float moment = time[batch];
    for (int item = threadIdx.x; item < 2 * PIXELS; item += THREADS) {
        const int side = item / PIXELS, place = run.place(item % PIXELS);
        const float* flow = flows + (run.image + place) * FLOWS + 2 * side;
        const float px = moved(index_x[place % run.width], flow[0], size_x);
        const float py = moved(index_y[place / run.width], flow[1], size_y);
        const float gain = OFFICIAL ? inside(px, size_x) * inside(py, size_y) : 1.f;
        on_target[item] = find_corners(py - index_y[0], px - index_x[0], target_height, target_width, true, gain);
        const float input_x = (px + 0.5f) * (width / size_x) - 0.5f, input_y = (py + 0.5f) * (height / size_y) - 0.5f;
        on_input[item] = find_corners(input_y, input_x, height, width, !OFFICIAL, 1.f);
        on_frames[item] = find_corners((input_y + 0.5f) * factor - 0.5f, (input_x + 0.5f) * factor - 0.5f,
                                       height * factor, width * factor, !OFFICIAL, 1.f);
    }
    __syncthreads();
    for (int item = threadIdx.x; item < 2 * PIXELS * (NF / 8); item += THREADS) {
        const int channel = item % (NF / 8) * 8, reading = item / (NF / 8);
        const int side = reading / PIXELS, pixel = reading % PIXELS;
        float values[8] = {};
        add_corners(values, target + run.image * NF + channel, NF, on_target[reading]);
        store_group(x + pixel * STRIDE + side * NF + channel, values);
    }
    for (int item = threadIdx.x; item < 2 * PIXELS; item += THREADS) {
        const int side = item / PIXELS, pixel = item % PIXELS;
        T* inputs = x + pixel * STRIDE + 2 * NF;
        read_frames(inputs + side * FRAMES, frames + batch * pixels * factor * factor * FRAMES, on_frames[item]);
        for (int i = 2 * FRAMES; side && i < COLOUR_INPUTS - 2 * NF; ++i) inputs[i] = static_cast<T>(0.f);
    }
    __syncthreads();

    product<COLOUR_INPUTS, FIRST>(x, weights, scratch, [&](int pixel, int channel, float* values) {
        add(values, biases + channel, 1.f);
        add(values, biases + FIRST + channel, moment);
        add_corners(values, image + channel, MIXED, on_input[pixel]);
        add_corners(values, image + FIRST + channel, MIXED, on_input[PIXELS + pixel]);
        store_sines(x + pixel * STRIDE + channel, values);
    });
    const T* second = weights + COLOUR_INPUTS * FIRST;
    const float* bias = biases + 2 * FIRST;
    sine_layer<FIRST, SECOND>(x, second, bias, scratch);
    sine_layer<SECOND, WIDE>(x, second + FIRST * SECOND, bias + SECOND, scratch);
    const T* third = second + FIRST * SECOND + SECOND * WIDE;
    sine_layer<WIDE, WIDE>(x, third, bias + SECOND + WIDE, scratch);
    product<WIDE, LAST>(x, third + WIDE * WIDE, scratch, [&](int pixel, int channel, float* values) {
        if (channel > 0 || !run.holds(pixel)) return;
        add(values, bias + SECOND + 2 * WIDE, 1.f);
        T* out = colours + run.image * 3 + run.first + pixel;
        for (int i = 0; i < 3; ++i) out[static_cast<size_t>(i) * run.count] = static_cast<T>(values[i]);
    });
}
