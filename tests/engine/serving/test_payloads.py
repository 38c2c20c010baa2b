"""Payloads between processes: small and large ones arrive as they were, with and without shared memory."""

import os
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import pytest
from stvsr.engine.serving.payloads import INLINE_BYTES, PayloadReader, PayloadWriter, Shared, discard

LINUX = hasattr(os, "memfd_create")


@pytest.fixture(autouse=True)
def no_file_is_left() -> Iterator[None]:
    before = len(list(Path("/proc/self/fd").iterdir())) if LINUX else 0
    yield
    assert not LINUX or len(list(Path("/proc/self/fd").iterdir())) == before


def test_payloads_arrive_in_shared_memory() -> None:
    sizes = [10, INLINE_BYTES, INLINE_BYTES + 1, 3_000_000, 70_000, 0, 100_000, 5_000_000]
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]
    (one, other), seen = Pipe(), []
    with one, other, PayloadWriter(2) as writer, PayloadReader() as reader:
        for payload in payloads:
            packed = writer.pack(payload)
            one.send(packed)
            writer.send_file(one, packed)
            received = other.recv()
            assert reader.unpack(other, received) == payload
            seen.append(isinstance(received, Shared))
    assert seen == [LINUX and size > INLINE_BYTES for size in sizes]


def test_payloads_that_nobody_reads_are_discarded() -> None:
    one, other = Pipe()
    with one, other, PayloadWriter(2) as writer:
        for size in (10, 100_000, 100_000, 100_000):
            packed = writer.pack(bytes(size))
            one.send(packed)
            writer.send_file(one, packed)
            discard(other, other.recv())
        one.send("next")
        assert other.recv() == "next"


def test_payloads_arrive_without_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError("there is no memory")

    payload = bytes(100_000)
    with PayloadWriter(1) as writer:
        monkeypatch.setattr(os, "pwrite", fail)
        assert writer.pack(payload) is payload
        assert writer._files == {}
        monkeypatch.delattr(os, "memfd_create", raising=False)
        assert writer.pack(payload) is payload
