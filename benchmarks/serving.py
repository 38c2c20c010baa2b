"""Measure the server, as JSON lines: `python -m benchmarks.serving PART`.

frames    POST /v1/frames of two 64x48 frames, one client: milliseconds beside the time of the session
streams   live streams of 64x48 frames, 1 to 8 clients at once: frames per second, alone and in batches
"""

import argparse
import itertools
import math
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
from stvsr import Client

from .record import RESULTS, record

FRAME = (48, 64)  # (h, w)
CLIENTS = (1, 2, 4, 8)
BATCHES = (1, 4)


@contextmanager
def running_server(*options: str) -> Iterator[str]:
    """Run `stvsr serve` on a free port with a new store, and yield its address when it is ready."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "stvsr", "serve", "--port", str(port), "--store", folder, *options]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, server)
            yield url
        finally:
            server.terminate()
            server.wait()


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the 50th, 95th and 99th percentile of values, by the nearest rank."""
    ordered = sorted(values)
    return {f"p{share}": round(ordered[math.ceil(share / 100 * len(ordered)) - 1], 3) for share in (50, 95, 99)}


def frames(arguments: argparse.Namespace, command: str) -> None:
    """Record how much longer a request for frames takes than its session computes."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, *FRAME, 3), np.uint8)
    params = {"format": "rgb24", "height": str(FRAME[0]), "width": str(FRAME[1]), "scale": "4", "time_factor": "2"}
    totals, sessions = [], []
    server = running_server("--device", "cpu", "--threads", str(arguments.threads), "--warm", "fourier-s")
    with server as url, httpx2.Client(base_url=url, timeout=120) as client:
        for number in range(_WARM_UP + arguments.runs):
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
        runs=arguments.runs,
        threads=arguments.threads,
        total_ms=percentiles(totals),
        session_ms=percentiles(sessions),
        overhead_ms=percentiles(overheads),
    )


def streams(arguments: argparse.Namespace, command: str) -> None:
    """Record the new frames per second of several clients at once, and those of the slowest and fastest of them."""
    results = []
    for batch in BATCHES:
        options = ("--device", "cpu", "--threads", str(arguments.threads), "--warm", "fourier-s")
        with running_server(*options, "--batch", str(batch)) as url:
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


_WARM_UP = 10  # requests that are not counted
PARTS: dict[str, Callable[[argparse.Namespace, str], None]] = {"frames": frames, "streams": streams}


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


def _wait_until_ready(url: str, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and server.poll() is None:
        try:
            if httpx2.get(f"{url}/readyz").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the server at {url} is not ready (exit code {server.poll()})")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON lines")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the networks")
    parser.add_argument("--runs", type=int, default=200, help="requests of frames")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement of streams")
    arguments = parser.parse_args()
    PARTS[arguments.part](arguments, " ".join(["python -m benchmarks.serving", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
