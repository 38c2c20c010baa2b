"""Open upscalers that are used again: the sessions of a worker stay warm from one video or stream to the next."""

import threading
from collections import Counter, OrderedDict
from contextlib import ExitStack

from ..backends.options import Backend
from ..backends.stages import StageClock
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from .upscaler import Upscaler

MOST_OPEN = 3  # upscalers

_Key = tuple[str, Backend | None, int | None, str | None]


class UpscalerPool(Closing):
    """Keeps the last upscalers open, at most `most` of them unless more are in use. Threads may share it.

    `batch` and `clock` are those of the upscalers.
    """

    def __init__(self, most: int = MOST_OPEN, batch: int = 1, clock: StageClock | None = None) -> None:
        self._most, self._batch, self._clock = most, batch, clock
        self._lock = threading.Lock()
        self._open: OrderedDict[_Key, Upscaler] = OrderedDict()
        self._users: Counter[_Key] = Counter()

    def get(self, bundle: Bundle, backend: Backend | None, tile: int | None, flow: str | None) -> Upscaler:
        """Return an open upscaler, which the caller releases."""
        key = (bundle.fingerprint, backend, tile, flow)
        with self._lock:
            if key not in self._open:
                self._open[key] = Upscaler(bundle, backend, tile=tile, flow=flow, batch=self._batch, clock=self._clock)
            elif not self._users[key]:
                self._open[key].begin_run()
            self._open.move_to_end(key)
            self._users[key] += 1
            self._trim()
            return self._open[key]

    def release(self, upscaler: Upscaler) -> None:
        """End a use of an upscaler, which stays open while there is room."""
        with self._lock:
            for key, one in self._open.items():
                if one is upscaler:
                    self._users[key] -= 1
            self._trim()

    def close(self) -> None:
        """Close every upscaler."""
        with ExitStack() as opened:
            for upscaler in self._open.values():
                opened.enter_context(upscaler)
        self._open.clear()

    def _trim(self) -> None:
        """Close upscalers beyond the limit that nobody uses, the least recently used first."""
        for key in [key for key in self._open if not self._users[key]][: max(0, len(self._open) - self._most)]:
            self._open.pop(key).close()
