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

void DeviceFrames::reset(Size size, Size padded_size, const std::array<double, 2>& value_range) {
    release_before(oldest_ + static_cast<std::int64_t>(frames_.size()));
    oldest_ = 0;
    size_ = size;
    padded_size_ = padded_size;
    value_range_ = value_range;
}

void DeviceFrames::upload(const std::vector<float>& rgb, cudaStream_t stream) {
    if (rgb.size() != count({3, size_.height, size_.width})) {
        throw RequestError("A frame of " + std::to_string(rgb.size()) + " values does not have the size " +
                           to_string(size_) + ": pass three planes of that size.");
    }
    const std::size_t values = count({3, padded_size_.height, padded_size_.width});
    Staging& staging = staging_[uploads_++ % staging_.size()];
    staging.uploaded.wait();
    float* to = staging.pixels.reserve(values);
    const auto low = static_cast<float>(value_range_[0]);
    const auto span = static_cast<float>(value_range_[1] - value_range_[0]);
    for (std::int64_t row = 0; row < 3 * padded_size_.height; ++row) {
        const std::int64_t channel = row / padded_size_.height;
        const std::int64_t y = std::min(row % padded_size_.height, size_.height - 1);
        const float* from = rgb.data() + (channel * size_.height + y) * size_.width;
        for (std::int64_t x = 0; x < size_.width; ++x) *to++ = from[x] * span + low;
        to = std::fill_n(to, padded_size_.width - size_.width, to[-1]);
    }
    if (spare_.empty()) spare_.emplace_back();
    frames_.push_back(std::move(spare_.back()));
    spare_.pop_back();
    copy(frames_.back().reserve(values), staging.pixels.data(), values, cudaMemcpyHostToDevice, stream);
    staging.uploaded.record(stream);
}

void DeviceFrames::release_before(std::int64_t number) {
    for (; oldest_ < number; ++oldest_) {
        spare_.push_back(std::move(frames_.front()));
        frames_.pop_front();
    }
}

void DeviceFrames::copy_to(float* window, const std::vector<std::int64_t>& numbers, cudaStream_t stream) const {
    const std::size_t values = count({3, padded_size_.height, padded_size_.width});
    for (const std::int64_t number : numbers) {
        const DeviceBuffer& frame = frames_[static_cast<std::size_t>(number - oldest_)];
        copy(window, frame.data(), values, cudaMemcpyDeviceToDevice, stream);
        window += values;
    }
}

void OutputQueue::reset(Size computed_size, Size output_size, const std::array<double, 2>& value_range) {
    computed_size_ = computed_size;
    output_size_ = output_size;
    value_range_ = value_range;
    queue_.clear();
    free_.clear();
    for (PendingOutput& output : outputs_) free_.push_back(&output);
}

PendingOutput& OutputQueue::acquire() {
    if (free_.empty()) return outputs_.emplace_back();
    PendingOutput* output = free_.back();
    free_.pop_back();
    return *output;
}

void OutputQueue::drain(std::size_t limit, const Sink& sink) {
    for (; queue_.size() > limit; queue_.pop_front()) {
        PendingOutput& output = *queue_.front();
        output.ready.wait();
        frame_.resize(count({3, output_size_.height, output_size_.width}));
        auto to = frame_.begin();
        for (std::int64_t row = 0; row < 3 * output_size_.height; ++row) {
            const std::int64_t from = row / output_size_.height * computed_size_.height + row % output_size_.height;
            const float* values = output.pixels.data() + from * computed_size_.width;
            for (std::int64_t x = 0; x < output_size_.width; ++x) {
                if (!std::isfinite(values[x])) {
                    throw BackendError("The network computes values that are not finite numbers: use a higher precision"
                                       " (--precision tf32 or fp32), or another bundle.");
                }
                *to++ = to_uint16(values[x], value_range_[0], value_range_[1]);
            }
        }
        for (std::size_t i = 0; i < output.copies; ++i) sink(frame_);
        free_.push_back(&output);
    }
}

}  // namespace stvsr
