"""An inference server that is missing, has other models, is slow or ends in the middle of a run: one sentence each."""

import http.server
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import (
    Backend,
    BackendError,
    Bundle,
    DeviceMemoryError,
    Upscaler,
    UpscaleRequest,
    one_scene,
    upscale,
    upscale_resumable,
)
from stvsr.engine.backends.graphs import open_graphs
from stvsr.engine.backends.remote.address import parse_address
from stvsr.engine.backends.remote.http_connection import HttpConnection
from stvsr.engine.backends.remote.protocol import RefusedError, RemoteError, Tensor, UnreachableError
from stvsr.engine.backends.remote.repository import write_repository
from stvsr.engine.contract.errors import NonFiniteError

from tests.support.media import make_video, pan
from tests.support.ports import unused_port
from tests.support.toy import write_toy

pytest.importorskip("tritonclient.grpc", reason="stvsr[remote] is not installed: there is no inference server to test")

from tests.support.inference_server import InferenceServer, QuietHttpServer, ServerError, serving

FRAMES = np.zeros((1, 2, 3, 16, 24), np.float32)


@pytest.fixture(scope="module")
def served(pair: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "repository"
    write_repository([pair], folder, max_batch=2)
    return folder


@pytest.fixture(params=["http", "grpc"])
def server(request: pytest.FixtureRequest, served: Path) -> Iterator[InferenceServer]:
    with serving(served, request.param) as server:
        yield server


def remote(url: str, timeout_s: float | None = None) -> Backend:
    return Backend("remote", url=url, timeout_s=timeout_s)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_not_there(scheme: str, pair: Bundle) -> None:
    url = f"{scheme}://127.0.0.1:{unused_port()}"
    with pytest.raises(BackendError, match=rf"The inference server {url} cannot be reached \(.+\): start it"):
        Upscaler(pair, remote(url))


def test_a_host_without_an_address(pair: Bundle) -> None:
    with pytest.raises(BackendError, match="cannot be reached"):
        Upscaler(pair, remote("http://nowhere.invalid:8000"))


def test_a_model_that_is_not_there(server: InferenceServer, tmp_path: Path) -> None:
    other = Bundle.load(write_toy(tmp_path / "other", name="other"))
    with pytest.raises(BackendError, match=r"has no model 'other-encoder' \(.*not found\): load a repository"):
        Upscaler(other, remote(server.url))


def test_a_version_that_is_not_there(server: InferenceServer, pair: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = server.repository.metadata
    monkeypatch.setattr(server.repository, "metadata", lambda *names: {**metadata(*names), "versions": ["2", "3"]})
    with pytest.raises(BackendError, match="has version 2 and 3 of the model 'toy-encoder', and not 1: write its"):
        Upscaler(pair, remote(server.url))


@pytest.mark.parametrize("field", ["name", "datatype", "shape"])
def test_a_model_of_other_tensors(
    field: str, server: InferenceServer, pair: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = server.repository.metadata

    def changed(*names: str) -> dict[str, Any]:
        found = metadata(*names)
        found["outputs"][0][field] = {"name": "other", "datatype": "FP16", "shape": [-1, 3]}[field]
        return found

    monkeypatch.setattr(server.repository, "metadata", changed)
    with pytest.raises(BackendError, match=r"has the tensors .*, expected 'features' FP32 \(-1, 2, 3, -1, -1\)"):
        Upscaler(pair, remote(server.url))


def test_a_server_that_is_slow(server: InferenceServer, pair: Bundle) -> None:
    server.repository.before_run = lambda: time.sleep(1.0)
    began = time.monotonic()
    with (
        open_graphs(pair, remote(server.url, timeout_s=0.2)) as graphs,
        pytest.raises(BackendError, match=r"did not answer in time \(no answer within 0.2 s\): wait longer by"),
    ):
        graphs.run("encoder", {"frames": FRAMES})
    assert time.monotonic() - began < 0.9, "it was asked again"


def test_a_connection_that_is_never_accepted(pair: Bundle) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(BackendError, match="did not answer in time"):
            Upscaler(pair, remote(url, timeout_s=0.2))


def failing(times: int, error: Exception) -> Callable[[], None]:
    """Return a function that raises an error the first times that it is called."""
    remaining = [error] * times

    def fail() -> None:
        if remaining:
            raise remaining.pop()

    return fail


def test_a_server_that_is_not_ready_is_asked_again(server: InferenceServer, pair: Bundle) -> None:
    with open_graphs(pair, remote(server.url)) as graphs:
        server.repository.before_run = failing(3, ServerError(503, "busy"))
        graphs.run("encoder", {"frames": FRAMES})
        assert len(server.repository.runs) == 4
        server.repository.before_run = failing(4, ServerError(503, "busy"))
        with pytest.raises(BackendError, match=r"cannot be reached \(.*busy\)"):
            graphs.run("encoder", {"frames": FRAMES})


def test_an_error_of_the_server_is_not_repeated(server: InferenceServer, pair: Bundle) -> None:
    server.repository.before_run = failing(1, ServerError(500, "the\n  graph failed.\n"))
    with (
        open_graphs(pair, remote(server.url)) as graphs,
        pytest.raises(BackendError, match=r"did not run the model 'toy-encoder' \(.*the graph failed\)"),
    ):
        graphs.run("encoder", {"frames": FRAMES})
    assert len(server.repository.runs) == 1


def test_values_that_are_no_numbers(server: InferenceServer, refined: Bundle, tmp_path: Path) -> None:
    """The precision of a server's models cannot be changed from here."""
    write_repository([refined], tmp_path / "half", precision="fp16")
    with serving(tmp_path / "half", server.protocol) as half, Upscaler(refined, remote(half.url)) as upscaler:
        assert upscaler.precision == "fp16"
        run = half.repository.run
        half.repository.run = lambda *asked: {k: v * np.float32(np.nan) for k, v in run(*asked).items()}  # type: ignore[method-assign]
        with pytest.raises(NonFiniteError, match="not finite numbers in fp16, in output frame 1"):
            list(upscaler.frames(one_scene(np.zeros((2, 3, 16, 24), np.float32)), (32, 48)))


def test_tiles_shrink_when_the_servers_memory_is_full(server: InferenceServer, pair: Bundle) -> None:
    frames = np.random.default_rng(0).random((2, 3, 48, 64), dtype=np.float32)
    with Upscaler(pair, Backend("ort", "cpu"), tile=32) as upscaler:
        expected = list(upscaler.frames(one_scene(frames), (96, 128)))
    server.repository.before_run = failing(1, ServerError(500, "CUDA error: out of memory"))
    with Upscaler(pair, remote(server.url)) as upscaler:
        np.testing.assert_array_equal(list(upscaler.frames(one_scene(frames), (96, 128))), expected)
        assert "is too small for tiles of 64 pixels: tiles of 32 were used" in upscaler.warnings[0]
    server.repository.before_run = failing(99, ServerError(500, "failed to allocate memory"))
    with (
        Upscaler(pair, remote(server.url), tile=0) as upscaler,
        pytest.raises(DeviceMemoryError, match=f"The memory of the inference server {server.url} is too small"),
    ):
        list(upscaler.frames(one_scene(frames), (96, 128)))


def request(pair: Bundle, tmp_path: Path, server: InferenceServer) -> UpscaleRequest:
    clip = make_video(tmp_path / "clip.mp4", pan(6))
    return UpscaleRequest(
        input=clip, output=tmp_path / "out.mp4", model=pair.folder, scale=2, backend=remote(server.url)
    )


def test_a_server_that_ends_in_the_middle_of_a_run(server: InferenceServer, pair: Bundle, tmp_path: Path) -> None:
    def end() -> None:
        if len(server.repository.runs) == 5:
            server.stop()

    server.repository.before_run = end
    with pytest.raises(BackendError, match=rf"The inference server {server.url} cannot be reached \(.+\): start it"):
        upscale(request(pair, tmp_path, server))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]


def test_a_server_that_is_started_again_goes_on(server: InferenceServer, pair: Bundle, tmp_path: Path) -> None:
    again: list[InferenceServer] = []

    def restart() -> None:
        if len(server.repository.runs) == 5 and not again:
            again.append(server)
            server.stop()
            threading.Timer(0.1, start).start()

    def start() -> None:
        again[0] = InferenceServer(server.repository, server.protocol, server.port)

    server.repository.before_run = restart
    report = upscale(request(pair, tmp_path, server))
    assert report.frames_out == 12
    assert again[0] is not server
    again[0].stop()


def test_a_resumable_run_goes_on_at_another_server(pair: Bundle, served: Path, tmp_path: Path) -> None:
    segments: list[int] = []
    with serving(served, "http") as first:
        run = request(pair, tmp_path, first)

        def end() -> None:
            segments.append(len(list(tmp_path.glob(".out.mp4.stvsr/*.json"))))
            if len(first.repository.runs) == 8:
                first.stop()

        first.repository.before_run = end
        with pytest.raises(BackendError, match="cannot be reached"):
            upscale_resumable(run, segment_frames=2)
    assert segments[-1] > segments[0]
    with serving(served, "grpc") as second:
        report = upscale_resumable(replace(run, backend=remote(second.url)), segment_frames=2)
        assert report.frames_out == 12
        assert len(second.repository.runs) < 12, "finished segments are not computed again"


class Fake(http.server.BaseHTTPRequestHandler):
    """A server that gives one answer to every request."""

    protocol_version = "HTTP/1.1"
    answer: tuple[int, dict[str, str], bytes]

    def do_GET(self) -> None:
        status, headers, body = self.answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


@pytest.fixture
def fake() -> Iterator[Callable[..., str]]:
    """A function that starts a server with one answer, and returns its URL."""
    servers = []

    def start(status: int, body: bytes, **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler = type("Handler", (Fake,), {"answer": (status, named, body)})
        servers.append(QuietHttpServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>", "its answer is not JSON"),
        (200, b"[]", "does not speak the Open Inference Protocol"),
        (200, b'{"name": "toy"}', "does not speak the Open Inference Protocol"),
        (200, b'{"inputs": [{"name": "x"}], "outputs": []}', "does not speak the Open Inference Protocol"),
        (404, b"<html>Not found</html>", "status 404: <html>Not found</html>"),
        (404, b"", "status 404"),
        (301, b"", r"\(status 301\)"),
        (400, b'{"error": "no such thing."}', r"status 400: no such thing\)"),
        (503, b'{"error": "loading"}', r"cannot be reached \(status 503: loading\)"),
    ],
)
def test_other_servers_are_described(
    status: int, body: bytes, message: str, fake: Callable[..., str], pair: Bundle
) -> None:
    with pytest.raises(BackendError, match=message):
        Upscaler(pair, remote(fake(status, body)))


def test_a_port_of_another_protocol(server: InferenceServer, pair: Bundle) -> None:
    other = {"http": "grpc", "grpc": "http"}[server.protocol]
    with pytest.raises(BackendError, match=r"The inference server .* (cannot be reached|did not answer|has no model)"):
        Upscaler(pair, remote(f"{other}://127.0.0.1:{server.port}", timeout_s=1.0))


LENGTH = "Inference_Header_Content_Length"
EXPECTED = Tensor("FP32", (1, 3, 4))
ENTRY = {"name": "frame", "datatype": "FP32", "shape": [1, 3, 4], "parameters": {"binary_data_size": 48}}


@pytest.mark.parametrize(
    ("outputs", "size", "error", "message"),
    [
        ([{**ENTRY, "shape": [1, 3, 5]}], 48, RefusedError, r"'frame' is FP32 \(1, 3, 5\), expected FP32 \(1, 3, 4\)"),
        ([{**ENTRY, "datatype": "FP16"}], 48, RefusedError, "'frame' is FP16"),
        ([{**ENTRY, "name": "other"}], 48, RefusedError, "has the outputs other, expected frame"),
        ([{**ENTRY, "parameters": {"binary_data_size": 8}}], 48, RefusedError, "has 8 bytes, expected 48"),
        ([{**ENTRY, "data": [1.0], "parameters": {}}], 48, RefusedError, "does not describe the outputs"),
        ("nothing", 48, RefusedError, "does not describe the outputs"),
        (None, 0, RefusedError, "holds no binary tensors"),
        ([ENTRY], 40, UnreachableError, "the connection broke"),
    ],
)
def test_wrong_answers_are_refused(
    outputs: Any, size: int, error: type[RemoteError], message: str, fake: Callable[..., str]
) -> None:
    head = json.dumps({"outputs": outputs}).encode()
    url = fake(200, head + bytes(size), **({} if outputs is None else {LENGTH: str(len(head))}))
    connection = HttpConnection(parse_address(url), 5.0)
    with pytest.raises(error, match=message):
        connection.infer("toy", "1", {"frames": FRAMES}, {"frame": EXPECTED})
    connection.close()


def test_weights_of_a_server_stay(server: InferenceServer, pair: Bundle) -> None:
    with Upscaler(pair, remote(server.url)) as upscaler, pytest.raises(BackendError, match="keeps its weights"):
        upscaler.refit({"weight": np.zeros(1, np.float32)})


def test_grpc_without_its_library(pair: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient", None)
    with pytest.raises(BackendError, match=r'pip install "stvsr\[remote\]", or use http://'):
        Upscaler(pair, remote("grpc://127.0.0.1:1"))


def test_http_needs_no_library(served: Path, pair: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(served, "http") as server:
        for name in ("tritonclient", "tritonclient.grpc", "grpc"):
            monkeypatch.setitem(sys.modules, name, None)
        with open_graphs(pair, remote(server.url)) as graphs:
            assert graphs.run("encoder", {"frames": FRAMES})["features"].shape == FRAMES.shape
