"""Batches drawn ahead of the training loop: in worker processes, or on a GPU by a thread."""

import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from .data import Batch

_AHEAD = 2  # batches that each worker prepares


class Sampler(Protocol):
    """Draws the batch of any step."""

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; it depends on nothing else."""


class BatchLoader:
    """Yields the batches of the steps from `start` to before `stop`, and measures the wait for them.

    `workers` processes draw batches ahead of time; with 0, or where processes cannot be forked, the calling process
    draws each batch when it is needed. The batches are the same.
    """

    def __init__(self, sampler: Sampler, start: int, stop: int, workers: int) -> None:
        forks = "fork" in multiprocessing.get_all_start_methods()  # samplers hold objects that cannot be pickled
        workers = min(workers, stop - start) if forks else 0
        self._loader: DataLoader[Batch] = DataLoader(
            _Steps(sampler),
            batch_size=None,
            sampler=range(start, stop),
            num_workers=workers,
            prefetch_factor=_AHEAD if workers else None,
            multiprocessing_context="fork" if workers else None,
        )
        self.seconds = 0.0  # spent waiting for batches so far

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order."""
        started = time.perf_counter()
        for batch in self._loader:
            self.seconds += time.perf_counter() - started
            yield batch
            started = time.perf_counter()


class _Steps(Dataset[Batch]):
    """The batches of a sampler, by their steps."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def __getitem__(self, step: int) -> Batch:
        return self._sampler.batch(step)


class GpuBatchLoader:
    """Yields the batches of the steps from `start` to before `stop`, drawn on a GPU while it trains.

    A thread draws them on a stream of its own; it holds `alone` while it uses the device. `seconds` is the time spent
    waiting for batches so far.
    """

    def __init__(self, sampler: Sampler, start: int, stop: int, device: str, alone: threading.Lock) -> None:
        self._sampler, self._steps, self._alone = sampler, range(start, stop), alone
        self._stream = torch.cuda.Stream(device)
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order, complete."""
        with ThreadPoolExecutor(1) as thread:
            ahead: deque[Future[Batch]] = deque()
            for step in self._steps:
                while len(ahead) < 1 + _AHEAD and step + len(ahead) < self._steps.stop:
                    ahead.append(thread.submit(self._draw, step + len(ahead)))
                started = time.perf_counter()
                batch = ahead.popleft().result()
                self.seconds += time.perf_counter() - started
                yield batch

    def _draw(self, step: int) -> Batch:
        with self._alone, torch.cuda.stream(self._stream):
            batch = self._sampler.batch(step)
            self._stream.synchronize()
        return batch
