"""Runs that were stopped: the same command goes on, whatever was kept, and other runs are refused."""

import json
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import (
    Backend,
    CancelledError,
    MediaError,
    Progress,
    RequestError,
    UpscaleRequest,
    upscale,
    upscale_resumable,
)
from stvsr.engine.media.reader import VideoReader
from stvsr.engine.pipeline import resume
from stvsr.engine.pipeline.resume import SegmentedVideo
from stvsr.engine.pipeline.segmented_run import SLOW_PARTS

from tests.support.equal_files import assert_equal_files, frames_of, lossless_request
from tests.support.media import make_video, pan, two_scenes
from tests.support.sources import joined_recording


class StoppedError(Exception):
    """The interruption of a run."""


def stop_after(frames: int) -> Any:
    def on_progress(progress: Any) -> None:
        if progress.frames_in >= frames:
            raise StoppedError

    return on_progress


def stopped(toy: Path, folder: Path, frames: int = 13) -> tuple[UpscaleRequest, Path]:
    """Stop a run after some frames, and return its request and its store."""
    clip = folder / "clip.mp4"
    if not clip.exists():
        two_scenes(clip)
    wanted = lossless_request(clip, folder / "out.mp4", model=toy, scale=2)
    with pytest.raises(StoppedError):
        upscale_resumable(wanted, stop_after(frames), segment_frames=4)
    return wanted, folder / ".out.mp4.stvsr"


def test_a_stopped_run_goes_on_where_it_was(toy: Path, tmp_path: Path) -> None:
    wanted, store = stopped(toy, tmp_path)
    assert not (tmp_path / "out.mp4").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in store.glob("*.mkv")}
    assert len(kept) == 3
    first: list[int] = []
    report = upscale_resumable(wanted, lambda progress: first.append(progress.frames_in), segment_frames=4)
    assert first[:3] == [4, 8, 12], "finished segments are counted at once"
    assert (report.frames_in, report.frames_out) == (22, 44)
    assert not store.exists()
    upscale(lossless_request(tmp_path / "clip.mp4", tmp_path / "whole.mp4", model=toy, scale=2))
    assert_equal_files(tmp_path / "out.mp4", tmp_path / "whole.mp4")


def test_a_stopped_run_of_a_joined_recording_goes_on(toy: Path, tmp_path: Path) -> None:
    """The survey stores that parts cannot be found by their times."""
    clip = joined_recording(tmp_path)
    wanted = lossless_request(clip, tmp_path / "parts.mp4", model=toy, scale=2)
    with pytest.raises(StoppedError):
        upscale_resumable(wanted, stop_after(5), segment_frames=4)
    report = upscale_resumable(wanted, segment_frames=4)
    whole = upscale(lossless_request(clip, tmp_path / "whole.mp4", model=toy, scale=2))
    assert_equal_files(tmp_path / "parts.mp4", tmp_path / "whole.mp4")
    assert [*report.warnings] == [*whole.warnings, SLOW_PARTS]
    assert "as where recordings are joined" in report.warnings[0]


def test_processes_share_the_segments_of_a_video(toy: Path, tmp_path: Path) -> None:
    """Two at once compute every second segment, and one segment both of them; any of them joins."""
    clip = two_scenes(tmp_path / "clip.mp4")
    wanted = lossless_request(clip, tmp_path / "out.mp4", model=toy, scale=2)
    code = (
        "import pickle, sys\n"
        "from stvsr.engine.pipeline.resume import SegmentedVideo\n"
        "request, numbers = pickle.load(open(sys.argv[1], 'rb'))\n"
        "with SegmentedVideo(request, 4) as video:\n"
        "    for number in numbers: video.compute(number)\n"
    )
    processes = []
    for name, numbers in (("a", (0, 2, 3)), ("b", (1, 3, 5))):
        (tmp_path / name).write_bytes(pickle.dumps((wanted, numbers)))
        processes.append(subprocess.Popen([sys.executable, "-c", code, str(tmp_path / name)]))
    assert [process.wait() for process in processes] == [0, 0]
    with SegmentedVideo(wanted, 4) as video:
        assert [video.store.finished(n) is not None for n in range(6)] == [True, True, True, True, False, True]
        video.join()
        assert (video.report(1.0).frames_in, video.report(1.0).frames_out) == (22, 44)
    upscale(lossless_request(clip, tmp_path / "whole.mp4", model=toy, scale=2))
    assert_equal_files(tmp_path / "out.mp4", tmp_path / "whole.mp4")


def test_a_run_can_be_cancelled_from_another_thread(toy: Path, tmp_path: Path) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    cancel = threading.Event()

    def on_progress(progress: Progress) -> None:
        if progress.frames_in == 9:
            threading.Thread(target=cancel.set).start()
            cancel.wait()

    wanted = lossless_request(clip, tmp_path / "out.mp4", model=toy, scale=2)
    with pytest.raises(CancelledError, match="cancelled after 9 frames"):
        upscale(wanted, on_progress, cancel=cancel)
    assert list(tmp_path.iterdir()) == [clip]
    cancel.clear()
    with pytest.raises(CancelledError):
        upscale_resumable(wanted, on_progress, segment_frames=4, cancel=cancel)
    assert len(list((tmp_path / ".out.mp4.stvsr").glob("*.mkv"))) == 2
    assert upscale_resumable(wanted, segment_frames=4).frames_out == 44


@pytest.mark.parametrize("change", [-1, 1])
def test_a_part_with_other_frames_than_before_is_an_error(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    between = VideoReader.between

    def changed(reader: VideoReader, low: Fraction, high: Fraction, *, seek: bool = True) -> list[Any]:
        frames = list(between(reader, low, high, seek=seek))
        return frames[:-1] if change < 0 else [*frames, frames[-1]]

    monkeypatch.setattr(VideoReader, "between", changed)
    wanted = lossless_request(make_video(tmp_path / "clip.mp4", pan(9)), tmp_path / "out.mp4", model=toy, scale=1)
    with pytest.raises(MediaError, match=r"The frames from 0\.000 s on are other ones than before"):
        upscale_resumable(wanted)


def test_damaged_and_half_written_parts_are_made_again(toy: Path, tmp_path: Path) -> None:
    wanted, store = stopped(toy, tmp_path)
    (store / "000000.mkv").write_bytes(b"damaged")
    (store / "000001.json").write_text('{"ticks": ')
    (store / "000002.json").unlink()
    (store / ".000003.99-abc.part.mkv").write_bytes(b"half")
    upscale_resumable(wanted, segment_frames=4)
    upscale(lossless_request(tmp_path / "clip.mp4", tmp_path / "whole.mp4", model=toy, scale=2))
    assert_equal_files(tmp_path / "out.mp4", tmp_path / "whole.mp4")
    assert not store.exists()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"scale": 3}, "size"),
        ({"time_factor": 3}, "time factor or rate"),
        ({"scene_threshold": 0.5}, "scene threshold"),
        ({"tile": 32}, "tile"),
        ({"preset": "best"}, "preset"),
        ({"crf": 30, "encoder_options": None}, "encoding"),
        ({"backend": Backend("ort", "auto")}, "backend"),
    ],
)
def test_another_request_is_refused_by_name(toy: Path, tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    _, store = stopped(toy, tmp_path)
    options = {"model": toy, "scale": 2, **changes}
    with pytest.raises(RequestError, match=f"has parts of another run, whose {name} differs.*delete the folder"):
        upscale_resumable(lossless_request(tmp_path / "clip.mp4", tmp_path / "out.mp4", **options), segment_frames=4)
    assert list(store.glob("*.mkv")), "nothing is lost"


def test_a_changed_input_and_another_bundle_are_refused(toy: Path, tmp_path: Path) -> None:
    wanted, _ = stopped(toy, tmp_path)
    clip = tmp_path / "clip.mp4"
    before = clip.read_bytes()
    make_video(clip, pan(22))
    with pytest.raises(RequestError, match="whose input differs"):
        upscale_resumable(wanted, segment_frames=4)
    clip.write_bytes(before)
    shutil.copytree(toy, tmp_path / "other")
    manifest = tmp_path / "other" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"licence"', '"licence" '))
    with pytest.raises(RequestError, match="whose bundle differs"):
        upscale_resumable(
            lossless_request(clip, tmp_path / "out.mp4", model=tmp_path / "other", scale=2), segment_frames=4
        )


@pytest.mark.parametrize(
    "content", ["{}", "[]", "nothing", '{"identity": {}, "version": 99}', '{"identity": ["input"], "version": 3}']
)
def test_a_store_that_is_none_is_refused(toy: Path, tmp_path: Path, content: str) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    store = tmp_path / ".out.mp4.stvsr"
    store.mkdir()
    (store / "plan.json").write_text(content)
    with pytest.raises(RequestError, match=r"is not that of a run: delete the folder"):
        upscale_resumable(lossless_request(clip, tmp_path / "out.mp4", model=toy))


def test_a_bit_rate_is_refused(toy: Path, tmp_path: Path) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    with pytest.raises(RequestError, match="no common bit rate: leave out 'b'"):
        upscale_resumable(lossless_request(clip, tmp_path / "out.mp4", model=toy, encoder_options={"b": "1M"}))


def test_segments_of_another_encoder_are_not_joined(toy: Path, tmp_path: Path) -> None:
    wanted, store = stopped(toy, tmp_path)
    other = make_video(tmp_path / "other.mkv", pan(4))
    record = json.loads((store / "000001.json").read_text())
    shutil.copy(other, store / "000001.mkv")
    record["sha256"] = resume.file_sha256(store / "000001.mkv")
    (store / "000001.json").write_text(json.dumps(record))
    with pytest.raises(MediaError, match="was encoded differently from"):
        upscale_resumable(wanted, segment_frames=4)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_is_killed_at_any_moment_goes_on(toy: Path, tmp_path: Path, seed: int) -> None:
    """Kill the command at random moments until it finishes."""
    clip = make_video(tmp_path / "clip.mp4", [*pan(60), *(1 - frame for frame in pan(60))])
    upscale(lossless_request(clip, tmp_path / "whole.mp4", model=toy, scale=2, encoder_options=None))
    random = np.random.default_rng(seed)
    command = [sys.executable, "-m", "stvsr", "upscale", str(clip), "-o", str(tmp_path / "out.mp4"), "-m", str(toy)]
    command += ["-s", "2", "--device", "cpu", "--resume", "--no-progress"]
    for _ in range(30):
        process = subprocess.Popen(command)
        time.sleep(random.uniform(0.3, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (tmp_path / "out.mp4").exists():
            break
    last = subprocess.run(command, capture_output=True, text=True)
    assert last.returncode == 0 or "out.mp4 exists already" in last.stderr, last.stderr
    assert frames_of(tmp_path / "out.mp4")[0] == frames_of(tmp_path / "whole.mp4")[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4", "whole.mp4"]
