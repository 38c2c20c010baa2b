#pragma once

#include <string>

#include "stvsr/manifest.hpp"

namespace stvsr {

// A folder with `manifest.json` and the engines that it lists. The ONNX graphs may be absent.
class Bundle {
public:
    // Read and check the manifest in `folder`. Throws BundleError with the faulty field.
    static Bundle load(const std::string& folder);

    // Return the graph with this role. Throws BundleError if there is none.
    const Graph& graph(const std::string& role) const;

    // Return the engine of a graph for one library ("tensorrt", "tensorrt-rtx"), precision ("fp32", "tf32", "fp16") and
    // compute capability ("sm89"). Throws BundleError, with the command that compiles the engine, if there is none.
    const Engine& engine(const std::string& role, const std::string& library, const std::string& precision,
                         const std::string& target) const;

    // Read an engine's file. Throws BundleError if it cannot be read or its SHA-256 is not the manifest's.
    std::string read(const Engine& engine) const;

    // Return the path of a file in the bundle's folder.
    std::string path(const std::string& file) const { return folder + "/" + file; }

    std::string folder;
    Manifest manifest;
};

}  // namespace stvsr
