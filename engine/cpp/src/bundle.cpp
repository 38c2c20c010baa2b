#include "bundle.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>

#include "sha256.hpp"

namespace stvsr {
namespace {

const char* const MANIFEST = "manifest.json";

// A file's bytes, or nothing, with errno.
std::optional<std::string> contents(const std::string& path) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) return std::nullopt;
    std::string bytes;
    std::array<char, 1 << 16> part;
    while (const std::size_t count = std::fread(part.data(), 1, part.size(), file.get())) {
        bytes.append(part.data(), count);
    }
    if (std::ferror(file.get())) return std::nullopt;  // a folder opens, and cannot be read
    return bytes;
}

}  // namespace

Bundle Bundle::load(const std::string& folder) {
    Bundle bundle;
    bundle.folder = folder;
    const auto text = contents(bundle.path(MANIFEST));
    if (!text) {
        throw BundleError(folder + " is no bundle: " + MANIFEST + " cannot be read there (" + std::strerror(errno) +
                          "); name a bundle's folder.");
    }
    bundle.manifest = parse_manifest(*text, bundle.path(MANIFEST));
    return bundle;
}

const Graph& Bundle::graph(const std::string& role) const {
    for (const Graph& graph : manifest.graphs) {
        if (graph.role == role) return graph;
    }
    throw BundleError(path(MANIFEST) + " names no graph '" + role + "': use another bundle.");
}

const Engine& Bundle::engine(const std::string& role, const std::string& library, const std::string& precision,
                             const std::string& target) const {
    const std::string remedy = "stvsr compile " + folder + " --precision " + precision + " --target " + target +
                               " --library " + library;
    std::string others;
    for (const Engine& engine : manifest.engines) {
        if (engine.role != role) continue;
        if (engine.library == library && engine.precision == precision && engine.target == target) {
            if (engine.graph_sha256 == graph(role).sha256) return engine;
            throw BundleError(path(engine.file) + " was built from another graph than " + graph(role).file +
                              ": compile the bundle again with '" + remedy + "'.");
        }
        others += (others.empty() ? "" : ", ") + engine.library + " " + engine.precision + " " + engine.target;
    }
    throw BundleError(path(MANIFEST) + " names no engine of the " + role + " for " + library + " " + precision + " " +
                      target + " (" + (others.empty() ? "there is none" : "there is " + others) +
                      "): compile the bundle for it with '" + remedy + "'.");
}

std::string Bundle::read(const Engine& engine) const {
    const auto bytes = contents(path(engine.file));
    if (!bytes) {
        throw BundleError(path(engine.file) + " is named by its manifest and cannot be read (" +
                          std::strerror(errno) + "); restore the file or compile the bundle again.");
    }
    if (const std::string found = sha256(*bytes); found != engine.sha256) {
        throw BundleError(path(engine.file) + " has changed since its manifest was written (sha256 " +
                          found.substr(0, 12) + "..., expected " + engine.sha256.substr(0, 12) +
                          "...); restore the file or compile the bundle again.");
    }
    return *bytes;
}

}  // namespace stvsr
