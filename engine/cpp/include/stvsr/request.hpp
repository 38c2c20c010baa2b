#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "manifest.hpp"
#include "windows.hpp"

// What may be asked of a bundle.
namespace stvsr {

struct Size {
    std::int64_t height = 0, width = 0;  // pixels
};

std::string told(Size size);  // "1920x1080"

// Refuse a size, or times, that the bundle does not make: RequestError says what it does.
void check_size(const Manifest& manifest, Size shape, Size size);
void check_times(const Manifest& manifest, const std::vector<Fraction>& times);

double default_scale(const Manifest& manifest);         // x4, or what the bundle can
std::int64_t default_factor(const Manifest& manifest);  // x2, if the bundle makes frames in time

}  // namespace stvsr
