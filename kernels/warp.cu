// Backward warping by flows: each output pixel is read bilinearly at the position that its flow points to.
//
// DTYPE: the type of the features (float, half); positions and sums are float.
// CHUNK: channels that a block reads one after another by the same positions. UNROLL: channels that a thread reads at
// once, EACH: neighbouring pixels that it reads, and BLOCKS: of a multiprocessor at once, at least, of `warp_planes`.
#include <cuda_fp16.h>

#include "warped.cuh"

using Feature = DTYPE;

// Maps positions of the output to those of the features: position * scale + shift, limited to [low, high].
struct Axis {
    float scale, shift, low, high;

    __device__ __forceinline__ float map(float position) const {
        return fminf(fmaxf(position * scale + shift, low), high);
    }
};

constexpr int WIDTH = 16 / sizeof(Feature);  // channels of a strip
static_assert(CHUNK % WIDTH == 0 && CHUNK % UNROLL == 0 && (EACH == 1 || EACH == 2), "whole strips, groups and pairs");

// The corners of an output pixel; the planes of its flow lie `out_plane` apart.
static __device__ __forceinline__ Corners follow(const float* flow, size_t out_plane, int y, int x, int height,
                                                 int width, bool clamped, const Axis& y_axis, const Axis& x_axis) {
    return find_corners(y_axis.map(y + flow[out_plane]), x_axis.map(x + flow[0]), height, width, clamped, 1.0f);
}

// features: (B, C, H, W); flows: (B, 2 * flow_count, Hout, Wout), dx before dy, in pixels;
// out: (B, flow_count * C, Hout, Wout). A block reads 32 * EACH x 8 pixels of CHUNK channels by every flow, so that the
// flows share cache lines; grid.z: B * chunks.
extern "C" __global__ void __launch_bounds__(256, BLOCKS)
warp_planes(const Feature* __restrict__ features, const float* __restrict__ flows, Feature* __restrict__ out,
            int channels, int height, int width, int out_height, int out_width, int flow_count,
            int clamped, float y_scale, float y_shift, float y_low, float y_high,
            float x_scale, float x_shift, float x_low, float x_high) {
    const int x = (blockIdx.x * 32 + threadIdx.x) * EACH, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= out_width || y >= out_height) return;
    const int chunks = (channels + CHUNK - 1) / CHUNK;
    const int batch = blockIdx.z / chunks, first = blockIdx.z % chunks * CHUNK;
    const int count = min(CHUNK, channels - first);
    const size_t plane = static_cast<size_t>(height) * width;
    const size_t out_plane = static_cast<size_t>(out_height) * out_width;
    const size_t pixel = static_cast<size_t>(y) * out_width + x;
    const Axis y_axis{y_scale, y_shift, y_low, y_high}, x_axis{x_scale, x_shift, x_low, x_high};

    features += (static_cast<size_t>(batch) * channels + first) * plane;
    for (int i = 0; i < flow_count; ++i) {
        const size_t flow_index = static_cast<size_t>(batch) * flow_count + i;
        const float* flow = flows + 2 * flow_index * out_plane + pixel;
        Corners corners[EACH];
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            const int within = x + j < out_width ? j : 0;
            corners[j] = follow(flow + within, out_plane, y, x + within, height, width, clamped, y_axis, x_axis);
        }
        Feature* to = out + (flow_index * channels + first) * out_plane + pixel;
        warp_some_planes<UNROLL>(features, to, corners, count, plane, out_plane, min(EACH, out_width - x));
    }
}

// strips: (B, S, H, W, WIDTH), those of the C channels; otherwise as `warp_planes`. A block reads 32 x 8 pixels of
// CHUNK / WIDTH strips by every flow; grid.z: B * chunks.
extern "C" __global__ void __launch_bounds__(256, 4)
warp_strips(const Feature* __restrict__ strips, const float* __restrict__ flows, Feature* __restrict__ out,
            int channels, int height, int width, int out_height, int out_width, int flow_count,
            int clamped, float y_scale, float y_shift, float y_low, float y_high,
            float x_scale, float x_shift, float x_low, float x_high) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= out_width || y >= out_height) return;
    const int chunks = (channels + CHUNK - 1) / CHUNK, strip_count = (channels + WIDTH - 1) / WIDTH;
    const int batch = blockIdx.z / chunks, first = blockIdx.z % chunks * CHUNK;
    const int count = min(CHUNK, channels - first);
    const size_t plane = static_cast<size_t>(height) * width * WIDTH;
    const size_t out_plane = static_cast<size_t>(out_height) * out_width;
    const size_t pixel = static_cast<size_t>(y) * out_width + x;
    const Axis y_axis{y_scale, y_shift, y_low, y_high}, x_axis{x_scale, x_shift, x_low, x_high};

    strips += (static_cast<size_t>(batch) * strip_count + first / WIDTH) * plane;
    for (int i = 0; i < flow_count; ++i) {
        const size_t flow_index = static_cast<size_t>(batch) * flow_count + i;
        const float* flow = flows + 2 * flow_index * out_plane + pixel;
        const Corners corners = follow(flow, out_plane, y, x, height, width, clamped, y_axis, x_axis);
        Feature* to = out + (flow_index * channels + first) * out_plane + pixel;
        warp_some_strips<WIDTH>(strips, to, corners, count, plane, out_plane);
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
