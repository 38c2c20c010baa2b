"""The whole corpus."""

import json
from collections.abc import Iterator
from pathlib import Path

from tests.torture.bundle_cases import bundle_cases
from tests.torture.case import Case, Result, Room, upscale
from tests.torture.checkpoint_cases import checkpoint_cases
from tests.torture.clips import FRAMES
from tests.torture.fault_cases import fault_cases
from tests.torture.media_cases import media_cases
from tests.torture.option_cases import option_cases
from tests.torture.path_cases import path_cases

_PROGRAM = Path(__file__).with_name("program.py")
_CHECKS = (
    "loop",
    "loop_errors",
    "loop_upscaler",
    "loop_dropped",
    "callback_error",
    "callback_interrupt",
    "four_threads",
)
_MORE_CHECKS = ("callback_in_thread", "two_threads_one_upscaler", "signal_handlers", "nan_frames", "odd_times", "long")


def all_cases(seed: int) -> list[Case]:
    """Return every case; `seed` chooses the damage of videos."""
    return [
        *_security_cases(),
        *media_cases(seed),
        *path_cases(),
        *bundle_cases(),
        *checkpoint_cases(),
        *fault_cases(),
        *option_cases(),
        *_api_cases(),
    ]


def _security_cases() -> Iterator[Case]:
    def calls_home(room: Room, result: Result) -> None:
        found = [str(path.relative_to(room / "home")) for path in (room / "home").rglob("*") if path.is_file()]
        if found:
            result.fault("unsafe", f"the run left files in HOME: {found[:3]}")

    def connects(room: Room, result: Result) -> None:
        sockets = [line for line in (room / "trace").read_text().splitlines() if "AF_INET" in line]
        if sockets:
            result.fault("unsafe", f"a socket was opened: {sockets[0][:100]}")

    args = upscale("{shared}/tiny.mp4", "-s", "1")
    yield Case("security.telemetry", args, "ok", factor=2, telemetry=True, after=calls_home)
    outer = ["strace", "-f", "-o", "trace", "-e", "trace=socket,connect"]
    yield Case("security.network", args, "ok", factor=2, telemetry=True, outer=outer, after=connects, cpu_s=120)

    def silent(room: Room, result: Result) -> None:
        if result.rc == 0 and "index" not in " ".join(json.loads(result.out)["warnings"]):
            result.fault("expectation", "a file whose index is cut was accepted, and nothing is said")

    def cut(room: Room) -> None:
        (room / "in/x.mp4").write_bytes((room.shared / "h264.mp4").read_bytes()[:-600])

    damaged = upscale("{in}/x.mp4", "-s", "1", "-t", "2")
    yield Case("media.damaged.h264.index-cut", damaged, factor=2, was=FRAMES, after=silent, make=cut)


def _api_cases() -> Iterator[Case]:
    for name in (*_CHECKS, *_MORE_CHECKS):
        args = [str(_PROGRAM), name, "{toy}", "{shared}", "{out}"]
        yield Case(f"api.{name}", args, "ok", api=True, wall_s=300, cpu_s=200)

    def memory(room: Room, result: Result) -> None:
        found = dict(line.split() for line in result.out.splitlines() if line)
        short, long = float(found.get("50", 0)), float(found.get("2000", 0))
        if not short or long > short * 1.1 + 10:
            result.fault("expectation", f"the peak of memory grows with the length: {found}")

    both = (
        'for n in 50 2000; do IN={shared}/long$n.mp4; [ $n = 2000 ] && IN={shared}/long.mp4; "$@" "$IN" -o {out}/$n.mp4'
        ' -m {toy} -s 1 -t 2 --threads 1 --json > {room}/r$n || exit 1; printf "$n ";'
        " sed -n 's/.*\"peak_memory_bytes\": \\([0-9]*\\).*/\\1/p' {room}/r$n | awk '{{print $1/1048576}}'; done"
    )
    yield Case("api.memory-50-2000", ["upscale"], "ok", shell=both, after=memory, wall_s=300, cpu_s=200)
