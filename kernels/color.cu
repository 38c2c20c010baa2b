// Planar RGB to YUV 4:2:0.
//
// SAMPLE_BYTES: 1 or 2; DTYPE: the type of RGB (float, half).

#include <cuda_fp16.h>

#include "yuv420.cuh"

using T = DTYPE;

// One thread writes one sample of each chroma plane and the four luma samples that share it.
extern "C" __global__ void rgb_to_yuv420(const T* __restrict__ rgb, YUV420_PARAMETERS) {
    const Yuv420 picture = YUV420;
    const int height = picture.height, width = picture.width;
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (2 * column >= width || 2 * row >= height) return;

    const size_t size = static_cast<size_t>(height) * width;
    float mean[3] = {0.f, 0.f, 0.f};
    for (int k = 0; k < 2; ++k) {
        const int y = min(2 * row + k, height - 1);
        for (int side = -1; side < 2; ++side) {
            const int x = min(max(2 * column + side, 0), width - 1);
            float pixel[3];
            for (int channel = 0; channel < 3; ++channel) {
                pixel[channel] =
                    clipped(static_cast<float>(rgb[channel * size + static_cast<size_t>(y) * width + x]));
                mean[channel] += (side ? 0.125f : 0.25f) * pixel[channel];
            }
            if (side < 0 || 2 * row + k >= height || 2 * column + side >= width) continue;
            *picture.luma_at(y, x) = picture.sample(0, pixel);
        }
    }
    picture.store_chroma(row, column, mean);
}
