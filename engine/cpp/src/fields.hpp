#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "json.hpp"

// Typed access to JSON values. Missing, unknown and invalid fields are reported with their path in the document.
namespace stvsr {

// An invalid field: its path, such as "graphs.0.file", and the problem. It is thrown.
struct InvalidField {
    std::string path, problem;
};

// A JSON value and its path.
struct Field {
    const json::Value& value;
    std::string path;

    [[noreturn]] void fail(const std::string& problem) const { throw InvalidField{path, problem}; }

    template <class T>
    const T& as(const char* type) const {
        if (const T* typed = std::get_if<T>(&value.data)) return *typed;
        fail(std::string("expected ") + type);
    }

    std::string string() const { return as<std::string>("a string"); }

    std::string one_of(std::initializer_list<const char*> choices) const {
        const std::string text = string();
        std::string listed;
        for (const char* choice : choices) {
            if (text == choice) return text;
            listed += (listed.empty() ? "'" : choice == *(choices.end() - 1) ? " or '" : ", '");
            listed += std::string(choice) + "'";
        }
        fail("expected " + listed);
    }

    std::int64_t integer(std::int64_t minimum = INT64_MIN, std::int64_t maximum = INT64_MAX) const {
        const std::int64_t number = as<std::int64_t>("an integer");
        if (number < minimum) fail("expected an integer of at least " + std::to_string(minimum));
        if (number > maximum) fail("expected an integer of at most " + std::to_string(maximum));
        return number;
    }

    double real() const {
        if (const auto* integer = std::get_if<std::int64_t>(&value.data)) return static_cast<double>(*integer);
        return as<double>("a number");
    }

    bool boolean() const { return as<bool>("true or false"); }

    template <class T>
    std::vector<T> list(T (*parse)(const Field&)) const {
        std::vector<T> items;
        for (const json::Value& item : as<json::Array>("a list")) {
            items.push_back(parse({item, path + "." + std::to_string(items.size())}));
        }
        return items;
    }

    template <class T>
    std::vector<T> nonempty_list(T (*parse)(const Field&)) const {
        std::vector<T> items = list<T>(parse);
        if (items.empty()) fail("expected a list of at least 1 item");
        return items;
    }

    template <class T, std::size_t N>
    std::array<T, N> array(T (*parse)(const Field&)) const {
        const std::vector<T> items = list<T>(parse);
        if (items.size() != N) fail("expected a list of " + std::to_string(N) + " items");
        std::array<T, N> values{};
        std::copy(items.begin(), items.end(), values.begin());
        return values;
    }

    bool null() const { return std::holds_alternative<std::nullptr_t>(value.data); }
};

// The fields of a JSON object. It records which ones were read, to refuse the others.
class Fields {
public:
    explicit Fields(const Field& field) : path_(field.path), object_(field.as<json::Object>("an object")) {}

    // Return an optional field, or nothing if it is missing.
    std::optional<Field> find(const std::string& name) {
        read_.insert(name);
        const auto entry = object_.find(name);
        if (entry == object_.end()) return std::nullopt;
        return Field{entry->second, path(name)};
    }

    // Return a required field.
    Field operator[](const std::string& name) {
        if (auto field = find(name)) return *field;
        throw InvalidField{path(name), "missing field"};
    }

    // Throw InvalidField if the object has a field that was not read.
    void refuse_others() const {
        for (const auto& [name, value] : object_) {
            if (!read_.count(name)) throw InvalidField{path(name), "unknown field"};
        }
    }

private:
    std::string path(const std::string& name) const { return path_.empty() ? name : path_ + "." + name; }

    std::string path_;
    const json::Object& object_;
    std::set<std::string> read_;
};

}  // namespace stvsr
