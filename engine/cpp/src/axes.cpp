#include "axes.hpp"

#include <cctype>
#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>
#include <variant>

namespace stvsr {
namespace {

// A free axis: `factor` times the size named, divided by `divisor`.
struct Scaled {
    std::string name;
    std::int64_t factor = 1, divisor = 1;
};

std::int64_t number(std::string_view digits) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && end == digits.data() + digits.size() && value > 0 ? value : 0;
}

Scaled parse_axis(const std::string& axis, const TensorSpec& spec) {
    Scaled scaled;
    std::string_view rest = axis;
    if (const auto star = rest.find('*'); star != rest.npos) {
        scaled.factor = number(rest.substr(0, star));
        rest.remove_prefix(star + 1);
    }
    if (const auto slash = rest.find('/'); slash != rest.npos) {
        scaled.divisor = number(rest.substr(slash + 1));
        rest = rest.substr(0, slash);
    }
    scaled.name = rest;
    bool good = !rest.empty() && !std::isdigit(static_cast<unsigned char>(rest[0])) && scaled.factor && scaled.divisor;
    for (const char c : rest) good = good && (c == '_' || (c & 0x80) || std::isalnum(static_cast<unsigned char>(c)));
    if (!good) {
        throw BundleError("The axis '" + axis + "' of '" + spec.name +
                          "' is neither a name nor one with a factor, such as 4*height: export the bundle again.");
    }
    return scaled;
}

template <class Items, class Tell>
std::string listed(const Items& items, Tell tell) {
    std::string text;
    for (const auto& item : items) text += (text.empty() ? "" : ", ") + tell(item);
    return "(" + text + ")";
}

}  // namespace

std::string told(const Shape& shape) {
    return listed(shape, [](std::int64_t size) { return std::to_string(size); });
}

std::string told(const TensorSpec& spec) {
    return "'" + spec.name + "' " + spec.dtype + " " + listed(spec.axes, [](const Axis& axis) {
               const auto* size = std::get_if<std::int64_t>(&axis);
               return size ? std::to_string(*size) : std::get<std::string>(axis);
           });
}

std::map<std::string, std::int64_t> axis_sizes(const std::vector<TensorSpec>& inputs,
                                               const std::map<std::string, Shape>& shapes) {
    struct Found {
        std::int64_t size;
        std::string where;
    };
    std::map<std::string, Found> found;
    for (const bool exact : {true, false}) {  // names alone first: a part of an axis says less than the axis
        for (const TensorSpec& spec : inputs) {
            const Shape& shape = shapes.at(spec.name);
            for (std::size_t i = 0; i < spec.axes.size(); ++i) {
                const auto* axis = std::get_if<std::string>(&spec.axes[i]);
                if (axis == nullptr) continue;
                const Scaled scaled = parse_axis(*axis, spec);
                if (exact != (scaled.factor == 1 && scaled.divisor == 1)) continue;
                const Found whole{shape[i] * scaled.divisor / scaled.factor, spec.name};
                const Found& known = found.emplace(scaled.name, whole).first->second;
                if (known.size * scaled.factor / scaled.divisor != shape[i]) {
                    throw RequestError("The axis '" + scaled.name + "' is " + std::to_string(known.size) + " by '" +
                                       known.where + "', and '" + *axis + "' of '" + spec.name + "' is " +
                                       std::to_string(shape[i]) + ": give inputs of one size.");
                }
            }
        }
    }
    std::map<std::string, std::int64_t> sizes;
    for (const auto& [name, axis] : found) sizes[name] = axis.size;
    return sizes;
}

Shape shape_of(const TensorSpec& spec, const std::map<std::string, std::int64_t>& sizes) {
    Shape shape;
    for (const Axis& axis : spec.axes) {
        if (const auto* size = std::get_if<std::int64_t>(&axis)) {
            shape.push_back(*size);
            continue;
        }
        const Scaled scaled = parse_axis(std::get<std::string>(axis), spec);
        const auto size = sizes.find(scaled.name);
        if (size == sizes.end()) {
            throw BundleError("The axis '" + scaled.name + "' of '" + spec.name +
                              "' is an axis of no input: export the bundle again.");
        }
        shape.push_back(size->second * scaled.factor / scaled.divisor);
    }
    return shape;
}

}  // namespace stvsr
