// Tiles of a picture, blended where they overlap.
//
// DTYPE: the type of a tile and of the picture (float, half). The canvas is (channels + 1, height, width) float: weighted
// sums, and as its last plane the sum of the weights.

#include <cuda_fp16.h>

using T = DTYPE;

// Weight of the pixel at `place` between two borders: rises from one to the other end of each feather, 1 beyond it.
static __device__ __forceinline__ float ramp(int place, int length, int feather_before, int feather_after) {
    const float before = feather_before > 0 ? (place + 0.5f) / feather_before : 1.f;
    const float after = feather_after > 0 ? (length - place - 0.5f) / feather_after : 1.f;
    return fminf(before, 1.f) * fminf(after, 1.f);
}

// One thread adds one pixel of the tile; what lies outside of the canvas is left out.
extern "C" __global__ void add_tile(const T* __restrict__ tile, float* __restrict__ canvas, int channels,
                                    int tile_height, int tile_width, int height, int width, int top, int left,
                                    int feather_top, int feather_bottom, int feather_left, int feather_right) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    const int canvas_x = left + x, canvas_y = top + y;
    if (x >= tile_width || y >= tile_height) return;
    if (canvas_x < 0 || canvas_x >= width || canvas_y < 0 || canvas_y >= height) return;

    const float weight =
        ramp(y, tile_height, feather_top, feather_bottom) * ramp(x, tile_width, feather_left, feather_right);
    const size_t size = static_cast<size_t>(height) * width, tile_size = static_cast<size_t>(tile_height) * tile_width;
    const size_t from = static_cast<size_t>(y) * tile_width + x;
    const size_t to = static_cast<size_t>(canvas_y) * width + canvas_x;
    for (int channel = 0; channel < channels; ++channel) {
        canvas[channel * size + to] += weight * static_cast<float>(tile[channel * tile_size + from]);
    }
    canvas[channels * size + to] += weight;
}

// One thread divides one pixel by its weight; 0 where no tile is.
extern "C" __global__ void normalise(const float* __restrict__ canvas, T* __restrict__ picture, int channels,
                                     int height, int width) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;

    const size_t size = static_cast<size_t>(height) * width, place = static_cast<size_t>(y) * width + x;
    const float weight = canvas[channels * size + place];
    for (int channel = 0; channel < channels; ++channel) {
        const float sum = canvas[channel * size + place];
        picture[channel * size + place] = static_cast<T>(weight > 0.f ? sum / weight : 0.f);
    }
}
