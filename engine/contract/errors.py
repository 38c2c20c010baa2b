"""Every error that stvsr raises on purpose; each message is one sentence that says what to do.

StvsrError
├── MediaError          a video or image folder cannot be read or written
├── BundleError         a bundle is missing, damaged, changed or of an unknown format
├── BackendError        a backend or device was asked for and cannot be had
│   └── DeviceMemoryError   a device's memory does not hold the work
├── RequestError        a scale, rate, size or option that the bundle or the video cannot serve
├── ExportError         an exported graph does not compute what its network computes
├── CheckpointError     a checkpoint does not hold the weights of the network that it is read into
└── AdaptationError     a clip or network cannot be adapted to, or an adaptation diverged
"""


class StvsrError(Exception):
    """Base of all errors that a user can mend; the command line prints it as one line and exits with 1."""


class MediaError(StvsrError):
    """A video or image folder cannot be read or written."""


class BundleError(StvsrError):
    """A bundle is missing, damaged, changed or of an unknown format."""


class BackendError(StvsrError):
    """A backend or device was asked for and cannot be had."""


class DeviceMemoryError(BackendError):
    """The memory of a device does not hold the work that it was given."""


class RequestError(StvsrError):
    """A scale, rate, size or option cannot be served by this bundle or this video."""


class ExportError(StvsrError):
    """An exported graph does not compute what its network computes."""


class CheckpointError(StvsrError):
    """A checkpoint does not hold the weights of the network that it is read into."""


class AdaptationError(StvsrError):
    """A clip or a network cannot be adapted to, or an adaptation diverged."""
