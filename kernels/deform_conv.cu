// Modulated deformable convolution as one matrix product whose right side is never in device memory: a block samples it
// strip by strip into shared memory and multiplies it there.
//
// The product is (output channels) x (depth) times (depth) x (pixels). Depth counts channels in strips of 8 that are
// read at one position: for each run of channels that share their offsets and their group, and for each tap, the run's
// channels, padded with zeros to a multiple of 8.
//
// DTYPE: the type of features and weights (float, half); offsets, masks and sums are float.
// ROWS: output channels of a block, 64 (or 128 in half precision).
#include <cuda_fp16.h>

#include "bilinear.cuh"
#include "matrix_unit.cuh"

using Feature = DTYPE;

constexpr int PIXELS = 64;                        // of a block
constexpr int STRIP = 8;                          // channels that a thread samples in a step
constexpr int DEPTH = 32;                         // of a step
constexpr int THREADS = PIXELS * DEPTH / STRIP;
constexpr int STRIPS = DEPTH / STRIP;             // of a step
constexpr int SUM_STRIDE = PIXELS + 4;            // of the sums in shared memory; + 4 avoids bank conflicts

// Weights and sampled columns of one step, in shared memory.
template <typename V>
struct Tile;

// Sums of the products of all steps so far, in registers.
template <typename V>
struct Product;

template <>
struct Tile<float> {
    static constexpr int WEIGHT_STRIDE = ROWS + 4, COLUMN_STRIDE = PIXELS + 4;
    float weight[DEPTH * WEIGHT_STRIDE];    // [depth][row]
    float columns[DEPTH * COLUMN_STRIDE];   // [depth][pixel]

    __device__ __forceinline__ void store(int pixel, int strip, const float (&value)[STRIP]) {
#pragma unroll
        for (int i = 0; i < STRIP; ++i) columns[(strip * STRIP + i) * COLUMN_STRIDE + pixel] = value[i];
    }
};

template <>
struct Product<float> {
    static constexpr int ROWS_EACH = ROWS / 16;  // a thread has these rows of 4 pixels
    float sum[ROWS_EACH][4] = {};

    __device__ __forceinline__ void add(const Tile<float>& tile) {
        const int row = threadIdx.x / 16 * ROWS_EACH, pixel = threadIdx.x % 16 * 4;
#pragma unroll 8
        for (int k = 0; k < DEPTH; ++k) {
            const float4 v = *reinterpret_cast<const float4*>(tile.columns + k * tile.COLUMN_STRIDE + pixel);
#pragma unroll
            for (int i = 0; i < ROWS_EACH; i += 4) {
                const float4 w = *reinterpret_cast<const float4*>(tile.weight + k * tile.WEIGHT_STRIDE + row + i);
                add_row(sum[i], w.x, v);
                add_row(sum[i + 1], w.y, v);
                add_row(sum[i + 2], w.z, v);
                add_row(sum[i + 3], w.w, v);
            }
        }
    }

    static __device__ __forceinline__ void add_row(float (&to)[4], float w, const float4& v) {
        to[0] = fmaf(w, v.x, to[0]);
        to[1] = fmaf(w, v.y, to[1]);
        to[2] = fmaf(w, v.z, to[2]);
        to[3] = fmaf(w, v.w, to[3]);
    }

    __device__ __forceinline__ void store(float* sums) const {
        const int row = threadIdx.x / 16 * ROWS_EACH, pixel = threadIdx.x % 16 * 4;
#pragma unroll
        for (int i = 0; i < ROWS_EACH; ++i)
            *reinterpret_cast<float4*>(sums + (row + i) * SUM_STRIDE + pixel) =
                make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
    }
};

template <>
struct Tile<half> {
    static constexpr int WEIGHT_STRIDE = ROWS + 8, COLUMN_STRIDE = DEPTH + 8;
    half weight[DEPTH * WEIGHT_STRIDE];     // [depth][row]
    half columns[PIXELS * COLUMN_STRIDE];   // [pixel][depth]

    __device__ __forceinline__ void store(int pixel, int strip, const float (&value)[STRIP]) {
        uint4 packet;
        half* to = reinterpret_cast<half*>(&packet);
#pragma unroll
        for (int i = 0; i < STRIP; ++i) to[i] = half(value[i]);
        *reinterpret_cast<uint4*>(columns + pixel * COLUMN_STRIDE + strip * STRIP) = packet;
    }
};

template <>
struct Product<half> {
    // The 8 warps are 4 along the rows by 2 along the pixels; each has DOWN by ACROSS matrices.
    static constexpr int DOWN = ROWS / 64, ACROSS = 2;
    Sums sum[DOWN][ACROSS];

    static __device__ __forceinline__ int row(int i) { return threadIdx.x / 32 % 4 * (ROWS / 4) + i * 16; }
    static __device__ __forceinline__ int pixel(int j) { return threadIdx.x / 128 * (PIXELS / 2) + j * 16; }

    __device__ __forceinline__ void add(const Tile<half>& tile) {
#pragma unroll
        for (int k = 0; k < DEPTH; k += 16) {
            Right columns[ACROSS];
#pragma unroll
            for (int j = 0; j < ACROSS; ++j)
                columns[j] = load_right_transposed(tile.columns + pixel(j) * tile.COLUMN_STRIDE + k, tile.COLUMN_STRIDE);
#pragma unroll
            for (int i = 0; i < DOWN; ++i) {
                const Left weight = load_left_transposed(tile.weight + k * tile.WEIGHT_STRIDE + row(i), tile.WEIGHT_STRIDE);
#pragma unroll
                for (int j = 0; j < ACROSS; ++j) add_product(sum[i][j], weight, columns[j]);
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

// x: (B, C, H, W); offset: (B, 2 * G * K, Hout, Wout) in pixels, dy before dx; mask: (B, G * K, Hout, Wout);
// weight: (groups, steps * DEPTH, row_blocks * ROWS); bias: (O,) or null; out: (B, O, Hout, Wout).
// grid: pixels / PIXELS, row_blocks, B * groups. Dynamic shared memory: two tiles, or ROWS * SUM_STRIDE floats.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
deform_conv(const Feature* __restrict__ x, const float* __restrict__ offset, const float* __restrict__ mask,
            const Feature* __restrict__ weight, const Feature* __restrict__ bias, Feature* __restrict__ out,
            int channels, int height, int width, int out_channels, int out_height, int out_width,
            int kernel_h, int kernel_w, int stride_y, int stride_x, int padding_y, int padding_x,
            int dilation_y, int dilation_x, int groups, int offset_groups, int run_channels, int steps) {
    extern __shared__ __align__(128) unsigned char shared_memory[];
    Tile<Feature>* tiles = reinterpret_cast<Tile<Feature>*>(shared_memory);

    const int batch = blockIdx.z / groups, group = blockIdx.z % groups;
    const int group_channels = channels / groups, offset_channels = channels / offset_groups;
    const int taps = kernel_h * kernel_w;
    const size_t plane = static_cast<size_t>(height) * width;
    const int out_plane = out_height * out_width;
    const int pixel = threadIdx.x % PIXELS, strip = threadIdx.x / PIXELS;
    const int out_pixel = blockIdx.x * PIXELS + pixel;
    const float y_start = static_cast<float>(out_pixel / out_width * stride_y - padding_y);
    const float x_start = static_cast<float>(out_pixel % out_width * stride_x - padding_x);
    x += static_cast<size_t>(batch) * channels * plane;
    offset += static_cast<size_t>(batch) * offset_groups * taps * 2 * out_plane + out_pixel;
    mask += static_cast<size_t>(batch) * offset_groups * taps * out_plane + out_pixel;
    weight += static_cast<size_t>(group) * steps * DEPTH * gridDim.y * ROWS + blockIdx.y * ROWS;

    // The strip that this thread samples next: it starts at `channel` of the run, read at tap (tap_y, tap_x).
    int run_start = 0, channel = 0, tap_y = 0, tap_x = 0;
    const auto advance = [&] {
        channel += STRIP;
        if (channel < run_channels) return;
        channel = 0;
        if (++tap_x < kernel_w) return;
        tap_x = 0;
        if (++tap_y < kernel_h) return;
        tap_y = 0;
        run_start += run_channels;
    };
    for (int i = 0; i < strip; ++i) advance();

    const auto load_tile = [&](Tile<Feature>& tile, int step) {
        constexpr int size = 16 / sizeof(Feature), packets = DEPTH * ROWS / size / THREADS;
        const Feature* from = weight + static_cast<size_t>(step) * DEPTH * gridDim.y * ROWS;
#pragma unroll
        for (int i = 0; i < packets; ++i) {
            const int first = (i * THREADS + threadIdx.x) * size, depth = first / ROWS, row = first % ROWS;
            *reinterpret_cast<uint4*>(tile.weight + depth * tile.WEIGHT_STRIDE + row) =
                *reinterpret_cast<const uint4*>(from + static_cast<size_t>(depth) * gridDim.y * ROWS + row);
        }

        float value[STRIP] = {};
        if (out_pixel < out_plane && run_start < group_channels) {
            const int first = group * group_channels + run_start + channel;
            const size_t map = first / offset_channels * taps + tap_y * kernel_w + tap_x;
            const float* shift = offset + map * 2 * out_plane;
            const Corners corners = find_corners(y_start + tap_y * dilation_y + shift[0],
                                                 x_start + tap_x * dilation_x + shift[out_plane],
                                                 height, width, false, mask[map * out_plane]);
            const Feature* from = x + first * plane;
            const int count = run_channels - channel;
#pragma unroll
            for (int i = 0; i < STRIP; ++i)
                if (i < count) value[i] = read_corners(from + i * plane, corners);
        }
        tile.store(pixel, strip, value);
        for (int i = 0; i < STRIPS; ++i) advance();
    };

    Product<Feature> product;
    load_tile(tiles[0], 0);
    __syncthreads();
    for (int step = 0; step < steps; ++step) {
        if (step + 1 < steps) load_tile(tiles[(step + 1) % 2], step + 1);
        product.add(tiles[step % 2]);
        __syncthreads();
    }

    float* sums = reinterpret_cast<float*>(shared_memory);
    product.store(sums);
    __syncthreads();
    if (out_pixel >= out_plane) return;
    const int group_rows = out_channels / groups, first_row = blockIdx.y * ROWS;
    for (int row = strip; row < min(ROWS, group_rows - first_row); row += STRIPS) {
        const int channel_out = group * group_rows + first_row + row;
        const float sum = sums[row * SUM_STRIDE + pixel] + (bias ? static_cast<float>(bias[channel_out]) : 0.0f);
        out[(static_cast<size_t>(batch) * out_channels + channel_out) * out_plane + out_pixel] = Feature(sum);
    }
}
