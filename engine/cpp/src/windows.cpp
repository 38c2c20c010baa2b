#include "windows.hpp"

#include <algorithm>
#include <utility>

namespace stvsr {

std::vector<Feed> Windows::push(std::vector<Fraction> times, bool last) {
    held_.push_back({next_++, std::move(times)});
    std::vector<Feed> feeds;
    switch (window_.kind) {
        case Window::Kind::pair:
        case Window::Kind::run: runs(last, feeds); break;
        case Window::Kind::doubled: doubled(last, feeds); break;
        case Window::Kind::sliding: sliding(last, feeds); break;
    }
    if (last) {
        held_.clear();
        start_ = first_ = 0;
    }
    return feeds;
}

void Windows::drop(std::int64_t count) {
    held_.erase(held_.begin(), held_.begin() + count);
    start_ -= count;
    first_ += count;
}

void Windows::runs(bool last, std::vector<Feed>& feeds) {
    const std::int64_t count = window_.frames;
    if (!last && size() - start_ < count) return;
    drop(last ? std::max<std::int64_t>(0, size() - count) : start_);
    Feed feed;
    for (std::int64_t place = 0; place < count; ++place) {
        feed.frames.push_back(held(std::min(place, size() - 1)).number);
    }
    for (std::int64_t place = start_; place < size() - 1; ++place) {
        for (const Fraction& time : held(place).times) feed.wanted.push_back({place, time});
    }
    if (last) {  // after the last frame of a scene nothing comes: it stays
        for (std::size_t i = 0; i < held_.back().times.size(); ++i) feed.wanted.push_back({size() - 1, {}});
    }
    start_ = size() - 1;
    feeds.push_back(std::move(feed));
}

void Windows::doubled(bool last, std::vector<Feed>& feeds) {
    const std::int64_t stop = last ? size() : start_ + window_.frames;
    if (!last && size() < stop + window_.overlap) return;
    Feed feed;
    for (const Held& frame : held_) feed.frames.push_back(frame.number);
    if (size() == 1) feed.frames.push_back(held_.front().number);  // a network interpolates between two at least
    for (std::int64_t place = start_; place < stop; ++place) {
        for (const Fraction& time : held(place).times) feed.wanted.push_back({place, time});
    }
    feeds.push_back(std::move(feed));
    start_ = stop;
    drop(std::max<std::int64_t>(0, stop - window_.overlap));
}

void Windows::sliding(bool last, std::vector<Feed>& feeds) {
    const std::int64_t radius = window_.frames / 2, newest = first_ + size() - 1;
    while (start_ < size()) {
        const auto numbers =
            window_numbers(first_ + start_, window_.frames, last ? newest : -1, window_.padding);
        if (!last && *std::max_element(numbers.begin(), numbers.end()) > newest) return;
        Feed feed;
        for (const std::int64_t number : numbers) feed.frames.push_back(held(number - first_).number);
        for (const Fraction& time : held(start_).times) feed.wanted.push_back({radius, time});
        feeds.push_back(std::move(feed));
        ++start_;
        drop(std::max<std::int64_t>(0, start_ - 2 * radius));  // reflection reaches back as far
    }
}

std::vector<std::int64_t> window_numbers(std::int64_t centre, std::int64_t count, std::int64_t last,
                                         const std::string& padding) {
    const std::int64_t radius = count / 2;
    std::vector<std::int64_t> numbers;
    for (std::int64_t number = centre - radius; number <= centre + radius; ++number) {
        std::int64_t stands_in = number;
        if (number < 0) {
            stands_in = padding == "replicate" ? 0 : padding == "reflection" ? -number : centre + radius - number;
        } else if (last >= 0 && number > last) {
            stands_in = padding == "replicate"    ? last
                        : padding == "reflection" ? 2 * last - number
                                                  : centre - radius - (number - last);
        }
        if (last >= 0) stands_in = std::min(stands_in, last);
        numbers.push_back(std::max<std::int64_t>(0, stands_in));
    }
    return numbers;
}

}  // namespace stvsr
