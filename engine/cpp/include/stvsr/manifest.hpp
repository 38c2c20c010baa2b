#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "stvsr/errors.hpp"

namespace stvsr {

constexpr std::int64_t FORMAT = 1;  // version of the manifest's format

using Axis = std::variant<std::int64_t, std::string>;  // a fixed size, or a free axis: "height", "4*height"

// One input or output of a graph.
struct TensorSpec {
    std::string name, dtype;
    std::vector<Axis> axes;
};

struct Graph {
    std::string role;  // "encoder", "refiner", "decoder", "integer_decoder" or "network"
    std::string file, sha256;
    std::vector<TensorSpec> inputs, outputs;
};

// The windows of frames that a network takes; windows.hpp describes the kinds.
struct Window {
    enum class Kind { pair, run, sliding, doubled };
    Kind kind = Kind::pair;
    std::int64_t frames = 2;
    std::string padding;       // of a sliding window: "replicate", "reflection" or "reflection_circle"
    std::int64_t overlap = 0;  // of a doubled sequence, in frames
    std::int64_t coarse = 0;   // of a doubled sequence that is back-projected: the factor by which input frames shrink
};

// An input of a graph that takes optical flows, (B, pairs, 2, h, w): (dx, dy) in input pixels for each (from, to).
struct FlowInput {
    std::string name, method;
    std::vector<std::array<std::int64_t, 2>> pairs;
};

// Any factor from `minimum` to `maximum`, independently for each axis.
struct ContinuousSpace {
    double minimum = 1, maximum = 1;
};

// Any time between two frames.
struct ContinuousTime {};

// Only these factors, in space or in time.
struct FixedFactors {
    std::vector<std::int64_t> factors;
};

using Space = std::variant<ContinuousSpace, FixedFactors>;
using Time = std::variant<ContinuousTime, FixedFactors>;

// Return whether an axis of `size_px` can be upscaled to `target_px`; half a pixel beyond a continuous range is
// allowed.
bool serves(const Space& space, std::int64_t size_px, std::int64_t target_px);
// Format the factors, as in "x1 to x8", "x2, x4" or "any".
std::string to_string(const Space& space);
std::string to_string(const Time& time);

// The frame sizes that a network takes, in input pixels.
struct SizeConstraint {
    std::int64_t minimum = 1, multiple_of = 1;

    // Return the smallest size that the network takes and that is at least `size_px`.
    std::int64_t padded(std::int64_t size_px) const;
};

// An engine's file in the bundle's folder, and the properties that it was built with.
struct Engine {
    std::string role, graph_sha256;
    std::string precision;                                      // "fp32", "tf32" or "fp16"
    std::map<std::string, std::array<std::int64_t, 3>> shapes;  // smallest, usual and largest size of each free axis
    std::string target;                                         // compute capability, as in "sm89"
    std::string library;                                        // "tensorrt" or "tensorrt-rtx"
    std::string version;                                        // of the library
    std::int64_t lowering = 0;                                  // version of the passes between graph and engine
    bool refit = false;                                         // whether its weights can be replaced while it is open
    bool plugins = false;                                       // whether it contains stvsr's own kernels
    std::string file, sha256;
};

// The fields of `manifest.json` that are needed to run the network; the other fields are checked and dropped.
struct Manifest {
    std::string name;
    std::vector<Graph> graphs;
    Window window;
    std::vector<FlowInput> flows;
    Space space;
    Time time;
    std::array<double, 2> value_range{0, 1};
    SizeConstraint size;
    std::optional<std::int64_t> halo_px;  // empty if the network cannot be tiled
    std::string licence;
    std::vector<Engine> engines;
};

// Parse and check a manifest; `path` is its name in messages. Throws BundleError with the field that is missing,
// unknown or invalid.
Manifest parse_manifest(std::string_view text, const std::string& path);

}  // namespace stvsr
