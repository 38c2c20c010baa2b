// The last step of Fourier-S: a Fourier field over cubic interpolation, written as a frame or as a picture.
//
// DTYPE: the type of the coefficients and of the base (float, half). TERMS: frequencies of the field; the coefficients,
// (B, 2 * TERMS, H, W), are those of the sines, then of the cosines. COLUMNS: target columns for each input pixel in
// `field_at_phases`.
// YUV, SAMPLE_BYTES: 0, 0: RGB in float, not clamped; 0, 2: RGB in 16 bits, of which 65535 is 1; 1, 1 and 1, 2: codes
// of YUV 4:2:0, for which COLUMNS and rows are even.
// THREADS: of a block, and BLOCKS: of a multiprocessor at once, at least, of `field_at_phases`.

#include <cuda_fp16.h>

using T = DTYPE;

constexpr int COEFFICIENTS = 2 * TERMS;
// Target columns that a thread computes at once; more than four take too many registers.
constexpr int GROUP = COLUMNS % 4 == 0 ? 4 : !YUV && COLUMNS % 3 == 0 ? 3 : COLUMNS % 2 == 0 ? 2 : 1;
constexpr int ROWS = YUV ? 2 : 1;  // that a thread computes before it goes on: those of one chroma sample
constexpr int TAPS = 5;            // of cubic interpolation around an input pixel, for targets inside of it
constexpr int TILE_X = 32, TILE_Y = 8;

// Values that are read or written at once.
template <typename V>
struct __align__(GROUP % 3 ? GROUP * sizeof(V) : sizeof(V)) Group {
    V value[GROUP];
};

#if YUV
#include "yuv420.cuh"
static_assert(COLUMNS % 2 == 0, "a chroma sample has columns of one input pixel and of its left neighbour");
#define TARGET_PARAMETERS YUV420_PARAMETERS, unsigned char *finite
#define TARGET Target{YUV420, finite}

struct Target : Yuv420 {
    unsigned char* finite;  // (B,), 0 for a picture with a value that is no finite number

    __device__ __forceinline__ Target(const Yuv420& of, unsigned char* finite) : Yuv420(of), finite(finite) {}

    template <int N>
    __device__ __forceinline__ Sample stored(const float (&rgb)[3][N], int i, int) const {
        return sample(0, {clipped(rgb[0][i]), clipped(rgb[1][i]), clipped(rgb[2][i])});
    }

    __device__ __forceinline__ Sample* at(int, int y, int x) const { return luma_at(y, x); }
};
constexpr int CHANNELS = 1;  // planes that are written pixel by pixel
#else
#if SAMPLE_BYTES == 2
using Sample = unsigned short;
#define TARGET_PARAMETERS Sample *frame, int target_height, int target_width, unsigned char *finite
#define TARGET Target{frame, target_height, target_width, finite}
#else
using Sample = float;
#define TARGET_PARAMETERS Sample *frame, int target_height, int target_width
#define TARGET Target{frame, target_height, target_width, nullptr}
#endif

struct Target {
    Sample* frame;
    int height, width;
    unsigned char* finite;

    __device__ __forceinline__ void skip(size_t pictures) { frame += pictures * 3 * height * width; }

    template <int N>
    __device__ __forceinline__ Sample stored(const float (&rgb)[3][N], int i, int channel) const {
        if constexpr (SAMPLE_BYTES == 0) return rgb[channel][i];
        return static_cast<Sample>(rintf(fminf(fmaxf(rgb[channel][i], 0.f), 1.f) * 65535.f));
    }

    __device__ __forceinline__ Sample* at(int channel, int y, int x) const {
        return frame + (static_cast<size_t>(channel) * height + y) * width + x;
    }
};
constexpr int CHANNELS = 3;
#endif

template <int N>
static __device__ __forceinline__ bool is_not_finite(const float (&rgb)[3][N]) {
    bool found = false;
#pragma unroll
    for (int i = 0; i < 3 * N; ++i) found |= rgb[i / N][i % N] - rgb[i / N][i % N] != 0.f;
    return found;
}

// The input pixel of a thread, and what is the same for all.
struct Cell {
    const T* base;
    const float *weights, *row_taps, *column_taps;
    int rows, height, width, y, x;

    // Computes GROUP neighbouring columns, from `first` on, of a row of target pixels.
    __device__ __forceinline__ void render(const float (&coefficient)[COEFFICIENTS], int row, int first,
                                           float (&rgb)[3][GROUP]) const {
#pragma unroll
        for (int i = 0; i < 3 * GROUP; ++i) rgb[i / GROUP][i % GROUP] = 0.f;
        const size_t size = static_cast<size_t>(height) * width;
#pragma unroll 1
        for (int k = 0; k < TAPS; ++k) {
            const T* column = base + min(max(x + k - TAPS / 2, 0), width - 1);
            float tap[3] = {};
#pragma unroll
            for (int j = 0; j < TAPS; ++j) {
                const T* from = column + static_cast<size_t>(min(max(y + j - TAPS / 2, 0), height - 1)) * width;
                const float weight = row_taps[row * TAPS + j];
#pragma unroll
                for (int c = 0; c < 3; ++c) tap[c] += weight * static_cast<float>(from[c * size]);
            }
#pragma unroll
            for (int i = 0; i < 3 * GROUP; ++i)
                rgb[i / GROUP][i % GROUP] += column_taps[(first + i % GROUP) * TAPS + k] * tap[i / GROUP];
        }
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            const float* weight = weights + (c * rows + row) * COEFFICIENTS * COLUMNS + first;
#pragma unroll
            for (int n = 0; n < COEFFICIENTS; ++n) {
                const Group<float> group = *reinterpret_cast<const Group<float>*>(weight + n * COLUMNS);
#pragma unroll
                for (int i = 0; i < GROUP; ++i) rgb[c][i] += coefficient[n] * group.value[i];
            }
        }
    }
};

// Every input pixel becomes rows x COLUMNS target pixels. One thread computes all of them: it keeps the coefficients of
// its pixel in registers, and all threads of a warp read the same weights from shared memory. With YUV a warp has 31
// pixels, and its first thread computes the one to their left, for their chroma.
//
// weights: (3, rows, 2 * TERMS, COLUMNS), the colours of each coefficient. row_taps: (rows, TAPS), column_taps:
// (COLUMNS, TAPS), the weights of the base. The target has the first pixels of rows * height by COLUMNS * width, in
// whole input pixels.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
field_at_phases(const T* __restrict__ coefficients, const T* __restrict__ base, const float* __restrict__ weights,
                const float* __restrict__ row_taps, const float* __restrict__ column_taps, int rows, int height,
                int width, TARGET_PARAMETERS) {
    extern __shared__ __align__(128) unsigned char shared_memory[];
    auto* staged = reinterpret_cast<Group<float>*>(shared_memory);
    for (int i = threadIdx.x; i < 3 * rows * COEFFICIENTS * COLUMNS / GROUP; i += THREADS)
        staged[i] = reinterpret_cast<const Group<float>*>(weights)[i];
    __syncthreads();
    Target target = TARGET;
    const int lane = threadIdx.x % 32, warp = (blockIdx.x * THREADS + threadIdx.x) / 32;
    const int pixel = YUV ? warp * 31 + lane - 1 : warp * 32 + lane;
    const int last = height * width - 1, nearest = min(max(pixel, 0), last);
    const size_t image = blockIdx.y;
    target.skip(image);
    const Cell cell{base + image * 3 * height * width, reinterpret_cast<float*>(shared_memory), row_taps, column_taps,
                    rows, height, width, nearest / width, nearest % width};
    const bool inside =
        pixel <= last && lane >= YUV && cell.y * rows < target.height && cell.x * COLUMNS < target.width;
    if (!YUV && !inside) return;

    float coefficient[COEFFICIENTS];
    const T* of_pixel = coefficients + image * COEFFICIENTS * height * width + nearest;
#pragma unroll
    for (int n = 0; n < COEFFICIENTS; ++n)
        coefficient[n] = static_cast<float>(of_pixel[static_cast<size_t>(n) * height * width]);

    bool wrong = false;
#pragma unroll 1
    for (int first_row = 0; first_row < rows; first_row += ROWS) {
#if YUV
        // Means of both rows; `partial` is of a chroma sample that lacks its left column.
        float last_column[3] = {}, first_column[3] = {}, partial[3] = {};
#endif
#pragma unroll 1
        for (int first = COLUMNS - GROUP; first >= 0; first -= GROUP) {
#if YUV
            float mean[3][GROUP] = {};
#endif
#pragma unroll 1
            for (int row = first_row; row < first_row + ROWS; ++row) {
                float rgb[3][GROUP];
                cell.render(coefficient, row, first, rgb);
                wrong |= is_not_finite(rgb);
#pragma unroll
                for (int channel = 0; channel < CHANNELS; ++channel) {
                    Group<Sample> samples;
#pragma unroll
                    for (int i = 0; i < GROUP; ++i) samples.value[i] = target.stored(rgb, i, channel);
                    Sample* to = target.at(channel, cell.y * rows + row, cell.x * COLUMNS + first);
                    if (inside) *reinterpret_cast<Group<Sample>*>(to) = samples;
                }
#if YUV
#pragma unroll
                for (int i = 0; i < 3 * GROUP; ++i)
                    mean[i / GROUP][i % GROUP] += 0.5f * clipped(rgb[i / GROUP][i % GROUP]);
#endif
            }
#if YUV
            const int chroma_row = (cell.y * rows + first_row) / 2, chroma_column = (cell.x * COLUMNS + first) / 2;
            if (first < COLUMNS - GROUP) {
#pragma unroll
                for (int c = 0; c < 3; ++c) partial[c] += 0.25f * mean[c][GROUP - 1];
                if (inside) target.store_chroma(chroma_row, chroma_column + GROUP / 2, partial);
            }
#pragma unroll
            for (int i = 2; i < GROUP; i += 2) {
                float of_sample[3];
#pragma unroll
                for (int c = 0; c < 3; ++c)
                    of_sample[c] = 0.25f * (mean[c][i - 1] + mean[c][i + 1]) + 0.5f * mean[c][i];
                if (inside) target.store_chroma(chroma_row, chroma_column + i / 2, of_sample);
            }
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                if (first == COLUMNS - GROUP) last_column[c] = mean[c][GROUP - 1];
                partial[c] = 0.5f * mean[c][0] + 0.25f * mean[c][1];
                first_column[c] = mean[c][0];
            }
#endif
        }
#if YUV
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            const float left = __shfl_sync(0xffffffffu, last_column[c], max(lane - 1, 0));
            partial[c] += 0.25f * (cell.x ? left : first_column[c]);
        }
        if (inside) target.store_chroma((cell.y * rows + first_row) / 2, cell.x * COLUMNS / 2, partial);
#endif
    }
    if (SAMPLE_BYTES && wrong && inside) target.finite[image] = 0;
}

// Returns the weights of the four pixels from floor(position) - 1 on: cubic convolution (Keys 1981, a = -1/2).
static __device__ __forceinline__ void cubic_taps(float position, float weight[4]) {
    const float d = position - floorf(position);
    weight[0] = ((-0.5f * d + 1.0f) * d - 0.5f) * d;
    weight[1] = (1.5f * d - 2.5f) * d * d + 1.0f;
    weight[2] = ((-1.5f * d + 2.0f) * d + 0.5f) * d;
    weight[3] = (0.5f * d - 0.5f) * d * d;
}

static __device__ __forceinline__ int nearest_pixel(float position, int size) {
    return min(max(static_cast<int>(rintf(position)), 0), size - 1);
}

// Sines and cosines of a block's rows and columns.
struct Waves {
    float row_sine[TERMS][TILE_Y * ROWS], row_cosine[TERMS][TILE_Y * ROWS];
    float column_sine[TERMS][TILE_X], column_cosine[TERMS][TILE_X];
    float colour[3 * TERMS];
};

// Computes the target pixel in a row and a column of a block, at a position.
static __device__ __forceinline__ void render_at(const Waves& waves, const T* coefficients, const T* base, int row,
                                                 int column, float y, float x, int height, int width,
                                                 float (&rgb)[3][1]) {
    const size_t size = static_cast<size_t>(height) * width;
    const T* of_pixel = coefficients + static_cast<size_t>(nearest_pixel(y, height)) * width + nearest_pixel(x, width);
    float sum[3] = {0.f, 0.f, 0.f};
#pragma unroll 8
    for (int n = 0; n < TERMS; ++n) {
        const float a_sine = waves.row_sine[n][row], a_cosine = waves.row_cosine[n][row];
        const float b_sine = waves.column_sine[n][column], b_cosine = waves.column_cosine[n][column];
        const float sine = a_sine * b_cosine + a_cosine * b_sine, cosine = a_cosine * b_cosine - a_sine * b_sine;
        const float wave = static_cast<float>(of_pixel[n * size]) * sine +
                           static_cast<float>(of_pixel[(TERMS + n) * size]) * cosine;
        for (int channel = 0; channel < 3; ++channel) sum[channel] += waves.colour[channel * TERMS + n] * wave;
    }

    float row_tap[4], column_tap[4];
    cubic_taps(y, row_tap);
    cubic_taps(x, column_tap);
    const int top = static_cast<int>(floorf(y)) - 1, left = static_cast<int>(floorf(x)) - 1;
    for (int channel = 0; channel < 3; ++channel) {
        for (int j = 0; j < 4; ++j) {
            const T* from = base + channel * size + static_cast<size_t>(min(max(top + j, 0), height - 1)) * width;
            float value = 0.f;
            for (int k = 0; k < 4; ++k) {
                value += column_tap[k] * static_cast<float>(from[min(max(left + k, 0), width - 1)]);
            }
            sum[channel] += row_tap[j] * value;
        }
        rgb[channel][0] = sum[channel];
    }
}

// One thread computes one target pixel, or with YUV two in a column, at any position. The sines and cosines of a
// block's rows and columns are computed once. With YUV a warp has 30 columns, and its second thread computes the one to
// their left, for their chroma; beyond the edges the last column and row are computed again.
//
// rows: (target_height,), columns: (target_width,), positions in input pixels. frequency: (2, TERMS), in radians for
// each input pixel, of rows and of columns. colours: (3, TERMS), damped for this spacing of the target pixels.
extern "C" __global__ void __launch_bounds__(TILE_X* TILE_Y)
field_at(const T* __restrict__ coefficients, const T* __restrict__ base, const float* __restrict__ frequency,
         const float* __restrict__ colours, const float* __restrict__ rows, const float* __restrict__ columns,
         int height, int width, TARGET_PARAMETERS) {
    __shared__ Waves waves;
    constexpr int HALO = YUV ? 2 : 0, TILE_ROWS = TILE_Y * ROWS;

    Target target = TARGET;
    const int first_x = blockIdx.x * (TILE_X - HALO) - HALO, first_y = blockIdx.y * TILE_ROWS;
    const int thread = threadIdx.y * TILE_X + threadIdx.x;
    for (int i = thread; i < TERMS * (TILE_X + TILE_ROWS); i += TILE_X * TILE_Y) {
        const int term = i / (TILE_X + TILE_ROWS), place = i % (TILE_X + TILE_ROWS);
        const bool is_column = place < TILE_X;
        const float position = is_column ? columns[min(max(first_x + place, 0), target.width - 1)]
                                         : rows[min(first_y + place - TILE_X, target.height - 1)];
        const float centre = static_cast<float>(nearest_pixel(position, is_column ? width : height));
        const float angle = frequency[(is_column ? TERMS : 0) + term] * (position - centre);
        (is_column ? waves.column_sine[term][place] : waves.row_sine[term][place - TILE_X]) = sinf(angle);
        (is_column ? waves.column_cosine[term][place] : waves.row_cosine[term][place - TILE_X]) = cosf(angle);
    }
    for (int i = thread; i < 3 * TERMS; i += TILE_X * TILE_Y) waves.colour[i] = colours[i];
    __syncthreads();

    const size_t image = blockIdx.z;
    target.skip(image);
    coefficients += image * COEFFICIENTS * height * width;
    base += image * 3 * height * width;
    const int column = threadIdx.x, x = first_x + column, near_x = min(max(x, 0), target.width - 1);
    const bool writes = column >= HALO && x < target.width;
    const int first_row = threadIdx.y * ROWS;
    bool wrong = false;
#if YUV
    float mean[3] = {0.f, 0.f, 0.f};
#endif
#pragma unroll 1
    for (int row = first_row; row < first_row + ROWS; ++row) {
        const int y = first_y + row, near_y = min(y, target.height - 1);
        float rgb[3][1];
        render_at(waves, coefficients, base, row, column, rows[near_y], columns[near_x], height, width, rgb);
        wrong |= is_not_finite(rgb);
        for (int channel = 0; channel < CHANNELS; ++channel)
            if (writes && y < target.height) *target.at(channel, y, x) = target.stored(rgb, 0, channel);
#if YUV
        for (int c = 0; c < 3; ++c) mean[c] += 0.5f * clipped(rgb[c][0]);
#endif
    }
#if YUV
    for (int c = 0; c < 3; ++c) {
        const float left = __shfl_sync(0xffffffffu, mean[c], max(column - 1, 0));
        const float right = __shfl_sync(0xffffffffu, mean[c], min(column + 1, TILE_X - 1));
        mean[c] = 0.25f * (left + right) + 0.5f * mean[c];
    }
    const int y = first_y + first_row;
    if (writes && column % 2 == 0 && y < target.height) target.store_chroma(y / 2, x / 2, mean);
#endif
    if (SAMPLE_BYTES && wrong && writes) target.finite[image] = 0;
}
