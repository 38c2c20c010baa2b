"""Cases of damaged and odd videos and image folders."""

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.torture.case import GIB, Case, Make, Room, upscale
from tests.torture.clips import (
    BASES,
    mutations,
    write_clip,
    write_images,
    write_png,
    write_png_bomb,
    write_raw_png,
)

_TWICE = ("-s", "1", "-t", "2")
_IMAGES = (*_TWICE, "--input-fps", "24")


def media_cases(seed: int) -> Iterator[Case]:
    """Yield the cases; `seed` chooses the damage."""
    for name, base in BASES.items():
        clean = upscale(f"{{shared}}/{base.file}", *_TWICE)
        yield Case(f"media.clean.{name}", clean, "ok", factor=2, inputs=base.read, size=base.size)
        for kind, change in mutations(seed):

            def make(
                room: Room, file: str = base.file, change: Callable[[bytes, str], bytes] = change, key: str = name
            ) -> None:
                (room / "in" / file).write_bytes(change((room.shared / file).read_bytes(), key))

            damaged = upscale(f"{{in}}/{base.file}", *_TWICE)
            was = None if kind in base.unseen else base.read
            yield Case(f"media.damaged.{name}.{kind}", damaged, factor=2, was=was, make=make)
    yield from _image_cases(seed)
    yield from _size_cases()
    yield from _time_cases()


def _image_cases(seed: int) -> Iterator[Case]:
    args = upscale("{in}/f", *_IMAGES)
    yield Case("media.clean.png", args, "ok", make=lambda room: write_images(room / "in/f"), factor=2, inputs=4)
    for kind, change in mutations(seed):

        def damaged(room: Room, change: Callable[[bytes, str], bytes] = change) -> None:
            path = write_images(room / "in/f") / "f2.png"
            path.write_bytes(change(path.read_bytes(), "png"))

        yield Case(f"media.damaged.png.{kind}", args, factor=2, was=4, make=damaged)
    for color, bits in ((0, 1), (0, 8), (0, 16), (2, 16), (3, 8), (4, 8), (6, 8), (6, 16)):

        def kind_of_png(room: Room, color: int = color, bits: int = bits) -> None:
            write_images(room / "in/f", bits=bits, color=color)

        yield Case(f"media.png.type{color}-{bits}", args, "ok", factor=2, inputs=4, make=kind_of_png)

    def case(name: str, change: Callable[[Path], object], expect: Any = "refuse", **more: Any) -> Case:
        return Case(f"media.png.{name}", args, expect, make=lambda room: change(write_images(room / "in/f")), **more)

    yield case("fifo", lambda f: os.mkfifo(f / "f9.png"), wall_s=30)
    endless = {"limits": {"AS": 4 * GIB}, "wall_s": 60, "max_mb": 1500}
    yield case("endless", lambda f: (f / "f9.png").symlink_to("/dev/zero"), **endless)
    yield case("folder", lambda f: (f / "f9.png").mkdir())
    yield case("dangling", lambda f: (f / "f9.png").symlink_to("no"))
    yield case("empty-file", lambda f: (f / "f9.png").touch())
    yield case("jpeg-inside", lambda f: (f / "f9.png").write_bytes(b"\xff\xd8\xff\xe0" + bytes(99)))
    yield case("other-size", lambda f: write_png(f / "f9.png", (8, 8)))
    yield case("other-depth", lambda f: write_png(f / "f9.png", (24, 32), 16, 6), "any", factor=2, inputs=5)
    yield case("zero-size", lambda f: write_raw_png(f / "f0.png", 0, 0, b""))
    huge = 2**31 - 1
    yield case("claims-huge", lambda f: write_raw_png(f / "f0.png", huge, huge, b""), limits={"AS": 4 * GIB})
    yield Case("media.png.none", args, "refuse", make=lambda room: (room / "in/f").mkdir())
    yield Case("media.png.no-rate", upscale("{in}/f"), "refuse", make=lambda room: write_images(room / "in/f"))
    yield Case("media.png.one", args, "ok", make=lambda room: write_images(room / "in/f", 1), factor=2, inputs=1)

    def bomb(room: Room) -> None:
        (room / "in/f").mkdir()
        write_png_bomb(room / "in/f/a.png", 16000)

    yield Case("media.png.bomb", args, make=bomb, limits={"AS": 4 * GIB})


def _size_cases() -> Iterator[Case]:
    def lossless(w: int, h: int, count: int) -> Make:
        return lambda room: write_clip(room / "in/x.mkv", "ffv1", "yuv444p", {}, (w, h), count)

    for w, h in ((1, 1), (2, 2), (3, 5), (16, 4096), (7680, 16)):
        count = 2 if max(w, h) > 1000 else 4
        for factor, scale in ((1, 1), (3, 2)):
            args = upscale("{in}/x.mkv", "-s", str(scale), "-t", str(factor), output="{out}/out.mkv")
            size = (w * scale, h * scale)
            named = {"output": "out/out.mkv", "make": lossless(w, h, count), "inputs": count, "size": size}
            yield Case(f"media.size.{w}x{h}.t{factor}", args, "ok", factor=factor, **named)  # type: ignore[arg-type]
    pixel = upscale("{in}/f", "-s", "4", "-t", "2", "--input-fps", "24")
    one_pixel: Make = lambda room: write_images(room / "in/f", size=(1, 1))  # noqa: E731
    yield Case("media.size.1x1.png", pixel, "ok", factor=2, inputs=4, size=(4, 4), make=one_pixel)
    shipped = ["upscale", "{in}/x.mkv", "-o", "{out}/out.mp4", "--json", "--threads", "1"]
    yield Case(
        "media.size.shipped-3x5",
        [*shipped, "-s", "2"],
        "ok",
        factor=2,
        inputs=2,
        size=(6, 10),
        make=lossless(3, 5, 2),
    )
    edvr = [*shipped, "-m", "edvr-s"]
    yield Case("media.size.edvr-1x1", edvr, "ok", factor=1, inputs=2, size=(4, 4), make=lossless(1, 1, 2))

    def changing(room: Room) -> None:
        sizes = ((64, 48), (80, 48))
        parts = [write_clip(room / f"in/{w}.ts", "mpeg2video", size=(w, h)).read_bytes() for w, h in sizes]
        (room / "in/x.ts").write_bytes(b"".join(parts))

    yield Case("media.size.changes", upscale("{in}/x.ts", "-s", "1"), "refuse", make=changing)


def _time_cases() -> Iterator[Case]:
    tick = Fraction(1, 90000)

    def mp4(**how: Any) -> Make:
        return lambda room: write_clip(room / "in/x.mp4", "libx264", "yuv420p", {"bf": "0"}, (32, 24), **how)

    rows: dict[str, tuple[dict[str, Any], int]] = {
        "one": ({"count": 1}, 1),
        "two": ({"count": 2}, 2),
        "slow": ({"rate": Fraction(1, 1000), "count": 3}, 3),
        "fast": ({"rate": Fraction(240), "count": 5}, 5),
        "90k": ({"rate": Fraction(24000, 1001), "time_base": tick, "pts": [n * 3753 for n in range(5)]}, 5),
        "vfr": ({"time_base": tick, "pts": [0, 1, 3000, 3001, 90000, 90900]}, 6),
        "start-1000s": ({"time_base": tick, "pts": [90000 * 1000 + n * 3600 for n in range(4)]}, 4),
        "negative": ({"time_base": tick, "pts": [-7200 + n * 3600 for n in range(4)]}, 2),  # an edit list hides two
        "near-2-31": ({"time_base": tick, "pts": [2**31 - 9000 + n * 3600 for n in range(6)]}, 6),
        "gap-10h": ({"time_base": tick, "pts": [0, 3600, 90000 * 36000]}, 3),
        "rate-90k": ({"rate": Fraction(90000), "count": 4}, 4),
        "rotated": ({"rotation": 90, "count": 3}, 3),
    }
    for name, (how, count) in rows.items():
        for factor in (1, 7) if name in ("one", "vfr") else (2,):
            args = upscale("{in}/x.mp4", "-s", "1", "-t", str(factor))
            yield Case(f"media.time.{name}.t{factor}", args, "ok", make=mp4(**how), factor=factor, inputs=count)
    repeated = {"time_base": Fraction(1, 1000), "pts": [0, 40, 41, 42, 120]}
    yield Case(
        "media.time.repeated",
        upscale("{in}/x.mkv", *_TWICE),
        factor=2,
        inputs=5,
        make=lambda room: write_clip(room / "in/x.mkv", "ffv1", "yuv444p", {}, (32, 24), **repeated),  # type: ignore[arg-type]
    )

    def jump_back(room: Room) -> None:
        (room / "in/x.ts").write_bytes((room.shared / "mpeg2i.ts").read_bytes() * 2)

    yield Case("media.time.jump-back", upscale("{in}/x.ts", *_TWICE), factor=2, make=jump_back)
    gap = mp4(time_base=tick, pts=[0, 3600, 90000 * 20])
    yield Case("media.time.gap-fps", upscale("{in}/x.mp4", "-s", "1", "--fps", "1"), make=gap, factor=0)
    yield Case("media.time.long", upscale("{shared}/long.mp4", *_TWICE), "ok", factor=2, inputs=2000)
