"""Decoding by a GPU's unit: the same frames, and the CPU wherever there is no unit that serves the video."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr import RequestError, UpscaleRequest
from stvsr.engine.media import decoders
from stvsr.engine.media.decoders import decoder_of
from stvsr.engine.media.options import HWACCELS, ReadOptions
from stvsr.engine.media.reader import open_reader

from tests.support.media import pan

CODECS = {"h264": ("libx264", "yuv420p"), "hevc": ("libx265", "yuv420p10le"), "vp9": ("libvpx-vp9", "yuv420p")}


def write(path: Path, encoder: str, pix_fmt: str, count: int = 12) -> Path:
    """Write a video with reordered frames, if the encoder makes any."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=24, width=64, height=48)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = pix_fmt
        for picture in pan(count):
            frame = av.VideoFrame.from_ndarray((picture.transpose(1, 2, 0) * 255).astype(np.uint8), "rgb24")
            container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(params=CODECS)
def clip(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return write(tmp_path / f"{request.param}.mkv", *CODECS[request.param])


def frames(path: Path, hwaccel: str, **options: Any) -> tuple[np.ndarray, list[Any], list[str]]:
    """Return the pictures of a video, their times and the warnings."""
    with open_reader(path, options=ReadOptions(hwaccel=hwaccel, **options)) as reader:
        read = list(reader)
        return np.stack([frame.rgb for frame in read]), [(frame.pts, frame.duration) for frame in read], reader.warnings


class Unit:
    """A decoder with a unit: it decodes as the software does, and returns frames in the layouts of units."""

    is_hwaccel = True

    def __init__(self, decoder: av.VideoCodecContext) -> None:
        self._decoder = decoder
        self.decoded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        decoded = self._decoder.decode(packet)
        self.decoded += len(decoded)
        return [frame.reformat(format="p010le" if "10" in frame.format.name else "nv12") for frame in decoded]


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> list[Unit]:
    """Give this machine a unit, and return a list of its decoders."""
    opened: list[Unit] = []
    copied: Callable[..., av.VideoCodecContext] = decoders._copied

    def with_unit(own: av.VideoCodecContext, name: str, unit: Any = None) -> Any:
        decoder = copied(own, name)
        if unit is None:
            return decoder
        opened.append(Unit(decoder))
        return opened[-1]

    monkeypatch.setattr(decoders, "_copied", with_unit)
    return opened


def test_frames_of_a_unit_are_those_of_the_cpu(clip: Path, units: list[Unit]) -> None:
    expected, times, _ = frames(clip, "none")
    assert not units
    for hwaccel in ("auto", "cuda"):
        actual, its_times, warnings = frames(clip, hwaccel)
        np.testing.assert_array_equal(actual, expected)
        assert (its_times, warnings) == (times, [])
        assert units.pop().decoded == len(expected) == 12


def test_parts_are_decoded_by_the_unit_too(clip: Path, units: list[Unit]) -> None:
    with open_reader(clip) as plain, open_reader(clip, options=ReadOptions(hwaccel="cuda")) as reader:
        low, high = plain.info.start + 5 / plain.info.rate, plain.info.start + 9 / plain.info.rate
        expected = [frame.rgb for frame in plain.between(low, high)]
        assert len(expected) in (3, 4)
        np.testing.assert_array_equal([frame.rgb for frame in reader.between(low, high)], expected)
    assert units


@pytest.mark.parametrize("error", [av.error.PermissionError(1, "Operation not permitted"), OSError("no driver")])
def test_without_a_unit_the_cpu_decodes(clip: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    copied = decoders._copied

    def without_unit(own: av.VideoCodecContext, name: str, unit: Any = None) -> av.VideoCodecContext:
        if unit is not None:
            raise error
        return copied(own, name)

    monkeypatch.setattr(decoders, "_copied", without_unit)
    expected, times, _ = frames(clip, "none")
    for hwaccel, warned in (("auto", 0), ("cuda", 1)):
        actual, its_times, warnings = frames(clip, hwaccel)
        np.testing.assert_array_equal(actual, expected)
        assert (its_times, len(warnings)) == (times, warned)
    assert "The GPU's decoder is not used (there is none here: " in warnings[0]


def test_what_this_machine_has_decodes_the_same_frames(clip: Path) -> None:
    """With a unit or, on a machine without one, in the place of it."""
    expected, times, _ = frames(clip, "none")
    actual, its_times, warnings = frames(clip, "cuda")
    np.testing.assert_array_equal(actual, expected)
    assert its_times == times
    assert all("The GPU's decoder is not used" in warning for warning in warnings)


@pytest.mark.gpu
def test_the_unit_of_this_machine_decodes(clip: Path) -> None:
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        decoder, warning = decoder_of(stream, ReadOptions(hwaccel="cuda"))
        if warning is not None:
            pytest.skip(warning)
        assert decoder.is_hwaccel
    actual, times, warnings = frames(clip, "cuda")
    np.testing.assert_array_equal(actual, frames(clip, "none")[0])
    assert (times, warnings) == (frames(clip, "none")[1], [])


@pytest.mark.parametrize(
    ("name", "encoder", "pix_fmt"), [("a.mkv", "mpeg2video", "yuv420p"), ("a.mov", "prores_ks", "yuv422p10le")]
)
def test_other_codecs_are_decoded_by_the_cpu(
    tmp_path: Path, units: list[Unit], name: str, encoder: str, pix_fmt: str
) -> None:
    clip = write(tmp_path / name, encoder, pix_fmt, 3)
    np.testing.assert_array_equal(frames(clip, "cuda")[0], frames(clip, "none")[0])
    assert not units
    (warning,) = frames(clip, "cuda")[2]
    assert "it does not decode" in warning
    assert frames(clip, "auto")[2] == []


def test_alpha_is_decoded_by_the_cpu(tmp_path: Path, units: list[Unit]) -> None:
    clip = write(tmp_path / "a.webm", "libvpx-vp9", "yuva420p", 3)
    with open_reader(clip, options=ReadOptions(hwaccel="cuda")) as reader:
        assert all(frame.alpha is not None for frame in reader)
        assert "it does not decode alpha" in reader.warnings[0]
    assert not units


def test_damage_is_looked_for_by_the_cpu(clip: Path, units: list[Unit]) -> None:
    frames(clip, "auto", on_damage="repeat")
    assert not units
    with pytest.raises(RequestError, match="--on-damage skip needs the CPU's decoders"):
        ReadOptions(hwaccel="cuda", on_damage="skip")


def test_values_are_checked_and_reach_the_reader() -> None:
    with pytest.raises(RequestError, match=f"--hwaccel is 'vulkan': choose one of {', '.join(HWACCELS)}"):
        ReadOptions(hwaccel="vulkan")
    assert UpscaleRequest(input="a.mp4", hwaccel="auto").read_options.hwaccel == "auto"
    assert UpscaleRequest(input="a.mp4").read_options.hwaccel == "none"
