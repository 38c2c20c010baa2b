#include "stvsr/windows.hpp"

#include <algorithm>
#include <utility>

namespace stvsr {
namespace {

// Return the frames of the sliding window of `count` frames around frame `centre`, as indices in their scene. `last` is
// the index of the scene's last frame, or -1 if it is not known yet.
// The paddings are those of the official test code of EDVR.
std::vector<std::int64_t> sliding_window(std::int64_t centre, std::int64_t count, std::int64_t last,
                                         const std::string& padding) {
    const std::int64_t radius = count / 2;
    std::vector<std::int64_t> indices;
    for (std::int64_t position = centre - radius; position <= centre + radius; ++position) {
        std::int64_t index = position;
        if (position < 0) {
            index = padding == "replicate" ? 0 : padding == "reflection" ? -position : centre + radius - position;
        } else if (last >= 0 && position > last) {
            index = padding == "replicate"    ? last
                    : padding == "reflection" ? 2 * last - position
                                              : centre - radius - (position - last);
        }
        // In a scene shorter than the window, a padded index may still be outside: take the nearest frame.
        if (last >= 0) index = std::min(index, last);
        indices.push_back(std::max<std::int64_t>(0, index));
    }
    return indices;
}

}  // namespace

std::vector<WindowFrames> WindowSplitter::push(std::vector<Fraction> times, bool last) {
    buffer_.push_back({next_number_++, std::move(times)});
    std::vector<WindowFrames> windows;
    switch (window_.kind) {
        case Window::Kind::pair:
        case Window::Kind::run: split_runs(last, windows); break;
        case Window::Kind::doubled: split_doubled(last, windows); break;
        case Window::Kind::sliding: split_sliding(last, windows); break;
    }
    if (last) {
        buffer_.clear();
        start_ = scene_index_ = 0;
    }
    return windows;
}

void WindowSplitter::drop(std::int64_t count) {
    buffer_.erase(buffer_.begin(), buffer_.begin() + count);
    start_ -= count;
    scene_index_ += count;
}

void WindowSplitter::split_runs(bool last, std::vector<WindowFrames>& windows) {
    const std::int64_t count = window_.frames;
    if (!last && size() - start_ < count) return;
    drop(last ? std::max<std::int64_t>(0, size() - count) : start_);
    WindowFrames window;
    for (std::int64_t index = 0; index < count; ++index) {
        window.frames.push_back(frame(std::min(index, size() - 1)).number);
    }
    for (std::int64_t index = start_; index < size() - 1; ++index) {
        for (const Fraction& time : frame(index).times) window.outputs.push_back({index, time});
    }
    if (last) {  // no frame follows the last one of a scene, so it is repeated at all of its times
        for (std::size_t i = 0; i < buffer_.back().times.size(); ++i) window.outputs.push_back({size() - 1, {}});
    }
    start_ = size() - 1;
    windows.push_back(std::move(window));
}

void WindowSplitter::split_doubled(bool last, std::vector<WindowFrames>& windows) {
    const std::int64_t stop = last ? size() : start_ + window_.frames;
    if (!last && size() < stop + window_.overlap) return;
    WindowFrames window;
    for (const Frame& buffered : buffer_) window.frames.push_back(buffered.number);
    if (size() == 1) window.frames.push_back(buffer_.front().number);  // a network interpolates between at least two
    for (std::int64_t index = start_; index < stop; ++index) {
        for (const Fraction& time : frame(index).times) window.outputs.push_back({index, time});
    }
    windows.push_back(std::move(window));
    start_ = stop;
    drop(std::max<std::int64_t>(0, stop - window_.overlap));
}

void WindowSplitter::split_sliding(bool last, std::vector<WindowFrames>& windows) {
    const std::int64_t radius = window_.frames / 2, newest = scene_index_ + size() - 1;
    while (start_ < size()) {
        const auto indices = sliding_window(scene_index_ + start_, window_.frames, last ? newest : -1, window_.padding);
        if (!last && *std::max_element(indices.begin(), indices.end()) > newest) return;
        WindowFrames window;
        for (const std::int64_t index : indices) window.frames.push_back(frame(index - scene_index_).number);
        for (const Fraction& time : frame(start_).times) window.outputs.push_back({radius, time});
        windows.push_back(std::move(window));
        ++start_;
        drop(std::max<std::int64_t>(0, start_ - 2 * radius));  // reflection uses frames up to 2 * radius back
    }
}

}  // namespace stvsr
