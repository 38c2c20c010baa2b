#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "device.hpp"
#include "stvsr/axes.hpp"
#include "stvsr/request.hpp"
#include "stvsr/upscaler.hpp"

// Transfers between host and device: input frames on the device, and outputs on their way back, in page-locked memory.
namespace stvsr {

// Return the number of values in a tensor of this shape.
std::size_t count(const Shape& shape);
// Enqueue a copy of float32 values on a stream.
void copy(float* to, const float* from, std::size_t values, cudaMemcpyKind kind, cudaStream_t stream);

// Return the centres of target pixels along an axis, in input pixels from the centre of the first input pixel.
std::vector<float> positions(std::int64_t size_px, std::int64_t target_px);

// Map the range from `low` to `high` to 0..65535, rounded and clipped.
std::uint16_t to_uint16(float value, double low, double high);

// Input frames in device memory, (3, h', w') in the network's value range, by their numbers in the stream.
class DeviceFrames {
public:
    // Drop all frames and start again at number 0, with frames of `size` whose last row and column are repeated up to
    // `padded_size`.
    void reset(Size size, Size padded_size, const std::array<double, 2>& value_range);
    // Enqueue the upload of the next frame, (3, h, w) in [0, 1]. Throws RequestError if it has another size.
    void upload(const std::vector<float>& rgb, cudaStream_t stream);
    // Make the memory of all frames before `number` available to later ones.
    void release_before(std::int64_t number);
    // Enqueue a copy of these frames, one after the other, to the input tensor of a network.
    void copy_to(float* window, const std::vector<std::int64_t>& numbers, cudaStream_t stream) const;

private:
    struct Staging {
        PinnedBuffer pixels;
        Event uploaded;
    };

    Size size_, padded_size_;
    std::array<double, 2> value_range_{};
    std::array<Staging, 2> staging_;  // one is filled while the device reads the other
    std::size_t uploads_ = 0;
    std::deque<DeviceBuffer> frames_;
    std::vector<DeviceBuffer> spare_;
    std::int64_t oldest_ = 0;  // number of the first frame in `frames_`
};

// An output frame on its way to the host.
struct PendingOutput {
    PinnedBuffer pixels;  // (3, H', W')
    PinnedBuffer time;    // the network's input, which must stay until the device has read it
    Event ready;
    std::size_t copies = 0;  // number of times that the frame is passed to the sink
};

// A queue of output frames whose buffers are reused.
class OutputQueue {
public:
    // Empty the queue, for frames of `computed_size` of which the upper left `output_size` is passed to the sink.
    void reset(Size computed_size, Size output_size, const std::array<double, 2>& value_range);
    // Return an output that is not in the queue.
    PendingOutput& acquire();
    void push(PendingOutput& output) { queue_.push_back(&output); }
    // Pass outputs to the sink in order, as (3, H, W) with white at 65535, until at most `limit` are left.
    void drain(std::size_t limit, const Sink& sink);

private:
    Size computed_size_, output_size_;
    std::array<double, 2> value_range_{};
    std::deque<PendingOutput> outputs_;
    std::vector<PendingOutput*> free_;
    std::deque<PendingOutput*> queue_;
    std::vector<std::uint16_t> frame_;
};

}  // namespace stvsr
