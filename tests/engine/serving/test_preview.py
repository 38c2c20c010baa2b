"""Previews: the segments of a playlist, played one after another, are the frames of the result at its times."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr import Backend
from stvsr.engine.pipeline.request import UpscaleRequest
from stvsr.engine.pipeline.resume import SegmentedVideo
from stvsr.engine.serving.checks import VideoChecker, VideoLimits
from stvsr.engine.serving.jobs import JobStore
from stvsr.engine.serving.preview import Preview
from stvsr.engine.serving.problems import Problem

from tests.support.media import make_clip, two_scenes
from tests.support.serving import assert_conditional, clip_of, listening, post, wait_for

pytestmark = pytest.mark.usefixtures("models")
LOSSLESS = {"qp": "0"}


@contextmanager
def computed(
    folder: Path, clip: Path, container: str = "mp4", segment_frames: int = 5, shared: bool = False, **options: Any
) -> Iterator[tuple[SegmentedVideo, Preview, Path]]:
    """Survey the video of a job in this process, and yield it, its preview and the path of its result."""
    files = str(folder / "shared") if shared else None
    with JobStore(folder / "store", files) as jobs, VideoChecker(VideoLimits(1 << 20, 1000)) as reader:
        identifier = jobs.new_id()
        jobs.input_of(identifier).write_bytes(clip.read_bytes())
        jobs.share(identifier)
        result = Path(jobs.for_workers(jobs.output_of(identifier, container)))
        request = UpscaleRequest(
            input=jobs.input_of(identifier),
            output=result,
            model="toy",
            backend=Backend(device="cpu", threads=1),
            **{"scale": 1, "encoder_options": LOSSLESS, **options},
        )
        job = jobs.create(identifier, {"model": "toy", "container": container})
        with SegmentedVideo(request, segment_frames) as video:
            jobs.keep_outline(identifier, video.outline())
            yield video, Preview(jobs, job, reader), result


def played(preview: Preview) -> tuple[list[Fraction], list[Fraction], np.ndarray]:
    """Return the times, durations and pictures of a playlist that is played from its beginning."""
    numbers = [int(n) for n in re.findall(r"^preview/(\d+)\.m4s$", preview.playlist(), re.M)]
    content = preview.initialization()[0] + b"".join(preview.segment(number).read_bytes() for number in numbers)
    return frames_of(io.BytesIO(content))


def frames_of(source: Any) -> tuple[list[Fraction], list[Fraction], np.ndarray]:
    times, durations, pictures = [], [], []
    with av.open(source) as container:
        for packet in container.demux(video=0):
            durations.append((packet.duration or 0) * packet.time_base)
            for frame in packet.decode():
                assert isinstance(frame, av.VideoFrame)
                assert frame.pts is not None
                assert frame.time_base is not None
                times.append(frame.pts * frame.time_base)
                pictures.append(frame.to_ndarray())
    return times, durations, np.stack(pictures)


VARIABLE = [n + n * n // 30 for n in range(22)]
CASES: dict[str, dict[str, Any]] = {
    "constant": {},
    "variable": {"ticks": VARIABLE},
    "late": {"ticks": [n + 1000 for n in VARIABLE]},
    "rate": {"fps": Fraction(30000, 1001)},
    "low rate, segments without frames": {"fps": Fraction(2), "segment_frames": 2},
    "no reordering": {"encoder_options": LOSSLESS | {"bf": "0"}},
    "much reordering": {"encoder_options": LOSSLESS | {"bf": "8", "b-pyramid": "normal"}, "segment_frames": 11},
    "shared": {"shared": True},
    "h265": {"codec": "libx265", "encoder_options": {"x265-params": "log-level=error:lossless=1:bframes=4"}},
    "vp9": {"codec": "libvpx-vp9", "encoder_options": None},
    "webm": {"container": "webm", "encoder_options": None},
    "mkv": {"container": "mkv", "ticks": VARIABLE},
    "av1": {"codec": "libsvtav1", "encoder_options": {"preset": "12"}, "scale": 2},
}


QUICK = ("constant", "variable", "low rate, segments without frames", "webm")
CODECS = {"h265": "hvc1.", "vp9": "vp09.01.10.08", "webm": "vp09.01.10.08", "av1": "av01.0.00M.08"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES])
def test_a_preview_plays_the_frames_of_the_result(tmp_path: Path, name: str) -> None:
    options = dict(CASES[name])
    clip = two_scenes(tmp_path / "clip.mp4", options.pop("ticks", None))
    with computed(tmp_path, clip, **options) as (video, preview, result):
        with pytest.raises(Problem, match="No part of the video is finished yet"):
            preview.playlist()
        lines = 0
        for number in range(len(video.segments)):
            video.compute(number)
            playlist = preview.playlist()
            assert playlist.count("#EXTINF") >= lines
            lines = playlist.count("#EXTINF")
            assert ("#EXT-X-ENDLIST" in playlist) == (number == len(video.segments) - 1)
        before = played(preview)
        assert preview.initialization()[1].startswith(CODECS.get(name, "avc1.f40"))
        lengths = [float(text) for text in re.findall(r"#EXTINF:([\d.]+)", playlist)]
        target = int(re.findall(r"TARGETDURATION:(\d+)", playlist)[0])
        assert max(lengths) <= target
        video.join()
        times, _, pictures = frames_of(str(result))
        assert playlist == preview.playlist(), "the playlist stays as it was"
        after = played(preview)
    for actual_times, durations, actual in (before, after):
        np.testing.assert_array_equal(actual, pictures)
        if result.suffix in (".mkv", ".webm"):  # which round times
            assert [float(pts) for pts in actual_times] == pytest.approx([float(pts) for pts in times], abs=6e-4)
        else:
            assert actual_times == times
        if name not in ("vp9", "webm"):  # FFmpeg leaves out some durations of VP9 when it reads fragments
            assert sum(lengths) == pytest.approx(float(sum(durations)), abs=1e-3)
    if name.startswith("low rate"):
        assert lines < len(video.segments)


def test_the_order_of_segments_is_that_of_the_video(tmp_path: Path) -> None:
    with computed(tmp_path, two_scenes(tmp_path / "clip.mp4")) as (video, preview, _):
        video.compute(1)
        with pytest.raises(Problem, match="No part"):
            preview.playlist()
        video.compute(0)
        assert preview.playlist().count("#EXTINF") == 2
        assert preview.playlist("?access=x").count("?access=x\n") == 2
        for number in (2, len(video.segments), 10**8):
            with pytest.raises(Problem, match="no such part"):
                preview.segment(number)


def test_a_preview_has_the_aspect_and_the_rotation_of_the_result(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", count=24, aspect=Fraction(4, 3), rotation=(90, False))
    with computed(tmp_path, clip) as (video, preview, _):
        for number in range(len(video.segments)):
            video.compute(number)
        content = preview.initialization()[0] + preview.segment(0).read_bytes()
        first, _ = preview.initialization()
        for number in range(len(video.segments)):
            _, beginning, _ = preview._written(number)
            assert beginning == first, "what players read first is the same for every segment"
    with av.open(io.BytesIO(content), "r") as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert next(container.decode(video=0)).rotation == 90


def test_some_codecs_have_no_preview(tmp_path: Path) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    with computed(tmp_path, clip, container="mkv", codec="ffv1", encoder_options={}) as (video, preview, _):
        video.compute(0)
        for read in (preview.playlist, preview.initialization, lambda: preview.segment(0)):
            with pytest.raises(Problem, match="There is no preview of ffv1 video") as raised:
                read()
            assert raised.value.status == 415
        assert preview.after(0).startswith(b"\x89PNG"), "frames are there"


def picture_of(png: bytes) -> np.ndarray:
    with av.open(io.BytesIO(png), "r") as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def test_frames_of_input_and_output_belong_together(tmp_path: Path) -> None:
    clip = two_scenes(tmp_path / "clip.mp4", VARIABLE)
    with computed(tmp_path, clip, time_factor=2) as (video, preview, _):
        with av.open(str(clip)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        for number in (0, 7, 21):
            assert np.abs(picture_of(preview.before(number)).astype(int) - frames[number]).max() <= 4
        with pytest.raises(Problem, match="no such part"):
            preview.after(0)
        for number in range(len(video.segments)):
            video.compute(number)
        while_it_runs = [preview.after(number) for number in (0, 7, 21)]
        video.join()
        for number, png in zip((0, 7, 21), while_it_runs, strict=True):
            differences = [np.abs(picture_of(png).astype(int) - frame).mean() for frame in frames]
            assert np.argmin(differences) == number, "the toy copies frames"
            assert preview.after(number) == png
        for read in (preview.before, preview.after):
            with pytest.raises(Problem, match="no such frame"):
                read(22)


def test_frames_at_a_low_rate_are_those_that_are_shown(tmp_path: Path) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    with computed(tmp_path, clip, fps=Fraction(2), segment_frames=2) as (video, preview, _):
        for number in range(len(video.segments)):
            video.compute(number)
        shown = [preview.after(number) for number in range(22)]
        assert len(set(shown)) == 2
        assert shown[0] == shown[11]
        assert shown[12] == shown[21]


def test_a_preview_over_http(tmp_path: Path) -> None:
    with listening(tmp_path) as client:
        clip = clip_of(tmp_path, 60)
        early = post(client, clip).json()
        base = f"/v1/jobs/{early['id']}"
        assert early["links"]["preview"] == f"{base}/preview.m3u8"
        assert wait_for(client, early["id"])["segments_total"] == 2, "a first segment is short"
        playlist = client.get(early["links"]["preview"])
        assert playlist.headers["content-type"] == "application/vnd.apple.mpegurl"
        result = frames_of(io.BytesIO(client.get(f"{base}/result").content))
        played_frames = frames_of(str(client.base_url.join(early["links"]["preview"])))
        assert len(result[0]) == 120
        assert played_frames[0] == result[0]
        np.testing.assert_array_equal(played_frames[2], result[2])
        assert client.get(f"{base}/frames/3/before.png").headers["content-type"] == "image/png"
        assert client.get(f"{base}/frames/3/after.png").status_code == 200
        for address in ("preview/0.m4s", "preview/init.mp4", "frames/3/before.png", "frames/3/after.png"):
            assert_conditional(client, f"{base}/{address}", has_ranges=address.endswith(".m4s"))
        assert not list((tmp_path / "jobs" / early["id"]).glob("preview-*")), "no written segment is left"
        for name in ("x", "-1", "60", "1e3", "%2e%2e", "..%2f..%2finput", "9" * 30, "²"):
            for address in (f"preview/{name}.m4s", f"frames/{name}/before.png", f"frames/{name}/after.png"):
                assert client.get(f"{base}/{address}").status_code == 404, address
        for address in ("preview.m3u8", "preview/init.mp4", "preview/0.m4s", "frames/0/after.png"):
            assert client.get(f"/v1/jobs/00000000-0000-0000-0000-000000000000/{address}").status_code == 404
