"""What holds something open: a context manager that closes itself."""

from types import TracebackType
from typing import Self


class Closing:
    """Base of what has a `close`, which leaving the `with` calls."""

    def close(self) -> None:
        """Let go of what is held; a second call does nothing."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
