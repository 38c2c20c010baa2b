// Features in strips: planes of neighbouring channels that lie side by side, so that a pixel of a strip is read at once.
//
// DTYPE: the type of the features (float, half). WIDTH: channels of a strip, a multiple of 16 bytes.
#include <cuda_fp16.h>

#include "packets.cuh"

using Feature = DTYPE;

// features: (B, C, pixels); strips: (B, S, pixels, WIDTH), for each run of channels in turn its strips, the last of
// which is padded with zeros. grid: pixels / 256, S, B.
extern "C" __global__ void __launch_bounds__(256)
to_strips(const Feature* __restrict__ features, Feature* __restrict__ strips, int channels, int run_channels,
          int pixels) {
    const int pixel = blockIdx.x * 256 + threadIdx.x;
    if (pixel >= pixels) return;
    const int run_strips = (run_channels + WIDTH - 1) / WIDTH;
    const int run = blockIdx.y / run_strips, first = blockIdx.y % run_strips * WIDTH;
    const int count = min(WIDTH, run_channels - first);
    features += (static_cast<size_t>(blockIdx.z) * channels + run * run_channels + first) * pixels + pixel;
    strips += ((static_cast<size_t>(blockIdx.z) * gridDim.y + blockIdx.y) * pixels + pixel) * WIDTH;
    float value[WIDTH];
#pragma unroll
    for (int i = 0; i < WIDTH; ++i)
        value[i] = i < count ? static_cast<float>(features[static_cast<size_t>(i) * pixels]) : 0.0f;
    Packet<Feature, WIDTH>::store(strips, value);
}
