#pragma once

#include <stdexcept>

namespace stvsr {

// Base class of the errors that a user can fix; each message says what is wrong and what to do.
//
// Error
// ├── MediaError      frames cannot be read or written
// ├── BundleError     a bundle or an engine is missing, damaged, changed or of an unknown format
// ├── BackendError    a requested device or library, or its memory, is not available
// └── RequestError    the bundle or the engine does not support a scale, factor, size or option
class Error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

class MediaError : public Error {
    using Error::Error;
};

class BundleError : public Error {
    using Error::Error;
};

class BackendError : public Error {
    using Error::Error;
};

class RequestError : public Error {
    using Error::Error;
};

}  // namespace stvsr
