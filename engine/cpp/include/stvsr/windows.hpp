#pragma once

#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "stvsr/manifest.hpp"

namespace stvsr {

// A time after a frame, as a fraction of the gap to the next frame, in [0, 1).
struct Fraction {
    std::int64_t numerator = 0, denominator = 1;

    double value() const { return static_cast<double>(numerator) / static_cast<double>(denominator); }
};

inline bool operator==(const Fraction& a, const Fraction& b) {
    return a.numerator * b.denominator == b.numerator * a.denominator;
}

// An output frame of a window: `time` after the frame at `index` in the window.
struct Output {
    std::int64_t index = 0;
    Fraction time;

    // Return the time since the window's first frame, in gaps between frames.
    double time_in_window() const {
        return static_cast<double>(index * time.denominator + time.numerator) / static_cast<double>(time.denominator);
    }
};

inline bool operator==(const Output& a, const Output& b) { return a.index == b.index && a.time == b.time; }

// The input frames of one run of a network, by their numbers in the stream, and the requested outputs, in order.
struct WindowFrames {
    std::vector<std::int64_t> frames;
    std::vector<Output> outputs;
};

// A splitter of a stream of frames into the windows of a network. It knows frames by their numbers alone: 0, 1, 2, ...
//
// The outputs of all windows together are one for each frame and each of its times, in order. No window crosses the end
// of a scene.
// - pair and run: neighbouring frames; consecutive windows share one frame. The last window of a scene reaches back to
//   have its full length.
// - sliding: an odd number of frames around the one that is restored; `padding` fills the window at the scene's ends.
// - doubled: the window's number of frames, and `overlap` more on each side as far as the scene has them.
class WindowSplitter {
public:
    explicit WindowSplitter(Window window) : window_(std::move(window)) {}

    // Add the next frame, the times requested of it, and whether its scene ends here; return the windows that it
    // completes.
    std::vector<WindowFrames> push(std::vector<Fraction> times, bool last);

    // Return the number of the first frame that a later window may contain.
    std::int64_t oldest() const { return buffer_.empty() ? next_number_ : buffer_.front().number; }

private:
    struct Frame {
        std::int64_t number;
        std::vector<Fraction> times;
    };

    void split_runs(bool last, std::vector<WindowFrames>& windows);
    void split_doubled(bool last, std::vector<WindowFrames>& windows);
    void split_sliding(bool last, std::vector<WindowFrames>& windows);
    void drop(std::int64_t count);
    std::int64_t size() const { return static_cast<std::int64_t>(buffer_.size()); }
    const Frame& frame(std::int64_t index) const { return buffer_[static_cast<std::size_t>(index)]; }

    Window window_;
    std::deque<Frame> buffer_;      // frames of one scene
    std::int64_t start_ = 0;        // index in `buffer_` of the first frame without a window for its outputs
    std::int64_t scene_index_ = 0;  // index in its scene of the first buffered frame
    std::int64_t next_number_ = 0;
};

}  // namespace stvsr
