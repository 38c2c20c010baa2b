#pragma once

#include <stdexcept>

namespace stvsr {

// Base of all errors that a user can mend; each message is one sentence that says what to do.
//
// Error
// ├── MediaError      frames cannot be read or written
// ├── BundleError     a bundle or an engine is missing, damaged, changed or of an unknown format
// ├── BackendError    a device, a library or its memory was asked for and cannot be had
// └── RequestError    a scale, factor, size or option that the bundle or the engine cannot serve
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
