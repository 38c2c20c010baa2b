#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "manifest.hpp"

namespace stvsr {

using Shape = std::vector<std::int64_t>;

// "(1, 2, 3, 36, 64)"
std::string told(const Shape& shape);
// "'frames' float32 (batch, 2, 3, height, width)"
std::string told(const TensorSpec& spec);

// The size of each free axis, without its factor, in inputs of these shapes; RequestError where two inputs differ.
std::map<std::string, std::int64_t> axis_sizes(const std::vector<TensorSpec>& inputs,
                                               const std::map<std::string, Shape>& shapes);

// The shape of a tensor for sizes of its free axes; "4*height" and "height/2" are multiples and parts of them.
Shape shape_of(const TensorSpec& spec, const std::map<std::string, std::int64_t>& sizes);

}  // namespace stvsr
