"""Open upscalers that are used again: the sessions of a worker stay warm from one video to the next."""

from collections import OrderedDict
from contextlib import ExitStack

from ..backends.options import Backend
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from .upscaler import Upscaler

MOST_OPEN = 3  # upscalers


class UpscalerPool(Closing):
    """Keeps the last upscalers open, at most `most` of them. It is used by one run at a time."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most = most
        self._open: OrderedDict[tuple[str, Backend | None, int | None, str | None], Upscaler] = OrderedDict()

    def get(self, bundle: Bundle, backend: Backend | None, tile: int | None, flow: str | None) -> Upscaler:
        """Return an open upscaler, which the pool closes."""
        key = (bundle.fingerprint, backend, tile, flow)
        if key not in self._open:
            self._open[key] = Upscaler(bundle, backend, tile=tile, flow=flow)
        self._open.move_to_end(key)
        self._open[key].warnings.clear()  # those of an earlier run
        return self._open[key]

    def trim(self) -> None:
        """Close the upscalers beyond the limit, the least recently used first; call it between runs."""
        while len(self._open) > self._most:
            self._open.popitem(last=False)[1].close()

    def close(self) -> None:
        """Close every upscaler."""
        with ExitStack() as opened:
            for upscaler in self._open.values():
                opened.enter_context(upscaler)
        self._open.clear()
