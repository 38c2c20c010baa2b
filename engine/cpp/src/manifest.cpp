#include "stvsr/manifest.hpp"

#include <algorithm>
#include <set>
#include <sstream>
#include <type_traits>

#include "fields.hpp"

namespace stvsr {
namespace {

// Limits far above every network: a manifest that states more would take all memory. They are those of
// engine/contract/manifest.py.
constexpr std::int64_t LARGEST_PX = 4096, LARGEST_FACTOR = 64, LARGEST_WINDOW = 1024;
constexpr double LARGEST_VALUE = 1e6, LEAST_RANGE = 1e-6;

// Accept only a bare name, so that a bundle cannot point outside its folder.
std::string parse_file_name(const Field& field) {
    const std::string name = field.string();
    const auto allowed = [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '-' ||
               c == '.' || static_cast<unsigned char>(c) >= 0x80;
    };
    if (name.empty() || name[0] == '.' || !std::all_of(name.begin(), name.end(), allowed)) {
        field.fail("expected a bare file name");
    }
    return name;
}

std::string parse_sha256(const Field& field) {
    const std::string hex = field.string();
    if (hex.size() != 64 || hex.find_first_not_of("0123456789abcdef") != std::string::npos) {
        field.fail("expected a SHA-256 in hex");
    }
    return hex;
}

std::string parse_target(const Field& field) {
    const std::string name = field.string();
    if (name.size() < 3 || name.rfind("sm", 0) != 0 || name.find_first_not_of("0123456789", 2) != std::string::npos) {
        field.fail("expected a compute capability such as 'sm89'");
    }
    return name;
}

std::int64_t parse_integer(const Field& field) { return field.integer(); }
std::int64_t parse_factor(const Field& field) { return field.integer(1, LARGEST_FACTOR); }

double parse_level(const Field& field) {
    const double level = field.real();
    if (!(level >= -LARGEST_VALUE && level <= LARGEST_VALUE)) field.fail("expected a number from -1e6 to 1e6");
    return level;
}


Axis parse_axis(const Field& field) {
    if (const auto* size = std::get_if<std::int64_t>(&field.value.data)) return *size;
    return field.string();
}

TensorSpec parse_tensor(const Field& field) {
    Fields fields(field);
    TensorSpec spec{fields["name"].string(), fields["dtype"].string(), fields["axes"].list<Axis>(parse_axis)};
    fields.refuse_others();
    return spec;
}

std::string parse_role(const Field& field) { return field.one_of({"encoder", "refiner", "decoder", "integer_decoder", "network"}); }

Graph parse_graph(const Field& field) {
    Fields fields(field);
    Graph graph{parse_role(fields["role"]), parse_file_name(fields["file"]), parse_sha256(fields["sha256"]),
                fields["inputs"].list<TensorSpec>(parse_tensor), fields["outputs"].list<TensorSpec>(parse_tensor)};
    fields.refuse_others();
    return graph;
}

Window parse_window(const Field& field) {
    Fields fields(field);
    const std::string kind = fields["kind"].one_of({"pair", "run", "sliding", "doubled"});
    Window window;
    if (kind == "pair") {
        window.frames = 2;
        const auto frames = fields.find("frames");
        if (frames && frames->integer(2, LARGEST_WINDOW) != 2) frames->fail("expected 2");
    } else {
        window.frames = fields["frames"].integer(kind == "run" ? 2 : 1, LARGEST_WINDOW);
    }
    if (kind == "run") window.kind = Window::Kind::run;
    if (kind == "sliding") {
        window.kind = Window::Kind::sliding;
        window.padding = fields["padding"].one_of({"replicate", "reflection", "reflection_circle"});
        if (window.frames % 2 == 0) throw InvalidField{"", "a sliding window has an odd number of frames"};
    }
    if (kind == "doubled") {
        window.kind = Window::Kind::doubled;
        window.overlap = fields["overlap"].integer(0, LARGEST_WINDOW);
        if (const auto coarse = fields.find("coarse"); coarse && !coarse->null()) window.coarse = coarse->integer(1, LARGEST_FACTOR);
    }
    fields.refuse_others();
    return window;
}

std::array<std::int64_t, 2> parse_flow_pair(const Field& field) { return field.array<std::int64_t, 2>(parse_integer); }

FlowInput parse_flow(const Field& field) {
    Fields fields(field);
    const auto method = fields.find("method");
    FlowInput flow{fields["name"].string(), method ? method->one_of({"farneback", "dis"}) : "farneback",
                   fields["pairs"].nonempty_list<std::array<std::int64_t, 2>>(parse_flow_pair)};
    if (const auto unit = fields.find("unit")) unit->one_of({"input pixels"});
    if (const auto components = fields.find("components")) components->one_of({"dx, dy"});
    fields.refuse_others();
    return flow;
}

template <class Continuous>
std::variant<Continuous, FixedFactors> parse_factors(const Field& field) {
    Fields fields(field);
    std::variant<Continuous, FixedFactors> factors;
    if (fields["kind"].one_of({"continuous", "fixed"}) == "fixed") {
        factors = FixedFactors{fields["factors"].nonempty_list<std::int64_t>(parse_factor)};
    } else if constexpr (std::is_same_v<Continuous, ContinuousSpace>) {
        const ContinuousSpace range{fields["minimum"].real(), fields["maximum"].real()};
        if (!(range.minimum > 0)) fields["minimum"].fail("expected a number above 0");
        if (!(range.maximum <= LARGEST_FACTOR)) {
            fields["maximum"].fail("expected a number of at most " + std::to_string(LARGEST_FACTOR));
        }
        if (range.minimum > range.maximum) {
            throw InvalidField{"", "the smallest space factor is larger than the largest"};
        }
        factors = range;
    }
    fields.refuse_others();
    return factors;
}

SizeConstraint parse_size_constraint(const Field& field) {
    Fields fields(field);
    SizeConstraint constraint;
    if (const auto minimum = fields.find("minimum")) constraint.minimum = minimum->integer(1, LARGEST_PX);
    if (const auto multiple = fields.find("multiple_of")) constraint.multiple_of = multiple->integer(1, LARGEST_PX);
    fields.refuse_others();
    return constraint;
}

Engine parse_engine(const Field& field) {
    Fields fields(field);
    Engine engine;
    engine.role = parse_role(fields["role"]);
    engine.graph_sha256 = parse_sha256(fields["graph_sha256"]);
    engine.precision = fields["precision"].one_of({"fp32", "tf32", "fp16"});
    const Field shapes = fields["shapes"];
    for (const auto& [name, value] : shapes.as<json::Object>("an object")) {
        engine.shapes[name] = Field{value, shapes.path + "." + name}.array<std::int64_t, 3>(parse_integer);
    }
    engine.target = parse_target(fields["target"]);
    engine.library = fields["library"].one_of({"tensorrt", "tensorrt-rtx"});
    engine.version = fields["version"].string();
    engine.lowering = fields["lowering"].integer();
    if (const auto refit = fields.find("refit")) engine.refit = refit->boolean();
    if (const auto plugins = fields.find("plugins")) engine.plugins = plugins->boolean();
    engine.file = parse_file_name(fields["file"]);
    engine.sha256 = parse_sha256(fields["sha256"]);
    fields.refuse_others();
    return engine;
}

const char* kind_name(Window::Kind kind) {
    switch (kind) {
        case Window::Kind::pair: return "pair";
        case Window::Kind::run: return "run";
        case Window::Kind::sliding: return "sliding";
        default: return "doubled";
    }
}

void check_consistent(const Manifest& manifest) {
    const Window& window = manifest.window;
    const auto fixed_only = [&](std::int64_t factor) {
        const auto* fixed = std::get_if<FixedFactors>(&manifest.time);
        return fixed != nullptr && fixed->factors == std::vector<std::int64_t>{factor};
    };
    bool time_supported = true;
    if (window.kind == Window::Kind::run) {
        time_supported = std::holds_alternative<ContinuousTime>(manifest.time) || fixed_only(2);
    }
    if (window.kind == Window::Kind::sliding) time_supported = fixed_only(1);
    if (window.kind == Window::Kind::doubled) time_supported = fixed_only(2);
    const std::string kind = kind_name(window.kind);
    if (!time_supported) {
        throw InvalidField{
            "", "a window of kind '" + kind + "' does not support the time factors (" + to_string(manifest.time) + ")"};
    }
    std::multiset<std::string> roles;
    for (const Graph& graph : manifest.graphs) roles.insert(graph.role);
    std::multiset<std::string> pair_roles{"decoder", "encoder"};
    for (const char* optional : {"integer_decoder", "refiner"}) {
        if (roles.count(optional) != 0) pair_roles.insert(optional);
    }
    if (window.kind == Window::Kind::pair && roles != pair_roles) {
        throw InvalidField{"", "a window of kind 'pair' takes the graphs decoder and encoder"};
    }
    if (window.kind != Window::Kind::pair && roles != std::multiset<std::string>{"network"}) {
        throw InvalidField{"", "a window of kind '" + kind + "' takes the graph network"};
    }
    for (const FlowInput& flow : manifest.flows) {
        for (const auto& pair : flow.pairs) {
            if (std::min(pair[0], pair[1]) < 0 || std::max(pair[0], pair[1]) >= window.frames) {
                throw InvalidField{"", "the flows '" + flow.name + "' use frames outside the window of " +
                                           std::to_string(window.frames)};
            }
        }
    }
    if (const std::int64_t coarse = window.coarse; coarse != 0) {
        if ((coarse & (coarse - 1)) != 0) {
            throw InvalidField{"", "the window's 'coarse' is a power of two (1, 2, 4, ...), not " + std::to_string(coarse)};
        }
        const auto* fixed = std::get_if<FixedFactors>(&manifest.space);
        if (fixed == nullptr || fixed->factors != std::vector<std::int64_t>{1}) {
            throw InvalidField{"", "the window's 'coarse' is for networks that keep the size, not for " +
                                       to_string(manifest.space)};
        }
    }
    if (!(manifest.value_range[1] - manifest.value_range[0] >= LEAST_RANGE)) {
        throw InvalidField{"", "the value range is empty"};
    }
}

Manifest parse_fields(const json::Value& value) {
    Fields fields({value, ""});
    if (const Field format = fields["format"]; format.integer() != FORMAT) format.fail("expected 1");
    Manifest manifest;
    manifest.name = fields["name"].string();
    Fields architecture(fields["architecture"]);
    architecture["name"].string();
    architecture["config"].as<json::Object>("an object");
    architecture.refuse_others();
    manifest.graphs = fields["graphs"].list<Graph>(parse_graph);
    manifest.window = parse_window(fields["window"]);
    if (const auto flows = fields.find("flows")) manifest.flows = flows->list<FlowInput>(parse_flow);
    manifest.space = parse_factors<ContinuousSpace>(fields["space"]);
    manifest.time = parse_factors<ContinuousTime>(fields["time"]);
    manifest.value_range = fields["value_range"].array<double, 2>(parse_level);
    fields["channel_order"].one_of({"RGB"});
    manifest.size = parse_size_constraint(fields["size"]);
    if (const Field halo = fields["halo_px"]; !halo.null()) manifest.halo_px = halo.integer(0, LARGEST_PX);
    if (const auto precisions = fields.find("precisions")) precisions->as<json::Object>("an object");
    fields["training"].as<json::Object>("an object");
    fields["scores"].as<json::Object>("an object");
    manifest.licence = fields["licence"].string();
    if (const auto engines = fields.find("engines")) manifest.engines = engines->list<Engine>(parse_engine);
    fields.refuse_others();
    check_consistent(manifest);
    return manifest;
}

std::string to_string(const FixedFactors& fixed) {
    std::string text;
    for (const std::int64_t factor : fixed.factors) text += (text.empty() ? "x" : ", x") + std::to_string(factor);
    return text;
}

}  // namespace

bool serves(const Space& space, std::int64_t size_px, std::int64_t target_px) {
    if (const auto* range = std::get_if<ContinuousSpace>(&space)) {
        const auto size = static_cast<double>(size_px), target = static_cast<double>(target_px);
        return range->minimum * size - 0.5 <= target && target <= range->maximum * size + 0.5;
    }
    const auto& factors = std::get<FixedFactors>(space).factors;
    return std::any_of(factors.begin(), factors.end(), [&](auto factor) { return factor * size_px == target_px; });
}

std::string to_string(const Space& space) {
    if (const auto* fixed = std::get_if<FixedFactors>(&space)) return to_string(*fixed);
    std::ostringstream text;
    text << "x" << std::get<ContinuousSpace>(space).minimum << " to x" << std::get<ContinuousSpace>(space).maximum;
    return text.str();
}

std::string to_string(const Time& time) {
    const auto* fixed = std::get_if<FixedFactors>(&time);
    return fixed ? to_string(*fixed) : "any";
}

std::int64_t SizeConstraint::padded(std::int64_t size_px) const {
    return (std::max(size_px, minimum) + multiple_of - 1) / multiple_of * multiple_of;
}

Manifest parse_manifest(std::string_view text, const std::string& path) {
    try {
        const json::Value value = json::parse(text);
        if (const auto* object = std::get_if<json::Object>(&value.data)) {
            const auto format = object->find("format");
            const auto* version = format == object->end() ? nullptr : std::get_if<std::int64_t>(&format->second.data);
            if (version != nullptr && *version > FORMAT) {
                throw BundleError(path + " is of format " + std::to_string(*version) + ", and this stvsr reads up to " +
                                  std::to_string(FORMAT) + ": update stvsr.");
            }
        }
        return parse_fields(value);
    } catch (const json::SyntaxError& error) {
        throw BundleError(path + " is not valid JSON (" + error.what() +
                          "); restore the file or export the bundle again.");
    } catch (const InvalidField& invalid) {
        throw BundleError(path + " is not a manifest of format " + std::to_string(FORMAT) + ": " +
                          (invalid.path.empty() ? "" : invalid.path + ": ") + invalid.problem +
                          "; export the bundle again.");
    }
}

}  // namespace stvsr
