// Backward warping by flows: each output pixel is read bilinearly at the position that its flow points to.
//
// DTYPE: the type of the features (float, half); positions and sums are float.
#include <cuda_fp16.h>

#include "bilinear.cuh"

using Feature = DTYPE;

// Maps positions of the output to those of the features: position * scale + shift, limited to [low, high].
struct Axis {
    float scale, shift, low, high;

    __device__ __forceinline__ float map(float position) const {
        return fminf(fmaxf(position * scale + shift, low), high);
    }
};

// features: (B, C, H, W); flows: (B, 2 * flow_count, Hout, Wout), dx before dy, in pixels;
// out: (B, flow_count * C, Hout, Wout). A block reads 32 x 8 pixels of `chunk` channels by every flow, so that the
// flows share cache lines; grid.z: B * chunks.
extern "C" __global__ void __launch_bounds__(256, 4)
warp_planes(const Feature* __restrict__ features, const float* __restrict__ flows, Feature* __restrict__ out,
            int channels, int height, int width, int out_height, int out_width, int flow_count, int chunk,
            int clamped, float y_scale, float y_shift, float y_low, float y_high,
            float x_scale, float x_shift, float x_low, float x_high) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= out_width || y >= out_height) return;
    const int chunks = (channels + chunk - 1) / chunk;
    const int batch = blockIdx.z / chunks, first = blockIdx.z % chunks * chunk;
    const int count = min(chunk, channels - first);
    const size_t plane = static_cast<size_t>(height) * width;
    const size_t out_plane = static_cast<size_t>(out_height) * out_width;
    const size_t pixel = static_cast<size_t>(y) * out_width + x;
    const Axis y_axis{y_scale, y_shift, y_low, y_high}, x_axis{x_scale, x_shift, x_low, x_high};

    features += (static_cast<size_t>(batch) * channels + first) * plane;
    for (int i = 0; i < flow_count; ++i) {
        const size_t flow_index = static_cast<size_t>(batch) * flow_count + i;
        const float* flow = flows + 2 * flow_index * out_plane + pixel;
        const Corners corners =
            find_corners(y_axis.map(y + flow[out_plane]), x_axis.map(x + flow[0]), height, width, clamped, 1.0f);
        const Feature* from = features;
        Feature* to = out + (flow_index * channels + first) * out_plane + pixel;
#pragma unroll 4
        for (int c = 0; c < count; ++c, from += plane, to += out_plane) *to = Feature(read_corners(from, corners));
    }
}

// features: (B, H, W, C); flows: (B, Hout, Wout, 2 * flow_count); out: (B, Hout, Wout, flow_count * C).
// A thread reads one `Packet` of a pixel's channels by one flow; grid.y: flows, grid.z: B.
template <typename Packet>
__device__ __forceinline__ void
warp_pixels(const Feature* __restrict__ features, const float* __restrict__ flows, Feature* __restrict__ out,
            int channels, int height, int width, int out_height, int out_width, int flow_count, int clamped,
            const Axis& y_axis, const Axis& x_axis) {
    constexpr int size = sizeof(Packet) / sizeof(Feature);
    const unsigned packets = channels / size;
    const unsigned item = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned pixel = item / packets, first = item % packets * size;
    const unsigned out_plane = static_cast<unsigned>(out_height) * out_width;
    if (pixel >= out_plane) return;
    const int y = pixel / out_width, x = pixel % out_width;
    const size_t reading = (static_cast<size_t>(blockIdx.z) * out_plane + pixel) * flow_count + blockIdx.y;
    const Corners corners = find_corners(y_axis.map(y + flows[2 * reading + 1]), x_axis.map(x + flows[2 * reading]),
                                         height, width, clamped, 1.0f);

    features += static_cast<size_t>(blockIdx.z) * height * width * channels + first;
    float sum[size] = {};
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
        const Feature* from = features + static_cast<size_t>(corners.offset[corner]) * channels;
        const Packet packet = *reinterpret_cast<const Packet*>(from);
        const Feature* value = reinterpret_cast<const Feature*>(&packet);
#pragma unroll
        for (int i = 0; i < size; ++i) sum[i] += corners.weight[corner] * static_cast<float>(value[i]);
    }
    Packet packet;
    Feature* value = reinterpret_cast<Feature*>(&packet);
#pragma unroll
    for (int i = 0; i < size; ++i) value[i] = Feature(sum[i]);
    *reinterpret_cast<Packet*>(out + reading * channels + first) = packet;
}

// Reads one channel per thread, for any number of channels.
extern "C" __global__ void __launch_bounds__(256)
warp_channels(const Feature* __restrict__ features, const float* __restrict__ flows, Feature* __restrict__ out,
              int channels, int height, int width, int out_height, int out_width, int flow_count, int clamped,
              float y_scale, float y_shift, float y_low, float y_high,
              float x_scale, float x_shift, float x_low, float x_high) {
    warp_pixels<Feature>(features, flows, out, channels, height, width, out_height, out_width, flow_count, clamped,
                         Axis{y_scale, y_shift, y_low, y_high}, Axis{x_scale, x_shift, x_low, x_high});
}

// Reads 16 bytes of channels per thread: a pixel must be a multiple of 16 bytes long, and both arrays aligned to 16.
extern "C" __global__ void __launch_bounds__(256)
warp_channel_vectors(const Feature* __restrict__ features, const float* __restrict__ flows, Feature* __restrict__ out,
                     int channels, int height, int width, int out_height, int out_width, int flow_count, int clamped,
                     float y_scale, float y_shift, float y_low, float y_high,
                     float x_scale, float x_shift, float x_low, float x_high) {
    warp_pixels<uint4>(features, flows, out, channels, height, width, out_height, out_width, flow_count, clamped,
                        Axis{y_scale, y_shift, y_low, y_high}, Axis{x_scale, x_shift, x_low, x_high});
}
