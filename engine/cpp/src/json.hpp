#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

// A reader for JSON (RFC 8259) in UTF-8. It also refuses duplicate names in an object and unpaired surrogates.
namespace stvsr::json {

struct Value;
using Array = std::vector<Value>;
using Object = std::map<std::string, Value>;

// A JSON value. A number without fraction and exponent is an integer if it fits in 64 bits. Strings are UTF-8.
struct Value {
    std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, Array, Object> data;
};

// A syntax error. The message starts with its position, as in "line 3, column 14: "; columns count characters.
class SyntaxError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Parse a document. Throws SyntaxError if it is not valid.
Value parse(std::string_view text);

}  // namespace stvsr::json
