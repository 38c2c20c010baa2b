"""A base class for context managers that release their resources on exit."""

from types import TracebackType
from typing import Self


class Closing:
    """Base class of context managers that have a `close` method."""

    def close(self) -> None:
        """Release everything the object owns; calling it again has no effect."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
