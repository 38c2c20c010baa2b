"""Runs on an inference server equal local runs, for every kind of window, over HTTP and gRPC."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, BackendError, Bundle, Report, Upscaler, UpscaleRequest, one_scene, upscale, upscale_resumable
from stvsr.engine.backends.graphs import open_graphs
from stvsr.engine.backends.remote.repository import write_repository
from stvsr.engine.contract.bundle import MODELS
from stvsr.engine.media.reader import open_reader

from tests.support.media import make_video, pan
from tests.support.toy import write_toy
from tests.support.toy_windows import WINDOWS, time_factor
from tests.support.toy_windows import write_toy as write_window

pytest.importorskip("tritonclient.grpc", reason="stvsr[remote] is not installed: there is no inference server to test")

from tests.support.inference_server import InferenceServer, serving

LOCAL = Backend("ort", "cpu", threads=1)
HALVES = (Fraction(0), Fraction(1, 2))
Serve = Callable[..., InferenceServer]


@pytest.fixture(params=["http", "grpc"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """A function that serves the models of bundles until the end of the test."""
    with ExitStack() as servers:

        def start(*bundles: Bundle, max_batch: int = 8) -> InferenceServer:
            repository = tmp_path / "+".join(bundle.fingerprint for bundle in bundles)
            write_repository(bundles, repository, max_batch=max_batch)
            return servers.enter_context(serving(repository, request.param))

        yield start


def remote(server: InferenceServer, timeout_s: float | None = None) -> Backend:
    return Backend("remote", url=server.url, timeout_s=timeout_s)


def noise(count: int, h: int = 24, w: int = 40) -> np.ndarray:
    return np.random.default_rng(0).random((count, 3, h, w), dtype=np.float32)


@pytest.mark.parametrize("tile", [None, 24])
@pytest.mark.parametrize("size", [(48, 80), (50, 81), (24, 40)])
@pytest.mark.parametrize("name", ["pair", "refined"])
def test_a_pair_runs_as_an_ensemble(
    serve: Serve, name: str, size: tuple[int, int], tile: int | None, request: pytest.FixtureRequest
) -> None:
    bundle = request.getfixturevalue(name)
    server = serve(bundle)
    with Upscaler(bundle, LOCAL, tile=tile) as upscaler:
        expected = list(upscaler.frames(one_scene(noise(3), HALVES), size))
    with Upscaler(bundle, remote(server), tile=tile) as upscaler:
        assert (upscaler.device, upscaler.backend, upscaler.precision) == (server.url, "remote", "fp32")
        frames = list(upscaler.frames(one_scene(noise(3), HALVES), size))
        assert upscaler.warnings == []
    np.testing.assert_array_equal(frames, expected)
    asked = {name for name, _ in server.repository.runs}
    assert asked == ({"toy"} if size == (50, 81) else {"toy-integer"})  # features never travel


@pytest.mark.parametrize("kind", [*WINDOWS, "run 2 timed"])
def test_every_window_runs(serve: Serve, kind: str, tmp_path: Path) -> None:
    plain_kind = kind.removesuffix(" timed")
    written = write_window(tmp_path / "toy", WINDOWS[plain_kind], timed=kind != plain_kind)
    bundle = Bundle.load(written / "graphs")
    times: tuple[Fraction, ...] = HALVES if time_factor(plain_kind) == 2 else (Fraction(0),)
    if kind != plain_kind:
        times = (Fraction(0), Fraction(1, 3), Fraction(3, 4))
    frames = {}
    for backend in (LOCAL, remote(serve(bundle))):
        with Upscaler(bundle, backend) as upscaler:
            frames[backend] = list(upscaler.frames(one_scene(noise(6), times), (48, 80)))
    local, there = frames.values()
    assert len(local) == 6 * len(times)
    np.testing.assert_array_equal(there, local)


def test_windows_in_a_batch_give_the_results_of_single_ones(serve: Serve, tmp_path: Path) -> None:
    """One request of two windows is what Triton makes of two requests of one window."""
    for number, kind in enumerate(("run 2", "circle 5")):
        bundle = Bundle.load(write_window(tmp_path / str(number), WINDOWS[kind], timed=kind == "run 2") / "graphs")
        (graph,) = bundle.manifest.graphs
        windows = np.random.default_rng(1).random((2, WINDOWS[kind]["frames"], 3, 8, 12), dtype=np.float32)
        inputs = {"frames": windows, "time": np.array([0.25, 0.75], np.float32)}
        inputs = {spec.name: inputs[spec.name] for spec in graph.inputs}
        server = serve(bundle)
        with open_graphs(bundle, remote(server)) as graphs:
            both = graphs.run("network", inputs)["upscaled"]
            for index in (0, 1):
                one = graphs.run("network", {name: value[index : index + 1] for name, value in inputs.items()})
                np.testing.assert_array_equal(one["upscaled"][0], both[index])
        sent = {name: shape for name, shape in server.repository.runs[0][1].items() if name != "frames"}
        assert sent == ({"time": (2, 1)} if kind == "run 2" else {})


def test_a_batch_beyond_the_largest_is_refused(serve: Serve, pair: Bundle) -> None:
    server = serve(pair, max_batch=2)
    with open_graphs(pair, remote(server)) as graphs, pytest.raises(BackendError, match="batch-size must be <= 2"):
        graphs.run("encoder", {"frames": np.zeros((3, 2, 3, 16, 16), np.float32)})


def test_graphs_of_a_pair_run_alone(serve: Serve, refined: Bundle) -> None:
    frames = {"frames": np.random.default_rng(2).random((2, 2, 3, 16, 24), dtype=np.float32)}
    time = {"time": np.array([0.5, 0.25], np.float32)}
    target = {"y": np.linspace(0, 15, 21, dtype=np.float32), "x": np.linspace(0, 23, 9, dtype=np.float32)}
    server = serve(refined)
    with open_graphs(refined, LOCAL) as local, open_graphs(refined, remote(server)) as there:
        features = local.run("encoder", frames)
        maps = local.run("refiner", {**features, **time})
        expected = local.run("decoder", {**maps, **target})["frame"]
        np.testing.assert_array_equal(there.run("encoder", frames)["features"], features["features"])
        np.testing.assert_array_equal(there.run("refiner", {**features, **time})["blended"], maps["blended"])
        np.testing.assert_array_equal(there.run("decoder", {**maps, **target})["frame"], expected)
        assert len(server.repository.runs) == 3
        kept = there.run("refiner", {**there.run("encoder", frames, keep=True), **time}, keep=True)
        assert len(server.repository.runs) == 3, "what is kept sends nothing"
        np.testing.assert_array_equal(there.run("decoder", {**kept, **target})["frame"], expected)
        assert server.repository.runs[-1][0] == "toy"


def test_threads_share_a_connection(serve: Serve, pair: Bundle) -> None:
    with open_graphs(pair, remote(serve(pair))) as graphs, ThreadPoolExecutor(4) as pool:
        inputs = [{"frames": np.full((1, 2, 3, 16, 16), number, np.float32)} for number in range(12)]
        results = list(pool.map(lambda one: graphs.run("encoder", one)["features"], inputs))
    for one, result in zip(inputs, results, strict=True):
        np.testing.assert_allclose(result, one["frames"], rtol=1e-6)


def video_frames(path: Path) -> list[np.ndarray]:
    with open_reader(path) as reader:
        return [frame.rgb for frame in reader]


def test_a_clip_equals_the_local_one(serve: Serve, pair: Bundle, tmp_path: Path) -> None:
    server, clip = serve(pair), make_video(tmp_path / "clip.mp4", pan(5))
    options: dict[str, Any] = {"codec": "libx264", "crf": 0, "scale": 2, "model": pair.folder, "input": clip}
    local = upscale(UpscaleRequest(**options, output=tmp_path / "local.mp4", backend=LOCAL))
    runs: tuple[Callable[[UpscaleRequest], Report], ...] = (upscale, upscale_resumable)
    for number, run in enumerate(runs):
        output = tmp_path / f"remote{number}.mp4"
        report = run(UpscaleRequest(**options, output=output, backend=remote(server)))
        assert (report.device, report.backend, report.warnings) == (server.url, "remote", local.warnings)
        np.testing.assert_array_equal(video_frames(output), video_frames(tmp_path / "local.mp4"))


def test_a_chain_runs_on_one_server(serve: Serve, tmp_path: Path) -> None:
    folders = [tmp_path / "temporal", tmp_path / "spatial"]
    bundles = [
        Bundle.load(write_window(folder, WINDOWS[kind], scale=scale) / "graphs")
        for folder, kind, scale in zip(folders, ("run 2", "circle 5"), (1, 2), strict=True)
    ]
    server, clip = serve(*bundles), make_video(tmp_path / "clip.mp4", pan(4, (16, 24)))
    model = "+".join(str(bundle.folder) for bundle in bundles)
    for name, backend in (("local", LOCAL), ("remote", remote(server))):
        output = tmp_path / f"{name}.mp4"
        upscale(UpscaleRequest(input=clip, output=output, model=model, codec="libx264", crf=0, backend=backend))
    np.testing.assert_array_equal(video_frames(tmp_path / "remote.mp4"), video_frames(tmp_path / "local.mp4"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edvr-s", "fourier-s", "videoinr-s"])
def test_shipped_networks_equal_local_ones(serve: Serve, name: str) -> None:
    bundle = Bundle.load(MODELS / name)
    server = serve(bundle)
    times = HALVES if name != "edvr-s" else (Fraction(0),)
    frames = []
    for backend in (Backend("ort", "cpu"), remote(server)):
        with Upscaler(bundle, backend) as upscaler:
            frames.append(list(upscaler.frames(one_scene(noise(4, 48, 64), times), (192, 256))))
    np.testing.assert_array_equal(frames[1], frames[0])


def test_another_bundle_of_the_same_tensors_is_refused(serve: Serve, pair: Bundle, tmp_path: Path) -> None:
    server = serve(pair)
    other = Bundle.load(write_toy(tmp_path / "other", integer=True))
    with pytest.raises(BackendError, match="was written from another bundle"):
        Upscaler(other, remote(server))
    server.repository.shares_configuration = False
    with Upscaler(other, remote(server)) as upscaler:
        (warning,) = upscaler.warnings
    assert "does not tell from which bundle its models toy-encoder, toy-decoder" in warning
