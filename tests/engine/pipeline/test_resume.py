"""Runs that can be resumed: segments give the file of one run, whatever is kept, and other runs are refused."""

import json
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr import (
    Backend,
    Bundle,
    CancelledError,
    MediaError,
    Progress,
    RequestError,
    UpscaleRequest,
    upscale,
    upscale_resumable,
)
from stvsr.engine.pipeline import resume, run
from stvsr.engine.pipeline.resume import SegmentedVideo
from stvsr.engine.pipeline.segmented_run import SLOW_PARTS

from tests.support.equal_files import assert_equal_files, facts_of, frames_of
from tests.support.media import make_clip, make_folder, make_video, pan
from tests.support.network_bundles import DOUBLED_X1, RUN_X1, RUN_X2_ANY_TIME, RUN_X4, SLIDING_X4
from tests.support.sources import joined, make_source

CPU = Backend(device="cpu")
LOSSLESS = {"qp": "0"}


def request(source: Path, output: Path, **options: Any) -> UpscaleRequest:
    return UpscaleRequest(**{"input": source, "output": output, "backend": CPU, "encoder_options": LOSSLESS, **options})


def two_scenes(path: Path, ticks: list[int] | None = None) -> Path:
    """Write a clip with a cut after the twelfth of 22 frames."""
    return make_video(path, [*pan(12), *(1 - frame for frame in pan(10))], ticks)


OPTIONS: list[dict[str, Any]] = [
    {"scale": 2},
    {"scale": 1.5, "time_factor": 3},
    {"scale": 1, "fps": Fraction(50)},
    {"scale": 2, "fps": Fraction(7)},
    {"scale": 2, "scene_threshold": 0.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("variable", [False, True], ids=["constant", "variable"])
@pytest.mark.parametrize("frames", [1, 5, 100])
def test_a_resumable_run_writes_the_file_of_one_run(
    toy: Path, tmp_path: Path, options: dict[str, Any], variable: bool, frames: int
) -> None:
    ticks = [n + n * n // 30 for n in range(22)] if variable else None
    clip = two_scenes(tmp_path / "clip.mp4", ticks)
    whole = upscale(request(clip, tmp_path / "whole.mp4", model=toy, **options))
    parts = upscale_resumable(request(clip, tmp_path / "parts.mp4", model=toy, **options), segment_frames=frames)
    assert_equal_files(tmp_path / "parts.mp4", tmp_path / "whole.mp4")
    for name in ("frames_in", "frames_out", "cuts_s", "duration_s", "size_out", "warnings"):
        assert getattr(parts, name) == getattr(whole, name), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "parts.mp4", "whole.mp4"]


@pytest.mark.parametrize(
    ("bundles", "factor"),
    [((SLIDING_X4,), 1), ((RUN_X4,), 2), ((DOUBLED_X1,), 2), ((RUN_X1, SLIDING_X4), 2), ((RUN_X2_ANY_TIME,), 3)],
    ids=["sliding", "run", "doubled", "chain", "any time"],
)
def test_every_kind_of_window_is_cut_into_segments(
    runs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    bundles: tuple[Bundle, ...],
    factor: int,
) -> None:
    for module in (run, resume):
        monkeypatch.setattr(module, "find_bundles", lambda _: bundles)
    clip = two_scenes(tmp_path / "clip.mp4")
    upscale(request(clip, tmp_path / "whole.mp4", time_factor=factor))
    count = len(runs)
    upscale_resumable(request(clip, tmp_path / "parts.mp4", time_factor=factor), segment_frames=4)
    assert_equal_files(tmp_path / "parts.mp4", tmp_path / "whole.mp4")
    assert len(runs) == 2 * count, "frames around a segment cost nothing"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_everything_beside_the_picture_is_that_of_one_run(toy: Path, tmp_path: Path, suffix: str) -> None:
    clip = make_clip(
        tmp_path / f"clip{suffix}",
        count=24,
        pts=[n * 1001 + (7 if n % 2 else 0) for n in range(24)],
        options={"bf": "2", "g": "6"},
        aspect=Fraction(4, 3),
        languages=("deu", "fra"),
        chapters=((0, 300, "first"), (300, 900, "second")),
        metadata={"language": "eng"},
        rotation=(90, False),
        subtitles=((100, 400, "one"),) if suffix == ".mkv" else (),
    )
    options = {"model": toy, "scale": 2, "encoder_options": {"qp": "0", "bf": "2"}}
    upscale(request(clip, tmp_path / f"whole{suffix}", **options))
    upscale_resumable(request(clip, tmp_path / f"parts{suffix}", **options), segment_frames=7)
    assert_equal_files(tmp_path / f"parts{suffix}", tmp_path / f"whole{suffix}")


def joined_recording(folder: Path) -> Path:
    part = make_source(folder / "part.ts", video="mpeg2video", audio="mp2", count=6)
    return joined(folder / "clip.ts", part, part)


def late_recording(folder: Path) -> Path:
    return make_source(folder / "late.ts", video="libx264", audio="aac", count=12, start=Fraction(36000))


def windows_media(folder: Path) -> Path:
    return make_source(folder / "clip.wmv", video="wmv2", audio="wmav2", count=12)


def high_rate(folder: Path) -> Path:
    return make_source(folder / "clip.mp4", video="libx264", count=12, rate=Fraction(400), options={"bf": "0"})


def timecoded(folder: Path) -> Path:
    return make_clip(folder / "clip.mov", count=12, metadata={"timecode": "10:00:00:05"})


SOURCES = [joined_recording, late_recording, windows_media, high_rate, timecoded]


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        pytest.param(make, suffix, marks=() if number % 2 == (suffix == ".mkv") else pytest.mark.slow)
        for number, make in enumerate(SOURCES)
        for suffix in (".mp4", ".mkv")
    ],
)
def test_clocks_and_converted_streams_are_those_of_one_run(
    toy: Path, tmp_path: Path, make: Callable[[Path], Path], suffix: str
) -> None:
    clip = make(tmp_path)
    options = {"model": toy, "scale": 2, "time_factor": 2}
    whole = upscale(request(clip, tmp_path / f"whole{suffix}", **options))
    parts = upscale_resumable(request(clip, tmp_path / f"parts{suffix}", **options), segment_frames=5)
    assert_equal_files(tmp_path / f"parts{suffix}", tmp_path / f"whole{suffix}")
    slow = [SLOW_PARTS] if make is joined_recording else []
    assert [*parts.warnings] == [*whole.warnings, *slow]
    assert (parts.frames_out, parts.duration_s) == (whole.frames_out, whole.duration_s)
    times, _ = frames_of(tmp_path / f"whole{suffix}")
    assert len(times) == whole.frames_out == 2 * whole.frames_in
    assert all(first < second for first, second in pairwise(times))
    assert times[0] < Fraction(1, 10)
    assert whole.duration_s < 2.1
    assert whole.frames_in == 12


def test_a_stopped_run_of_a_joined_recording_goes_on(toy: Path, tmp_path: Path) -> None:
    """The survey stores that parts cannot be found by their times."""
    clip = joined_recording(tmp_path)
    wanted = request(clip, tmp_path / "parts.mp4", model=toy, scale=2)
    with pytest.raises(StoppedError):
        upscale_resumable(wanted, stop_after(5), segment_frames=4)
    report = upscale_resumable(wanted, segment_frames=4)
    whole = upscale(request(clip, tmp_path / "whole.mp4", model=toy, scale=2))
    assert_equal_files(tmp_path / "parts.mp4", tmp_path / "whole.mp4")
    assert [*report.warnings] == [*whole.warnings, SLOW_PARTS]
    assert "as where recordings are joined" in report.warnings[0]


@pytest.mark.parametrize(
    ("codec", "suffix", "lossless"),
    [("libx265", ".mp4", {"x265-params": "log-level=error:lossless=1"}), ("ffv1", ".mkv", {})],
)
def test_other_encoders_are_joined_too(
    toy: Path, tmp_path: Path, codec: str, suffix: str, lossless: dict[str, str]
) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    options = {"model": toy, "scale": 2, "codec": codec, "encoder_options": lossless}
    upscale(request(clip, tmp_path / f"whole{suffix}", **options))
    upscale_resumable(request(clip, tmp_path / f"parts{suffix}", **options), segment_frames=5)
    assert_equal_files(tmp_path / f"parts{suffix}", tmp_path / f"whole{suffix}")
    with av.open(str(tmp_path / f"parts{suffix}")) as container:
        assert (container.streams.video[0].codec_context.codec_tag == "hvc1") == (codec == "libx265")


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("libvpx-vp9", ".webm")])
def test_lossy_segments_have_the_times_of_one_run(toy: Path, tmp_path: Path, codec: str, suffix: str) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    options = {"model": toy, "scale": 2, "codec": codec, "encoder_options": None}
    upscale(request(clip, tmp_path / f"whole{suffix}", **options))
    upscale_resumable(request(clip, tmp_path / f"parts{suffix}", **options), segment_frames=5)
    assert facts_of(tmp_path / f"parts{suffix}") == facts_of(tmp_path / f"whole{suffix}")
    (times, frames), (expected_times, expected) = (frames_of(tmp_path / f"{n}{suffix}") for n in ("parts", "whole"))
    assert times == expected_times
    assert np.abs(frames.astype(int) - expected).mean() < 2


def test_a_folder_of_images_is_resumable(toy: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", count=9)
    options = {"model": toy, "scale": 2, "input_fps": Fraction(24)}
    upscale(request(folder, tmp_path / "whole.mp4", **options))
    upscale_resumable(request(folder, tmp_path / "parts.mp4", **options), segment_frames=4)
    assert_equal_files(tmp_path / "parts.mp4", tmp_path / "whole.mp4")


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
    wanted = request(clip, folder / "out.mp4", model=toy, scale=2)
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
    upscale(request(tmp_path / "clip.mp4", tmp_path / "whole.mp4", model=toy, scale=2))
    assert_equal_files(tmp_path / "out.mp4", tmp_path / "whole.mp4")


def test_processes_share_the_segments_of_a_video(toy: Path, tmp_path: Path) -> None:
    """Two at once compute every second segment, and one segment both of them; any of them joins."""
    clip = two_scenes(tmp_path / "clip.mp4")
    wanted = request(clip, tmp_path / "out.mp4", model=toy, scale=2)
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
    upscale(request(clip, tmp_path / "whole.mp4", model=toy, scale=2))
    assert_equal_files(tmp_path / "out.mp4", tmp_path / "whole.mp4")


def test_a_run_can_be_cancelled_from_another_thread(toy: Path, tmp_path: Path) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    cancel = threading.Event()

    def on_progress(progress: Progress) -> None:
        if progress.frames_in == 9:
            threading.Thread(target=cancel.set).start()
            cancel.wait()

    wanted = request(clip, tmp_path / "out.mp4", model=toy, scale=2)
    with pytest.raises(CancelledError, match="cancelled after 9 frames"):
        upscale(wanted, on_progress, cancel=cancel)
    assert list(tmp_path.iterdir()) == [clip]
    cancel.clear()
    with pytest.raises(CancelledError):
        upscale_resumable(wanted, on_progress, segment_frames=4, cancel=cancel)
    assert len(list((tmp_path / ".out.mp4.stvsr").glob("*.mkv"))) == 2
    assert upscale_resumable(wanted, segment_frames=4).frames_out == 44


def test_damaged_and_half_written_parts_are_made_again(toy: Path, tmp_path: Path) -> None:
    wanted, store = stopped(toy, tmp_path)
    (store / "000000.mkv").write_bytes(b"damaged")
    (store / "000001.json").write_text('{"ticks": ')
    (store / "000002.json").unlink()
    (store / ".000003.99-abc.part.mkv").write_bytes(b"half")
    upscale_resumable(wanted, segment_frames=4)
    upscale(request(tmp_path / "clip.mp4", tmp_path / "whole.mp4", model=toy, scale=2))
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
        upscale_resumable(request(tmp_path / "clip.mp4", tmp_path / "out.mp4", **options), segment_frames=4)
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
        upscale_resumable(request(clip, tmp_path / "out.mp4", model=tmp_path / "other", scale=2), segment_frames=4)


@pytest.mark.parametrize("content", ["{}", "[]", "nothing", '{"identity": {}, "version": 99, "survey": {}}'])
def test_a_store_that_is_none_is_refused(toy: Path, tmp_path: Path, content: str) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    store = tmp_path / ".out.mp4.stvsr"
    store.mkdir()
    (store / "plan.json").write_text(content)
    with pytest.raises(RequestError, match=r"is not that of a run: delete the folder"):
        upscale_resumable(request(clip, tmp_path / "out.mp4", model=toy))


def test_a_bit_rate_is_refused(toy: Path, tmp_path: Path) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    with pytest.raises(RequestError, match="no common bit rate: leave out 'b'"):
        upscale_resumable(request(clip, tmp_path / "out.mp4", model=toy, encoder_options={"b": "1M"}))


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
    upscale(request(clip, tmp_path / "whole.mp4", model=toy, scale=2, encoder_options=None))
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
