// Planar RGB to YUV 4:2:0. Chroma samples lie at every second luma column and half-way between two luma rows.
//
// SAMPLE_BYTES: 1 or 2; DTYPE: the type of RGB (float, half).
// Planes have a pitch (samples from row to row) and, for chroma, a step (samples from column to column): 1 in planes of
// their own, 2 where blue and red alternate; red then starts at sample 1. A sample is its code shifted left by `shift`
// bits. Coefficients: the matrix, row by row, then one offset for each row.

#include <cuda_fp16.h>

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

static __device__ __forceinline__ S sample_of(float code, float top, int shift) {
    return static_cast<S>(static_cast<unsigned int>(fminf(fmaxf(rintf(code), 0.f), top)) << shift);
}

// One thread writes one sample of each chroma plane and the four luma samples that share it. `top` is the largest code.
extern "C" __global__ void rgb_to_yuv420(S* __restrict__ luma, S* blue, S* red, const T* __restrict__ rgb, float m00,
                                         float m01, float m02, float m10, float m11, float m12, float m20, float m21,
                                         float m22, float o0, float o1, float o2, int height, int width,
                                         int luma_pitch, int chroma_pitch, int chroma_step, int red_start, int shift,
                                         int top) {
    const Affine encoding = {{{m00, m01, m02}, {m10, m11, m12}, {m20, m21, m22}}, {o0, o1, o2}};
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
            luma[static_cast<size_t>(y) * luma_pitch + x] = sample_of(code, static_cast<float>(top), shift);
        }
    }
    const size_t sample = static_cast<size_t>(row) * chroma_pitch + column * chroma_step;
    for (int plane = 0; plane < 2; ++plane) {
        const float code = encoding.of(1 + plane, mean[0], mean[1], mean[2]);
        (plane ? red + red_start : blue)[sample] = sample_of(code, static_cast<float>(top), shift);
    }
}
