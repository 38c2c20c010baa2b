#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "manifest.hpp"

namespace stvsr {

// A time after a frame, as a part of the gap to the next one, in [0, 1).
struct Fraction {
    std::int64_t numerator = 0, denominator = 1;

    // The time, `place` frames later.
    double after(std::int64_t place) const {
        return static_cast<double>(place * denominator + numerator) / static_cast<double>(denominator);
    }
};

inline bool operator==(const Fraction& a, const Fraction& b) {
    return a.numerator * b.denominator == b.numerator * a.denominator;
}

// One result of a window: at `time` after the frame at `place`.
struct Wanted {
    std::int64_t place = 0;
    Fraction time;
};

inline bool operator==(const Wanted& a, const Wanted& b) { return a.place == b.place && a.time == b.time; }

// What one run of a network is fed, by the frames' numbers in the stream, and its results that are wanted, in order.
struct Feed {
    std::vector<std::int64_t> frames;
    std::vector<Wanted> wanted;
};

// Turns frames that stream by into the windows of a network, by their numbers alone: 0, 1, 2 ...
//
// The wanted results of all windows, taken together, are one for each frame and each of its times, in order. No window
// reaches over a scene's end.
// - pair and run: neighbours; the next window begins with the last frame. A scene's last reaches back to be as long.
// - sliding: an odd number of frames around the one that is restored; `padding` stands in beyond the scene's ends.
// - doubled: as many frames as the window says, and on both sides `overlap` more where the scene has them.
class Windows {
public:
    explicit Windows(Window window) : window_(std::move(window)) {}

    // Take the next frame, the times wanted of it, and whether its scene ends with it; give the windows now complete.
    std::vector<Feed> push(std::vector<Fraction> times, bool last);

    // The number of the first frame that a later window may hold.
    std::int64_t oldest() const { return held_.empty() ? next_ : held_.front().number; }

private:
    struct Held {
        std::int64_t number;
        std::vector<Fraction> times;
    };

    void runs(bool last, std::vector<Feed>& feeds);
    void doubled(bool last, std::vector<Feed>& feeds);
    void sliding(bool last, std::vector<Feed>& feeds);
    void drop(std::int64_t count);
    std::int64_t size() const { return static_cast<std::int64_t>(held_.size()); }
    const Held& held(std::int64_t place) const { return held_[static_cast<std::size_t>(place)]; }

    Window window_;
    std::deque<Held> held_;   // frames of one scene
    std::int64_t start_ = 0;  // in `held_`, the first frame whose results were not asked for yet
    std::int64_t first_ = 0;  // the number in its scene of the first frame held
    std::int64_t next_ = 0;
};

// Which frames of a scene stand in the window around frame `centre`; `last` is the scene's last, -1 if not known.
std::vector<std::int64_t> window_numbers(std::int64_t centre, std::int64_t count, std::int64_t last,
                                         const std::string& padding);

}  // namespace stvsr
