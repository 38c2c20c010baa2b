"""Batches that worker processes or a thread draw are those of the training process."""

import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from stvsr.engine.contract.errors import RequestError
from stvsr.training.data import ClipSampler
from stvsr.training.loading import BatchLoader, GpuBatchLoader
from stvsr.training.networks.videoinr_s import VideoINRS

from tests.support.toy_networks import QUICK, TINY_PAIR


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_draw_the_same_batches_in_order(clip: np.ndarray, workers: int) -> None:
    sampler = ClipSampler([clip], VideoINRS(TINY_PAIR), QUICK, seed=3)
    expected = list(BatchLoader(sampler, 2, 7, workers=0))
    loader = BatchLoader(sampler, 2, 7, workers=workers)
    batches = list(loader)
    assert len(batches) == len(expected) == 5
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.truth, other.truth)
        assert torch.equal(batch.frames, other.frames)
    assert loader.seconds > 0


def test_no_steps_give_no_batches(clip: np.ndarray) -> None:
    sampler = ClipSampler([clip], VideoINRS(TINY_PAIR), QUICK, seed=3)
    assert list(BatchLoader(sampler, 4, 4, workers=1)) == []


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of a GPU that is not there."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())


@pytest.mark.usefixtures("no_gpu")
def test_a_thread_draws_the_same_batches_in_order(clip: np.ndarray) -> None:
    sampler = ClipSampler([clip], VideoINRS(TINY_PAIR), QUICK, seed=3)
    expected = list(BatchLoader(sampler, 2, 7, workers=0))
    loader = GpuBatchLoader(sampler, 2, 7, "cuda:0", threading.Lock())
    batches = list(loader)
    assert len(batches) == len(expected) == 5
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.truth, other.truth)
    assert loader.seconds > 0


class Numbers:
    """A sampler whose batches are their steps; it remembers those that were drawn, and fails at `broken`."""

    def __init__(self, broken: int | None = None) -> None:
        self.drawn: list[int] = []
        self._broken = broken

    def batch(self, step: int) -> Any:
        if step == self._broken:
            raise RequestError("no such clip")
        self.drawn.append(step)
        return step


@pytest.mark.usefixtures("no_gpu")
def test_a_thread_draws_no_batch_while_its_lock_is_held() -> None:
    sampler, alone = Numbers(), threading.Lock()
    batches: Iterator[Any] = iter(GpuBatchLoader(sampler, 0, 9, "cuda:0", alone))
    assert next(batches) == 0
    with alone:
        before = len(sampler.drawn)
        time.sleep(0.05)
        assert len(sampler.drawn) == before
    assert list(batches) == list(range(1, 9))
    assert sampler.drawn == list(range(9))


@pytest.mark.usefixtures("no_gpu")
def test_an_error_of_drawing_ends_the_loop() -> None:
    batches: Iterator[Any] = iter(GpuBatchLoader(Numbers(broken=2), 0, 9, "cuda:0", threading.Lock()))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(RequestError, match="no such clip"):
        next(batches)
