// Modulated deformable convolution as one matrix product whose right side is never in device memory: a block samples it
// strip by strip into shared memory and multiplies it there.
//
// The product is (output channels) x (depth) times (depth) x (pixels). Depth counts channels in strips of 8 that are
// read at one position: for each run of channels that share their offsets and their group, and for each tap, the run's
// channels, padded with zeros to a multiple of 8. The features hold the 8 channels of a strip side by side and the
// pixels of a strip one after another, so that the threads of a warp, whose pixels are neighbours, read neighbouring
// packets of 16 bytes at each corner.
//
// In each step a block has three things under way: the product of this step, the features of the next one (a strip at a
// time, in registers), and the offsets of the one after it (in registers). Weights are copied several steps ahead.
//
// DTYPE: the type of features and weights (float, half); offsets, masks and sums are float.
// ROWS, PIXELS: output channels and pixels of a block. DEPTH: of a step. STAGES: tiles in shared memory.
// THREADS: of a block; BLOCKS: of a multiprocessor at once, at least. `VARIANTS` of deform_conv.py lists the combinations that are compiled.
#include <cuda_fp16.h>

#include "async_copy.cuh"
#include "bilinear.cuh"
#include "matrix_unit.cuh"
#include "packets.cuh"

using Feature = DTYPE;

constexpr int STRIP = 8;                          // channels that are sampled at once
constexpr int STRIPS = DEPTH / STRIP;             // of a step
constexpr int SLOTS = THREADS / PIXELS;           // threads that sample one pixel
constexpr int EACH = STRIPS / SLOTS;              // strips that a thread samples in a step, one after another
constexpr int PART = DEPTH / EACH;                // of the depth, which is multiplied while a strip is read
constexpr int WARPS = THREADS / 32;
constexpr int WARPS_ACROSS = PIXELS / 32 < WARPS ? PIXELS / 32 : WARPS, WARPS_DOWN = WARPS / WARPS_ACROSS;
constexpr int WARP_ROWS = ROWS / WARPS_DOWN, WARP_PIXELS = PIXELS / WARPS_ACROSS;  // of the product of a warp
constexpr int GAP = 16 / sizeof(Feature);         // puts neighbouring rows of a tile into different banks
constexpr int WEIGHT_STRIDE = ROWS + GAP, COLUMN_STRIDE = DEPTH + GAP;
constexpr int SUM_STRIDE = PIXELS + 4;            // of the sums in shared memory; + 4 avoids bank conflicts

static_assert(SLOTS * PIXELS == THREADS && SLOTS * EACH == STRIPS && STRIPS * STRIP == DEPTH, "threads share the strips");
static_assert(PART % (sizeof(Feature) == 2 ? 16 : 4) == 0, "a part is a whole number of products");
static_assert(WARPS_DOWN * WARPS_ACROSS == WARPS && WARP_ROWS % 16 == 0 && WARP_PIXELS % 32 == 0, "warps share the tile");

// Weights and sampled columns of one step, in shared memory.
struct Tile {
    Feature weight[DEPTH * WEIGHT_STRIDE];    // [depth][row]
    Feature columns[PIXELS * COLUMN_STRIDE];  // [pixel][depth]
};

// Sums of the products of all steps so far, in registers.
template <typename V>
struct Product;

template <>
struct Product<float> {
    // The lanes of a warp are 4 along the rows by 8 along the pixels, which are 8 apart.
    static constexpr int ROWS_EACH = WARP_ROWS / 4, PIXELS_EACH = WARP_PIXELS / 8;
    float sum[ROWS_EACH][PIXELS_EACH] = {};

    static __device__ __forceinline__ int row() {
        return threadIdx.x / 32 / WARPS_ACROSS * WARP_ROWS + threadIdx.x % 32 / 8 * ROWS_EACH;
    }
    static __device__ __forceinline__ int pixel() {
        return threadIdx.x / 32 % WARPS_ACROSS * WARP_PIXELS + threadIdx.x % 8;
    }

    // Adds the product of a part of the depth.
    __device__ __forceinline__ void add(const Tile& tile, int first) {
        const auto* weight = reinterpret_cast<const float*>(tile.weight) + row();
        const auto* columns = reinterpret_cast<const float*>(tile.columns) + pixel() * COLUMN_STRIDE;
#pragma unroll 1
        for (int k = first; k < first + PART; k += 4) {
            float4 v[PIXELS_EACH];
#pragma unroll
            for (int j = 0; j < PIXELS_EACH; ++j)
                v[j] = *reinterpret_cast<const float4*>(columns + j * 8 * COLUMN_STRIDE + k);
#pragma unroll
            for (int n = 0; n < 4; ++n) {
#pragma unroll
                for (int i = 0; i < ROWS_EACH; i += 4) {
                    const float4 w = *reinterpret_cast<const float4*>(weight + (k + n) * WEIGHT_STRIDE + i);
#pragma unroll
                    for (int j = 0; j < PIXELS_EACH; ++j) {
                        const float value = n == 0 ? v[j].x : n == 1 ? v[j].y : n == 2 ? v[j].z : v[j].w;
                        sum[i][j] = fmaf(w.x, value, sum[i][j]);
                        sum[i + 1][j] = fmaf(w.y, value, sum[i + 1][j]);
                        sum[i + 2][j] = fmaf(w.z, value, sum[i + 2][j]);
                        sum[i + 3][j] = fmaf(w.w, value, sum[i + 3][j]);
                    }
                }
            }
        }
    }

    __device__ __forceinline__ void store(float* sums) const {
#pragma unroll
        for (int i = 0; i < ROWS_EACH; ++i)
#pragma unroll
            for (int j = 0; j < PIXELS_EACH; ++j) sums[(row() + i) * SUM_STRIDE + pixel() + j * 8] = sum[i][j];
    }
};

template <>
struct Product<half> {
    static constexpr int DOWN = WARP_ROWS / 16, ACROSS = WARP_PIXELS / 16;  // matrices of a warp
    Sums sum[DOWN][ACROSS];

    static __device__ __forceinline__ int row(int i) { return threadIdx.x / 32 / WARPS_ACROSS * WARP_ROWS + i * 16; }
    static __device__ __forceinline__ int pixel(int j) { return threadIdx.x / 32 % WARPS_ACROSS * WARP_PIXELS + j * 16; }

    __device__ __forceinline__ void add(const Tile& tile, int first) {
        const auto* weight = reinterpret_cast<const half*>(tile.weight);
        const auto* columns = reinterpret_cast<const half*>(tile.columns);
#pragma unroll
        for (int k = first; k < first + PART; k += 16) {
            Right right[ACROSS];
#pragma unroll
            for (int j = 0; j < ACROSS; ++j)
                right[j] = load_right_transposed(columns + pixel(j) * COLUMN_STRIDE + k, COLUMN_STRIDE);
#pragma unroll
            for (int i = 0; i < DOWN; ++i) {
                const Left left = load_left_transposed(weight + k * WEIGHT_STRIDE + row(i), WEIGHT_STRIDE);
#pragma unroll
                for (int j = 0; j < ACROSS; ++j) add_product(sum[i][j], left, right[j]);
            }
        }
    }

    __device__ __forceinline__ void store(float* sums) const {
#pragma unroll
        for (int i = 0; i < DOWN; ++i)
#pragma unroll
            for (int j = 0; j < ACROSS; ++j)
                store_sums(sums + row(i) * SUM_STRIDE + pixel(j), SUM_STRIDE, sum[i][j]);
    }
};

// A strip that a thread samples: its plane of x, or -1, the tap, and what the offsets and the mask say.
struct Reading {
    int plane, tap_y, tap_x;
    bool again;  // the position is that of the thread's reading before, which is not read again
    float dy, dx, gain;
};

// x: (B, S, H, W, 8), the S strips of all runs; offset: (B, 2 * G * K, Hout, Wout) in pixels, dy before dx;
// mask: (B, G * K, Hout, Wout); weight: (groups, steps * DEPTH, row_blocks * ROWS); bias: (O,) or null;
// out: (B, O, Hout, Wout). grid: pixels / PIXELS, row_blocks, B * groups.
// Dynamic shared memory: STAGES tiles, or ROWS * SUM_STRIDE floats.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
deform_conv(const Feature* __restrict__ x, const float* __restrict__ offset, const float* __restrict__ mask,
            const Feature* __restrict__ weight, const Feature* __restrict__ bias, Feature* __restrict__ out,
            int channels, int height, int width, int out_channels, int out_height, int out_width,
            int kernel_h, int kernel_w, int stride_y, int stride_x, int padding_y, int padding_x,
            int dilation_y, int dilation_x, int groups, int offset_groups, int run_channels, int steps) {
    extern __shared__ __align__(128) unsigned char shared_memory[];
    Tile* tiles = reinterpret_cast<Tile*>(shared_memory);

    const int batch = blockIdx.z / groups, group = blockIdx.z % groups;
    const int runs = channels / groups / run_channels, run_strips = (run_channels + STRIP - 1) / STRIP;
    const int offset_runs = channels / offset_groups / run_channels;  // of an offset group
    const int taps = kernel_h * kernel_w;
    const size_t plane = static_cast<size_t>(height) * width * STRIP;
    const int out_plane = out_height * out_width;
    // The threads of a warp have one slot: taken from the first one, it and the strips are uniform for the compiler.
    const int pixel = threadIdx.x % PIXELS, slot = __shfl_sync(0xffffffffu, threadIdx.x / PIXELS, 0);
    const int out_pixel = blockIdx.x * PIXELS + pixel;
    const float y_start = static_cast<float>(out_pixel / out_width * stride_y - padding_y);
    const float x_start = static_cast<float>(out_pixel % out_width * stride_x - padding_x);
    x += static_cast<size_t>(batch) * groups * runs * run_strips * plane;
    offset += static_cast<size_t>(batch) * offset_groups * taps * 2 * out_plane + out_pixel;
    mask += static_cast<size_t>(batch) * offset_groups * taps * out_plane + out_pixel;
    weight += static_cast<size_t>(group) * steps * DEPTH * gridDim.y * ROWS + blockIdx.y * ROWS;

    // The strip whose position this thread reads next.
    int run = 0, tap_y = 0, tap_x = 0, strip = 0, offset_group = group * runs / offset_runs;
    int run_before = -1, tap_before = -1;
    const auto advance = [&] {
        if (++strip < run_strips) return;
        strip = 0;
        if (++tap_x < kernel_w) return;
        tap_x = 0;
        if (++tap_y < kernel_h) return;
        tap_y = 0;
        offset_group = (group * runs + ++run) / offset_runs;
    };
    for (int i = 0; i < slot * EACH; ++i) advance();

    Reading readings[EACH];
    const auto read_position = [&](int i) {
        Reading& reading = readings[i];
        reading.plane = -1;
        if (out_pixel < out_plane && run < runs) {
            const int tap = tap_y * kernel_w + tap_x;
            reading.plane = (group * runs + run) * run_strips + strip;
            reading.tap_y = tap_y, reading.tap_x = tap_x;
            reading.again = run == run_before && tap == tap_before;
            if (!reading.again) {
                const size_t map = static_cast<size_t>(offset_group) * taps + tap;
                const float* shift = offset + map * 2 * out_plane;
                reading.dy = shift[0], reading.dx = shift[out_plane], reading.gain = mask[map * out_plane];
            }
            run_before = run, tap_before = tap;
        }
        advance();
        for (int n = EACH; i == EACH - 1 && n < STRIPS; ++n) advance();  // the strips of the other threads
    };

    Packet<Feature, STRIP> packets[4];
    Corners corners = {};
    const auto load_features = [&](int i) {
        const Reading& reading = readings[i];
        const bool any = reading.plane >= 0;
        if (any && !reading.again)
            corners = find_corners(y_start + reading.tap_y * dilation_y + reading.dy,
                                   x_start + reading.tap_x * dilation_x + reading.dx, height, width, false,
                                   reading.gain);
        const Feature* from = x + max(reading.plane, 0) * plane;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            packets[k] = {};
            if (any) packets[k].load(from + static_cast<size_t>(corners.offset[k]) * STRIP);
        }
    };
    const auto store_column = [&](Tile& tile, int i) {
        float value[STRIP] = {};
#pragma unroll
        for (int k = 0; k < 4; ++k) packets[k].add_to(value, corners.weight[k]);
        Packet<Feature, STRIP>::store(tile.columns + pixel * COLUMN_STRIDE + (slot * EACH + i) * STRIP, value);
    };
    const auto copy_weights = [&](int step) {
        constexpr int size = 16 / sizeof(Feature), packets_of_a_step = DEPTH * ROWS / size;
        if (step < steps) {
            const Feature* from = weight + static_cast<size_t>(step) * DEPTH * gridDim.y * ROWS;
#pragma unroll
            for (int i = 0; i < packets_of_a_step / THREADS; ++i) {
                const int first = (i * THREADS + threadIdx.x) * size, depth = first / ROWS, row = first % ROWS;
                copy_async(tiles[step % STAGES].weight + depth * WEIGHT_STRIDE + row,
                           from + static_cast<size_t>(depth) * gridDim.y * ROWS + row);
            }
        }
        end_group();
    };

    for (int step = 0; step < STAGES - 1; ++step) copy_weights(step);
#pragma unroll
    for (int i = 0; i < EACH; ++i) read_position(i);
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        load_features(i);
        read_position(i);
        store_column(tiles[0], i);
    }
    wait_for_groups<STAGES - 2>();
    __syncthreads();
    Product<Feature> product;
    for (int step = 0; step < steps; ++step) {
        const bool more = step + 1 < steps;
        copy_weights(step + STAGES - 1);
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            if (more) {
                load_features(i);
                read_position(i);
            }
            product.add(tiles[step % STAGES], i * PART);
            if (more) store_column(tiles[(step + 1) % STAGES], i);
        }
        wait_for_groups<STAGES - 2>();
        __syncthreads();
    }

    float* sums = reinterpret_cast<float*>(shared_memory);
    product.store(sums);
    __syncthreads();
    if (out_pixel >= out_plane) return;
    const int group_rows = out_channels / groups, first_row = blockIdx.y * ROWS;
    for (int row = slot; row < min(ROWS, group_rows - first_row); row += SLOTS) {
        const int channel_out = group * group_rows + first_row + row;
        const float sum = sums[row * SUM_STRIDE + pixel] + (bias ? static_cast<float>(bias[channel_out]) : 0.0f);
        out[(static_cast<size_t>(batch) * out_channels + channel_out) * out_plane + out_pixel] = Feature(sum);
    }
}
