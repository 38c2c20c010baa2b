#include "json.hpp"

#include <charconv>
#include <locale>
#include <sstream>
#include <utility>

namespace stvsr::json {
namespace {

constexpr int MAX_DEPTH = 128;  // of nested arrays and objects

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
        Value value = any(0);
        skip_space();
        if (place_ < text_.size()) fail("nothing more is expected");
        return value;
    }

private:
    [[noreturn]] void fail(const std::string& what) const {
        std::size_t line = 1, column = 1;
        for (const char c : text_.substr(0, place_)) {
            if (c == '\n') {
                ++line;
                column = 1;
            } else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {
                ++column;
            }
        }
        throw SyntaxError("line " + std::to_string(line) + ", column " + std::to_string(column) + ": " + what);
    }

    char peek() const { return place_ < text_.size() ? text_[place_] : '\0'; }

    bool take(char c) {
        if (place_ == text_.size() || text_[place_] != c) return false;
        ++place_;
        return true;
    }

    bool take(std::string_view word) {
        if (text_.substr(place_, word.size()) != word) return false;
        place_ += word.size();
        return true;
    }

    void skip_space() {
        while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') ++place_;
    }

    Value any(int depth) {
        if (depth > MAX_DEPTH) fail("arrays and objects are nested too deeply");
        if (take('{')) return {object(depth)};
        if (take('[')) return {array(depth)};
        if (peek() == '"') return {string()};
        if (take("true")) return {true};
        if (take("false")) return {false};
        if (take("null")) return {nullptr};
        if (peek() == '-' || is_digit(peek())) return number();
        fail("a value is expected");
    }

    Array array(int depth) {
        Array values;
        skip_space();
        if (take(']')) return values;
        while (true) {
            skip_space();
            values.push_back(any(depth + 1));
            skip_space();
            if (take(']')) return values;
            if (!take(',')) fail("a comma or ] is expected");
        }
    }

    Object object(int depth) {
        Object fields;
        skip_space();
        if (take('}')) return fields;
        while (true) {
            skip_space();
            if (peek() != '"') fail("a name in quotes is expected");
            const std::size_t start = place_;
            std::string name = string();
            if (fields.count(name)) {
                place_ = start;
                fail("the name '" + name + "' is repeated");
            }
            skip_space();
            if (!take(':')) fail("a colon is expected");
            skip_space();
            fields.emplace(std::move(name), any(depth + 1));
            skip_space();
            if (take('}')) return fields;
            if (!take(',')) fail("a comma or } is expected");
        }
    }

    std::string string() {
        std::string out;
        ++place_;
        while (!take('"')) {
            if (place_ == text_.size()) fail("the text does not end");
            if (static_cast<unsigned char>(peek()) < 0x20) fail("a control character in text must be escaped");
            if (peek() == '\\') {
                escape(out);
            } else {
                const std::size_t length = character_length();
                out.append(text_.substr(place_, length));
                place_ += length;
            }
        }
        return out;
    }

    // The bytes of the UTF-8 character here: none overlong, none a surrogate, none above U+10FFFF.
    std::size_t character_length() const {
        const auto byte = [this](std::size_t i) -> unsigned {
            return place_ + i < text_.size() ? static_cast<unsigned char>(text_[place_ + i]) : 0U;
        };
        const unsigned first = byte(0);
        if (first < 0x80) return 1;
        const std::size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
        unsigned low = 0x80, high = 0xBF;  // of the second byte
        if (first == 0xE0) low = 0xA0;
        if (first == 0xED) high = 0x9F;
        if (first == 0xF0) low = 0x90;
        if (first == 0xF4) high = 0x8F;
        bool good = first >= 0xC2 && first <= 0xF4 && byte(1) >= low && byte(1) <= high;
        for (std::size_t i = 2; i < length; ++i) good = good && (byte(i) & 0xC0) == 0x80;
        if (!good) fail("the text is not UTF-8");
        return length;
    }

    void escape(std::string& out) {
        static constexpr std::string_view LETTERS = "\"\\/bfnrt", MEANT = "\"\\/\b\f\n\r\t";
        const std::size_t start = place_++;
        const std::size_t index = place_ < text_.size() ? LETTERS.find(text_[place_]) : LETTERS.npos;
        if (index != LETTERS.npos) {
            out.push_back(MEANT[index]);
            ++place_;
            return;
        }
        std::uint32_t code = 0;
        bool good = take('u') && hex(code) && (code < 0xDC00 || code > 0xDFFF);
        if (good && code >= 0xD800 && code <= 0xDBFF) {
            std::uint32_t second = 0;
            good = take("\\u") && hex(second) && second >= 0xDC00 && second <= 0xDFFF;
            code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00);
        }
        if (!good) {
            place_ = start;
            fail("the escape stands for no character");
        }
        append_utf8(out, code);
    }

    bool hex(std::uint32_t& code) {
        const std::string_view digits = text_.substr(place_, 4);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
        place_ += digits.size();
        return digits.size() == 4 && error == std::errc() && end == digits.data() + digits.size();
    }

    void digits() {
        if (!is_digit(peek())) fail("a digit is expected");
        while (is_digit(peek())) ++place_;
    }

    Value number() {
        const std::size_t start = place_;
        bool whole = true;
        take('-');
        if (!take('0')) digits();
        if (take('.')) {
            whole = false;
            digits();
        }
        if (take('e') || take('E')) {
            whole = false;
            if (!take('+')) take('-');
            digits();
        }
        const std::string_view written = text_.substr(start, place_ - start);
        std::int64_t integer = 0;
        if (whole && std::from_chars(written.data(), written.data() + written.size(), integer).ec == std::errc()) {
            return {integer};
        }
        std::istringstream stream{std::string(written)};
        stream.imbue(std::locale::classic());  // whatever locale the host has set, a point is a point
        double real = 0;
        if (!(stream >> real)) {
            place_ = start;
            fail("the number is too large");
        }
        return {real};
    }

    std::string_view text_;
    std::size_t place_ = 0;
};

}  // namespace

Value parse(std::string_view text) { return Parser(text).document(); }

}  // namespace stvsr::json
