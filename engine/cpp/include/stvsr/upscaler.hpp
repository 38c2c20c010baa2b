#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bundle.hpp"
#include "request.hpp"

struct CUstream_st;  // cudaStream_t points to it

namespace stvsr {

// A frame, the times from it to the next one at which results are wanted, and whether its scene ends with it, as it
// does with the last frame of all.
struct InputFrame {
    std::vector<float> rgb;              // (3, h, w) in [0, 1]
    std::vector<Fraction> times = {{}};  // growing; 0 is the frame's own time
    bool last = false;
};

using Source = std::function<bool(InputFrame&)>;  // fills the next frame; false: there is none
using Sink = std::function<void(const std::vector<std::uint16_t>&)>;  // takes a frame (3, H, W), 65535 is white

// Runs a bundle's engines on frames that stream by, each frame whole.
//
// Frames are uploaded once, from page-locked memory; uploads, engines and downloads are enqueued on one stream, while
// the host turns earlier results into pixels. Buffers are kept from one call to the next.
class Upscaler {
public:
    struct Options {
        std::string precision = "fp32";  // or "fp16"
        int device = 0;
        CUstream_st* stream = nullptr;  // the host's own; else the upscaler makes one
    };

    // BundleError or BackendError where an engine is missing or cannot be opened; RequestError for a network that takes
    // optical flow: hosts that have one run its Session themselves; and for one that is to see smaller frames. Frames are
    // given as the network makes them, without the back-projection that a doubled sequence may have.
    explicit Upscaler(Bundle bundle) : Upscaler(std::move(bundle), Options{}) {}
    Upscaler(Bundle bundle, const Options& options);
    ~Upscaler();
    Upscaler(Upscaler&&) noexcept;
    Upscaler& operator=(Upscaler&&) noexcept;

    // Give a frame of `size` for every input frame, each of `shape`, and each of its times, in order. RequestError
    // where the bundle does not make such a size or such times, or an engine does not take such frames.
    void frames(const Source& next, Size shape, Size size, const Sink& give);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stvsr
