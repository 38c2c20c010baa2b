#include "stvsr/request.hpp"

#include <algorithm>
#include <variant>

namespace stvsr {
namespace {

constexpr double DEFAULT_SCALE = 4;

}  // namespace

std::string to_string(Size size) { return std::to_string(size.width) + "x" + std::to_string(size.height); }

void check_size(const Manifest& manifest, Size input, Size output) {
    const bool positive = std::min({input.height, input.width, output.height, output.width}) > 0;
    if (!positive || !serves(manifest.space, input.height, output.height) ||
        !serves(manifest.space, input.width, output.width)) {
        throw RequestError("Bundle '" + manifest.name + "' upscales by " + to_string(manifest.space) +
                           " and cannot turn " + to_string(input) + " into " + to_string(output) +
                           ": choose another scale or size.");
    }
}

void check_times(const Manifest& manifest, const std::vector<Fraction>& times) {
    for (const Fraction& time : times) {
        if (time.denominator < 1 || time.numerator < 0 || time.numerator >= time.denominator) {
            throw RequestError("The time " + std::to_string(time.numerator) + "/" + std::to_string(time.denominator) +
                               " is not in the range from 0 to below 1: choose another time.");
        }
    }
    const auto* fixed = std::get_if<FixedFactors>(&manifest.time);
    if (fixed == nullptr) return;
    const auto supports_times = [&times](std::int64_t factor) {
        return std::all_of(times.begin(), times.end(),
                           [factor](const Fraction& time) { return time.numerator * factor % time.denominator == 0; });
    };
    if (!std::any_of(fixed->factors.begin(), fixed->factors.end(), supports_times)) {
        throw RequestError("Bundle '" + manifest.name + "' supports the time factors " + to_string(manifest.time) +
                           ": choose one of them, or another bundle.");
    }
}

double default_scale(const Manifest& manifest) {
    if (const auto* range = std::get_if<ContinuousSpace>(&manifest.space)) {
        return std::min(DEFAULT_SCALE, range->maximum);
    }
    const auto& factors = std::get<FixedFactors>(manifest.space).factors;
    return static_cast<double>(*std::max_element(factors.begin(), factors.end()));
}

std::int64_t default_factor(const Manifest& manifest) {
    const auto* fixed = std::get_if<FixedFactors>(&manifest.time);
    return fixed != nullptr && fixed->factors == std::vector<std::int64_t>{1} ? 1 : 2;
}

}  // namespace stvsr
