#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "stvsr/manifest.hpp"

namespace stvsr {

using Shape = std::vector<std::int64_t>;

// Format a shape, as in "(1, 2, 3, 36, 64)".
std::string to_string(const Shape& shape);
// Format a tensor's name, type and axes, as in "'frames' float32 (batch, 2, 3, height, width)".
std::string to_string(const TensorSpec& spec);

// Return the size of each free axis, without its factor, for inputs of these shapes. Throws RequestError if two inputs
// disagree on a size.
std::map<std::string, std::int64_t> axis_sizes(const std::vector<TensorSpec>& inputs,
                                               const std::map<std::string, Shape>& shapes);

// Return the shape of a tensor for these sizes of the free axes; "4*height" and "height/2" are computed from "height",
// and "factor_y*height" is a product.
// Throws BundleError if the tensor has an axis without a size.
Shape shape_of(const TensorSpec& spec, const std::map<std::string, std::int64_t>& sizes);

}  // namespace stvsr
