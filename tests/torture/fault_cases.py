"""Cases of faults while the command runs: signals, full disks, want of memory, and files that change."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.torture.case import GIB, Act, After, Case, Expectation, Make, Result, Room, upscale
from tests.torture.clips import write_clip

_LONG = upscale("{shared}/long.mp4", "-s", "2", "-t", "2")
_TINY = upscale("{shared}/tiny.mp4", "-s", "1")
_WAIT_S = 60


def unfinished(room: Room) -> bool:
    """Return whether the unfinished file is there and not empty."""
    try:
        return any(".part" in path.name and path.stat().st_size > 0 for path in (room / "out").iterdir())
    except OSError:
        return False


def when_unfinished(act: Act) -> Act:
    """Return a function that acts once the unfinished file is there."""

    def wait(room: Room, process: "subprocess.Popen[bytes]") -> None:
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end and process.returncode is None:
            if unfinished(room):
                act(room, process)
                return
            time.sleep(0.02)

    return wait


def _signals(*numbers: int, pause_s: float = 0.3) -> Act:
    def act(room: Room, process: "subprocess.Popen[bytes]") -> None:
        for number in numbers:
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                return
            time.sleep(pause_s)

    return act


def _after_s(seconds: float, number: int) -> Act:
    def act(room: Room, process: "subprocess.Popen[bytes]") -> None:
        time.sleep(seconds)
        _signals(number)(room, process)

    return act


def fault_cases() -> Iterator[Case]:
    """Yield the cases."""
    yield from _signal_cases()
    yield from _disk_cases()
    yield from _output_cases()
    yield from _want_cases()
    yield from _stream_cases()
    yield from _change_cases()


def _signal_cases() -> Iterator[Case]:
    def code(wanted: int) -> After:
        def after(room: Room, result: Result) -> None:
            if result.rc != wanted:
                result.fault("expectation", f"exit {result.rc}, wanted {wanted}")
            if wanted > 0 and "Interrupted: nothing was written." not in result.err:
                result.fault("mute", result.err[-100:])
            if (room / "out/out.mp4").exists():
                result.fault("bad", "an output has the final name after a stop")

        return after

    def stopped(name: str, wanted: int, *numbers: int, pause_s: float = 0.3) -> Case:
        act = when_unfinished(_signals(*numbers, pause_s=pause_s))
        return Case(f"fault.{name}", _LONG, "refuse", act=act, after=code(wanted))

    yield stopped("sigint", 130, signal.SIGINT)
    yield stopped("sigint-twice", 130, signal.SIGINT, signal.SIGINT, pause_s=0.01)
    yield stopped("sigint-5", 130, *[signal.SIGINT] * 5, pause_s=0.05)
    yield stopped("sigterm", 143, signal.SIGTERM)
    yield stopped("sigterm-twice", 143, signal.SIGTERM, signal.SIGTERM, pause_s=0.01)
    yield stopped("sigterm-sigint", 143, signal.SIGTERM, signal.SIGINT, pause_s=0.01)
    yield stopped("sighup", 129, signal.SIGHUP)
    for name, number in (("sigint", signal.SIGINT), ("sigterm", signal.SIGTERM)):
        for step, seconds in enumerate((0.15, 0.3, 0.5, 0.8, 1.3)):
            act = _after_s(seconds, number)
            yield Case(f"fault.{name}-early-{step}", _LONG, "refuse", act=act, after=_early(number))

    def killed(room: Room, result: Result) -> None:
        code(-9)(room, result)
        result.faults.pop("left", None)  # nobody can clean up after it: see the next case

    yield Case("fault.kill", _LONG, "refuse", act=when_unfinished(_signals(signal.SIGKILL)), after=killed)
    again = (
        '"$@" & p=$!; for i in $(seq 600); do ls -A {out} | grep -q part && break; sleep 0.05; done; sleep 0.5;'
        ' kill -9 $p; wait $p; exec "$@"'
    )
    yield Case("fault.kill-then-again", _LONG, "ok", shell=again, factor=2, inputs=2000)


def _early(number: int) -> After:
    def after(room: Room, result: Result) -> None:
        # Before Python can run any code, the signal has its default effect.
        if result.rc not in (128 + number, -number):
            result.fault("expectation", f"exit {result.rc}")
        if result.rc == -number:
            result.faults.pop("traceback", None)

    return after


def _disk_cases() -> Iterator[Case]:
    full = (
        'mount -t tmpfs -o size={size} none {{out}} || exit 77; "$@"; rc=$?; ls -A {{out}} > {{room}}/listing; exit $rc'
    )

    def listed(room: Room, result: Result) -> None:
        if result.rc == 77:
            result.faults.clear()
            result.skipped = "no mount"
        elif (room / "listing").read_text().strip():
            result.fault("left", "on the full disk: " + (room / "listing").read_text().strip()[:150])
        if result.rc == 1 and "full" not in result.err:
            result.fault("expectation", f"the sentence does not speak of a full disk: {result.err.strip()[-200:]}")

    def case(name: str, size: str, extension: str = "mp4") -> Case:
        args = upscale("{shared}/long.mp4", "-s", "2", "-t", "2", output="{out}/out." + extension)
        shell = full.format(size=size)
        return Case(f"fault.disk-full-{name}", args, "refuse", shell=shell, outer=["unshare", "-m"], after=listed)

    yield case("4k", "4k")
    yield case("64k", "64k")
    yield case("300k", "300k")
    yield case("mkv", "64k", "mkv")
    yield case("webm", "64k", "webm")
    yield Case("fault.file-size", _LONG, "refuse", limits={"FSIZE": 60000})
    yield Case("fault.tmp-full", _TINY, shell='export TMPDIR=/proc; exec "$@"')


def _output_cases() -> Iterator[Case]:
    read_only: Make = lambda room: (room / "out").chmod(0o555)  # noqa: E731
    yield Case("fault.read-only", _TINY, "refuse", nobody=True, make=read_only)
    missing = upscale("{shared}/tiny.mp4", "-s", "1", output="{out}/no/out.mp4")
    yield Case("fault.no-folder", missing, "refuse")

    def images(room: Room, result: Result) -> None:
        names = sorted(path.name for path in (room / "out/out.mp4").iterdir())
        if names != [f"{number:06}.png" for number in range(1, 7)]:
            result.fault("count", str(names))

    folder: Make = lambda room: (room / "out/out.mp4").mkdir()  # noqa: E731
    yield Case("fault.output-folder", _TINY, "ok", make=folder, after=images)

    def same(room: Room) -> None:
        shutil.copy(room.shared / "tiny.mp4", room / "in/x.mp4")

    def symbolic(room: Room) -> None:
        same(room)
        (room / "out/out.mp4").symlink_to("../in/x.mp4")

    def hard(room: Room) -> None:
        same(room)
        os.link(room / "in/x.mp4", room / "out/out.mp4")

    def kept(room: Room, result: Result) -> None:
        if (room / "in/x.mp4").read_bytes() != (room.shared / "tiny.mp4").read_bytes():
            result.fault("bad", "the input was changed")

    for label, extra in (("", ()), ("-overwrite", ("--overwrite",))):
        itself = upscale("{in}/x.mp4", "-s", "1", *extra, output="{in}/x.mp4")
        yield Case(f"fault.output-is-input{label}", itself, "refuse", make=same, after=kept)
        linked = upscale("{in}/x.mp4", "-s", "1", *extra)
        yield Case(f"fault.output-is-link{label}", linked, "refuse", make=symbolic, after=kept)
        yield Case(f"fault.output-is-hardlink{label}", linked, "refuse", make=hard, after=kept)

    def mine(room: Room) -> None:
        (room / "out/out.mp4").write_text("mine")
        (room / "in/x.mp4").write_bytes((room.shared / "h264.mp4").read_bytes()[:-900])

    def still_mine(room: Room, result: Result) -> None:
        if (room / "out/out.mp4").read_bytes() != b"mine":
            result.fault("bad", "the old output is lost")

    yield Case("fault.output-exists", _TINY, "refuse", make=mine, after=still_mine)
    failing = upscale("{in}/x.mp4", "-s", "1", "--overwrite")
    yield Case("fault.overwrite-failed", failing, "refuse", make=mine, after=still_mine)
    dangling: Make = lambda room: (room / "out/out.mp4").symlink_to("gone.mp4")  # noqa: E731
    yield Case("fault.output-dangling-link", _TINY, make=dangling)
    yield Case("fault.output-device", upscale("{shared}/tiny.mp4", "-s", "1", output="/dev/null"), "ok")
    two = (
        '"$@" > {room}/o1 2> {room}/e1 & a=$!; "$@" > {room}/o2 2> {room}/e2 & b=$!; wait $a; ra=$?; wait $b; rb=$?;'
        " echo $ra $rb; cat {room}/e1 {room}/e2 >&2; exit 0"
    )

    def both(codes: list[str]) -> After:
        def after(room: Room, result: Result) -> None:
            if sorted(result.out.split()) != codes:
                result.fault("expectation", f"exit codes {result.out.split()}, wanted {codes}")
            if [path.name for path in (room / "out").iterdir()] != ["out.mp4"]:
                result.fault("left", str([path.name for path in (room / "out").iterdir()]))

        return after

    yield Case("fault.two-writers", _TINY, shell=two, after=both(["0", "1"]))
    yield Case("fault.two-writers-overwrite", [*_TINY, "--overwrite"], shell=two, after=both(["0", "0"]))


def _want_cases() -> Iterator[Case]:
    def named(room: Room, result: Result) -> None:
        words = result.err.replace(str(room.root), "")  # the folder of a case has its name
        if result.rc and "damaged" in words:
            result.fault("expectation", f"a want is called damage: {words.strip()[-200:]}")
        if result.rc > 0 and not re.search(r"memory|threads|files are open|processes", words, re.I):
            result.fault("expectation", f"a want is not named: {words.strip()[-200:]}")

    def case(name: str, args: list[Any], **more: Any) -> Case:
        return Case(f"fault.{name}", args, after=named, **more)

    large = upscale("{shared}/h264.mp4", "-s", "4", "-t", "2")
    for mib in (220, 260, 300, 350, 400, 450, 500, 550, 600, 700, 900, 1200):
        yield case(f"memory-{mib}", large, limits={"AS": mib << 20})
    wide = upscale("{in}/x.mkv", "-s", "4", "-t", "2")
    write: Make = lambda room: write_clip(room / "in/x.mkv", "ffv1", "yuv444p", {}, (1280, 720), 2)  # noqa: E731
    yield case("memory-4k", wide, limits={"AS": 2 * GIB}, make=write)
    for files in (8, 12, 16, 20, 26, 40):
        yield case(f"nofile-{files}", _TINY, limits={"NOFILE": files})
    yield case("processes", _TINY, limits={"NPROC": 1}, nobody=True)


def _stream_cases() -> Iterator[Case]:
    text = ["upscale", "{shared}/tiny.mp4", "-o", "{out}/out.mp4", "-m", "{toy}", "-s", "1"]
    yield Case("fault.stdout-full", text, "ok", stdout_full=True)
    yield Case("fault.stdout-full-json", [*text, "--json"], "ok", stdout_full=True)
    ascii_ = 'LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii exec "$@"'
    shells: dict[str, tuple[str, Expectation]] = {
        "stdout-closed": ('exec "$@" >&-', "any"),
        "stderr-closed": ('exec "$@" 2>&-', "any"),
        "pipe-closed": ('"$@" | true', "any"),
        "no-home": ('unset HOME STVSR_CACHE; exec "$@"', "ok"),
        "gone-cwd": ('mkdir gone; cd gone; rmdir ../gone; exec "$@"', "any"),
    }
    for name, (shell, expect) in shells.items():
        yield Case(f"fault.{name}", _TINY, expect, shell=shell)
    yield Case("fault.ascii-locale", upscale("{in}/é.mp4", "-s", "1"), "refuse", shell=ascii_)
    bee = ["upscale", "{in}/é🐝.mp4", "-m", "{toy}", "-s", "1"]
    make: Make = lambda room: shutil.copy(room.shared / "tiny.mp4", room / "in/é🐝.mp4")  # noqa: E731
    yield Case("fault.ascii-locale-ok", bee, "ok", shell=ascii_, make=make)


def _change_cases() -> Iterator[Case]:
    def changes(change: Callable[[Path], object]) -> Act:
        return when_unfinished(lambda room, process: change(room.root))

    yield Case("fault.output-folder-removed", _LONG, "refuse", act=changes(lambda root: shutil.rmtree(root / "out")))

    def unlink(root: Path) -> None:
        for path in (root / "out").iterdir():
            path.unlink()

    yield Case("fault.part-removed", _LONG, "refuse", act=changes(unlink))
    cut = upscale("{in}/x.mp4", "-s", "2", "-t", "2")
    make: Make = lambda room: shutil.copy(room.shared / "long.mp4", room / "in/x.mp4")  # noqa: E731
    act = changes(lambda root: os.truncate(root / "in/x.mp4", 20000))
    yield Case("fault.input-cut-meanwhile", cut, factor=2, was=2000, make=make, act=act)
