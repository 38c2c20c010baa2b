#include "manifest.hpp"

#include <algorithm>
#include <set>
#include <sstream>

#include "fields.hpp"

namespace stvsr {
namespace {

// A bare name: a bundle cannot point outside its folder.
std::string file_name(const Field& field) {
    const std::string name = field.text();
    const auto allowed = [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '-' ||
               c == '.' || static_cast<unsigned char>(c) >= 0x80;
    };
    if (name.empty() || name[0] == '.' || !std::all_of(name.begin(), name.end(), allowed)) {
        field.fail("a bare file name is expected");
    }
    return name;
}

std::string sum(const Field& field) {
    const std::string hex = field.text();
    if (hex.size() != 64 || hex.find_first_not_of("0123456789abcdef") != std::string::npos) {
        field.fail("a sha256 in hex is expected");
    }
    return hex;
}

std::string target(const Field& field) {
    const std::string name = field.text();
    if (name.size() < 3 || name.rfind("sm", 0) != 0 || name.find_first_not_of("0123456789", 2) != std::string::npos) {
        field.fail("a compute capability such as 'sm89' is expected");
    }
    return name;
}

std::int64_t whole(const Field& field) { return field.integer(); }
std::int64_t positive(const Field& field) { return field.integer(1); }
double real(const Field& field) { return field.real(); }

Axis axis(const Field& field) {
    if (const auto* size = std::get_if<std::int64_t>(&field.value.data)) return *size;
    return field.text();
}

TensorSpec tensor(const Field& field) {
    Fields fields(field);
    TensorSpec spec{fields["name"].text(), fields["dtype"].text(), fields["axes"].list<Axis>(axis)};
    fields.done();
    return spec;
}

std::string role(const Field& field) { return field.one_of({"encoder", "decoder", "network"}); }

Graph graph(const Field& field) {
    Fields fields(field);
    Graph found{role(fields["role"]), file_name(fields["file"]), sum(fields["sha256"]),
                fields["inputs"].list<TensorSpec>(tensor), fields["outputs"].list<TensorSpec>(tensor)};
    fields.done();
    return found;
}

Window window(const Field& field) {
    Fields fields(field);
    const std::string kind = fields["kind"].one_of({"pair", "run", "sliding", "doubled"});
    Window found;
    found.frames = fields["frames"].integer(kind == "pair" || kind == "run" ? 2 : 1);
    if (kind == "pair" && found.frames != 2) fields["frames"].fail("2 is expected");
    if (kind == "run") found.kind = Window::Kind::run;
    if (kind == "sliding") {
        found.kind = Window::Kind::sliding;
        found.padding = fields["padding"].one_of({"replicate", "reflection", "reflection_circle"});
        if (found.frames % 2 == 0) throw Invalid{"", "a sliding window has an odd number of frames"};
    }
    if (kind == "doubled") {
        found.kind = Window::Kind::doubled;
        found.overlap = fields["overlap"].integer(0);
        if (const auto coarse = fields.find("coarse"); coarse && !coarse->null()) found.coarse = coarse->integer(1);
    }
    fields.done();
    return found;
}

std::array<std::int64_t, 2> flow_pair(const Field& field) { return field.several<std::int64_t, 2>(whole); }

FlowInput flow(const Field& field) {
    Fields fields(field);
    FlowInput found{fields["name"].text(), fields["method"].one_of({"farneback", "dis"}),
                    fields["pairs"].list<std::array<std::int64_t, 2>>(flow_pair, 1)};
    if (const auto unit = fields.find("unit")) unit->one_of({"input pixels"});
    if (const auto components = fields.find("components")) components->one_of({"dx, dy"});
    fields.done();
    return found;
}

template <class Continuous>
std::variant<Continuous, FixedFactors> factors(const Field& field) {
    Fields fields(field);
    std::variant<Continuous, FixedFactors> found;
    if (fields["kind"].one_of({"continuous", "fixed"}) == "fixed") {
        found = FixedFactors{fields["factors"].list<std::int64_t>(positive, 1)};
    } else if constexpr (std::is_same_v<Continuous, ContinuousSpace>) {
        const ContinuousSpace range{fields["minimum"].real(), fields["maximum"].real()};
        if (range.minimum <= 0) fields["minimum"].fail("a number above 0 is expected");
        if (range.minimum > range.maximum) {
            throw Invalid{"", "the smallest space factor is larger than the largest"};
        }
        found = range;
    }
    fields.done();
    return found;
}

SizeConstraint size_constraint(const Field& field) {
    Fields fields(field);
    SizeConstraint found;
    if (const auto minimum = fields.find("minimum")) found.minimum = minimum->integer(1);
    if (const auto multiple = fields.find("multiple_of")) found.multiple_of = multiple->integer(1);
    fields.done();
    return found;
}

Engine engine(const Field& field) {
    Fields fields(field);
    Engine found;
    found.role = role(fields["role"]);
    found.graph_sha256 = sum(fields["graph_sha256"]);
    found.precision = fields["precision"].one_of({"fp32", "fp16"});
    const Field shapes = fields["shapes"];
    for (const auto& [name, value] : shapes.as<json::Object>("an object")) {
        found.shapes[name] = Field{value, shapes.where + "." + name}.several<std::int64_t, 3>(whole);
    }
    found.target = target(fields["target"]);
    found.library = fields["library"].one_of({"tensorrt", "tensorrt-rtx"});
    found.version = fields["version"].text();
    found.lowering = fields["lowering"].integer();
    if (const auto refit = fields.find("refit")) found.refit = refit->boolean();
    if (const auto plugins = fields.find("plugins")) found.plugins = plugins->boolean();
    found.file = file_name(fields["file"]);
    found.sha256 = sum(fields["sha256"]);
    fields.done();
    return found;
}

void check_consistent(const Manifest& manifest) {
    const Window& window = manifest.window;
    const auto fixed_only = [&](std::int64_t factor) {
        const auto* fixed = std::get_if<FixedFactors>(&manifest.time);
        return fixed != nullptr && fixed->factors == std::vector<std::int64_t>{factor};
    };
    bool time_suits = true;
    if (window.kind == Window::Kind::run) {
        time_suits = std::holds_alternative<ContinuousTime>(manifest.time) || fixed_only(2);
    }
    if (window.kind == Window::Kind::sliding) time_suits = fixed_only(1);
    if (window.kind == Window::Kind::doubled) time_suits = fixed_only(2);
    if (!time_suits) throw Invalid{"", "the window does not make frames in time by " + told(manifest.time)};
    std::multiset<std::string> roles;
    for (const Graph& graph : manifest.graphs) roles.insert(graph.role);
    if (window.kind == Window::Kind::pair && roles != std::multiset<std::string>{"decoder", "encoder"}) {
        throw Invalid{"", "a window of kind 'pair' takes the graphs decoder and encoder"};
    }
    if (window.kind != Window::Kind::pair && roles != std::multiset<std::string>{"network"}) {
        throw Invalid{"", "a window of this kind takes the graph network"};
    }
    for (const FlowInput& flow : manifest.flows) {
        for (const auto& pair : flow.pairs) {
            if (std::min(pair[0], pair[1]) < 0 || std::max(pair[0], pair[1]) >= window.frames) {
                throw Invalid{"", "the flows '" + flow.name + "' name frames outside the window"};
            }
        }
    }
    if (!(manifest.value_range[0] < manifest.value_range[1])) throw Invalid{"", "the value range is empty"};
}

Manifest read(const json::Value& value) {
    Fields fields({value, ""});
    if (const Field format = fields["format"]; format.integer() != FORMAT) format.fail("1 is expected");
    Manifest manifest;
    manifest.name = fields["name"].text();
    Fields architecture(fields["architecture"]);
    architecture["name"].text();
    architecture["config"].as<json::Object>("an object");
    architecture.done();
    manifest.graphs = fields["graphs"].list<Graph>(graph);
    manifest.window = window(fields["window"]);
    if (const auto flows = fields.find("flows")) manifest.flows = flows->list<FlowInput>(flow);
    manifest.space = factors<ContinuousSpace>(fields["space"]);
    manifest.time = factors<ContinuousTime>(fields["time"]);
    manifest.value_range = fields["value_range"].several<double, 2>(real);
    fields["channel_order"].one_of({"RGB"});
    manifest.size = size_constraint(fields["size"]);
    if (const Field halo = fields["halo_px"]; !halo.null()) manifest.halo_px = halo.integer(0);
    fields["training"].as<json::Object>("an object");
    fields["scores"].as<json::Object>("an object");
    manifest.licence = fields["licence"].text();
    if (const auto engines = fields.find("engines")) manifest.engines = engines->list<Engine>(engine);
    fields.done();
    check_consistent(manifest);
    return manifest;
}

std::string told(const FixedFactors& fixed) {
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

std::string told(const Space& space) {
    if (const auto* fixed = std::get_if<FixedFactors>(&space)) return told(*fixed);
    std::ostringstream text;
    text << "x" << std::get<ContinuousSpace>(space).minimum << " to x" << std::get<ContinuousSpace>(space).maximum;
    return text.str();
}

std::string told(const Time& time) {
    const auto* fixed = std::get_if<FixedFactors>(&time);
    return fixed ? told(*fixed) : "any";
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
        return read(value);
    } catch (const json::SyntaxError& error) {
        throw BundleError(path + " is not valid JSON (" + error.what() +
                          "); restore the file or export the bundle again.");
    } catch (const Invalid& invalid) {
        throw BundleError(path + " is not a manifest of format " + std::to_string(FORMAT) + ": " +
                          (invalid.where.empty() ? "" : invalid.where + ": ") + invalid.what +
                          "; export the bundle again.");
    }
}

}  // namespace stvsr
