#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "axes.hpp"
#include "device.hpp"
#include "manifest.hpp"
#include "request.hpp"

// What lies between the host's pixels and the device: page-locked memory on both ways, and the frames that are held.
namespace stvsr {

std::size_t count(const Shape& shape);
void copy(float* to, const float* from, std::size_t values, cudaMemcpyKind kind, cudaStream_t stream);

// The centres of target pixels, in input pixels from the centre of the first one.
std::vector<float> positions(std::int64_t size_px, std::int64_t target_px);

// Round and clip: `low` becomes 0 and `high` 65535.
std::uint16_t to_uint16(float value, double low, double high);

// Frames on the device by their numbers in the stream, (3, h', w') in the network's value range.
class HeldFrames {
public:
    // Hold frames of `shape` from number 0 on, their last row and column repeated up to `padded`.
    void begin(Size shape, Size padded, const std::array<double, 2>& value_range);
    void upload(const std::vector<float>& rgb, cudaStream_t stream);  // (3, h, w) in [0, 1]
    void forget(std::int64_t number);                                 // those before it
    void copy_to(float* window, const std::vector<std::int64_t>& numbers, cudaStream_t stream) const;

private:
    struct Staging {
        PinnedMemory pixels;
        Event uploaded;
    };

    Size shape_, padded_;
    std::array<double, 2> value_range_{};
    std::array<Staging, 2> staging_;  // one is filled while the other is read
    std::size_t uploads_ = 0;
    std::deque<DeviceMemory> held_;
    std::vector<DeviceMemory> spare_;
    std::int64_t oldest_ = 0;  // the number of the first one held
};

// A result on its way to the host, and the time it was made for.
struct Result {
    PinnedMemory pixels;  // (3, H', W')
    PinnedMemory time;    // stays until the device has taken it
    Event ready;
    std::size_t wanted = 0;  // how often
};

// Results that wait for their turn; their memory is used again and again.
class Results {
public:
    using Give = std::function<void(const std::vector<std::uint16_t>&)>;

    // Results of `made` pixels, of which `size` are given, as (3, H, W) with white at 65535.
    void begin(Size made, Size size, const std::array<double, 2>& value_range);
    Result& take();                              // one that is free
    void wait(Result& result) { waiting_.push_back(&result); }
    void deliver(std::size_t keep, const Give& give);  // in order, until no more than `keep` wait

private:
    Size made_, size_;
    std::array<double, 2> value_range_{};
    std::deque<Result> all_;
    std::vector<Result*> free_;
    std::deque<Result*> waiting_;
    std::vector<std::uint16_t> frame_;
};

}  // namespace stvsr
