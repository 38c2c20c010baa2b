// YUV 4:2:0 <-> planar RGB. Chroma lies left of and between rows, and is interpolated linearly.
//
// SAMPLE_BYTES: 1 or 2; DTYPE: the type of RGB (float, half).
// Planes have a pitch (samples from row to row) and, for chroma, a step (samples from column to column): 1 in planes of
// their own, 2 where blue and red alternate; red then starts at sample 1. A sample is its code shifted left by `shift`
// bits. Coefficients: a row of the matrix for each result, then an offset for each.

#include <cuda_fp16.h>

#define COEFFICIENTS                                                                                           \
    float m00, float m01, float m02, float m10, float m11, float m12, float m20, float m21, float m22, float o0, \
        float o1, float o2

#if SAMPLE_BYTES == 1
using S = unsigned char;
#else
using S = unsigned short;
#endif
using T = DTYPE;

struct Affine {
    float m[3][3], offset[3];
    __device__ __forceinline__ float of(int row, float a, float b, float c) const {
        return m[row][0] * a + m[row][1] * b + m[row][2] * c + offset[row];
    }
};

#define AFFINE {{{m00, m01, m02}, {m10, m11, m12}, {m20, m21, m22}}, {o0, o1, o2}}

static __device__ __forceinline__ float code_of(const S* plane, size_t place, int shift) {
    return static_cast<float>(plane[place] >> shift);
}

// One thread makes two pixels, one above the other, which lie between the same rows of chroma.
extern "C" __global__ void yuv420_to_rgb(const S* __restrict__ luma, const S* __restrict__ blue,
                                         const S* __restrict__ red, T* __restrict__ rgb, COEFFICIENTS, int height,
                                         int width, int luma_pitch, int chroma_pitch, int chroma_step, int red_start,
                                         int shift) {
    const Affine decoding = AFFINE;
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = blockIdx.y * blockDim.y + threadIdx.y;
    const int chroma_height = (height + 1) / 2, chroma_width = (width + 1) / 2;
    if (x >= width || row >= chroma_height) return;

    const int left = x / 2, right = min(left + x % 2, chroma_width - 1);
    float chroma[2][3];  // blue and red at this column, in the rows above, here and below
    for (int k = 0; k < 3; ++k) {
        const int y = min(max(row + k - 1, 0), chroma_height - 1);
        const size_t start = static_cast<size_t>(y) * chroma_pitch;
        for (int plane = 0; plane < 2; ++plane) {
            const S* from = plane ? red + red_start : blue;
            const float at_left = code_of(from, start + left * chroma_step, shift);
            const float at_right = code_of(from, start + right * chroma_step, shift);
            chroma[plane][k] = 0.5f * (at_left + at_right);
        }
    }
    const size_t size = static_cast<size_t>(height) * width;
    for (int k = 0; k < 2; ++k) {
        const int y = 2 * row + k;
        if (y >= height) break;
        const float code = code_of(luma, static_cast<size_t>(y) * luma_pitch + x, shift);
        const float u = 0.75f * chroma[0][1] + 0.25f * chroma[0][2 * k];
        const float v = 0.75f * chroma[1][1] + 0.25f * chroma[1][2 * k];
        for (int channel = 0; channel < 3; ++channel) {
            const float value = decoding.of(channel, code, u, v);
            rgb[channel * size + static_cast<size_t>(y) * width + x] = static_cast<T>(fminf(fmaxf(value, 0.f), 1.f));
        }
    }
}

// Ordered dither: the 8 x 8 thresholds of Bayer, evenly from -1/2 to 1/2.
static __device__ __forceinline__ float threshold(int x, int y) {
    int rank = 0;
    for (int bit = 0; bit < 3; ++bit) {
        rank = 4 * rank + 2 * (((x ^ y) >> bit) & 1) + ((y >> bit) & 1);
    }
    return (rank + 0.5f) / 64.f - 0.5f;
}

static __device__ __forceinline__ S sample_of(float code, int x, int y, float top, int shift, int dither) {
    const float rounded = rintf(dither ? code + threshold(x, y) : code);
    return static_cast<S>(static_cast<unsigned int>(fminf(fmaxf(rounded, 0.f), top)) << shift);
}

// One thread makes one sample of each chroma plane and the four of luma that it belongs to.
extern "C" __global__ void rgb_to_yuv420(S* __restrict__ luma, S* blue, S* red, const T* __restrict__ rgb,
                                         COEFFICIENTS, int height, int width, int luma_pitch, int chroma_pitch,
                                         int chroma_step, int red_start, int shift, int top, int dither) {
    const Affine encoding = AFFINE;
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (2 * column >= width || 2 * row >= height) return;

    const size_t size = static_cast<size_t>(height) * width;
    float mean[3] = {0.f, 0.f, 0.f};  // RGB at the chroma sample: 1/4, 1/2, 1/4 of three columns, 1/2 of two rows
    for (int k = 0; k < 2; ++k) {
        const int y = min(2 * row + k, height - 1);
        for (int side = -1; side < 2; ++side) {
            const int x = min(max(2 * column + side, 0), width - 1);
            float pixel[3];
            for (int channel = 0; channel < 3; ++channel) {
                const float value = static_cast<float>(rgb[channel * size + static_cast<size_t>(y) * width + x]);
                pixel[channel] = fminf(fmaxf(value, 0.f), 1.f);
                mean[channel] += (side ? 0.125f : 0.25f) * pixel[channel];
            }
            if (side < 0 || 2 * row + k >= height || 2 * column + side >= width) continue;
            const float code = encoding.of(0, pixel[0], pixel[1], pixel[2]);
            luma[static_cast<size_t>(y) * luma_pitch + x] =
                sample_of(code, x, y, static_cast<float>(top), shift, dither);
        }
    }
    const size_t place = static_cast<size_t>(row) * chroma_pitch + column * chroma_step;
    for (int plane = 0; plane < 2; ++plane) {
        const float code = encoding.of(1 + plane, mean[0], mean[1], mean[2]);
        (plane ? red + red_start : blue)[place] = sample_of(code, column, row, static_cast<float>(top), shift, dither);
    }
}
