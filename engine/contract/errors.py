"""Exceptions that stvsr raises on purpose; every message states what was wrong and what to do.

StvsrError
├── MediaError              a video or image folder cannot be read or written
├── BundleError             a bundle is missing, damaged, changed or of an unknown format
├── BackendError            a requested backend or device is not available
│   ├── DeviceMemoryError   the memory of a device is too small for the work
│   └── NonFiniteError      a network computed NaN or infinity
├── RequestError            the bundle or the video does not support a scale, rate, size or option
├── ExportError             an exported graph and its network compute different results
├── CheckpointError         a checkpoint does not hold the weights of the network that reads it
├── CancelledError          a run was cancelled by its caller
├── ServerError             a server refused a request or failed, or cannot be reached
└── AdaptationError         a clip or network cannot be adapted to, or an adaptation diverged
"""


class StvsrError(Exception):
    """Base class of errors that a user can fix; the command line prints one as a single line and exits with 1.

    code: the kind of the error, for programs; it stays the same when the sentence changes.
    """

    code = "error"


class MediaError(StvsrError):
    """A video or image folder cannot be read or written."""

    code = "media"


class BundleError(StvsrError):
    """A bundle is missing, damaged, changed or of an unknown format."""

    code = "bundle"


class BackendError(StvsrError):
    """A requested backend or device is not available."""

    code = "backend"


class DeviceMemoryError(BackendError):
    """The memory of a device is too small for the work."""

    code = "device-memory"


class NonFiniteError(BackendError):
    """A network computed NaN or infinity."""

    code = "non-finite"


class RequestError(StvsrError):
    """The bundle or the video does not support the requested scale, rate, size or option."""

    code = "request"


class ExportError(StvsrError):
    """An exported graph and its network compute different results."""

    code = "export"


class CheckpointError(StvsrError):
    """A checkpoint does not hold the weights of the network that reads it."""

    code = "checkpoint"


class CancelledError(StvsrError):
    """A run was cancelled by its caller."""

    code = "cancelled"


class ServerError(StvsrError):
    """A server refused a request or failed, or cannot be reached.

    status: of HTTP; None if there was no answer.
    code: the kind of the problem, such as "busy" or "not-found".
    retry_after_s: seconds after which the server asks to try again.
    """

    def __init__(
        self, sentence: str, status: int | None = None, code: str = "unreachable", retry_after_s: float | None = None
    ) -> None:
        super().__init__(sentence)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


class AdaptationError(StvsrError):
    """A clip or a network cannot be adapted to, or an adaptation diverged."""

    code = "adaptation"
