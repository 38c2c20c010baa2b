#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "errors.hpp"

namespace stvsr {

constexpr std::int64_t FORMAT = 1;

using Axis = std::variant<std::int64_t, std::string>;  // a fixed size, or a free one's name: "height", "4*height"

struct TensorSpec {
    std::string name, dtype;
    std::vector<Axis> axes;
};

struct Graph {
    std::string role;  // "encoder", "decoder" or "network"
    std::string file, sha256;
    std::vector<TensorSpec> inputs, outputs;
};

// How frames are fed; the kinds are explained in windows.hpp.
struct Window {
    enum class Kind { pair, run, sliding, doubled };
    Kind kind = Kind::pair;
    std::int64_t frames = 2;
    std::string padding;       // of a sliding window: "replicate", "reflection" or "reflection_circle"
    std::int64_t overlap = 0;  // of a doubled sequence
    std::int64_t coarse = 1;   // how many times smaller its frames are to be made
};

// An input of a graph that takes optical flows, (B, pairs, 2, h, w): (dx, dy) in input pixels for each (from, to).
struct FlowInput {
    std::string name, method;
    std::vector<std::array<std::int64_t, 2>> pairs;
};

struct ContinuousSpace {
    double minimum = 1, maximum = 1;
};

struct ContinuousTime {};

struct FixedFactors {
    std::vector<std::int64_t> factors;
};

using Space = std::variant<ContinuousSpace, FixedFactors>;
using Time = std::variant<ContinuousTime, FixedFactors>;

// Whether an axis of `size_px` can become `target_px`.
bool serves(const Space& space, std::int64_t size_px, std::int64_t target_px);
// "x1 to x8", "x2, x4", "any".
std::string told(const Space& space);
std::string told(const Time& time);

// The sizes that a network takes, in input pixels.
struct SizeConstraint {
    std::int64_t minimum = 1, multiple_of = 1;

    // The least size that the network takes and that holds `size_px`.
    std::int64_t padded(std::int64_t size_px) const;
};

// An engine's file, beside the graphs, and what it was built from and for.
struct Engine {
    std::string role, graph_sha256;
    std::string precision;                                      // "fp32" or "fp16"
    std::map<std::string, std::array<std::int64_t, 3>> shapes;  // smallest, usual and largest size of each free axis
    std::string target;                                         // compute capability, as in "sm89"
    std::string library;                                        // "tensorrt" or "tensorrt-rtx"
    std::string version;                                        // of the library
    std::int64_t lowering = 0;
    bool refit = false;    // whether its weights can be replaced while it is open
    bool plugins = false;  // whether it holds stvsr's own kernels
    std::string file, sha256;
};

// What `manifest.json` says of how to run the network; the other fields are checked and left out.
struct Manifest {
    std::string name;
    std::vector<Graph> graphs;
    Window window;
    std::vector<FlowInput> flows;
    Space space;
    Time time;
    std::array<double, 2> value_range{0, 1};
    SizeConstraint size;
    std::optional<std::int64_t> halo_px;
    std::string licence;
    std::vector<Engine> engines;
};

// BundleError names the field of `path` that is missing, unknown or not what the format says.
Manifest parse_manifest(std::string_view text, const std::string& path);

}  // namespace stvsr
