#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

// JSON as RFC 8259 has it, in UTF-8; repeated names of an object, and halves of surrogate pairs, are refused too.
namespace stvsr::json {

struct Value;
using Array = std::vector<Value>;
using Object = std::map<std::string, Value>;

// A number is an integer where it is written as one and fits; text is UTF-8.
struct Value {
    std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, Array, Object> data;
};

// What is wrong, after "line 3, column 14: "; columns are counted in characters.
class SyntaxError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

Value parse(std::string_view text);

}  // namespace stvsr::json
