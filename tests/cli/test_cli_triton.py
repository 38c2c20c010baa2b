"""`stvsr triton` and `stvsr upscale --backend remote`: from a bundle to a server, and from the server to a video."""

import json
from pathlib import Path

import pytest
from stvsr import Backend
from stvsr.cli.batch import backends_of_workers

from tests.support.commands import assert_one_clear_error, stvsr

pytest.importorskip("tritonclient.grpc", reason="stvsr[remote] is not installed: there is no inference server to test")

from tests.support.inference_server import serving


def test_a_bundle_is_served_and_a_clip_upscaled(toy: Path, short: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    done = stvsr("triton", toy, "-o", repository, "--max-batch", "4")
    assert done.returncode == 0, done.stderr
    assert "toy-encoder  encoder             up to 4" in done.stdout
    assert f"tritonserver --model-repository={repository} --disable-auto-complete-config" in done.stdout
    options = ("-m", toy, "-s", "2", "--codec", "libx264", "--crf", "0")
    stvsr("upscale", short, *options, "-o", tmp_path / "local.mp4", "--device", "cpu")
    with serving(repository, "http") as server:
        remote = ("upscale", short, *options, "-o", tmp_path / "remote.mp4", "--backend", "remote", "--url", server.url)
        done = stvsr(*remote, "--remote-timeout", "30")
    assert done.returncode == 0, done.stderr
    assert f"toy on {server.url} (remote, fp32)" in done.stdout
    assert (tmp_path / "remote.mp4").read_bytes() == (tmp_path / "local.mp4").read_bytes()
    assert_one_clear_error(stvsr(*remote, "--overwrite"), f"The inference server {server.url} cannot be reached")


def test_workers_are_not_spread_over_local_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stvsr.engine.backends.cuda_driver.device_count", lambda: 4)
    backend = Backend("remote", url="http://127.0.0.1:1")
    assert backends_of_workers(backend, 3) == [backend] * 3
    assert backends_of_workers(backend, None) == [backend]


@pytest.mark.slow
def test_workers_share_a_server(toy: Path, short: Path, tmp_path: Path) -> None:
    done = stvsr("triton", toy, "-o", tmp_path / "repository", "--json")
    assert [model["max_batch"] for model in json.loads(done.stdout)] == [8, None, None]
    with serving(tmp_path / "repository", "grpc") as server:
        clips = [short, short]
        options = ("-o", tmp_path / "out", "-m", toy, "--workers", "2", "--backend", "remote", "--url", server.url)
        done = stvsr("batch", *clips, *options, "--json")
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)["outcomes"]
    assert [outcome["report"]["device"] for outcome in outcomes] == [server.url, server.url]
