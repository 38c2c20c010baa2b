"""Servers of tests: in this process behind a client of Starlette, or on a port of this machine."""

import asyncio
import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from stvsr import Backend
from stvsr.engine.serving.app import make_app
from stvsr.engine.serving.settings import Settings
from stvsr.engine.serving.websocket import DrainingServer, websocket_options

LOCAL = "http://127.0.0.1"  # of clients in this process: servers without a token refuse other names


def app_of(folder: Path, workers: int = 1, **settings: Any) -> FastAPI:
    """Return a server's application, with its jobs in `folder`/store."""
    return make_app(Settings(folder / "store", **settings), [Backend(device="cpu", threads=1)] * workers)


@contextlib.contextmanager
def serving(folder: Path, workers: int = 1, **settings: Any) -> Iterator[str]:
    """Run a server on a port of this machine, and yield its address."""
    options = websocket_options(Settings(folder, **settings))
    with listening(app_of(folder, workers, **settings), DrainingServer, **options) as url:
        yield url


@contextlib.contextmanager
def listening(app: Any, server_class: type[uvicorn.Server] = uvicorn.Server, **options: Any) -> Iterator[str]:
    """Run an application on a port of this machine, and yield its address; `options` are those of uvicorn."""
    # With its protocol named, asyncio sends small answers at once; else each waits 40 ms for an acknowledgement.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = server_class(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=5, **options))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), name="server")
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def workers_of(process: int) -> list[int]:
    """Return the worker processes of a process."""
    found = subprocess.run(["pgrep", "-P", str(process), "-f", "spawn_main"], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until a condition is true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.01)
