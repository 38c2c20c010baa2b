#include "stvsr/bundle.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>

#include "sha256.hpp"

namespace stvsr {
namespace {

const char* const MANIFEST = "manifest.json";
constexpr std::uintmax_t LARGEST_MANIFEST = 16U << 20U, LARGEST_ENGINE = 16ULL << 30U;  // bytes

// Return the bytes of a regular file, or nothing and the reason in errno. A pipe would be waited for without end, and a
// device has no end.
std::optional<std::string> read_file(const std::string& path, std::uintmax_t most_bytes) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (std::filesystem::exists(status) && !std::filesystem::is_directory(status)) {
        const bool regular = std::filesystem::is_regular_file(status);
        if (!regular || std::filesystem::file_size(path, error) > most_bytes) {
            errno = regular ? EFBIG : EINVAL;
            return std::nullopt;
        }
    }
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) return std::nullopt;
    std::string bytes;
    std::array<char, 1 << 16> chunk;
    while (const std::size_t count = std::fread(chunk.data(), 1, chunk.size(), file.get())) {
        bytes.append(chunk.data(), count);
    }
    if (std::ferror(file.get())) return std::nullopt;  // a folder can be opened, but not read
    return bytes;
}

}  // namespace

Bundle Bundle::load(const std::string& folder) {
    Bundle bundle;
    bundle.folder = folder;
    const auto text = read_file(bundle.path(MANIFEST), LARGEST_MANIFEST);
    if (!text) {
        throw BundleError(folder + " is not a bundle: cannot read " + MANIFEST + " (" + std::strerror(errno) +
                          "); pass the folder of a bundle.");
    }
    bundle.manifest = parse_manifest(*text, bundle.path(MANIFEST));
    return bundle;
}

const Graph& Bundle::graph(const std::string& role) const {
    for (const Graph& graph : manifest.graphs) {
        if (graph.role == role) return graph;
    }
    throw BundleError(path(MANIFEST) + " has no graph '" + role + "': use another bundle.");
}

const Engine& Bundle::engine(const std::string& role, const std::string& library, const std::string& precision,
                             const std::string& target) const {
    const std::string command =
        "stvsr compile " + folder + " --precision " + precision + " --target " + target + " --library " + library;
    std::string others;
    for (const Engine& engine : manifest.engines) {
        if (engine.role != role) continue;
        if (engine.library == library && engine.precision == precision && engine.target == target) {
            if (engine.graph_sha256 == graph(role).sha256) return engine;
            throw BundleError(path(engine.file) + " was built from a different graph than " + graph(role).file +
                              ": compile the bundle again with '" + command + "'.");
        }
        others += (others.empty() ? "" : ", ") + engine.library + " " + engine.precision + " " + engine.target;
    }
    throw BundleError(path(MANIFEST) + " lists no " + role + " engine for " + library + " " + precision + " " + target +
                      " (available: " + (others.empty() ? "none" : others) + "): compile the bundle with '" + command +
                      "'.");
}

std::string Bundle::read(const Engine& engine) const {
    const auto bytes = read_file(path(engine.file), LARGEST_ENGINE);
    if (!bytes) {
        throw BundleError("Cannot read " + path(engine.file) + ", which the manifest lists (" + std::strerror(errno) +
                          "): restore the file or compile the bundle again.");
    }
    if (const std::string actual = sha256(*bytes); actual != engine.sha256) {
        throw BundleError(path(engine.file) + " has changed since its manifest was written (sha256 " +
                          actual.substr(0, 12) + "..., expected " + engine.sha256.substr(0, 12) +
                          "...): restore the file or compile the bundle again.");
    }
    return *bytes;
}

}  // namespace stvsr
