"""Frames and live streams: how much the server adds to the time of the session, and what several clients get."""

import argparse
import itertools
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
from stvsr import Client

from ..record import record
from .server import Server, percentiles

FRAME = (48, 64)  # (h, w)
CLIENTS = (1, 2, 4, 8)
BATCHES = (1, 4)
_WARM_UP = 10  # requests that are not counted


def frames(arguments: argparse.Namespace, command: str) -> None:
    """Record how much longer a request for frames takes than its session computes."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, *FRAME, 3), np.uint8)
    params = {"format": "rgb24", "height": str(FRAME[0]), "width": str(FRAME[1]), "scale": "4", "time_factor": "2"}
    totals, sessions, runs = [], [], 50 * arguments.runs
    with _running_server(arguments.threads) as url, httpx2.Client(base_url=url, timeout=120) as client:
        for number in range(_WARM_UP + runs):
            began = time.perf_counter()
            answer = client.post("/v1/frames", params=params, content=pixels.tobytes())
            total_ms = 1e3 * (time.perf_counter() - began)
            answer.raise_for_status()
            if number >= _WARM_UP:
                totals.append(total_ms)
                sessions.append(float(answer.headers["server-timing"].removeprefix("session;dur=")))
    overheads = [total - session for total, session in zip(totals, sessions, strict=True)]
    record(
        "serving",
        arguments.out,
        command,
        part="frames",
        frames_in=len(pixels),
        frames_out=int(answer.headers["stvsr-frames"]),
        runs=runs,
        threads=arguments.threads,
        total_ms=percentiles(totals),
        session_ms=percentiles(sessions),
        overhead_ms=percentiles(overheads),
    )


def streams(arguments: argparse.Namespace, command: str) -> None:
    """Record the new frames per second of several clients at once, and those of the slowest and fastest of them."""
    results = []
    for batch in BATCHES:
        with _running_server(arguments.threads, "--batch", str(batch)) as url:
            for clients in CLIENTS:
                counts, seconds = _run_streams(url, clients, arguments.seconds)
                results.append(
                    {
                        "batch": batch,
                        "clients": clients,
                        "fps": round(sum(counts) / seconds, 2),
                        "frames_of_clients": [min(counts), max(counts)],
                    }
                )
    record("serving", arguments.out, command, part="streams", threads=arguments.threads, results=results)


@contextmanager
def _running_server(threads: int, *options: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        warm = ("--device", "cpu", "--threads", str(threads), "--warm", "fourier-s")
        with Server(Path(folder), *warm, *options) as server:
            yield server.url


def _run_streams(url: str, clients: int, seconds: float) -> tuple[list[int], float]:
    """Run some streams for some seconds, and return the new frames of each, and the seconds from the first of all."""
    counts = [0] * clients
    started, ended = threading.Barrier(clients + 1), threading.Event()

    def run(number: int) -> None:
        frame = np.random.default_rng(number).integers(0, 256, (3, *FRAME), np.uint8)
        with Client(url) as client:
            stream = client.stream(itertools.repeat(frame), scale=4, time_factor=2)
            next(stream)
            started.wait()
            for _ in stream:
                if ended.is_set():
                    break
                counts[number] += 1
            stream.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    started.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    measured, elapsed = list(counts), time.perf_counter() - began
    ended.set()
    for thread in threads:
        thread.join()
    return measured, elapsed
