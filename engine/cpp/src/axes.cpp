#include "stvsr/axes.hpp"

#include <cctype>
#include <charconv>
#include <string_view>
#include <system_error>
#include <variant>

namespace stvsr {
namespace {

// A free axis of `factor` * size(name) / `divisor` values; with `other`, of size(other) * size(name) values.
struct ScaledAxis {
    std::string name, other;
    std::int64_t factor = 1, divisor = 1;
};

bool is_name(std::string_view text) {
    bool valid = !text.empty() && !std::isdigit(static_cast<unsigned char>(text[0]));
    for (const char c : text) valid = valid && (c == '_' || (c & 0x80) || std::isalnum(static_cast<unsigned char>(c)));
    return valid;
}

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
        if (is_name(rest.substr(0, star))) {
            scaled.other = rest.substr(0, star);
        } else {
            scaled.factor = parse_positive(rest.substr(0, star));
        }
        rest.remove_prefix(star + 1);
    }
    if (const auto slash = rest.find('/'); slash != rest.npos) {
        scaled.divisor = parse_positive(rest.substr(slash + 1));
        rest = rest.substr(0, slash);
    }
    scaled.name = rest;
    if (!is_name(rest) || !scaled.factor || !scaled.divisor || (!scaled.other.empty() && scaled.divisor != 1)) {
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
                if (!scaled.other.empty()) continue;  // only of outputs
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
        const auto size_of = [&](const std::string& name) {
            const auto size = sizes.find(name);
            if (size != sizes.end()) return size->second;
            throw BundleError("The axis '" + name + "' of '" + spec.name +
                              "' is not an axis of any input: export the bundle again.");
        };
        const std::int64_t factor = scaled.other.empty() ? scaled.factor : size_of(scaled.other);
        shape.push_back(size_of(scaled.name) * factor / scaled.divisor);
    }
    return shape;
}

}  // namespace stvsr
