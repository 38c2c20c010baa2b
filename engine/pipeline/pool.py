"""Open upscalers that are used again: the sessions of a worker stay warm from one video or stream to the next."""

import threading
from contextlib import ExitStack
from dataclasses import dataclass

from ..backends.options import Backend
from ..backends.stages import StageClock
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from ..contract.errors import BackendError, BundleError
from .inference import Inference
from .upscaler import Upscaler

MOST_OPEN = 3  # upscalers


@dataclass(eq=False)
class _Opened:
    """An open upscaler, what it was opened for, and the number of its users."""

    upscaler: Upscaler
    options: tuple[Backend | None, Inference]
    users: int = 0


class UpscalerPool(Closing):
    """Keeps the last upscalers open, at most `most` of them unless more are in use. Threads may share it.

    `batch` and `clock` are those of the upscalers.
    """

    def __init__(self, most: int = MOST_OPEN, batch: int = 1, clock: StageClock | None = None) -> None:
        self._most, self._batch, self._clock = most, batch, clock
        self._lock = threading.Lock()
        self._open: list[_Opened] = []  # the last one was used last

    def get(
        self,
        bundle: Bundle,
        backend: Backend | None,
        inference: Inference = Inference(),  # noqa: B008 - it is immutable
        parent: Bundle | None = None,
    ) -> Upscaler:
        """Return an open upscaler, which the caller releases.

        With the `parent` that a bundle was adapted from, it is one of the parent that takes the weights of the bundle,
        where that can be done.
        """
        options = backend, inference
        with self._lock:
            opened = None if parent is None else self._refitted(parent, bundle, options)
            opened = opened or self._refitted(bundle, bundle, options)
            assert opened is not None  # a bundle has its own weights
            opened.users += 1
            self._trim()
            return opened.upscaler

    def release(self, upscaler: Upscaler) -> None:
        """End a use of an upscaler, which stays open while there is room."""
        with self._lock:
            for opened in self._open:
                if opened.upscaler is upscaler:
                    opened.users -= 1
            self._trim()

    def close(self) -> None:
        """Close every upscaler."""
        with ExitStack() as closing:
            for opened in self._open:
                closing.enter_context(opened.upscaler)
        self._open.clear()

    def _refitted(self, parent: Bundle, bundle: Bundle, options: tuple[Backend | None, Inference]) -> _Opened | None:
        """Return an open upscaler of a parent with the weights of a bundle; None if it does not take them."""
        same = [o for o in self._open if o.options == options and o.upscaler.bundle.fingerprint == parent.fingerprint]
        # Another bundle's weights may be in use by others: then it is opened once more.
        fitting = [o for o in same if o.upscaler.weights == bundle.fingerprint] + [o for o in same if not o.users]
        opened = next(iter(fitting), None)
        if opened is None:
            backend, inference = options
            upscaler = Upscaler(parent, backend, **vars(inference), batch=self._batch, clock=self._clock)
            opened = _Opened(upscaler, options)
            self._open.append(opened)
        elif not opened.users:
            opened.upscaler.begin_run()
        if opened.upscaler.weights != bundle.fingerprint:
            try:
                opened.upscaler.refit(bundle)
            except (BundleError, BackendError):
                return None
        self._open.remove(opened)
        self._open.append(opened)
        return opened

    def _trim(self) -> None:
        """Close upscalers beyond the limit that nobody uses, the least recently used first."""
        idle = [opened for opened in self._open if not opened.users]
        for opened in idle[: max(0, len(self._open) - self._most)]:
            self._open.remove(opened)
            opened.upscaler.close()
