"""`stvsr batch`: many videos, of which one that fails does not stop the others."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from stvsr import Backend
from stvsr.cli.batch import backends_of_workers

from tests.support.commands import assert_one_clear_error, stvsr
from tests.support.media import make_folder, make_video, pan
from tests.support.toy import write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("bundles") / "toy")


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_workers_are_on_the_named_devices_or_on_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def devices(device: str, workers: int | None = None) -> list[str]:
        return [backend.device for backend in backends_of_workers(Backend(device=device), workers)]

    monkeypatch.setattr("stvsr.engine.backends.cuda_driver.device_count", lambda: 3)
    assert devices("auto") == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices("cuda:0,cuda:2") == ["cuda:0", "cuda:2"]
    assert devices("cuda:0,cuda:2", 3) == ["cuda:0", "cuda:2", "cuda:0"]
    assert devices("cuda:1") == ["cuda:1"]
    assert devices("cpu,cpu") == ["cpu", "cpu"]


def test_one_failure_does_not_stop_the_others(toy: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    clips = [make_video(path, pan(5)) for path in (tmp_path / "a.mp4", more / "a.mp4", more / "b.mkv")]
    (more / "broken.mp4").write_bytes(clips[0].read_bytes()[:2000])
    (more / "notes.txt").write_text("no video")
    out = tmp_path / "out"
    options = ("-o", out, "-m", toy, "-s", "2", "--device", "cpu", "--workers", "2")
    done = stvsr("batch", clips[0], more, *options, "--json")
    assert done.returncode == 1, done.stderr
    outcomes = {Path(entry["output"]).name: entry for entry in json.loads(done.stdout)["outcomes"]}
    assert list(outcomes) == ["a.mp4", "a-2.mp4", "b.mkv", "broken.mp4"]
    assert [name for name, entry in outcomes.items() if entry["error"]] == ["broken.mp4"]
    assert "broken.mp4" in outcomes["broken.mp4"]["error"]
    assert sorted(path.name for path in out.iterdir()) == ["a-2.mp4", "a.mp4", "b.mkv"]
    assert {frames_in(path) for path in out.iterdir()} == {10}

    (more / "broken.mp4").unlink()
    (out / "b.mkv").unlink()
    again = stvsr("batch", clips[0], more, *options)
    assert again.returncode == 0, again.stderr
    assert "2 finished before." in again.stdout
    assert frames_in(out / "b.mkv") == 10


def test_folders_of_images_are_clips(toy: Path, tmp_path: Path) -> None:
    images = make_folder(tmp_path / "images", count=3)
    done = stvsr("batch", images, "-o", tmp_path / "out", "-m", toy, "--input-fps", "24", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert frames_in(tmp_path / "out" / "images.mp4") == 6


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    assert_one_clear_error(stvsr("batch", tmp_path, "-o", tmp_path / "out"), str(tmp_path), "no videos and no images")


def test_a_clip_is_not_replaced_by_its_output(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "a.mp4", pan(2))
    content = clip.read_bytes()
    for folder in (tmp_path, f"{tmp_path}/x/.."):
        refused = stvsr("batch", clip, "-o", folder, "--overwrite")
        assert_one_clear_error(refused, "a.mp4 would be replaced by its own output")
    assert clip.read_bytes() == content


def test_options_of_workers_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "a.mp4", pan(2))
    out = ("-o", tmp_path / "out")
    assert_one_clear_error(stvsr("batch", clip, *out, "--executor", "cloud"), "Unknown executor 'cloud'")
    assert_one_clear_error(stvsr("batch", clip, *out, "--ray-address", "auto"), "--executor ray")
    assert_one_clear_error(stvsr("batch", "none://x/y", *out), "none://x/y cannot be opened")


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(toy: Path, tmp_path: Path) -> None:
    pgrep = shutil.which("pgrep")
    if pgrep is None:
        pytest.skip("pgrep is not installed: the worker is not found")
    clips = [make_video(tmp_path / "long.mp4", pan(400)), make_video(tmp_path / "short.mp4", pan(4))]
    command = [sys.executable, "-m", "stvsr", "batch", *map(str, clips), "-o", str(tmp_path / "out"), "-m", str(toy)]
    command += ["--device", "cpu", "--json", "--crf", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    store = tmp_path / "out" / ".long.mp4.stvsr"
    while len(list(store.glob("*.json"))) < 2 and process.poll() is None:
        time.sleep(0.01)
    children = subprocess.run([pgrep, "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True)
    for pid in children.stdout.split():
        subprocess.run(["kill", f"-{signal.SIGKILL}", pid], check=True)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert [outcome["error"] for outcome in json.loads(stdout)["outcomes"]] == [None, None]
    assert frames_in(tmp_path / "out" / "long.mp4") == 800
