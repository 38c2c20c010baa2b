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

// JSON values read as a format wants them: what is missing, unknown or of another type is told with its place.
namespace stvsr {

struct Invalid {
    std::string where, what;
};

// A value and its place in the manifest, as in "graphs.0.file".
struct Field {
    const json::Value& value;
    std::string where;

    [[noreturn]] void fail(const std::string& what) const { throw Invalid{where, what}; }

    template <class T>
    const T& as(const char* kind) const {
        if (const T* found = std::get_if<T>(&value.data)) return *found;
        fail(std::string("a value that is ") + kind + " is expected");
    }

    std::string text() const { return as<std::string>("text"); }

    std::string one_of(std::initializer_list<const char*> allowed) const {
        const std::string found = text();
        std::string listed;
        for (const char* choice : allowed) {
            if (found == choice) return found;
            listed += (listed.empty() ? "'" : " or '") + std::string(choice) + "'";
        }
        fail(listed + " is expected");
    }

    std::int64_t integer(std::int64_t least = INT64_MIN) const {
        const std::int64_t found = as<std::int64_t>("a whole number");
        if (found < least) fail("a whole number from " + std::to_string(least) + " on is expected");
        return found;
    }

    double real() const {
        if (const auto* whole = std::get_if<std::int64_t>(&value.data)) return static_cast<double>(*whole);
        return as<double>("a number");
    }

    bool boolean() const { return as<bool>("true or false"); }

    template <class T>
    std::vector<T> list(T (*read)(const Field&), std::size_t least = 0) const {
        const auto& items = as<json::Array>("a list");
        if (items.size() < least) fail("a list of at least " + std::to_string(least) + " is expected");
        std::vector<T> values;
        for (const json::Value& item : items) {
            values.push_back(read({item, where + "." + std::to_string(values.size())}));
        }
        return values;
    }

    template <class T, std::size_t N>
    std::array<T, N> several(T (*read)(const Field&)) const {
        const std::vector<T> values = list<T>(read);
        if (values.size() != N) fail("a list of " + std::to_string(N) + " is expected");
        std::array<T, N> found{};
        std::copy(values.begin(), values.end(), found.begin());
        return found;
    }

    bool null() const { return std::holds_alternative<std::nullptr_t>(value.data); }
};

// The fields of an object; those that nobody asked for are unknown.
class Fields {
public:
    explicit Fields(const Field& field) : where_(field.where), object_(field.as<json::Object>("an object")) {}

    std::optional<Field> find(const std::string& name) {
        asked_.insert(name);
        const auto found = object_.find(name);
        if (found == object_.end()) return std::nullopt;
        return Field{found->second, path(name)};
    }

    Field operator[](const std::string& name) {
        if (auto field = find(name)) return *field;
        throw Invalid{path(name), "this field is missing"};
    }

    void done() const {
        for (const auto& [name, value] : object_) {
            if (!asked_.count(name)) throw Invalid{path(name), "this field is unknown"};
        }
    }

private:
    std::string path(const std::string& name) const { return where_.empty() ? name : where_ + "." + name; }

    std::string where_;
    const json::Object& object_;
    std::set<std::string> asked_;
};

}  // namespace stvsr
