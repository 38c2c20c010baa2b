"""`stvsr upscale` with images, alpha, pipes and a queue, as people type it."""

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
from stvsr.engine.media.reader import open_reader

from tests.support.commands import Run, assert_one_clear_error, run_inside, stvsr
from tests.support.media import make_clip, make_folder, packets_of, sample_frames, write_png
from tests.support.paths import SAMPLE
from tests.support.pictures import half_transparent, write_frames_rgba

COMMAND = [sys.executable, "-m", "stvsr", "upscale"]


@pytest.fixture
def options(toy: Path) -> list[str]:
    return ["-m", str(toy), "-s", "2", "--device", "cpu"]


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return run_inside(monkeypatch, capsys)


def piped(arguments: list[str], data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run `stvsr upscale` with bytes as its standard input."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run([*COMMAND, *arguments], input=data, capture_output=True, timeout=300, env=environment)


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


# The case alpha.sh
@pytest.mark.parametrize(
    ("source", "codec", "pix_fmt", "output", "kept"),
    [
        ("in.mov", "prores_ks", "yuva444p10le", "out.mov", True),
        ("in.webm", "libvpx-vp9", "yuva420p", "out.webm", True),
        ("in.mov", "prores_ks", "yuva444p10le", "out.mp4", False),
    ],
)
def test_alpha_comes_out_or_a_note_says_that_it_is_lost(
    inside: Run, options: list[str], tmp_path: Path, source: str, codec: str, pix_fmt: str, output: str, kept: bool
) -> None:
    write_frames_rgba(tmp_path / source, half_transparent(3), codec, pix_fmt)
    done = inside("upscale", tmp_path / source, "-o", tmp_path / output, *options)
    assert done.returncode == 0, done.stderr
    assert ("transparency of the source is lost" in done.stderr) != kept
    with open_reader(tmp_path / output) as reader:
        assert reader.info.alpha == kept
        for frame in reader:
            if kept:
                assert frame.alpha is not None
                assert frame.alpha[:, :60].min() >= 250 / 255
                assert frame.alpha[:, 68:].max() <= 5 / 255


# The case odd_size_default.sh
def test_a_scale_that_makes_an_odd_width_makes_it_even(inside: Run, options: list[str], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", count=2)
    done = inside("upscale", clip, "-o", tmp_path / "out.mp4", *options, "-s", "1.33")
    assert done.returncode == 0, done.stderr
    assert "The size 85x64 was made even, 86x64" in done.stderr
    with open_reader(tmp_path / "out.mp4") as reader:
        assert (reader.info.width, reader.info.height, reader.info.pix_fmt) == (86, 64, "yuv420p")


# The case folder_png_and_jpg.sh
def test_folders_of_images_are_what_they_seem_or_named(inside: Run, options: list[str], tmp_path: Path) -> None:
    mixed = make_folder(tmp_path / "mixed", 3)
    done = inside("upscale", mixed, "-o", tmp_path / "x%d.jpg", "--input-fps", 10, "-t", 1, *options)
    assert done.returncode == 0, done.stderr
    (mixed / "frame10.png").unlink()
    done = inside("upscale", mixed, "-o", tmp_path / "gap.mp4", "--input-fps", 10, "-t", 1, *options)
    assert "frame10.png is missing among the images" in done.stderr
    assert frames_in(tmp_path / "gap.mp4") == 2
    shutil.copy(tmp_path / "x2.jpg", mixed / "frame10.jpg")
    done = inside("upscale", mixed, "-o", tmp_path / "mixed.mp4", "--input-fps", 10, *options)
    assert_one_clear_error(done, "several kinds (2 PNG, 1 JPEG), among them frame10.jpg")
    done = inside("upscale", tmp_path / "x%d.jpg", "-o", tmp_path / "jpg.mp4", "--input-fps", 10, "-t", 1, *options)
    assert done.returncode == 0, done.stderr
    assert frames_in(tmp_path / "jpg.mp4") == 3


# The case stdin_pipe.sh
def test_a_video_comes_through_a_pipe(options: list[str], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "n.ts", count=10, languages=("deu",))
    done = piped(["-", "-o", str(tmp_path / "x.mkv"), *options], clip.read_bytes())
    assert done.returncode == 0, done.stderr
    assert frames_in(tmp_path / "x.mkv") == 20
    expected = [data[7:] for _, data in packets_of(clip, "audio")[0]]  # MPEG-TS has a header before each packet of AAC
    assert [data for _, data in packets_of(tmp_path / "x.mkv", "audio")[0]] == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="the shell that has <(...) is not installed")
def test_process_substitution_and_redirection_are_read(options: list[str], tmp_path: Path) -> None:
    make_clip(tmp_path / "n.ts", count=6)
    shutil.copy(SAMPLE, tmp_path / "late.mp4")  # with its index at the end: only a file has it
    command = " ".join([*COMMAND, "{}", *options])
    lines = [command.format("<(cat n.ts) -o a.mp4"), command.format("- -o b.mp4 --frames 2 < late.mp4")]
    for line in lines:
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (frames_in(tmp_path / "a.mp4"), frames_in(tmp_path / "b.mp4")) == (12, 4)


def test_frames_go_from_pipe_to_pipe_and_words_to_the_error_stream(options: list[str], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "n.mkv", count=4)
    first = piped(["-", "-o", "-", "--format", "y4m", *options], clip.read_bytes())
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith(b"YUV4MPEG2 W128 H96 F60000:1001")
    assert b"4 -> 8 frames" in first.stderr
    second = piped(["-", "-o", str(tmp_path / "out.mp4"), *options, "-t", "1", "--json"], first.stdout)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["frames_in"] == 8
    third = piped([str(clip), "-o", "-", "--format", "rawvideo", "--pix-fmt", "rgb24", "--json", *options])
    assert len(third.stdout) == 8 * 128 * 96 * 3
    assert json.loads(third.stderr)["frames_out"] == 8


def test_a_program_that_stops_reading_ends_the_run_with_a_sentence(options: list[str], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "n.mkv", count=8, size=(320, 240))
    process = subprocess.Popen(
        [*COMMAND, str(clip), "-o", "-", "--format", "y4m", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1000)
    process.stdout.close()
    stderr = process.stderr.read().decode()
    assert process.wait(60) == 1
    process.stderr.close()
    assert stderr.strip() == (
        "Error: The standard output was closed by the program that reads it, before the end of the video: see why it"
        " ended."
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-", "-o", "{out}", "--resume"], ["is a pipe: save it to a file first"]),
        (["-"], ["A pipe has no name"]),
        (["-", "-o", "{out}", "--start", "1"], ["of which no beginning can be skipped"]),
        (
            ["-", "-o", "-", "--format", "mp4"],
            ["'mp4' is no format for a pipe: choose matroska, mpegts, y4m, rawvideo"],
        ),
        (["-", "{clip}", "-o", "{folder}"], ["is a pipe, which is upscaled alone"]),
        (["{clip}", "-o", "-", "--resume"], ["writes a video file"]),
        (["{clip}", "-o", "{out}", "--format", "y4m"], ["leave the format out"]),
        (["{clip}", "{clip}"], ["Several inputs need a folder for their outputs: name one by -o"]),
        (["{clip}", "{clip}", "-o", "{out}"], ["is a file: name a folder"]),
        (["{clip}", "{clip}", "-o", "{folder}", "--adapt"], ["--adapt is for one input"]),
    ],
)
def test_pipes_and_queues_that_cannot_be_are_refused(
    inside: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    clip = make_clip(tmp_path / "clip.mkv", count=2)
    values = {"out": tmp_path / "out.mp4", "clip": clip, "folder": tmp_path / "f"}
    with clip.open("rb") as source:
        monkeypatch.setattr(sys, "stdin", source)
        done = inside("upscale", *(a.format(**values) for a in arguments), "-m", toy)
    assert_one_clear_error(done, *words)
    assert not (tmp_path / "out.mp4").exists()


def test_a_queue_names_its_failures_at_the_end(options: list[str], tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / "a.mp4", count=3), make_clip(tmp_path / "a.mkv", count=3)]
    folder = make_folder(tmp_path / "a", 2)
    photo = tmp_path / "photo.png"
    write_png(photo, sample_frames(1, (32, 24), "rgb24")[0])
    (tmp_path / "broken.mp4").write_bytes(clips[0].read_bytes()[:900])
    inputs = [*clips, tmp_path / "broken.mp4", folder, photo, tmp_path / "missing.mp4"]
    done = stvsr("upscale", *inputs, "-o", f"{tmp_path / 'out'}/", "--input-fps", 10, "-t", "2", *options)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == 2
    assert "broken.mp4" in errors[0]
    assert "missing.mp4 does not exist" in errors[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.mp4", "a.mkv", "a.mp4", "photo.png"]
    assert [frames_in(tmp_path / "out" / name) for name in ("a.mp4", "a.mkv", "a-2.mp4", "photo.png")] == [6, 6, 4, 1]
    again = stvsr("upscale", *clips, folder, photo, "-o", tmp_path / "out", "--input-fps", 10, *options)
    assert (again.returncode, "4 finished before." in again.stdout) == (0, True)


def test_quantities_as_people_type_them(inside: Run, options: list[str], tmp_path: Path) -> None:
    typed = ["--size", "128x-1", "--fps", "59.94", "--start", "0:00.2", "--end", "0:00.4", "--frames", "5"]
    done = inside("upscale", SAMPLE, "-o", tmp_path / "out.mkv", *options[:2], *typed, "--json")
    assert_one_clear_error(done, "128x73 of 240x136")  # smaller than the source, which this bundle does not make
    typed[1] = "480x-1"
    done = inside("upscale", SAMPLE, "-o", tmp_path / "out.mkv", *options[:2], *typed, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["size_out"] == [480, 272]
    assert (report["rate_out"], report["frames_in"], report["frames_out"]) == ("60000/1001", 5, 10)
    assert report["duration_s"] == pytest.approx(5 * float(Fraction(1001, 30000)))
