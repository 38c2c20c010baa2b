"""Cases of values of options that are wrong, huge or contradict each other."""

from collections.abc import Iterator
from typing import Any

from tests.torture.case import GIB, Case, Expectation, Make, Result, Room

_HUGE = str(10**30)
_REFUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "scale": ("-s", ("0", "-1", "nan", "inf", "1e300", "1e-300", "0.5", "8.5", "x", "9999999")),
    "scene-threshold": ("--scene-threshold", ("-0.1", "1.1", "nan", "inf", "x")),
    "threads": ("--threads", ("0", "1000000", str(10**12))),
    "device": ("--device", ("evil", "cuda:99")),
    "backend": ("--backend", ("evil",)),
    "precision": ("--precision", ("fp7",)),
    "library": ("--library", ("evil",)),
    "flow": ("--flow", ("evil",)),
    "time-limit": ("--time-limit", ("0", "nan", "-1", "x", "1e300")),
}
_REFUSED_AT_ONE: dict[str, tuple[str, tuple[str, ...]]] = {
    "factor": ("-t", ("0", "-1", "x", "1001", "100000", str(10**9), _HUGE)),
    "fps": ("--fps", ("0", "-5", "nan", "x", "1/0", "1e400000000", "1e9", "100000", "1e-30")),
    "tile": ("--tile", ("-1", "1", "7", "x")),
    "crf": ("--crf", ("x",)),
    "e": (
        "-e",
        ("x", "=1", "", "evil=1", "preset=evil", "threads=abc", "threads=100000", "threads=-1", "g=9" + "9" * 14),
    ),
    "input-fps": ("--input-fps", ("0",)),
}
_SIZES = ("0x0", "-1x5", "64", "64x", "axb", "99999999999999999999x2", "65536x65536", "16x12", "1x1")
_ANY: dict[str, tuple[str, tuple[str, ...]]] = {
    "fps": ("--fps", ("1/1000000", "9000")),
    "tile": ("--tile", ("17", str(10**12), _HUGE)),
    "crf": ("--crf", ("-1", "99", "1000000", str(10**20))),
    "e": ("-e", ("x264-params=evil=1", "tune=" + "x" * 100000)),
    "pix-fmt": ("--pix-fmt", ("evil", "", "cuda", "pal8", "monow", "yuv420p\n", "bayer_bggr8", "xyz12le", "rgb24")),
    "codec": ("--codec", ("evil", "h264", "aac", "copy", "", "wrapped_avframe", "h264_nvenc", "rawvideo", "gif")),
    "codec-2": ("--codec", ("libx264rgb", "mjpeg", "prores_ks", "png")),
    "input-fps": ("--input-fps", ("1000000007/3", "99999999999999999999/7", "1e-30")),
}
_MODELS = ("evil", "../../etc", "/", "+", "videoinr-s+", "a+b+c", "", "videoinr-s/../videoinr-s")
_COMMANDS: dict[str, list[str]] = {
    "no-args": [],
    "bad-command": ["evil"],
    "info-none": ["info", "nothing"],
    "compile-none": ["compile", "nothing"],
    "compile-target": ["compile", "{toy}", "-o", "{out}/c", "--target", "sm1"],
    "compile-target-2": ["compile", "{toy}", "-o", "{out}/c", "--target", "x"],
    "compile-shapes": ["compile", "{toy}", "-o", "{out}/c", "--shapes", "0x0"],
    "compile-shapes-2": ["compile", "{toy}", "-o", "{out}/c", "--shapes", "h=3/2/1"],
    "compile-into-itself": ["compile", "{toy}", "-o", "{toy}", "--target", "sm89"],
    "compile-over-data": ["compile", "{toy}", "-o", "{in}", "--overwrite", "--target", "sm89"],
}


def option_cases() -> Iterator[Case]:
    """Yield the cases."""
    for group, (option, values) in _REFUSED.items():
        scale = () if option == "-s" else ("-s", "1")
        for value in values:
            yield case(f"{group}.{value}", *scale, option, value)
    for group, (option, values) in _REFUSED_AT_ONE.items():
        for value in values:
            yield case(f"{group}.{_label(value)}", "-s", "1", option, value)
    for group, (option, values) in _ANY.items():
        for value in values:
            yield case(f"{group}.{_label(value)}", "-s", "1", option, value, expect="any", factor=0)
    for value in _SIZES:
        yield case(f"size.{value}", "--size", value)
    yield from _accepted()
    for name in _MODELS:
        args = ["upscale", "{shared}/tiny.mp4", "-o", "{out}/out.mp4", "-m", name]
        yield Case(f"option.model.{_label(name)}", args, "refuse")
    write: Make = lambda room: (room / "in/precious.txt").write_text("x")  # noqa: E731
    for name, args in _COMMANDS.items():
        yield Case(f"option.command.{name}", args, "refuse", make=write, after=_precious)


def case(name: str, *args: str, expect: Expectation = "refuse", extension: str = "mp4", **more: Any) -> Case:
    """Return a run of the smallest clip with options."""
    output = f"out/out.{extension}"
    words = ["upscale", "{shared}/tiny.mp4", "-o", f"{{room}}/{output}", "-m", "{toy}", "--json", *args]
    if "--threads" not in args:
        words += ["--threads", "1"]
    options = {"limits": {"AS": 6 * GIB}, "wall_s": 60, "cpu_s": 25, "max_mb": 1500, **more}
    return Case(f"option.{name}", words, expect, output=output, **options)


def _accepted() -> Iterator[Case]:
    yield case("scale.8", "-s", "8", expect="ok", factor=2, size=(256, 192))
    yield case("factor.1000", "-s", "1", "-t", "1000", expect="ok", factor=1000)
    for value in ("59.94005994005994", "59.94005994", "23.976", "60000/1001", "119.88"):
        yield case(f"fps.{_label(value)}", "-s", "1", "--fps", value, expect="ok", factor=0)
    yield case("factor.1.5", "-s", "1", "-t", "1.5", expect="ok", factor=0)
    yield case("size.odd", "--size", "33x25", expect="ok", factor=2, size=(34, 26))  # made even, with a note
    yield case("fps.and-factor", "-s", "1", "--fps", "60", "-t", "2")
    yield case("size.and-scale", "--size", "64x48", "-s", "2")
    logged = ("-e", "passlogfile={room}/logged", "-e", "flags=+pass1")
    yield case("e.stats-file", "-s", "1", *logged, expect="any")
    for codec in ("ffv1", "libsvtav1", "libx265", "mpeg4", "utvideo"):
        yield case(f"codec-mkv.{codec}", "-s", "2", "--codec", codec, expect="any", factor=2, extension="mkv")
    for extension in ("avi", "ts", "txt", "mp4.exe"):
        yield case(f"container.{extension}", "-s", "1", extension=extension)
    yield case("container.gif", "-s", "1", expect="ok", factor=2, extension="gif")
    yield case("container.MP4", "-s", "1", expect="ok", factor=2, extension="MP4")


def _label(value: str) -> str:
    text = value if len(value) < 40 else f"{value[:8]}-{len(value)}"
    return text.replace("/", ":").replace("\n", "-n") or "empty"


def _precious(room: Room, result: Result) -> None:
    if not (room / "in/precious.txt").exists():
        result.fault("bad", "a folder that is no bundle was deleted")
