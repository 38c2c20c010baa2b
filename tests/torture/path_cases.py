"""Cases of odd paths and names, of playlists under a video's name, and of text that would control the terminal."""

import os
import shutil
from collections.abc import Iterator

import numpy as np

from tests.torture.case import Case, Make, Result, Room, upscale
from tests.torture.clips import FRAMES, remux

_ONCE, _TWICE = ("-s", "1"), ("-s", "1", "-t", "2")
_HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
_DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="a" bandwidth="1"><BaseURL>{secret}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)
_SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
_PLAYLISTS = {
    "hls-absolute": _HLS.format("{secret}"),
    "hls-file-url": _HLS.format("file://{secret}"),
    "hls-up": _HLS.format("../secret/s.ts"),
    "hls-http": _HLS.format("http://127.0.0.1:9/s.ts"),
    "concat-absolute": "ffconcat version 1.0\nfile {secret}\n",
    "concat-beside": "ffconcat version 1.0\nfile beside.ts\n",
    "concat-up": "ffconcat version 1.0\nfile ../secret/s.ts\n",
    "dash": _DASH,
    "sdp": _SDP,
}
_NAMES = {
    "colon": "12:30 clip.mp4",
    "protocol": "http:x.mp4",
    "percent": "clip%03d.mp4",
    "spaces": " a  b .mp4",
    "unicode": "ünïcødé 日本 🐝.mp4",
    "markup": "[red]x[bold].mp4",
    "newline": "a\nb.mp4",
    "quote": "a'b\"c.mp4",
}


def copied(source: str, name: str) -> Make:
    """Return a function that copies a shared clip to a name in the case's input."""
    return lambda room: shutil.copy(room.shared / source, room / "in" / name)


def escaped(room: Room, result: Result) -> None:
    """Judge that nothing controls the terminal."""
    if any(text in result.out + result.err for text in ("\x1b]0;", "\x1b[2J", "\x9b2J")):
        result.fault("unsafe", "an escape sequence of the input is printed as it is")


def path_cases() -> Iterator[Case]:
    """Yield the cases."""
    yield from _path_cases()
    yield from _name_cases()
    yield from _playlist_cases()
    tagged: Make = lambda room: remux(  # noqa: E731
        room.shared / "h264.mp4", room / "in/x.mkv", "video", title="x\x1b]0;PWN\x07\x1b[2J\x9b2J[/red]"
    )
    yield Case("media.tags.escape-info", ["info", "{in}/x.mkv"], "ok", make=tagged, after=escaped)
    yield Case("media.tags.escape-json", ["info", "{in}/x.mkv", "--json"], "ok", make=tagged, after=escaped)
    yield Case("media.name.escape", upscale("a\x1b[2J.mp4", *_ONCE), "refuse", after=escaped)


def _path_cases() -> Iterator[Case]:
    def case(name: str, make: Make | None = None, source: str = "{in}/x.mp4", **more: float) -> Case:
        return Case(f"media.path.{name}", upscale(source, *_ONCE), "refuse", make=make, **more)  # type: ignore[arg-type]

    def body(content: bytes) -> Make:
        return lambda room: (room / "in/x.mp4").write_bytes(content)

    yield case("missing")
    yield case("empty", body(b""))
    yield case("text", body(b"hello, world\n" * 9))
    yield case("html", body(b"<!doctype html><html><body>404</body></html>"))
    yield case("random", body(np.random.default_rng(1).bytes(5000)))
    yield case("folder", lambda room: (room / "in/x.mp4").mkdir())
    yield case("fifo", lambda room: os.mkfifo(room / "in/x.mp4"), wall_s=30)
    yield case("null", source="/dev/null")
    yield case("zero", source="/dev/zero", wall_s=30)
    yield case("loop", lambda room: (room / "in/x.mp4").symlink_to("x.mp4"))
    yield case("dangling", lambda room: (room / "in/x.mp4").symlink_to("gone"))
    yield case("proc", source="/proc/self/mem", wall_s=30)
    yield case("too-long", source="x" * 5000)

    def unreadable(room: Room) -> None:
        copied("h264.mp4", "x.mp4")(room)
        (room / "in/x.mp4").chmod(0)

    yield case("unreadable", unreadable, nobody=True)
    yield case("audio-only", lambda room: remux(room.shared / "h264.mp4", room / "in/x.mp4", "audio"))


def _name_cases() -> Iterator[Case]:
    def case(name: str, source: str, file: str, written: str = "{out}/out.mp4", **more: str) -> Case:
        args = upscale(source, *_TWICE, output=written)
        return Case(f"media.name.{name}", args, "ok", make=copied("h264.mp4", file), factor=2, inputs=FRAMES, **more)  # type: ignore[arg-type]

    for label, name in _NAMES.items():
        yield case(f"in-{label}", name, name, cwd="in")
        yield case(f"out-{label}", "{shared}/h264.mp4", "x.mp4", name, cwd="out", output=f"out/{name}")
    for length in (254, 255):
        long = "n" * (length - 4) + ".mp4"
        output = upscale("{shared}/h264.mp4", *_TWICE, output="{out}/" + long)
        yield Case(f"media.name.out-{length}", output, "ok", output=f"out/{long}", factor=2)

    def no_text(room: Room) -> None:
        shutil.copy(os.fsencode(room.shared / "h264.mp4"), os.fsencode(room / "in") + b"/\xff\xfe.mp4")

    toy = ["-m", "{toy}", "--threads", "1", *_TWICE]
    args = ["upscale", b"\xff\xfe.mp4", "-o", "{out}/out.mp4", "--json", *toy]
    yield Case("media.name.bytes", args, "ok", cwd="in", factor=2, make=no_text)
    yield Case("media.name.bytes-default", ["upscale", b"\xff\xfe.mp4", *toy], "ok", cwd="in", make=no_text)
    dash = ["upscale", "-o", "{out}/out.mp4", "--json", *toy, "--", "-x.mp4"]
    yield Case("media.name.dash", dash, "ok", cwd="in", factor=2, make=copied("h264.mp4", "-x.mp4"))
    default = ["upscale", "x.mp4", "--json", *toy]
    named = "in/x_x1_50fps.mp4"
    make = copied("h264.mp4", "x.mp4")
    yield Case("media.name.default-output", default, "ok", cwd="in", factor=2, output=named, make=make)

    def calls(room: Room, result: Result) -> None:
        if "connect(" in (room / "trace").read_text():
            result.fault("unsafe", "a local path that begins with http: is opened as an address of the network")

    def folder(room: Room) -> None:
        (room / "in/http:/127.0.0.1:9").mkdir(parents=True)
        shutil.copy(room.shared / "tiny.mp4", room / "in/http:/127.0.0.1:9/x.mp4")

    outer = ["strace", "-f", "-o", "../trace", "-e", "trace=connect"]
    info = ["info", "http:/127.0.0.1:9/x.mp4"]
    yield Case("media.name.in-http-folder", info, "ok", cwd="in", after=calls, outer=outer, make=folder)


def _playlist_cases() -> Iterator[Case]:
    def playlist(text: str, name: str = "x.mp4") -> Make:
        def make(room: Room) -> None:
            (room / "secret").mkdir()
            shutil.copy(room.shared / "mpeg2i.ts", room / "secret/s.ts")
            shutil.copy(room.shared / "mpeg2i.ts", room / "in/beside.ts")
            (room / "in" / name).write_text(text.format(secret=room / "secret/s.ts"))

        return make

    for label, text in _PLAYLISTS.items():
        args = upscale("{in}/x.mp4", *_ONCE)
        yield Case(f"media.playlist.{label}", args, "refuse", make=playlist(text), wall_s=45)
    listed = playlist(_HLS.format("{secret}").replace("EXTINF:1,", "EXTINF:0.32,"), "x.m3u8")
    args = upscale("{in}/x.m3u8", *_ONCE)
    yield Case("media.playlist.hls-m3u8-name", args, "refuse", make=listed, wall_s=45)
