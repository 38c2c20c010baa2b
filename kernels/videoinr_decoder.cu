// VideoINR's decoder, for any target size and time, in three kernels: the features of every target pixel, the flows
// from there to two moments, and the colours from the features and frames at the ends of the flows.
//
// DTYPE, HALF, NF, ORDERED: see videoinr_siren.cuh. OFFICIAL: 1 for VideoINR's `official_sampling`, else 0.
//
// The part of each first layer that depends on input pixels alone is computed before, in `mixed`, (B, H, W, 4 * FIRST):
// that of the SIREN of features, of flows, and of colours for the first and for the second moment.

#include "videoinr_siren.cuh"

// The target pixels of this block; beyond the last pixel of the target, its last one is repeated.
struct Run {
    int first, count, width;
    size_t image;  // index of the batch item's first target pixel

    __device__ __forceinline__ Run(int target_height, int target_width)
        : first(blockIdx.x * PIXELS), count(target_height * target_width), width(target_width),
          image(static_cast<size_t>(blockIdx.y) * target_height * target_width) {}
    __device__ __forceinline__ int clamped(int pixel) const { return min(first + pixel, count - 1); }
    __device__ __forceinline__ bool contains(int pixel) const { return first + pixel < count; }
};

// biases: those of the first layer, its weights of moment, relative_y and relative_x (FIRST each), then the biases of
// the other layers.
extern "C" __global__ void __launch_bounds__(THREADS)
    target_features(const T* __restrict__ mixed, const float* __restrict__ time, const int* __restrict__ nearest_y,
                    const int* __restrict__ nearest_x, const float* __restrict__ relative_y,
                    const float* __restrict__ relative_x, const T* __restrict__ weights,
                    const float* __restrict__ biases, T* __restrict__ target, int height, int width,
                    int target_height, int target_width) {
    const Memory memory;
    T* x = memory.x;
    float* scratch = memory.scratch;
    const Run run(target_height, target_width);
    const T* image = mixed + static_cast<size_t>(blockIdx.y) * height * width * MIXED;
    const float moment = time[blockIdx.y];
    for (int item = threadIdx.x; item < PIXELS * FIRST / 8; item += THREADS) {
        const int pixel = item / (FIRST / 8), channel = item % (FIRST / 8) * 8;
        const int row = run.clamped(pixel) / run.width, column = run.clamped(pixel) % run.width;
        const float* bias = biases + channel;
        float values[8] = {};
        add(values, bias, 1.f);
        add(values, bias + FIRST, moment);
        add(values, bias + 2 * FIRST, relative_y[row]);
        add(values, bias + 3 * FIRST, relative_x[column]);
        add_group(values, image + (static_cast<size_t>(nearest_y[row]) * width + nearest_x[column]) * MIXED + channel,
                  1.f);
        store_sines(x + pixel * STRIDE + channel, values);
    }
    __syncthreads();

    const float* bias = biases + 4 * FIRST;
    sine_layer<FIRST, SECOND>(x, weights, bias, scratch);
    sine_layer<SECOND, WIDE>(x, weights + FIRST * SECOND, bias + SECOND, scratch);
    const T* last = weights + FIRST * SECOND + SECOND * WIDE;
    product<WIDE, TARGET>(x, last, scratch, [&](int pixel, int channel, float* values) {
        if (channel >= NF || !run.contains(pixel)) return;
        add(values, bias + SECOND + WIDE + channel, 1.f);
        store_group(target + (run.image + run.first + pixel) * NF + channel, values);
    });
}

// Reads the frames at one moment into 6 columns of the activations.
static __device__ __forceinline__ void read_frames(T* x, const T* frames, const Corners& corners) {
    for (int channel = 0; channel < FRAMES; ++channel) {
        float sum = 0.f;
        for (int k = 0; k < 4; ++k) {
            sum += corners.weight[k] *
                   static_cast<float>(frames[static_cast<size_t>(corners.offset[k]) * FRAMES + channel]);
        }
        x[channel] = static_cast<T>(sum);
    }
}

// frames: (B, factor * height, factor * width, 6). Activations: target features, frames, zeros.
// biases: those of the first layer, its weights of the moment (FIRST each), then the biases of the other layers.
extern "C" __global__ void __launch_bounds__(THREADS)
    target_flows(const T* __restrict__ mixed, const T* __restrict__ frames, const T* __restrict__ target,
                 const float* __restrict__ time, const float* __restrict__ position_y,
                 const float* __restrict__ position_x, const T* __restrict__ weights,
                 const float* __restrict__ biases, float* __restrict__ flows, int height, int width, int factor,
                 int target_height, int target_width) {
    const Memory memory;
    T* x = memory.x;
    float* scratch = memory.scratch;
    Corners* on_input = memory.on_input;
    const Run run(target_height, target_width);
    const size_t batch = blockIdx.y, pixels = static_cast<size_t>(height) * width;
    const T* image = mixed + batch * pixels * MIXED + FIRST;
    const float moment = time[batch];
    for (int pixel = threadIdx.x; pixel < PIXELS; pixel += THREADS) {
        const float px = position_x[run.clamped(pixel) % run.width], py = position_y[run.clamped(pixel) / run.width];
        on_input[pixel] = find_corners(py, px, height, width, !OFFICIAL, 1.f);
        const Corners on_frames = find_corners((py + 0.5f) * factor - 0.5f, (px + 0.5f) * factor - 0.5f,
                                               height * factor, width * factor, !OFFICIAL, 1.f);
        T* inputs = x + pixel * STRIDE + NF;
        read_frames(inputs, frames + batch * pixels * factor * factor * FRAMES, on_frames);
        for (int i = FRAMES; i < FLOW_INPUTS - NF; ++i) inputs[i] = static_cast<T>(0.f);
    }
    for (int item = threadIdx.x; item < PIXELS * NF / 8; item += THREADS) {
        const int pixel = item / (NF / 8), channel = item % (NF / 8) * 8;
        *reinterpret_cast<Group*>(x + pixel * STRIDE + channel) =
            *reinterpret_cast<const Group*>(target + (run.image + run.clamped(pixel)) * NF + channel);
    }
    __syncthreads();

    product<FLOW_INPUTS, FIRST>(x, weights, scratch, [&](int pixel, int channel, float* values) {
        add(values, biases + channel, 1.f);
        add(values, biases + FIRST + channel, moment);
        add_corners(values, image + channel, MIXED, on_input[pixel]);
        store_sines(x + pixel * STRIDE + channel, values);
    });
    const T* second = weights + FLOW_INPUTS * FIRST;
    const float* bias = biases + 2 * FIRST;
    sine_layer<FIRST, SECOND>(x, second, bias, scratch);
    sine_layer<SECOND, WIDE>(x, second + FIRST * SECOND, bias + SECOND, scratch);
    const T* last = second + FIRST * SECOND + SECOND * WIDE;
    product<WIDE, LAST>(x, last, scratch, [&](int pixel, int channel, float* values) {
        if (channel > 0 || !run.contains(pixel)) return;
        add(values, bias + SECOND + WIDE, 1.f);
        float* flow = flows + (run.image + run.first + pixel) * FLOWS;
        for (int i = 0; i < FLOWS; ++i) flow[i] = values[i];
    });
}

// Returns the position that a flow leads to from the target pixel `index`, in pixels of the whole target of `size`.
static __device__ __forceinline__ float moved(float index, float flow, float size) {
    const float position = index + flow;
    if (!OFFICIAL) return position;
    // The official grid ends at pixel centres, but is read as if it ended at pixel edges.
    const float edge = 1.f - 1e-6f;
    const float grid = 2.f * position / (size - 1.f) - 1.f;
    return ((fminf(fmaxf(grid, -edge), edge) + 1.f) * size - 1.f) / 2.f;
}

// Returns the share of a bilinear reading that is inside of [0, size).
static __device__ __forceinline__ float share_inside(float position, float size) {
    return fmaxf(1.f - fmaxf(-position, 0.f) - fmaxf(position - (size - 1.f), 0.f), 0.f);
}

// index_y, index_x: in pixels of the whole target, size_y by size_x; the pixels to decode may be a part of it.
// Activations: target features at both moments, frames at both, zeros.
// biases: those of the first layer, its weights of the moment (FIRST each), then the biases of the other layers.
extern "C" __global__ void __launch_bounds__(THREADS)
    target_colours(const T* __restrict__ mixed, const T* __restrict__ frames, const T* __restrict__ target,
                   const float* __restrict__ flows, const float* __restrict__ time,
                   const float* __restrict__ index_y, const float* __restrict__ index_x,
                   const T* __restrict__ weights, const float* __restrict__ biases, T* __restrict__ colours,
                   float size_y, float size_x, int height, int width, int factor, int target_height,
                   int target_width) {
    const Memory memory;
    T* x = memory.x;
    float* scratch = memory.scratch;
    Corners *on_target = memory.on_target, *on_frames = memory.on_frames, *on_input = memory.on_input;
    const Run run(target_height, target_width);
    const size_t batch = blockIdx.y, pixels = static_cast<size_t>(height) * width;
    const T* image = mixed + batch * pixels * MIXED + 2 * FIRST;
    const float moment = time[batch];
    for (int item = threadIdx.x; item < 2 * PIXELS; item += THREADS) {
        const int side = item / PIXELS, target_pixel = run.clamped(item % PIXELS);
        const float* flow = flows + (run.image + target_pixel) * FLOWS + 2 * side;
        const float px = moved(index_x[target_pixel % run.width], flow[0], size_x);
        const float py = moved(index_y[target_pixel / run.width], flow[1], size_y);
        const float gain = OFFICIAL ? share_inside(px, size_x) * share_inside(py, size_y) : 1.f;
        on_target[item] = find_corners(py - index_y[0], px - index_x[0], target_height, target_width, true, gain);
        const float input_x = (px + 0.5f) * (width / size_x) - 0.5f, input_y = (py + 0.5f) * (height / size_y) - 0.5f;
        on_input[item] = find_corners(input_y, input_x, height, width, !OFFICIAL, 1.f);
        on_frames[item] = find_corners((input_y + 0.5f) * factor - 0.5f, (input_x + 0.5f) * factor - 0.5f,
                                       height * factor, width * factor, !OFFICIAL, 1.f);
    }
    __syncthreads();
    for (int item = threadIdx.x; item < 2 * PIXELS * (NF / 8); item += THREADS) {
        const int channel = item % (NF / 8) * 8, reading = item / (NF / 8);
        const int side = reading / PIXELS, pixel = reading % PIXELS;
        float values[8] = {};
        add_corners(values, target + run.image * NF + channel, NF, on_target[reading]);
        store_group(x + pixel * STRIDE + side * NF + channel, values);
    }
    for (int item = threadIdx.x; item < 2 * PIXELS; item += THREADS) {
        const int side = item / PIXELS, pixel = item % PIXELS;
        T* inputs = x + pixel * STRIDE + 2 * NF;
        read_frames(inputs + side * FRAMES, frames + batch * pixels * factor * factor * FRAMES, on_frames[item]);
        for (int i = 2 * FRAMES; side && i < COLOUR_INPUTS - 2 * NF; ++i) inputs[i] = static_cast<T>(0.f);
    }
    __syncthreads();

    product<COLOUR_INPUTS, FIRST>(x, weights, scratch, [&](int pixel, int channel, float* values) {
        add(values, biases + channel, 1.f);
        add(values, biases + FIRST + channel, moment);
        add_corners(values, image + channel, MIXED, on_input[pixel]);
        add_corners(values, image + FIRST + channel, MIXED, on_input[PIXELS + pixel]);
        store_sines(x + pixel * STRIDE + channel, values);
    });
    const T* second = weights + COLOUR_INPUTS * FIRST;
    const float* bias = biases + 2 * FIRST;
    sine_layer<FIRST, SECOND>(x, second, bias, scratch);
    sine_layer<SECOND, WIDE>(x, second + FIRST * SECOND, bias + SECOND, scratch);
    const T* third = second + FIRST * SECOND + SECOND * WIDE;
    sine_layer<WIDE, WIDE>(x, third, bias + SECOND + WIDE, scratch);
    product<WIDE, LAST>(x, third + WIDE * WIDE, scratch, [&](int pixel, int channel, float* values) {
        if (channel > 0 || !run.contains(pixel)) return;
        add(values, bias + SECOND + 2 * WIDE, 1.f);
        T* out = colours + run.image * 3 + run.first + pixel;
        for (int i = 0; i < 3; ++i) out[static_cast<size_t>(i) * run.count] = static_cast<T>(values[i]);
    });
}
