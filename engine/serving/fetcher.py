"""Videos that clients name by an address: each is fetched by a process of its own, below what the operator allows."""

import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore

from ..backends.options import Backend
from ..contract.closing import Closing
from ..pipeline.worker import ENDED, Worker
from .addresses import is_allowed
from .fetching import FETCHED, REFUSED, FetchOrder, Refusal, not_in_time, serve_fetch
from .problems import Problem
from .settings import Settings
from .uploads import FREE_SHARE

_AT_ONCE = 4
_START_S = 30.0  # of a process, and for what it does not notice itself


class UrlFetcher(Closing):
    """Fetches videos; any thread may use it. `close` ends what is being fetched."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._room = BoundedSemaphore(_AT_ONCE)
        self._running: set[Worker] = set()
        self._closed = False

    def check(self, url: str) -> None:
        """Raise Problem for an address from which the operator has not allowed to fetch."""
        if not is_allowed(url, self._settings.url_prefixes):
            sentence = f"This server fetches nothing from {url}: send the video, or choose another address."
            raise Problem(422, "bad-request", sentence)

    def fetch(self, url: str, path: Path) -> None:
        """Fetch a video into a new file. Raises Problem; a file that may be left then is not complete."""
        self.check(url)
        if not self._room.acquire(blocking=False):
            raise Problem(429, "busy", "Too many videos are being fetched: try again later.", retry_after="30")
        try:
            room = shutil.disk_usage(path.parent).free // FREE_SHARE
            settings = self._settings
            order = FetchOrder(
                url, path, settings.url_prefixes, settings.most_upload_bytes, room, settings.most_fetch_s
            )
            refusal = self._do(order)
        finally:
            self._room.release()
        if refusal is not None:
            raise Problem(*refusal)

    def close(self) -> None:
        """End what is being fetched, and fetch nothing any more."""
        self._closed = True
        for worker in list(self._running):
            with suppress(ValueError):  # it has ended
                worker.kill()

    def _do(self, order: FetchOrder) -> Refusal | None:
        """Run a process that fetches a video, and return its problem, if it has one."""
        ended = Refusal(503, "not-ready", "The video cannot be fetched now: try again later.")
        with Worker(
            partial(serve_fetch, order), Backend(device="cpu"), self._settings.most_worker_bytes
        ).running() as worker:
            worker.task = order  # until it is done, the process is ended with the block
            self._running.add(worker)
            try:
                if self._closed:
                    return ended
                if not worker.connection.poll(order.most_s + _START_S):
                    return not_in_time(order)
                kind, value = next(worker.messages())
            finally:
                self._running.discard(worker)
            worker.task = None if kind != ENDED else order
        if kind == REFUSED:
            return Refusal(*value)
        return None if kind == FETCHED else ended
