#include "stvsr/axes.hpp"

#include <cctype>
#include <charconv>
#include <string_view>
#include <system_error>
#include <variant>

namespace stvsr {
namespace {

// A free axis of `factor` * size(name) / `divisor` values.
struct ScaledAxis {
    std::string name;
    std::int64_t factor = 1, divisor = 1;
};

// Parse a positive integer; return 0 for any other text.
std::int64_t parse_positive(std::string_view digits) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && end == digits.data() + digits.size() && value > 0 ? value : 0;
}

ScaledAxis parse_axis(const std::string& axis, const TensorSpec& spec) {
    ScaledAxis scaled;
    std::string_view rest = axis;
    if (const auto star = rest.find('*'); star != rest.npos) {
        scaled.factor = parse_positive(rest.substr(0, star));
        rest.remove_prefix(star + 1);
    }
    if (const auto slash = rest.find('/'); slash != rest.npos) {
        scaled.divisor = parse_positive(rest.substr(slash + 1));
        rest = rest.substr(0, slash);
    }
    scaled.name = rest;
    bool valid = !rest.empty() && !std::isdigit(static_cast<unsigned char>(rest[0])) && scaled.factor && scaled.divisor;
    for (const char c : rest) valid = valid && (c == '_' || (c & 0x80) || std::isalnum(static_cast<unsigned char>(c)));
    if (!valid) {
        throw BundleError("The axis '" + axis + "' of '" + spec.name +
                          "' is neither a name nor a scaled name such as 4*height: export the bundle again.");
    }
    return scaled;
}

template <class Items, class Format>
std::string join(const Items& items, Format format) {
    std::string text;
    for (const auto& item : items) text += (text.empty() ? "" : ", ") + format(item);
    return "(" + text + ")";
}

}  // namespace

std::string to_string(const Shape& shape) {
    return join(shape, [](std::int64_t size) { return std::to_string(size); });
}

std::string to_string(const TensorSpec& spec) {
    return "'" + spec.name + "' " + spec.dtype + " " + join(spec.axes, [](const Axis& axis) {
               const auto* size = std::get_if<std::int64_t>(&axis);
               return size ? std::to_string(*size) : std::get<std::string>(axis);
           });
}

std::map<std::string, std::int64_t> axis_sizes(const std::vector<TensorSpec>& inputs,
                                               const std::map<std::string, Shape>& shapes) {
    struct KnownSize {
        std::int64_t size;
        std::string input;
    };
    std::map<std::string, KnownSize> known_sizes;
    for (const bool exact : {true, false}) {  // unscaled axes first: a scaled one may have lost a remainder
        for (const TensorSpec& spec : inputs) {
            const Shape& shape = shapes.at(spec.name);
            for (std::size_t i = 0; i < spec.axes.size(); ++i) {
                const auto* axis = std::get_if<std::string>(&spec.axes[i]);
                if (axis == nullptr) continue;
                const ScaledAxis scaled = parse_axis(*axis, spec);
                if (exact != (scaled.factor == 1 && scaled.divisor == 1)) continue;
                const KnownSize unscaled{shape[i] * scaled.divisor / scaled.factor, spec.name};
                const KnownSize& known = known_sizes.emplace(scaled.name, unscaled).first->second;
                if (known.size * scaled.factor / scaled.divisor != shape[i]) {
                    throw RequestError("The axis '" + scaled.name + "' is " + std::to_string(known.size) + " in '" +
                                       known.input + "', but '" + *axis + "' of '" + spec.name + "' is " +
                                       std::to_string(shape[i]) + ": pass inputs whose sizes agree.");
                }
            }
        }
    }
    std::map<std::string, std::int64_t> sizes;
    for (const auto& [name, known] : known_sizes) sizes[name] = known.size;
    return sizes;
}

Shape shape_of(const TensorSpec& spec, const std::map<std::string, std::int64_t>& sizes) {
    Shape shape;
    for (const Axis& axis : spec.axes) {
        if (const auto* size = std::get_if<std::int64_t>(&axis)) {
            shape.push_back(*size);
            continue;
        }
        const ScaledAxis scaled = parse_axis(std::get<std::string>(axis), spec);
        const auto size = sizes.find(scaled.name);
        if (size == sizes.end()) {
            throw BundleError("The axis '" + scaled.name + "' of '" + spec.name +
                              "' is not an axis of any input: export the bundle again.");
        }
        shape.push_back(size->second * scaled.factor / scaled.divisor);
    }
    return shape;
}

}  // namespace stvsr
