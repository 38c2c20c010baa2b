// probe json: parse each line of standard input as JSON, and print the parsed value (strings in hex) or the error.
// probe manifest: parse each line as a manifest, and print "accepted" or the error.
// probe sha256: print the SHA-256 of standard input.

#include <cinttypes>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <string>

#include "json.hpp"
#include "sha256.hpp"
#include "stvsr/errors.hpp"
#include "stvsr/manifest.hpp"

using stvsr::json::Array;
using stvsr::json::Object;
using stvsr::json::Value;

std::string hex(const std::string& bytes) {
    std::string text = "\"";
    char two[3];
    for (const char c : bytes) {
        std::snprintf(two, sizeof two, "%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
        text += two;
    }
    return text + "\"";
}

std::string format(const Value& value) {
    char number[64];
    if (const auto* flag = std::get_if<bool>(&value.data)) return *flag ? "true" : "false";
    if (const auto* text = std::get_if<std::string>(&value.data)) return hex(*text);
    if (const auto* whole = std::get_if<std::int64_t>(&value.data)) {
        std::snprintf(number, sizeof number, "%" PRId64, *whole);
        return number;
    }
    if (const auto* real = std::get_if<double>(&value.data)) {
        std::snprintf(number, sizeof number, "%.17e", *real);
        return number;
    }
    std::string parts;
    if (const auto* array = std::get_if<Array>(&value.data)) {
        for (const Value& item : *array) parts += (parts.empty() ? "" : ",") + format(item);
        return "[" + parts + "]";
    }
    if (const auto* object = std::get_if<Object>(&value.data)) {
        for (const auto& [name, item] : *object) parts += (parts.empty() ? "" : ",") + hex(name) + ":" + format(item);
        return "{" + parts + "}";
    }
    return "null";
}

int main(int, char** argv) {
    if (argv[1] == std::string("sha256")) {
        const std::string bytes{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
        std::cout << stvsr::sha256(bytes);
        return 0;
    }
    const bool manifest = argv[1] == std::string("manifest");
    for (std::string line; std::getline(std::cin, line);) {
        try {
            if (manifest) {
                stvsr::parse_manifest(line, "manifest.json");
                std::cout << "accepted" << std::endl;
                continue;
            }
            std::cout << format(stvsr::json::parse(line)) << std::endl;
        } catch (const stvsr::json::SyntaxError& error) {
            std::cout << "error: " << error.what() << std::endl;
        } catch (const stvsr::Error& error) {
            std::cout << "error: " << error.what() << std::endl;
        }
    }
}
