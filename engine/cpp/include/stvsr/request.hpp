#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stvsr/manifest.hpp"
#include "stvsr/windows.hpp"

// Sizes and times of output frames: which ones a bundle supports, and its defaults.
namespace stvsr {

struct Size {
    std::int64_t height = 0, width = 0;  // pixels
};

// Format a size, width first, as in "1920x1080".
std::string to_string(Size size);

// Throw RequestError, with the supported factors, unless the bundle can upscale frames of `input` to `output`.
void check_size(const Manifest& manifest, Size input, Size output);
// Throw RequestError, with the supported factors, unless the bundle can compute frames at all of these times.
void check_times(const Manifest& manifest, const std::vector<Fraction>& times);

// Return the scale to use when none is requested: x4 or less for a continuous range, else the largest fixed factor.
double default_scale(const Manifest& manifest);
// Return the time factor to use when none is requested: 1 if the bundle supports no other, else 2.
std::int64_t default_factor(const Manifest& manifest);

}  // namespace stvsr
