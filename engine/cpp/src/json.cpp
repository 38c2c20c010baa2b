#include "json.hpp"

#include <charconv>
#include <locale>
#include <sstream>
#include <utility>

namespace stvsr::json {
namespace {

constexpr int MAX_DEPTH = 128;  // of nested arrays and objects, so that recursion cannot exhaust the stack

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::string& out, std::uint32_t code) {
    const auto put = [&out](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
        put(code);
    } else if (code < 0x800) {
        put(0xC0 | code >> 6);
        put(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        put(0xE0 | code >> 12);
        put(0x80 | (code >> 6 & 0x3F));
        put(0x80 | (code & 0x3F));
    } else {
        put(0xF0 | code >> 18);
        put(0x80 | (code >> 12 & 0x3F));
        put(0x80 | (code >> 6 & 0x3F));
        put(0x80 | (code & 0x3F));
    }
}

class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) {}

    Value document() {
        skip_space();
        Value document = value(0);
        skip_space();
        if (position_ < text_.size()) fail("unexpected text after the value");
        return document;
    }

private:
    [[noreturn]] void fail(const std::string& problem) const {
        std::size_t line = 1, column = 1;
        for (const char c : text_.substr(0, position_)) {
            if (c == '\n') {
                ++line;
                column = 1;
            } else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {
                ++column;
            }
        }
        throw SyntaxError("line " + std::to_string(line) + ", column " + std::to_string(column) + ": " + problem);
    }

    char peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }

    bool take(char c) {
        if (position_ == text_.size() || text_[position_] != c) return false;
        ++position_;
        return true;
    }

    bool take(std::string_view word) {
        if (text_.substr(position_, word.size()) != word) return false;
        position_ += word.size();
        return true;
    }

    void skip_space() {
        while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') ++position_;
    }

    Value value(int depth) {
        if (depth > MAX_DEPTH) fail("arrays and objects are nested too deeply");
        if (take('{')) return {object(depth)};
        if (take('[')) return {array(depth)};
        if (peek() == '"') return {string()};
        if (take("true")) return {true};
        if (take("false")) return {false};
        if (take("null")) return {nullptr};
        if (peek() == '-' || is_digit(peek())) return number();
        fail("expected a value");
    }

    Array array(int depth) {
        Array values;
        skip_space();
        if (take(']')) return values;
        while (true) {
            skip_space();
            values.push_back(value(depth + 1));
            skip_space();
            if (take(']')) return values;
            if (!take(',')) fail("expected ',' or ']'");
        }
    }

    Object object(int depth) {
        Object fields;
        skip_space();
        if (take('}')) return fields;
        while (true) {
            skip_space();
            if (peek() != '"') fail("expected a name in quotes");
            const std::size_t start = position_;
            std::string name = string();
            if (fields.count(name)) {
                position_ = start;
                fail("duplicate name '" + name + "'");
            }
            skip_space();
            if (!take(':')) fail("expected ':'");
            skip_space();
            fields.emplace(std::move(name), value(depth + 1));
            skip_space();
            if (take('}')) return fields;
            if (!take(',')) fail("expected ',' or '}'");
        }
    }

    std::string string() {
        std::string out;
        ++position_;
        while (!take('"')) {
            if (position_ == text_.size()) fail("unterminated string");
            if (static_cast<unsigned char>(peek()) < 0x20) fail("control characters in a string must be escaped");
            if (peek() == '\\') {
                escape(out);
            } else {
                const std::size_t length = character_length();
                out.append(text_.substr(position_, length));
                position_ += length;
            }
        }
        return out;
    }

    // Return the number of bytes of the UTF-8 character here; refuses overlong forms, surrogates and code points above
    // U+10FFFF.
    std::size_t character_length() const {
        const auto byte = [this](std::size_t i) -> unsigned {
            return position_ + i < text_.size() ? static_cast<unsigned char>(text_[position_ + i]) : 0U;
        };
        const unsigned first = byte(0);
        if (first < 0x80) return 1;
        const std::size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
        unsigned low = 0x80, high = 0xBF;  // of the second byte
        if (first == 0xE0) low = 0xA0;
        if (first == 0xED) high = 0x9F;
        if (first == 0xF0) low = 0x90;
        if (first == 0xF4) high = 0x8F;
        bool valid = first >= 0xC2 && first <= 0xF4 && byte(1) >= low && byte(1) <= high;
        for (std::size_t i = 2; i < length; ++i) valid = valid && (byte(i) & 0xC0) == 0x80;
        if (!valid) fail("invalid UTF-8");
        return length;
    }

    void escape(std::string& out) {
        static constexpr std::string_view LETTERS = "\"\\/bfnrt", CHARACTERS = "\"\\/\b\f\n\r\t";
        const std::size_t start = position_++;
        const std::size_t index = position_ < text_.size() ? LETTERS.find(text_[position_]) : LETTERS.npos;
        if (index != LETTERS.npos) {
            out.push_back(CHARACTERS[index]);
            ++position_;
            return;
        }
        std::uint32_t code = 0;
        bool valid = take('u') && hex(code) && (code < 0xDC00 || code > 0xDFFF);
        if (valid && code >= 0xD800 && code <= 0xDBFF) {
            std::uint32_t second = 0;
            valid = take("\\u") && hex(second) && second >= 0xDC00 && second <= 0xDFFF;
            code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00);
        }
        if (!valid) {
            position_ = start;
            fail("invalid escape");
        }
        append_utf8(out, code);
    }

    bool hex(std::uint32_t& code) {
        const std::string_view digits = text_.substr(position_, 4);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
        position_ += digits.size();
        return digits.size() == 4 && error == std::errc() && end == digits.data() + digits.size();
    }

    void skip_digits() {
        if (!is_digit(peek())) fail("expected a digit");
        while (is_digit(peek())) ++position_;
    }

    Value number() {
        const std::size_t start = position_;
        bool is_integer = true;
        take('-');
        if (!take('0')) skip_digits();
        if (take('.')) {
            is_integer = false;
            skip_digits();
        }
        if (take('e') || take('E')) {
            is_integer = false;
            if (!take('+')) take('-');
            skip_digits();
        }
        const std::string_view text = text_.substr(start, position_ - start);
        std::int64_t integer = 0;
        if (is_integer && std::from_chars(text.data(), text.data() + text.size(), integer).ec == std::errc()) {
            return {integer};
        }
        std::istringstream stream{std::string(text)};
        stream.imbue(std::locale::classic());  // the decimal separator is a point in every locale
        double real = 0;
        if (!(stream >> real)) {
            position_ = start;
            fail("the number is too large");
        }
        return {real};
    }

    std::string_view text_;
    std::size_t position_ = 0;
};

}  // namespace

Value parse(std::string_view text) { return Parser(text).document(); }

}  // namespace stvsr::json
