"""The Open Inference Protocol, version 2 (KServe, Triton): the requests that stvsr makes, over HTTP or gRPC."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

DATATYPES = {"float32": "FP32", "float16": "FP16", "float64": "FP64", "int64": "INT64", "int32": "INT32"}
_MOST_REASON = 500  # characters of a server's message
CONNECT_S = 10.0  # seconds at most to open a connection, or to ask for a description


class Tensor(NamedTuple):
    """A tensor of a model, as the protocol describes it; -1 stands for a size that is free."""

    datatype: str  # such as "FP32"
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.datatype} ({', '.join(map(str, self.shape))})"


class ModelMetadata(NamedTuple):
    """The answer of a server about one model."""

    versions: tuple[str, ...]  # empty if the server does not list them
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class RemoteError(Exception):
    """Base class of a request's failures; the message is the reason, as half a sentence."""


class UnreachableError(RemoteError):
    """A failed connection, or a server that is not ready: the same request may succeed later."""


class TimedOutError(RemoteError):
    """An answer that did not come in time."""


class RefusedError(RemoteError):
    """An answer that is an error, or no answer to the request."""


def reason_of(text: str) -> str:
    """Return a server's message as the reason of an error: one line, without a full stop at its end."""
    return " ".join(text.split())[:_MOST_REASON].rstrip(". ")


class Connection(Protocol):
    """A connection to one server. Its methods may be called from several threads; they raise RemoteErrors."""

    def metadata(self, model: str) -> ModelMetadata:
        """Return what the server says about a model. Raises RefusedError if it has none of that name."""

    def parameters(self, model: str) -> dict[str, str] | None:
        """Return the parameters in a model's configuration; None if the server tells no configuration.

        The configuration is an extension of the protocol, which Triton has.
        """

    def infer(
        self, model: str, version: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, Tensor]
    ) -> dict[str, np.ndarray]:
        """Run a model once. `outputs` names the outputs, with the types and the shapes that they must have."""

    def close(self) -> None:
        """Close the connection. A second call does nothing."""


def check_output(name: str, actual: Tensor, expected: Tensor) -> None:
    """Raise RefusedError if an output has another type or shape than it must have."""
    if actual != expected:
        raise RefusedError(f"its output '{name}' is {actual}, expected {expected}")
