#pragma once

#include <string>
#include <string_view>

namespace stvsr {

// Return the SHA-256 of bytes (FIPS 180-4), in hex.
std::string sha256(std::string_view bytes);

}  // namespace stvsr
