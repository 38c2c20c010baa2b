"""Runs whose input, output or parts are elsewhere than beside the output on this machine."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stvsr import Backend, MediaError, RequestError, UpscaleRequest, upscale, upscale_resumable
from stvsr.engine.media.folders import open_folder
from stvsr.engine.pipeline.resume import SegmentedVideo
from stvsr.engine.pipeline.run_files import RunFiles, is_finished

from tests.support.commands import assert_one_clear_error, stvsr
from tests.support.equal_files import assert_equal_files
from tests.support.media import make_video, pan
from tests.support.objects import object_store, objects_below

pytest.importorskip("fsspec", reason="fsspec is not installed")

OPTIONS: dict[str, Any] = {"scale": 1, "backend": Backend(device="cpu", threads=1), "encoder_options": {"qp": "0"}}


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def address(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of an empty folder in a store of objects."""
    if request.param == "memory":
        yield f"memory://{secrets.token_hex(4)}"
    else:
        with object_store(monkeypatch) as bucket:
            yield bucket


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", pan(22))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, clip: Path, toy: Path) -> Path:
    output = tmp_path_factory.mktemp("whole") / "whole.mp4"
    upscale(UpscaleRequest(input=clip, output=output, model=toy, **OPTIONS))
    return output


def upload(clip: Path, address: str, tmp_path: Path) -> str:
    open_folder(f"{address}/in", tmp_path).put(clip, "clip.mp4")
    return f"{address}/in/clip.mp4"


def download(address: str, tmp_path: Path) -> Path:
    folder, _, name = address.rpartition("/")
    return open_folder(folder, tmp_path / "downloads").fetch(name)


def temporary_folders(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Let temporary folders be made in an empty folder, and return it."""
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_everything_can_be_at_addresses(
    address: str, clip: Path, toy: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = upload(clip, address, tmp_path)
    temporary = temporary_folders(monkeypatch, tmp_path / "temporary")
    request = UpscaleRequest(input=source, output=f"{address}/out/done.mp4", model=toy, **OPTIONS)
    with SegmentedVideo(request, 8) as first:
        first.compute(0)
        first.compute(2)
        assert objects_below(f"{address}/out") == [
            f".done.mp4.stvsr/{name}"
            for name in ("000000.json", "000000.mkv", "000002.json", "000002.mkv", "plan.json")
        ]
    with SegmentedVideo(request, 8) as second:
        kept = second.store.finished(2)
        assert kept is not None
        assert kept.path.is_file(), "it was fetched"
        second.join()
        report = second.report(1.0)
    assert (report.input, report.output, report.frames_out) == (source, f"{address}/out/done.mp4", 44)
    assert objects_below(f"{address}/out") == ["done.mp4"]
    assert_equal_files(download(f"{address}/out/done.mp4", tmp_path), whole)
    assert list(temporary.iterdir()) == [], "no copies are left"
    assert is_finished(request)
    with pytest.raises(RequestError, match=r"done\.mp4 exists already"):
        upscale_resumable(request)


@pytest.mark.parametrize("remote", [False, True])
def test_parts_can_be_in_a_store_of_their_own(remote: bool, clip: Path, toy: Path, whole: Path, tmp_path: Path) -> None:
    store = f"memory://{secrets.token_hex(4)}/parts" if remote else str(tmp_path / "parts")
    (tmp_path / "parts").mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    requests = [UpscaleRequest(input=clip, output=tmp_path / f / "x.mp4", model=toy, **OPTIONS) for f in ("a", "b")]
    with SegmentedVideo(requests[0], 8, store=store) as first, SegmentedVideo(requests[1], 8, store=store) as second:
        first.compute(0)
        assert second.store.finished(0) is None, "outputs of one name do not share parts"
        assert list((tmp_path / "a").iterdir()) == []
        first.join()
        second.join()
    assert_equal_files(tmp_path / "a" / "x.mp4", whole)
    assert open_folder(store, tmp_path).names() == []


def test_a_damaged_part_is_made_again(address: str, clip: Path, toy: Path, whole: Path, tmp_path: Path) -> None:
    request = UpscaleRequest(input=clip, output=tmp_path / "x.mp4", model=toy, **OPTIONS)
    with SegmentedVideo(request, 8, store=address) as video:
        video.compute(1)
        (name,) = {object.partition("/")[0] for object in objects_below(address)}
        open_folder(f"{address}/{name}", tmp_path / "damage").write("000001.mkv", b"damaged")
    with SegmentedVideo(request, 8, store=address) as video:
        assert video.store.finished(1) is None
        video.join()
    assert_equal_files(tmp_path / "x.mp4", whole)


def test_errors_name_addresses(address: str, clip: Path, toy: Path, tmp_path: Path) -> None:
    def failing(**options: Any) -> UpscaleRequest:
        return UpscaleRequest(**{"model": toy, "output": f"{address}/out.mp4", **OPTIONS, **options})

    with pytest.raises(MediaError, match=f"{address}/none.mp4 does not exist"):
        upscale_resumable(failing(input=f"{address}/none.mp4"))
    open_folder(address, tmp_path).write("broken.mp4", clip.read_bytes()[:500])
    with pytest.raises(MediaError, match=f"{address}/broken.mp4"):
        upscale_resumable(failing(input=f"{address}/broken.mp4"))
    source = upload(clip, address, tmp_path)
    with pytest.raises(RequestError, match="Name an output"):
        upscale_resumable(failing(input=source, output=None))
    with pytest.raises(RequestError, match=r"out\.none"):
        upscale_resumable(failing(input=source, output=f"{address}/out.none"))
    with pytest.raises(MediaError, match="does not exist: create it first"):
        upscale_resumable(failing(input=source, output=tmp_path / "none" / "x.mp4"), store=address)


def test_the_folder_of_the_parts(tmp_path: Path) -> None:
    def parts(output: str | Path, store: str | None = None) -> str:
        with RunFiles(UpscaleRequest(input="clip.mp4", output=output), store) as files:
            return str(files.parts(Path(output)))

    assert parts(tmp_path / "x.mp4") == str(tmp_path / ".x.mp4.stvsr")
    assert parts("memory://bucket/x.mp4") == "memory://bucket/.x.mp4.stvsr"
    in_store = parts(tmp_path / "x.mp4", "memory://bucket/parts/")
    assert in_store.startswith("memory://bucket/parts/x.mp4-")
    assert in_store != parts("memory://bucket/x.mp4", "memory://bucket/parts")


@pytest.mark.slow
def test_a_batch_of_a_bucket_goes_on_after_it_was_killed(
    clip: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = make_video(tmp_path / "long.mp4", pan(300))
    upscale(UpscaleRequest(input=long, output=tmp_path / "whole.mp4", model=toy, **OPTIONS))
    with object_store(monkeypatch) as bucket:
        folder = open_folder(f"{bucket}/in", tmp_path)
        for name, path in (("long.mp4", long), ("clip.mp4", clip)):
            folder.put(path, name)
        folder.write("notes.txt", b"no video")
        options = [f"{bucket}/in", "-o", f"{bucket}/out", "--store", f"{bucket}/parts", "-m", str(toy), "-s", "1"]
        options += ["--device", "cpu", "--workers", "2", "-e", "qp=0", "--json"]
        process = subprocess.Popen([sys.executable, "-m", "stvsr", "batch", *options], start_new_session=True)
        until = time.monotonic() + 60
        while sum(name.endswith(".json") for name in objects_below(f"{bucket}/parts")) < 5:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = stvsr("batch", *options)
        assert done.returncode == 0, done.stderr
        outcomes = json.loads(done.stdout)["outcomes"]
        assert outcomes[-1]["report"]["output"] == f"{bucket}/out/long.mp4"
        assert outcomes[-1]["report"]["frames_out"] == 600
        assert objects_below(f"{bucket}/out") == ["clip.mp4", "long.mp4"]
        assert objects_below(f"{bucket}/parts") == []
        assert_equal_files(download(f"{bucket}/out/long.mp4", tmp_path), tmp_path / "whole.mp4")
        again = stvsr("batch", *options)
        assert json.loads(again.stdout) == {"finished_before": 2, "outcomes": []}
        assert_one_clear_error(stvsr("batch", f"{bucket}/none", *options[1:]), "contains no videos")
