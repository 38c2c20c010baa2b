"""Training steps as CUDA graphs.

A step of a small network is hundreds of launches on a GPU, which take longer than their work. A graph repeats the
launches of one step on the same memory, so the host queues a step in a moment.
"""

import threading
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .data import Batch

Step = Callable[[Batch, Tensor], Tensor]

WARM_UPS = 3  # steps of a kind before its graph: they choose algorithms and allocate the optimizer's state
MOST_GRAPHS = 6  # random scales make many kinds of batches; those beyond run as they are


class CapturedStep:
    """Calls a training step, and replays it as a CUDA graph for every kind of batch that comes often.

    `step` takes a batch and a vector of numbers that change between steps, both on the device, and returns its loss,
    `()`; it updates the weights itself and never waits for the device. `alone` is held during a capture: other threads
    that use the device hold it while they do. A step that cannot be captured is called every time.
    """

    def __init__(self, step: Step, device: str, alone: threading.Lock) -> None:
        self._step, self._alone = step, alone
        self._stream = torch.cuda.Stream(device)
        self._graphs: dict[Any, _Graph] = {}
        self._seen: Counter[Any] = Counter()
        self._captures = True

    def __call__(self, batch: Batch, numbers: list[float]) -> float:
        """Take a step and return its loss."""
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            return float(self._take(batch, torch.tensor(numbers).to(batch.truth.device)))

    def _take(self, batch: Batch, numbers: Tensor) -> Tensor:
        kind = (batch.motion_only, *(None if t is None else t.shape for t in batch.tensors))
        graph = self._graphs.get(kind)
        if graph is None and self._captures and self._seen[kind] >= WARM_UPS and len(self._graphs) < MOST_GRAPHS:
            graph = self._capture(kind, batch, numbers)
        self._seen[kind] += 1
        return graph.replay(batch, numbers) if graph else self._step(batch, numbers)

    def _capture(self, kind: Any, batch: Batch, numbers: Tensor) -> "_Graph | None":
        """Return the graph of a step, which is not taken yet, or None if it cannot be captured."""
        try:
            with self._alone:
                torch.cuda.synchronize()
                self._graphs[kind] = _Graph(self._step, batch, numbers, self._stream, self._graphs)
        except RuntimeError as error:
            self._captures = False
            reason = (str(error).splitlines() or ["no reason given"])[0]
            warnings.warn(f"The steps run without CUDA graphs ({reason}).", stacklevel=2)
        return self._graphs.get(kind)


class _Graph:
    """A captured step, with the memory that it reads. Graphs that never run at once share their other memory."""

    def __init__(
        self, step: Step, batch: Batch, numbers: Tensor, stream: torch.cuda.Stream, others: dict[Any, "_Graph"]
    ) -> None:
        self._batch, self._numbers = batch.map(torch.clone), numbers.clone()
        self._graph = torch.cuda.CUDAGraph()
        pool = next((other.pool for other in others.values()), None)
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._loss = step(self._batch, self._numbers)
        self.pool: Any = self._graph.pool()

    def replay(self, batch: Batch, numbers: Tensor) -> Tensor:
        """Take the step on another batch, and return its loss."""
        for target, source in zip(self._batch.tensors, batch.tensors, strict=True):
            if target is not None and source is not None:
                target.copy_(source)
        self._numbers.copy_(numbers)
        self._graph.replay()
        return self._loss
