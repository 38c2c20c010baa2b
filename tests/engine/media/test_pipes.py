"""Pipes: bytes that several readers share, videos that come through them, and outputs that go into one."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.options import Part
from stvsr.engine.media.pipes import PipeInput, PipeOutput, is_pipe, open_pipe
from stvsr.engine.media.probe import has_streams
from stvsr.engine.media.reader import open_reader
from stvsr.engine.media.writer import VideoWriter

from tests.support.media import make_clip, new_writer, packets_of, remux, times, write_frames
from tests.support.paths import SAMPLE

if not hasattr(os, "mkfifo"):
    pytest.skip("named pipes are those of POSIX", allow_module_level=True)


@contextmanager
def piped(path: Path, data: bytes) -> Iterator[Path]:
    """Make a named pipe that another thread writes data into, as far as it is read."""
    os.mkfifo(path)

    def send() -> None:
        with suppress(BrokenPipeError):
            path.write_bytes(data)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield path
    finally:
        with suppress(OSError):  # a sender that was never read waits for a reader
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        thread.join()
        path.unlink()


@contextmanager
def received(path: Path) -> Iterator[list[bytes]]:
    """Make a named pipe, and collect what is written into it."""
    os.mkfifo(path)
    chunks: list[bytes] = []
    thread = threading.Thread(target=lambda: chunks.append(path.read_bytes()))
    thread.start()
    yield chunks
    thread.join()
    path.unlink()


def test_views_read_the_same_bytes_at_their_own_speed(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    with piped(tmp_path / "p", data) as path, PipeInput(path) as pipe:
        first = pipe.view()
        assert first.read(1000) == data[:1000]
        second, slow = pipe.view(), pipe.view()
        assert slow.read(7) == data[:7]
        pipe.forget()
        parts = []
        while part := second.read(50_000):
            parts.append(part)
        assert b"".join(parts) == data
        assert pipe._first == 0, "the slow view has not read them"
        del first
        parts = [data[:7]]
        while part := slow.read(4096):
            parts.append(part)
        assert b"".join(parts) == data
        assert slow.read(1) == second.read(1) == b""
        assert not pipe._chunks, "what every view has read is forgotten"
        with pytest.raises(MediaError, match="can be read only once: save it to a file"):
            pipe.view()


def test_a_wait_for_bytes_can_be_interrupted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    end = os.open(tmp_path / "p", os.O_RDWR)  # keeps the pipe open, and writes nothing
    with PipeInput(tmp_path / "p") as pipe:
        view, begin = pipe.view(), time.monotonic()
        threading.Timer(0.1, pipe.interrupt).start()
        assert view.read(10) == b""
        assert time.monotonic() - begin < 30
    os.close(end)


def test_a_program_that_ends_without_a_byte_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p"
    os.mkfifo(path)
    opened: list[float] = []

    def open_and_close(seconds: float) -> None:  # while the reader waits until it tries again
        opened.append(seconds)
        os.close(os.open(path, os.O_WRONLY))

    monkeypatch.setattr("stvsr.engine.media.pipes.time.sleep", open_and_close)
    with PipeInput(path) as pipe:
        assert pipe.view().read(10) == b""
    assert len(opened) == 1


def test_only_pipes_and_devices_are_pipes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    names = ("-", tmp_path / "fifo", "/dev/null", tmp_path / "file", tmp_path, tmp_path / "none")
    assert [is_pipe(name) for name in names] == [True, True, True, False, False, False]


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".webm", ".y4m", ".avi", "fragmented.mp4", ".flv"])
def test_streamable_containers_are_read_as_the_file_of_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"source{suffix}"
    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(suffix, "libx264")
    clip = make_clip(source if suffix[0] == "." and suffix != ".y4m" else tmp_path / "clip.mp4", codec=codec)
    if suffix == ".y4m":
        with av.open(str(clip)) as reader, av.open(str(source), "w") as output:
            stream = output.add_stream("rawvideo", rate=25, width=64, height=48)
            for frame in reader.decode(video=0):
                frame.pts = None
                output.mux(stream.encode(frame))
    elif clip != source:
        remux(clip, source, movflags="frag_keyframe+empty_moov")
    with (
        piped(tmp_path / "p", source.read_bytes()) as path,
        open_reader(path) as reader,
        open_reader(source) as expected,
    ):
        assert has_streams(reader.info)
        for one, other in zip(reader, expected, strict=True):
            assert np.array_equal(one.rgb, other.rgb)
            assert one.pts == other.pts
        with pytest.raises(MediaError, match="can be read only once"):
            list(reader)
    assert open_pipe(tmp_path / "p") is None


def test_other_streams_of_a_pipe_are_copied(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", count=12, languages=("deu", "fra"), subtitles=((40, 100, "one"),))
    for name in ("whole.mkv", "piped.mkv"):
        with piped(tmp_path / "p", clip.read_bytes()) as path, open_reader(clip if name[0] == "w" else path) as reader:
            info = reader.info
            with VideoWriter(
                tmp_path / name, source=reader, size=(64, 48), rate=info.rate, time_base=info.time_base
            ) as writer:
                for frame in reader:
                    writer.write(np.rint(frame.rgb * 65535).astype(np.uint16), frame.pts, frame.duration)
            assert writer.warnings == []
            if name[0] == "w":
                path.open("rb").close()
    for kind in ("audio", "subtitle"):
        assert packets_of(tmp_path / "piped.mkv", kind) == packets_of(tmp_path / "whole.mkv", kind)
    assert times(tmp_path / "piped.mkv") == times(tmp_path / "whole.mkv")


@pytest.mark.parametrize("content", [b"", b"not a video" * 50, None], ids=["empty", "text", "moov at the end"])
def test_what_cannot_be_streamed_is_a_sentence(tmp_path: Path, content: bytes | None) -> None:
    data = SAMPLE.read_bytes() if content is None else content
    words = "cannot|can be read through a pipe .* send MPEG-TS, Matroska, y4m"
    with piped(tmp_path / "p", data) as path, pytest.raises(MediaError, match=words):
        list(open_reader(path))
    open_reader(make_clip(tmp_path / "next.mkv")).close()


def test_the_beginning_of_a_pipe_cannot_be_skipped_but_its_end_can(tmp_path: Path) -> None:
    data = make_clip(tmp_path / "c.mkv", count=8).read_bytes()
    with piped(tmp_path / "p", data) as path:
        with pytest.raises(MediaError, match="is a pipe, of which no beginning can be skipped"):
            open_reader(path, part=Part(start=Fraction(1, 10)))
        assert open_pipe(path) is None
    with piped(tmp_path / "q", data) as path, open_reader(path, part=Part(frames=3)) as reader:
        assert len(list(reader)) == 3


@pytest.mark.parametrize(
    ("name", "demuxer"), [("matroska", "matroska"), ("mpegts", "mpegts"), ("y4m", "yuv4mpegpipe"), ("rawvideo", "")]
)
def test_outputs_are_written_into_a_pipe(tmp_path: Path, name: str, demuxer: str) -> None:
    with received(tmp_path / "p") as chunks, new_writer(tmp_path / "p", pipe_format=name, size=(63, 47)) as writer:
        write_frames(writer, 20, (63, 47))
    if not demuxer:
        assert len(chunks[0]) == 20 * (63 * 47 + 2 * 32 * 24)
        return
    (tmp_path / "out").write_bytes(chunks[0])
    with av.open(str(tmp_path / "out")) as container:
        assert container.format.name.startswith(demuxer)
        stream = container.streams.video[0]
        assert stream.average_rate == 25
        decoded = list(container.decode(stream))
    assert len(decoded) == 20
    assert decoded[0].width == (63 if name == "y4m" else 64)


def test_a_constant_rate_is_said_of_a_video_that_has_none(tmp_path: Path) -> None:
    with received(tmp_path / "p"), new_writer(tmp_path / "p", pipe_format="y4m") as writer:
        for pts in (0, 1, 7, 8):
            writer.write(np.zeros((3, 48, 64), np.uint16), Fraction(pts, 25), Fraction(1, 25))
    assert writer.warnings == ["y4m has a constant frame rate, and the video has not: --fps gives it one."]


def test_a_reader_that_leaves_is_a_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")

    def leave() -> None:
        with (tmp_path / "p").open("rb") as pipe:
            pipe.read(1000)

    thread = threading.Thread(target=leave)
    thread.start()
    writer = new_writer(tmp_path / "p", pipe_format="y4m", size=(640, 480))
    with pytest.raises(MediaError, match="was closed by the program that reads it, before the end"), writer:
        write_frames(writer, 50, (640, 480))
    thread.join()


def test_a_rare_subtitle_does_not_make_the_whole_pipe_wait_in_memory(tmp_path: Path) -> None:
    lines = ((0, 50, "first"), (1900, 50, "last"))
    clip = make_clip(tmp_path / "c.mkv", count=60, size=(320, 240), codec="rawvideo", subtitles=lines)
    kept = []
    with piped(tmp_path / "p", clip.read_bytes()) as path, open_reader(path) as reader:
        info = reader.info
        with VideoWriter(
            tmp_path / "out.mkv",
            source=reader,
            size=(32, 24),
            rate=info.rate,
            time_base=info.time_base,
            encoder_options={"tune": "zerolatency"},  # of an encoder that keeps no frames
        ) as writer:
            for frame in reader:
                writer.write(np.zeros((3, 24, 32), np.uint16), frame.pts, frame.duration)
                pipe = open_pipe(path)
                assert pipe is not None
                kept.append(sum(map(len, pipe._chunks)))
    assert [len(packets) for packets in packets_of(tmp_path / "out.mkv", "subtitle")] == [2]
    assert max(kept[20:]) < clip.stat().st_size / 2


@pytest.mark.parametrize("is_output", [False, True])
def test_a_pipe_without_another_program_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_output: bool
) -> None:
    monkeypatch.setattr("stvsr.engine.media.pipes._OTHER_END_S", 0.2)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    does = "reads" if is_output else "writes into"
    with pytest.raises(MediaError, match=rf"{path} is a pipe, and no program {does} it: start that program"):
        PipeOutput(path) if is_output else PipeInput(path)


def test_the_first_bytes_of_a_pipe_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # keeps what is written until it is read
    writer = os.open(path, os.O_WRONLY)
    written = bytes(range(200)) * 100
    os.write(writer, written)
    with PipeInput(path) as pipe:
        os.close(writer)
        os.close(reader)
        view, read = pipe.view(), b""
        while data := view.read(4096):
            read += data
    assert read == written
