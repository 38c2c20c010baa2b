#pragma once

#include <string>

#include "manifest.hpp"

namespace stvsr {

// A bundle's folder: `manifest.json`, and the engines that it names beside it; the graphs need not be there.
class Bundle {
public:
    // Read and check the manifest in `folder`; BundleError names what is wrong.
    static Bundle load(const std::string& folder);

    const Graph& graph(const std::string& role) const;

    // The engine of a graph for one library ("tensorrt", "tensorrt-rtx"), precision ("fp32", "fp16") and compute
    // capability ("sm89"); BundleError says how to get one that is not there.
    const Engine& engine(const std::string& role, const std::string& library, const std::string& precision,
                         const std::string& target) const;

    // The bytes of an engine's file; BundleError where they are not those that the manifest names.
    std::string read(const Engine& engine) const;

    std::string path(const std::string& file) const { return folder + "/" + file; }

    std::string folder;
    Manifest manifest;
};

}  // namespace stvsr
