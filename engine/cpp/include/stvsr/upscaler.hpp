#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stvsr/bundle.hpp"
#include "stvsr/request.hpp"

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace stvsr {

// An input frame and the times, from it to the next one, at which output frames are requested.
struct InputFrame {
    std::vector<float> rgb;              // (3, h, w) in [0, 1]
    std::vector<Fraction> times = {{}};  // increasing; 0 is the frame's own time
    bool last = false;                   // whether its scene ends here; must be true for the last frame of the stream
};

using Source = std::function<bool(InputFrame&)>;  // fills in the next frame, or returns false at the end
using Sink = std::function<void(const std::vector<std::uint16_t>&)>;  // receives a frame (3, H, W); white is 65535

// The engines of a bundle, for streams of frames. Each frame is processed whole, without tiles.
//
// Each frame is uploaded once, from page-locked memory. Uploads, engines and downloads are enqueued on one CUDA stream,
// while the host converts earlier outputs to pixels. Buffers are reused from one call to the next.
class Upscaler {
public:
    struct Options {
        std::string precision = "fp32";  // or "tf32", "fp16"
        int device = 0;
        CUstream_st* stream = nullptr;  // the caller's stream; if null, the upscaler creates its own
    };

    // Open the bundle's engines. Throws BundleError or BackendError if an engine is missing or cannot be opened, and
    // RequestError for a network that takes optical flow (compute the flow and run its Session instead) or whose frames
    // are back-projected (a window with `coarse`).
    explicit Upscaler(Bundle bundle) : Upscaler(std::move(bundle), Options{}) {}
    Upscaler(Bundle bundle, const Options& options);
    ~Upscaler();
    Upscaler(Upscaler&&) noexcept;
    Upscaler& operator=(Upscaler&&) noexcept;

    // Upscale all frames of `source` from `input_size` to `output_size`: pass one frame to `sink` for each input frame
    // and each of its times, in order. Throws RequestError if the bundle does not support the size or the times, or an
    // engine does not take frames of this size. The upscaler can be used again after an error.
    void frames(const Source& source, Size input_size, Size output_size, const Sink& sink);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stvsr
