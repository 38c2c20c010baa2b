// The last step of Fourier-S: a Fourier field over cubic interpolation, written as the frame.
//
// DTYPE: the type of the coefficients and of the base (float, half). TERMS: frequencies of the field; the coefficients,
// (B, 2 * TERMS, H, W), are those of the sines, then of the cosines. COLUMNS: target columns for each input pixel in
// `field_at_phases`.

#include <cuda_fp16.h>

using T = DTYPE;

constexpr int COEFFICIENTS = 2 * TERMS;
// Target columns that a thread computes at once; more than four take too many registers.
constexpr int GROUP = COLUMNS % 4 == 0 ? 4 : COLUMNS % 3 == 0 ? 3 : COLUMNS % 2 == 0 ? 2 : 1;
constexpr int TAPS = 5;  // of cubic interpolation around an input pixel, for targets inside of it
constexpr int TILE_X = 32, TILE_Y = 8;

// Four target columns, which are written at once.
struct __align__(16) Four {
    float value[4];
};

// Every input pixel becomes rows x COLUMNS target pixels. One thread computes all of them: it keeps the coefficients of
// its pixel in registers, and all threads of a warp read the same weights.
//
// weights: (3, rows, 2 * TERMS, COLUMNS), the colours of each coefficient. row_taps: (rows, TAPS), column_taps:
// (COLUMNS, TAPS), the weights of the base. frame: (B, 3, rows * height, COLUMNS * width).
extern "C" __global__ void __launch_bounds__(128, 2)
    field_at_phases(const T* __restrict__ coefficients, const T* __restrict__ base, const float* __restrict__ weights,
                    const float* __restrict__ row_taps, const float* __restrict__ column_taps,
                    float* __restrict__ frame, int rows, int height, int width) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= height * width) return;
    const int y = pixel / width, x = pixel % width;
    const size_t size = static_cast<size_t>(height) * width, image = blockIdx.y;

    float coefficient[COEFFICIENTS];
    const T* of_pixel = coefficients + image * COEFFICIENTS * size + pixel;
#pragma unroll
    for (int n = 0; n < COEFFICIENTS; ++n) coefficient[n] = static_cast<float>(of_pixel[n * size]);

    for (int channel = 0; channel < 3; ++channel) {
        const T* plane = base + (image * 3 + channel) * size;
#pragma unroll 1
        for (int part = 0; part < rows * (COLUMNS / GROUP); ++part) {
            const int row = part / (COLUMNS / GROUP), first = part % (COLUMNS / GROUP) * GROUP;
            float sum[GROUP];
#pragma unroll
            for (int i = 0; i < GROUP; ++i) sum[i] = 0.f;
#pragma unroll
            for (int k = 0; k < TAPS; ++k) {
                const int from_x = min(max(x + k - TAPS / 2, 0), width - 1);
                float tap = 0.f;
#pragma unroll
                for (int j = 0; j < TAPS; ++j) {
                    const int from_y = min(max(y + j - TAPS / 2, 0), height - 1);
                    const float value = static_cast<float>(plane[static_cast<size_t>(from_y) * width + from_x]);
                    tap += row_taps[row * TAPS + j] * value;
                }
#pragma unroll
                for (int i = 0; i < GROUP; ++i) sum[i] += column_taps[(first + i) * TAPS + k] * tap;
            }
            const float* weight = weights + static_cast<size_t>(channel * rows + row) * COEFFICIENTS * COLUMNS + first;
#pragma unroll
            for (int n = 0; n < COEFFICIENTS; ++n) {
#pragma unroll
                for (int i = 0; i < GROUP; ++i) sum[i] += coefficient[n] * weight[n * COLUMNS + i];
            }
            const size_t target_row = (image * 3 + channel) * rows * height + static_cast<size_t>(y) * rows + row;
            float* target = frame + (target_row * width + x) * COLUMNS + first;
            if constexpr (GROUP == 4) {
                *reinterpret_cast<Four*>(target) = {{sum[0], sum[1], sum[2], sum[3]}};
            } else {
#pragma unroll
                for (int i = 0; i < GROUP; ++i) target[i] = sum[i];
            }
        }
    }
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

// One thread computes one target pixel, at any position. The sines and cosines of a block's rows and columns are
// computed once, in shared memory.
//
// rows: (target_height,), columns: (target_width,), positions in input pixels. frequency: (2, TERMS), in radians for
// each input pixel, of rows and of columns. colours: (3, TERMS), damped for this spacing of the target pixels.
// frame: (B, 3, target_height, target_width).
extern "C" __global__ void __launch_bounds__(TILE_X* TILE_Y)
    field_at(const T* __restrict__ coefficients, const T* __restrict__ base, const float* __restrict__ frequency,
             const float* __restrict__ colours, const float* __restrict__ rows, const float* __restrict__ columns,
             float* __restrict__ frame, int height, int width, int target_height, int target_width) {
    __shared__ float row_sine[TERMS][TILE_Y], row_cosine[TERMS][TILE_Y];
    __shared__ float column_sine[TERMS][TILE_X], column_cosine[TERMS][TILE_X];
    __shared__ float colour[3 * TERMS];

    const int first_x = blockIdx.x * TILE_X, first_y = blockIdx.y * TILE_Y;
    const int thread = threadIdx.y * TILE_X + threadIdx.x;
    for (int i = thread; i < TERMS * (TILE_X + TILE_Y); i += TILE_X * TILE_Y) {
        const int term = i / (TILE_X + TILE_Y), place = i % (TILE_X + TILE_Y);
        const bool is_column = place < TILE_X;
        const float position = is_column ? columns[min(first_x + place, target_width - 1)]
                                         : rows[min(first_y + place - TILE_X, target_height - 1)];
        const float centre = static_cast<float>(nearest_pixel(position, is_column ? width : height));
        const float angle = frequency[(is_column ? TERMS : 0) + term] * (position - centre);
        (is_column ? column_sine[term][place] : row_sine[term][place - TILE_X]) = sinf(angle);
        (is_column ? column_cosine[term][place] : row_cosine[term][place - TILE_X]) = cosf(angle);
    }
    for (int i = thread; i < 3 * TERMS; i += TILE_X * TILE_Y) colour[i] = colours[i];
    __syncthreads();

    const int target_x = first_x + threadIdx.x, target_y = first_y + threadIdx.y;
    if (target_x >= target_width || target_y >= target_height) return;
    const float y = rows[target_y], x = columns[target_x];
    const size_t size = static_cast<size_t>(height) * width, image = blockIdx.z;
    const size_t pixel = static_cast<size_t>(nearest_pixel(y, height)) * width + nearest_pixel(x, width);
    const T* of_pixel = coefficients + image * COEFFICIENTS * size + pixel;
    float sum[3] = {0.f, 0.f, 0.f};
#pragma unroll 8
    for (int n = 0; n < TERMS; ++n) {
        const float a_sine = row_sine[n][threadIdx.y], a_cosine = row_cosine[n][threadIdx.y];
        const float b_sine = column_sine[n][threadIdx.x], b_cosine = column_cosine[n][threadIdx.x];
        const float sine = a_sine * b_cosine + a_cosine * b_sine, cosine = a_cosine * b_cosine - a_sine * b_sine;
        const float wave = static_cast<float>(of_pixel[n * size]) * sine +
                           static_cast<float>(of_pixel[(TERMS + n) * size]) * cosine;
        for (int channel = 0; channel < 3; ++channel) sum[channel] += colour[channel * TERMS + n] * wave;
    }

    float row_tap[4], column_tap[4];
    cubic_taps(y, row_tap);
    cubic_taps(x, column_tap);
    const int top = static_cast<int>(floorf(y)) - 1, left = static_cast<int>(floorf(x)) - 1;
    for (int channel = 0; channel < 3; ++channel) {
        const T* plane = base + (image * 3 + channel) * size;
        for (int j = 0; j < 4; ++j) {
            const T* row = plane + static_cast<size_t>(min(max(top + j, 0), height - 1)) * width;
            float value = 0.f;
            for (int k = 0; k < 4; ++k) {
                value += column_tap[k] * static_cast<float>(row[min(max(left + k, 0), width - 1)]);
            }
            sum[channel] += row_tap[j] * value;
        }
        frame[((image * 3 + channel) * target_height + target_y) * target_width + target_x] = sum[channel];
    }
}
