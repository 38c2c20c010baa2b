"""A server to measure, in a process of its own."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2
from stvsr.engine.benchmark.results import Percentiles
from stvsr.engine.contract.closing import Closing


class Server(Closing):
    """`stvsr serve` on a free port of this machine, with its jobs in `store`."""

    def __init__(self, store: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._command = [sys.executable, "-m", "stvsr", "serve", "--port", str(self._port), "--store", str(store)]
        self._command += options
        self.start_s = self._start()

    @property
    def process(self) -> int:
        """Return the number of the server's process."""
        return self._process.pid

    def restart(self) -> float:
        """Kill the server, start it again, and return the seconds from its start until it is ready."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.start_s = self._start()
        return self.start_s

    def close(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait()

    def _start(self) -> float:
        began = time.perf_counter()
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        while time.perf_counter() < began + 120 and self._process.poll() is None:
            try:
                if httpx2.get(f"{self.url}/readyz").status_code == 200:
                    return time.perf_counter() - began
            except httpx2.TransportError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"the server at {self.url} is not ready (exit code {self._process.poll()})")


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the 50th, 95th and 99th percentile of values, by the nearest rank."""
    return Percentiles.of(values).model_dump(exclude={"count"})
