"""The session protocol that every backend implements."""

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from ..contract.manifest import TensorSpec
from .device import Array, Device


class Session(Protocol):
    """An open graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    device: Device

    def run(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Compute every output, as arrays of the session's device.

        With `keep` the outputs may have any form that other sessions of the same backend accept as inputs, which saves
        a copy.
        """

    def close(self) -> None:
        """Free the graph. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
