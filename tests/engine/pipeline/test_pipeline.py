import json
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.errors import BundleError, MediaError, RequestError
from stvsr.engine.contract.manifest import FixedFactors
from stvsr.engine.media.frame import Frame
from stvsr.engine.media.reader import open_reader
from stvsr.engine.pipeline import run as pipeline
from stvsr.engine.pipeline.request import UpscaleRequest
from stvsr.engine.pipeline.run import Adaptation, Progress, read_scenes, upscale
from stvsr.engine.pipeline.upscaler import Upscaler
from stvsr.engine.pipeline.workers import Channel, Crew, Stopped
from test_scenes import SAMPLE, picture

from tests.support.toy import blend_and_sample, write_toy

RATE = Fraction(24)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("bundles") / "toy")


def make_video(path: Path, frames: Sequence[np.ndarray], ticks: Sequence[int] | None = None) -> Path:
    """Write frames (3, h, w) without loss, but for the conversion to YUV; `ticks` are their places in 1/24 s."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"qp": "0", "preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[1:]
        stream.pix_fmt = "yuv444p"
        stream.codec_context.time_base = 1 / RATE
        for i, rgb in enumerate(frames):
            image = np.ascontiguousarray(np.rint(rgb * 255).astype(np.uint8).transpose(1, 2, 0))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (ticks[i] if ticks else i), 1 / RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def pan(count: int, shape: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Draw a picture that moves by two pixels a frame."""
    wide = picture(5, (shape[0], shape[1] + 2 * count))
    return [wide[:, :, 2 * i : 2 * i + shape[1]] for i in range(count)]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_video(tmp_path / "clip.mp4", pan(7))


def run(source: Path, toy: Path, **options: Any) -> tuple[pipeline.Report, list[Frame]]:
    options = {"scale": 2, "crf": 0, "encoder_options": {"preset": "ultrafast"}, **options}
    report = upscale(UpscaleRequest(input=source, model=toy, device="cpu", **options))
    with open_reader(report.output) as reader:
        return report, list(reader)


def apart(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).mean())


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stvsr-")]


# --- what comes out ---


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_every_frame_is_there_factor_times(clip: Path, toy: Path, factor: int) -> None:
    report, frames = run(clip, toy, time_factor=factor)
    assert (report.frames_in, report.frames_out, len(frames)) == (7, 7 * factor, 7 * factor)
    start = frames[0].pts
    assert [frame.pts - start for frame in frames] == [Fraction(n, 24 * factor) for n in range(7 * factor)]
    assert sum(frame.duration for frame in frames) == Fraction(7, 24)
    source = pan(7)
    for i, frame in enumerate(frames[::factor]):
        assert apart(frame.rgb, blend_and_sample(source[i], source[i], 0, (96, 128))) < 0.02
    if factor > 1:
        between = blend_and_sample(source[2], source[3], 1 / factor, (96, 128))
        assert apart(frames[2 * factor + 1].rgb, between) < 0.02


def test_the_last_frame_is_held(clip: Path, toy: Path) -> None:
    _, frames = run(clip, toy, time_factor=3)
    assert apart(frames[-1].rgb, frames[-3].rgb) < 0.01


def test_a_target_rate(clip: Path, toy: Path) -> None:
    report, frames = run(clip, toy, fps=Fraction(60))
    assert len(frames) == report.frames_out == 18  # 17.5 of them last 7/24 s
    start = frames[0].pts
    assert [frame.pts - start for frame in frames] == [Fraction(n, 60) for n in range(18)]


def test_a_rate_below_the_source(clip: Path, toy: Path) -> None:
    report, frames = run(clip, toy, fps=Fraction(8))
    assert report.frames_in == 7
    assert len(frames) == report.frames_out == 3


def test_a_variable_rate_keeps_its_times(tmp_path: Path, toy: Path) -> None:
    ticks = [0, 1, 4, 5, 9]
    source = make_video(tmp_path / "vfr.mp4", pan(5), ticks)
    _, frames = run(source, toy)
    start = frames[0].pts
    assert [(frame.pts - start) * 24 for frame in frames[::2]] == ticks
    assert [(frame.pts - start) * 24 for frame in frames[1:-1:2]] == [0.5, 2.5, 4.5, 7]


def test_nothing_is_blended_across_a_cut(tmp_path: Path, toy: Path) -> None:
    before, after = picture(1, (90, 160)), picture(2, (90, 160))
    assert apart(before, after) / 4 > 0.06  # a quarter of the other scene would show
    source = make_video(tmp_path / "cut.mp4", [before] * 3 + [after] * 3)
    report, frames = run(source, toy, time_factor=4, scale=1)
    assert report.cuts_s == (3 / 24,)
    assert len(frames) == 24
    for i, frame in enumerate(frames):
        assert apart(frame.rgb, before if i < 12 else after) < 0.04  # halved chroma takes 0.03
    report, frames = run(source, toy, time_factor=4, scale=1, scene_threshold=0, overwrite=True)
    assert report.cuts_s == ()
    assert apart(frames[10].rgb, (before + after) / 2) < 0.04


def test_a_video_of_one_frame(tmp_path: Path, toy: Path) -> None:
    report, frames = run(make_video(tmp_path / "one.mp4", pan(1)), toy)
    assert (report.frames_in, report.frames_out, len(frames)) == (1, 2, 2)
    assert sum(frame.duration for frame in frames) == Fraction(1, 24)


def test_odd_sizes_go_in_and_come_out(tmp_path: Path, toy: Path) -> None:
    source = make_video(tmp_path / "odd.mp4", pan(3, (37, 53)))
    report, frames = run(source, toy, scale=None, size=(106, 74))
    assert report.size_in == (53, 37)
    assert frames[0].rgb.shape == (3, 74, 106)
    report, frames = run(source, toy, scale=3, pix_fmt="yuv444p")
    assert report.size_out == (159, 111)
    assert frames[0].rgb.shape == (3, 111, 159)


def test_tiles_make_the_same_video(clip: Path, toy: Path, tmp_path: Path) -> None:
    _, whole = run(clip, toy, tile=0, output=tmp_path / "whole.mp4")
    _, tiled = run(clip, toy, tile=24, output=tmp_path / "tiled.mp4")
    for one, other in zip(whole, tiled, strict=True):
        assert np.abs(one.rgb - other.rgb).max() <= 1 / 255


def test_the_shipped_sample(tmp_path: Path, toy: Path) -> None:
    report, frames = run(SAMPLE, toy, scale=1.5, output=tmp_path / "bee.mp4")
    assert (report.frames_in, len(frames)) == (60, 120)
    assert report.size_out == (360, 204)
    assert report.cuts_s == ()
    with av.open(report.output) as container:
        assert len(container.streams.audio) == 1


def test_the_report_is_json_and_adds_up(clip: Path, toy: Path) -> None:
    report, _ = run(clip, toy)
    fields = json.loads(json.dumps(report.as_dict()))
    assert fields["output"] == str(clip.parent / "clip_x2_48fps.mp4")
    assert fields["bundle"] == "toy"
    assert len(fields["fingerprint"]) == 64
    assert fields["duration_s"] == pytest.approx(7 / 24)
    assert fields["seconds"] > max(fields["decode_seconds"], fields["inference_seconds"], fields["encode_seconds"]) > 0


def test_progress_counts_up_to_the_end(clip: Path, toy: Path) -> None:
    told: list[Progress] = []
    upscale(UpscaleRequest(input=clip, model=toy, scale=1, device="cpu"), told.append)
    assert [progress.frames_in for progress in told] == [1, 2, 3, 4, 5, 6, 7, 7]
    assert told[-1].frames_out == 14
    assert {progress.total_in for progress in told} <= {None, 7}


# --- the name of the output ---


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "clip_x4_48fps.mp4"),
        ({"scale": 2.5, "time_factor": 3}, "clip_x2.5_72fps.mp4"),
        ({"size": (128, 96), "fps": Fraction(60000, 1001)}, "clip_128x96_59.94fps.mp4"),
    ],
)
def test_the_output_is_named_by_what_was_done(clip: Path, toy: Path, options: dict[str, Any], name: str) -> None:
    report = upscale(UpscaleRequest(input=clip, model=toy, device="cpu", **options))
    assert Path(report.output) == clip.parent / name
    assert Path(report.output).is_file()


# --- what is refused before any work ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 2, "size": (10, 10)}, "one of a scale and a size"),
        ({"scale": -1}, "not above 0"),
        ({"scale": float("nan")}, "not above 0"),
        ({"scale": 9}, "x1 to x8"),
        ({"size": (32, 24)}, "x1 to x8"),
        ({"time_factor": 2, "fps": Fraction(60)}, "one of a time factor and a frame rate"),
        ({"time_factor": 0}, "whole number"),
        ({"scene_threshold": 2}, "between 0"),
        ({"tile": 8}, "at least"),
    ],
)
def test_a_request_that_cannot_be_served(clip: Path, toy: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        upscale(UpscaleRequest(input=clip, model=toy, device="cpu", **options))
    assert list(clip.parent.iterdir()) == [clip]


def test_time_factors_must_suit_the_bundle(clip: Path, tmp_path: Path) -> None:
    fixed = write_toy(tmp_path / "fixed", time=FixedFactors(factors=(2,)))
    for options in ({"time_factor": 3}, {"fps": Fraction(48)}):
        with pytest.raises(RequestError, match="by x2, and by repetition x4 and x8"):
            upscale(UpscaleRequest(input=clip, model=fixed, device="cpu", **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [None, "out.mp4"])
def test_an_output_that_is_there_is_kept(clip: Path, toy: Path, name: str | None) -> None:
    output = clip.parent / (name or "clip_x4_48fps.mp4")
    output.write_text("precious")
    request = UpscaleRequest(input=clip, model=toy, output=output if name else None, device="cpu")
    with pytest.raises(RequestError, match="there already"):
        upscale(request)
    assert output.read_text() == "precious"


def test_the_input_is_never_overwritten(clip: Path, toy: Path) -> None:
    with pytest.raises(RequestError, match="the input itself"):
        upscale(UpscaleRequest(input=clip, model=toy, output=clip, overwrite=True, device="cpu"))


def test_errors_of_others_pass_through(clip: Path, toy: Path) -> None:
    with pytest.raises(BundleError, match="no bundle"):
        upscale(UpscaleRequest(input=clip, model="no-such-model"))
    with pytest.raises(MediaError):
        upscale(UpscaleRequest(input=clip.parent / "absent.mp4", model=toy))


# --- what happens when it goes wrong in the middle ---


class FaultError(Exception):
    pass


def assert_nothing_is_left(clip: Path) -> None:
    assert sorted(path.name for path in clip.parent.iterdir()) == [clip.name]
    assert workers() == []


def test_a_failure_while_encoding_leaves_nothing(clip: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, count = pipeline.VideoWriter.write, iter(range(99))

    def failing(self: Any, *arguments: Any) -> None:
        if next(count) == 3:
            raise FaultError("the disk is full")
        write(self, *arguments)

    monkeypatch.setattr(pipeline.VideoWriter, "write", failing)
    with pytest.raises(FaultError, match="disk is full"):
        upscale(UpscaleRequest(input=clip, model=toy, device="cpu"))
    assert_nothing_is_left(clip)


def test_a_failure_while_decoding_leaves_nothing(clip: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = pipeline._Run._decode

    def failing(self: Any, reader: Any, decoded: Any) -> None:
        def frames() -> Iterator[Frame]:
            for i, frame in enumerate(reader):
                if i == 3:
                    raise FaultError("a broken packet")
                yield frame

        decode(self, frames(), decoded)

    monkeypatch.setattr(pipeline._Run, "_decode", failing)
    with pytest.raises(FaultError, match="broken packet"):
        upscale(UpscaleRequest(input=clip, model=toy, device="cpu"))
    assert_nothing_is_left(clip)


def test_a_failure_while_inferring_leaves_nothing(clip: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, count = Upscaler._decode, iter(range(99))

    def failing(self: Any, *arguments: Any) -> Any:
        if next(count) == 3:
            raise FaultError("no memory")
        return decode(self, *arguments)

    monkeypatch.setattr(Upscaler, "_decode", failing)
    with pytest.raises(FaultError, match="no memory"):
        upscale(UpscaleRequest(input=clip, model=toy, device="cpu"))
    assert_nothing_is_left(clip)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As a shell starts a program in the foreground; one in the background ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_leaves_nothing(clip: Path, toy: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.frames_in == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        upscale(UpscaleRequest(input=clip, model=toy, device="cpu"), interrupt)
    assert_nothing_is_left(clip)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("at", [0, 13])
def test_interrupts_while_a_frame_is_written_leave_nothing(
    clip: Path, toy: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The calling thread waits for room, or at the last frame for the encoder to end; the user is impatient."""
    write, count = pipeline.VideoWriter.write, iter(range(99))

    def interrupting(self: Any, *arguments: Any) -> None:
        if next(count) == at:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
        write(self, *arguments)

    monkeypatch.setattr(pipeline.VideoWriter, "write", interrupting)
    monkeypatch.setattr(pipeline, "OUTPUT_BYTES", 0)
    with pytest.raises(KeyboardInterrupt):
        upscale(UpscaleRequest(input=clip, model=toy, device="cpu"))
    assert_nothing_is_left(clip)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- memory ---


class Live:
    """Counts the arrays that are alive of those it was shown."""

    def __init__(self) -> None:
        self.references: list[weakref.ref[np.ndarray]] = []
        self.most = 0

    def add(self, array: np.ndarray) -> np.ndarray:
        self.references = [reference for reference in self.references if reference() is not None]
        self.references.append(weakref.ref(array))
        self.most = max(self.most, len(self.references))
        return array


@pytest.mark.parametrize("count", [10, 60])
def test_few_frames_are_alive_however_long_the_video(
    tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    decoded, made = Live(), Live()

    class Reader:
        info = SimpleNamespace(width=32, height=24, rate=RATE, time_base=1 / RATE, frames=None)

        def __init__(self, *arguments: Any, **options: Any) -> None: ...

        def __enter__(self) -> "Reader":
            return self

        def __exit__(self, *error: object) -> None: ...

        def __iter__(self) -> Iterator[Frame]:
            for i in range(count):
                rgb = decoded.add(np.full((3, 24, 32), i / count, np.float32))
                yield Frame(rgb, i / RATE, 1 / RATE)
                del rgb

    class Writer:
        warnings, picture_format = (), None

        def __init__(self, *arguments: Any, **options: Any) -> None: ...

        def __enter__(self) -> "Writer":
            return self

        def __exit__(self, *error: object) -> None: ...

        def write(self, rgb: np.ndarray, pts: Fraction, duration: Fraction) -> None:
            time.sleep(0.002)  # the slowest stage: everything before it fills up

    decode = Upscaler._decode

    def watched(self: Any, *arguments: Any) -> np.ndarray:
        return made.add(decode(self, *arguments))

    monkeypatch.setattr(pipeline, "open_reader", Reader)
    monkeypatch.setattr(pipeline, "VideoWriter", Writer)
    monkeypatch.setattr(pipeline, "OUTPUT_BYTES", 0)  # as if one frame were more
    monkeypatch.setattr(Upscaler, "_decode", watched)
    report = upscale(UpscaleRequest(input=tmp_path / "long", model=toy, scale=1, device="cpu"))
    assert report.frames_out == 2 * count
    # Those that wait, a pair, the one that tells whether a scene ends, one read, one in between.
    assert decoded.most <= pipeline.INPUT_FRAMES + 5
    assert made.most <= 5  # one that waits, two at the writer, one made, one in between


# --- the crew ---


def in_crew(*works: Callable[[Channel[int]], None], body: Callable[[Channel[int]], None]) -> None:
    with Crew() as crew:
        channel: Channel[int] = Channel(crew, 2)
        for i, work in enumerate(works):
            crew.spawn(f"stvsr-{i}", lambda work=work: work(channel))  # type: ignore[misc]
        body(channel)


def fill(channel: Channel[int]) -> None:
    for i in range(100):
        channel.put(i)
    channel.close()


def test_a_channel_carries_everything_in_order() -> None:
    got: list[int] = []
    in_crew(fill, body=got.extend)
    assert got == list(range(100))
    assert workers() == []


def test_the_first_failure_is_raised_and_ends_every_wait() -> None:
    def fail(channel: Channel[int]) -> None:
        time.sleep(0.05)
        raise FaultError("first")

    began = time.perf_counter()
    with pytest.raises(FaultError, match="first"):
        in_crew(fail, fill, body=lambda channel: time.sleep(0.1) or channel.put(0))  # type: ignore[func-returns-value]
    assert time.perf_counter() - began < 5
    assert workers() == []


def test_a_failure_of_the_body_ends_the_threads() -> None:
    def fail(channel: Channel[int]) -> None:
        raise FaultError("body")

    with pytest.raises(FaultError, match="body"):
        in_crew(fill, body=fail)
    assert workers() == []


def test_a_stopped_channel_neither_gives_nor_takes() -> None:
    crew = Crew()
    channel: Channel[int] = Channel(crew, 1)
    crew._stop(None)
    with pytest.raises(Stopped):
        channel.put(1)
    with pytest.raises(Stopped):
        next(iter(channel))


# --- adapted bundles ---


def test_each_scene_goes_through_its_own_bundle(tmp_path: Path, toy: Path) -> None:
    """Of three scenes the second one's is blurred; the last bundle serves the third scene too."""
    scenes = [pan(6), [1 - frame for frame in pan(5)], pan(7)]
    source = make_video(tmp_path / "in.mp4", [frame for scene in scenes for frame in scene])
    parent = Bundle.load(toy).fingerprint
    blurred = Bundle.load(write_toy(tmp_path / "blurred", blur_px=3, training={"adapted": {"parent": parent}}))
    same = Bundle.load(write_toy(tmp_path / "same", training={"adapted": {"parent": parent}}))
    options: dict[str, Any] = {"crf": 0, "encoder_options": {"preset": "ultrafast"}}
    request = UpscaleRequest(input=source, model=toy, device="cpu", scale=2, time_factor=1, **options)
    assert [len(scene) for scene in read_scenes(request)] == [6, 5, 7]
    assert [len(scene) for scene in read_scenes(request, most_frames=6)] == [6, 5, 6]
    plain, plain_frames = run(source, toy, time_factor=1, output=tmp_path / "plain.mp4")
    report = upscale(
        replace(request, output=tmp_path / "adapted.mp4"), None, Adaptation(((same,), (blurred,)), ({"kept": True},))
    )
    assert report.adaptation == ({"kept": True},)
    assert plain.adaptation == ()
    with open_reader(report.output) as reader:
        frames = list(reader)
    assert [frame.pts for frame in frames] == [frame.pts for frame in plain_frames]
    differs = [apart(a.rgb, b.rgb) > 0.01 for a, b in zip(frames, plain_frames, strict=True)]
    assert differs == [False] * 6 + [True] * 12
