"""Frames written as image files, which take their names together, and as animations."""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.destination import read_destination
from stvsr.engine.media.image_writer import ImageWriter
from stvsr.engine.media.images import read_image
from stvsr.engine.media.probe import VideoInfo
from stvsr.engine.media.reader import open_reader

from tests.support.media import make_clip, make_folder, new_writer, picture
from tests.support.pictures import source_of

SIZE = (62, 45)


def pictures(count: int, channels: int = 3) -> list[np.ndarray]:
    """Return frames (channels, 45, 62) uint16."""
    frames = [np.rint(picture(seed, (45, 62)) * 65535).astype(np.uint16) for seed in range(count)]
    return [np.concatenate([frame, frame[:1]])[:channels] for frame in frames]


def write(path: str | Path, source: VideoInfo | None, frames: list[np.ndarray], **options: Any) -> ImageWriter:
    with ImageWriter(path, source=source, size=SIZE, **options) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame, Fraction(number, 25), Fraction(1, 25))
    return writer


@pytest.mark.parametrize(
    ("suffix", "source", "pix_fmt", "error"),
    [
        (".png", "yuv420p", "rgb24", 0.5 / 255),
        (".png", "yuv420p10le", "rgb48be", 0.5 / 65535),
        (".png", "rgba", "rgba", 0.5 / 255),
        (".png", "rgba64be", "rgba64be", 0.5 / 65535),
        (".tif", "rgb24", "rgb24", 0.5 / 255),
        (".tiff", "rgba64be", "rgba64le", 0.5 / 65535),
        (".jpg", "rgb24", "yuvj444p", 0.1),
        (".webp", "rgba", "bgra", 0.2),
    ],
)
def test_images_keep_the_depth_and_alpha_of_the_source(
    tmp_path: Path, suffix: str, source: str, pix_fmt: str, error: float
) -> None:
    has_alpha = "a" in source
    frames = pictures(3, 4 if has_alpha else 3)
    writer = write(tmp_path / f"x_%03d{suffix}", source_of(source), frames)
    assert (writer.pix_fmt, writer.has_alpha, writer.warnings) == (pix_fmt, has_alpha, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"x_{n:03d}{suffix}" for n in (1, 2, 3)]
    with open_reader(tmp_path / f"x_%03d{suffix}", fps=Fraction(25)) as reader:
        assert (reader.info.width, reader.info.height) == SIZE, "odd sizes are no matter"
        for frame, expected in zip(reader, frames, strict=True):
            difference = np.abs(frame.rgb - expected[:3] / np.float32(65535))
            assert difference.mean() <= error / 2 + 1e-6
            if error < 0.01:
                assert difference.max() <= error + 1e-5
            assert (frame.alpha is not None) == has_alpha
            if frame.alpha is not None:
                assert np.abs(frame.alpha - expected[3] / np.float32(65535)).mean() <= error


def test_a_folder_is_made_of_numbered_images_when_all_are_complete(tmp_path: Path) -> None:
    frames = pictures(3)
    with ImageWriter(f"{tmp_path / 'out'}/", source=None, size=SIZE) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame, Fraction(number, 25), Fraction(1, 25))
            assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000001.png", "000002.png", "000003.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in (f"{tmp_path}/new/", f"{tmp_path}/there/", tmp_path / "x_%d.jpg", tmp_path / "one.png"):
        with suppress(InterruptedError), ImageWriter(name, source=None, size=SIZE) as writer:
            writer.write(pictures(1)[0], Fraction(0), Fraction(1, 25))
            raise InterruptedError
        assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with (
        pytest.raises(MediaError, match="No frame was written"),
        ImageWriter(tmp_path / "a.png", source=None, size=SIZE),
    ):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_existing_images_are_replaced_only_on_demand(tmp_path: Path) -> None:
    write(tmp_path / "x_%d.png", None, pictures(4))
    (tmp_path / "x_notes.png").write_text("mine")
    with pytest.raises(MediaError, match=r"x_1\.png already exists"):
        write(tmp_path / "x_%d.png", None, pictures(2))
    write(tmp_path / "x_%d.png", None, pictures(2), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x_1.png", "x_2.png", "x_notes.png"]


def test_one_image_holds_one_frame(tmp_path: Path) -> None:
    write(tmp_path / "one.png", None, pictures(1))
    assert read_image(tmp_path / "one.png").width == SIZE[0]
    with pytest.raises(MediaError, match=r"is one image.*two_%05d\.png"):
        write(tmp_path / "two.png", None, pictures(2))
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nowhere/x_%d.png", {}, "nowhere does not exist"),
        ("nowhere/deep/", {}, "nowhere does not exist"),
        ("x_%d_%d.png", {}, "write one number"),
        ("x.png", {"encoder_options": {"qscale_of": "3"}}, "png has no option 'qscale_of'"),
        ("x.png", {"crf": 3}, "no option 'crf'"),
        ("x.png", {"codec": "libx999"}, "no encoder 'libx999'"),
        ("x.jpg", {"pix_fmt": "rgb24"}, "does not take the pixel format"),
    ],
)
def test_outputs_that_cannot_be_are_refused_at_once(
    tmp_path: Path, name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(MediaError, match=words):
        ImageWriter(f"{tmp_path}/{name}", source=None, size=SIZE, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rotation", [(90, False), (-90, False), (180, False), (90, True), (0, True)])
def test_frames_are_turned_upright_where_the_output_has_no_rotation(tmp_path: Path, rotation: tuple[int, bool]) -> None:
    """Turn counterclockwise, and then mirror, as FFmpeg's players do."""
    with open_reader(make_clip(tmp_path / "r.mp4", count=1, size=(62, 44), rotation=rotation)) as reader:
        info, frame = reader.info, next(iter(reader))
    rgb = np.rint(frame.rgb * 65535).astype(np.uint16)
    with ImageWriter(tmp_path / "r.png", source=info, size=(info.width, info.height)) as writer:
        writer.write(rgb, Fraction(0), Fraction(1, 25))
    expected = np.rot90(frame.rgb, rotation[0] // 90, (1, 2))
    expected = expected[:, :, ::-1] if rotation[1] else expected
    with open_reader(tmp_path / "r.png") as reader:
        assert np.abs(next(iter(reader)).rgb - expected).max() <= 0.5 / 255 + 1e-5


def test_images_of_a_camera_are_read_upright(tmp_path: Path) -> None:
    write(tmp_path / "photo.jpg", None, pictures(1))
    data = (tmp_path / "photo.jpg").read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: turn clockwise
    turned = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    (tmp_path / "turned.jpg").write_bytes(turned)
    with open_reader(tmp_path / "photo.jpg") as plain, open_reader(tmp_path / "turned.jpg") as upright:
        assert (upright.info.width, upright.info.height) == (45, 62)
        assert np.array_equal(next(iter(upright)).rgb, np.rot90(next(iter(plain)).rgb, -1, (1, 2)))


@pytest.mark.parametrize("suffix", [".gif", ".apng", ".avif"])
def test_animations_have_every_frame_at_its_time(tmp_path: Path, suffix: str) -> None:
    if suffix == ".avif" and not {"libaom-av1", "libsvtav1"} & av.codecs_available:
        pytest.skip("this build of FFmpeg has no encoder of AV1")
    out = tmp_path / f"a{suffix}"
    with new_writer(out, size=(64, 48), rate=Fraction(20), time_base=Fraction(1, 20)) as writer:
        for number in range(5):
            writer.write(np.full((3, 48, 64), 12000 * number, np.uint16), Fraction(number, 20), Fraction(1, 20))
    with av.open(str(out)) as container:
        stream = container.streams.video[-1]  # AVIF has a still image before it
        decoded = [
            (f.pts * f.time_base, f.to_ndarray(format="gray"))
            for f in container.decode(stream)
            if f.pts is not None and f.time_base is not None
        ]
    assert [time for time, _ in decoded] == [Fraction(n, 20) for n in range(5)]
    levels = [float(image.mean()) for _, image in decoded]
    assert levels == pytest.approx([12000 / 257 * n for n in range(5)], abs=9)
    assert list(tmp_path.iterdir()) == [out]


def test_a_gif_has_at_most_50_frames_per_second(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="GIF shows at most 50 frames per second, and the video has 60"):
        new_writer(tmp_path / "a.gif", rate=Fraction(60))
    with new_writer(tmp_path / "a.gif", rate=Fraction(30)) as writer:  # of 3.33 hundredths each
        for number in range(9):
            writer.write(np.full((3, 48, 64), 7000 * number, np.uint16), Fraction(number, 30), Fraction(1, 30))
    with av.open(str(tmp_path / "a.gif")) as container:
        times = [frame.pts for frame in container.decode(video=0)]
    assert times == [round(number * 100 / 30) for number in range(9)]


def test_streams_that_animations_do_not_hold_are_named(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv", count=2, languages=("eng",), subtitles=((0, 50, "a"),))
    with new_writer(tmp_path / "a.gif", source=clip) as writer:
        writer.write(np.zeros((3, 48, 64), np.uint16), Fraction(0), Fraction(1, 25))
    assert writer.warnings == [
        "The audio stream 1 (aac) was left out: gif holds pictures alone.",
        "The subtitle stream 2 (subrip) was left out: gif holds pictures alone.",
    ]


@pytest.mark.parametrize(
    ("name", "kind", "suffix"),
    [
        ("a.MP4", "video", ".mp4"),
        ("a.gif", "animation", ".gif"),
        ("a.jpeg", "image", ".jpeg"),
        ("a_%04d.tif", "images", ".tif"),
        ("frames/", "images", ".png"),
        ("-", "pipe", ".mkv"),
    ],
)
def test_the_name_of_an_output_decides_its_kind(name: str, kind: str, suffix: str) -> None:
    destination = read_destination(name)
    assert (destination.kind, destination.suffix) == (kind, suffix)


def test_an_existing_folder_gets_images_and_other_names_are_refused(tmp_path: Path) -> None:
    assert read_destination(tmp_path).path == tmp_path / "%06d.png"
    for name in ("out", "a.avi", "a"):
        with pytest.raises(MediaError, match="must end in one of"):
            read_destination(tmp_path / name)
    with pytest.raises(MediaError, match="leave the format out"):
        read_destination(tmp_path / "a.mp4", "y4m")
    with pytest.raises(MediaError, match="'mp4' is no format for a pipe: choose matroska, mpegts, y4m, rawvideo"):
        read_destination("-", "mp4")


@pytest.mark.parametrize("pix_fmt", ["rgb24", "rgb48be", "gray", "gray16be", "pal8", "monob"])
def test_pixel_formats_are_read(tmp_path: Path, pix_fmt: str) -> None:
    if pix_fmt == "pal8":
        folder = tmp_path / "f"
        folder.mkdir()
        frame = av.VideoFrame(32, 24, "pal8")
        frame.planes[0].update(bytes(range(256)) * 3)
        encoder = av.CodecContext.create("png", "w")
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 32, 24, "pal8", Fraction(1, 25)
        (folder / "0.png").write_bytes(b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)])))
    else:
        folder = make_folder(tmp_path / "f", 1, pix_fmt=pix_fmt)
    with open_reader(folder, fps=Fraction(25)) as reader:
        (frame_read,) = reader
    assert frame_read.rgb.shape == (3, 24, 32)
