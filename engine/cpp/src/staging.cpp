#include "staging.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace stvsr {
namespace {

constexpr double FULL_SCALE = 65535;

}  // namespace

std::size_t count(const Shape& shape) {
    std::size_t values = 1;
    for (const std::int64_t size : shape) values *= static_cast<std::size_t>(size);
    return values;
}

void copy(float* to, const float* from, std::size_t values, cudaMemcpyKind kind, cudaStream_t stream) {
    check(cudaMemcpyAsync(to, from, values * sizeof(float), kind, stream), "copy frames");
}

std::vector<float> positions(std::int64_t size_px, std::int64_t target_px) {
    std::vector<float> centres;
    for (std::int64_t i = 0; i < target_px; ++i) {
        const double scaled = (static_cast<double>(i) + 0.5) * static_cast<double>(size_px);
        centres.push_back(static_cast<float>(scaled / static_cast<double>(target_px) - 0.5));
    }
    return centres;
}

std::uint16_t to_uint16(float value, double low, double high) {
    const float scaled = (value - static_cast<float>(low)) * static_cast<float>(FULL_SCALE / (high - low));
    const float rounded = std::nearbyint(scaled);
    return static_cast<std::uint16_t>(rounded > 0 ? std::min(rounded, static_cast<float>(FULL_SCALE)) : 0.0F);
}

void HeldFrames::begin(Size shape, Size padded, const std::array<double, 2>& value_range) {
    forget(oldest_ + static_cast<std::int64_t>(held_.size()));
    oldest_ = 0;
    shape_ = shape;
    padded_ = padded;
    value_range_ = value_range;
}

void HeldFrames::upload(const std::vector<float>& rgb, cudaStream_t stream) {
    if (rgb.size() != count({3, shape_.height, shape_.width})) {
        throw RequestError("A frame of " + std::to_string(rgb.size()) + " values is not one of " + told(shape_) +
                           ": give three planes of that size.");
    }
    const std::size_t values = count({3, padded_.height, padded_.width});
    Staging& stage = staging_[uploads_++ % staging_.size()];
    stage.uploaded.wait();
    float* to = stage.pixels.reserve(values);
    const auto low = static_cast<float>(value_range_[0]);
    const auto span = static_cast<float>(value_range_[1] - value_range_[0]);
    for (std::int64_t row = 0; row < 3 * padded_.height; ++row) {
        const std::int64_t channel = row / padded_.height, y = std::min(row % padded_.height, shape_.height - 1);
        const float* from = rgb.data() + (channel * shape_.height + y) * shape_.width;
        for (std::int64_t x = 0; x < shape_.width; ++x) *to++ = from[x] * span + low;
        to = std::fill_n(to, padded_.width - shape_.width, to[-1]);
    }
    if (spare_.empty()) spare_.emplace_back();
    held_.push_back(std::move(spare_.back()));
    spare_.pop_back();
    copy(held_.back().reserve(values), stage.pixels.data(), values, cudaMemcpyHostToDevice, stream);
    stage.uploaded.record(stream);
}

void HeldFrames::forget(std::int64_t number) {
    for (; oldest_ < number; ++oldest_) {
        spare_.push_back(std::move(held_.front()));
        held_.pop_front();
    }
}

void HeldFrames::copy_to(float* window, const std::vector<std::int64_t>& numbers, cudaStream_t stream) const {
    const std::size_t values = count({3, padded_.height, padded_.width});
    for (const std::int64_t number : numbers) {
        const DeviceMemory& frame = held_[static_cast<std::size_t>(number - oldest_)];
        copy(window, frame.data(), values, cudaMemcpyDeviceToDevice, stream);
        window += values;
    }
}

void Results::begin(Size made, Size size, const std::array<double, 2>& value_range) {
    made_ = made;
    size_ = size;
    value_range_ = value_range;
    waiting_.clear();
    free_.clear();
    for (Result& result : all_) free_.push_back(&result);
}

Result& Results::take() {
    if (free_.empty()) return all_.emplace_back();
    Result* taken = free_.back();
    free_.pop_back();
    return *taken;
}

void Results::deliver(std::size_t keep, const Give& give) {
    for (; waiting_.size() > keep; waiting_.pop_front()) {
        Result& result = *waiting_.front();
        result.ready.wait();
        frame_.resize(count({3, size_.height, size_.width}));
        auto to = frame_.begin();
        for (std::int64_t row = 0; row < 3 * size_.height; ++row) {
            const std::int64_t from = row / size_.height * made_.height + row % size_.height;
            const float* values = result.pixels.data() + from * made_.width;
            for (std::int64_t x = 0; x < size_.width; ++x) {
                *to++ = to_uint16(values[x], value_range_[0], value_range_[1]);
            }
        }
        for (std::size_t i = 0; i < result.wanted; ++i) give(frame_);
        free_.push_back(&result);
    }
}

}  // namespace stvsr
