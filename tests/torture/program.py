"""A program that uses the Python API again and again and at once; it exits with 1 and a sentence on a fault.

python tests/torture/program.py CHECK TOY SHARED OUT
"""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
import numpy as np
from stvsr import Backend, StvsrError, Upscaler, UpscaleRequest, one_scene, upscale
from stvsr.engine.media.reader import open_reader

TOY, SHARED, OUT = sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
FRAMES = [np.full((3, 24, 32), n / 5, np.float32) for n in range(5)]
SIZE, TIMES = (24, 32), (Fraction(0), Fraction(1, 2))


def request(name: str = "out", source: str | Path = "tiny.mp4", **more: Any) -> UpscaleRequest:
    options = {"model": TOY, "scale": 1, "time_factor": 2, "overwrite": True, "backend": Backend(threads=1), **more}
    return UpscaleRequest(input=SHARED / source, output=OUT / f"{name}.mp4", **options)


def held() -> tuple[int, int, int]:
    """Return the numbers of descriptors, of Python's threads and of all threads."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count(), len(os.listdir("/proc/self/task"))


def resident_mb() -> float:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def must(fact: bool, sentence: str) -> None:
    if not fact:
        sys.exit(f"Error: {sentence}")


def loop(call: Callable[[], object], warm: int = 25, rounds: int = 30, share: float = 1.05) -> None:
    """Call again and again: no descriptor or thread may be gained, and no memory beyond `share`."""
    for _ in range(warm):  # allocators settle first
        call()
    before, mb = held(), resident_mb()
    for _ in range(rounds):
        call()
    after, mb_after = held(), resident_mb()
    print(before, after, f"{mb:.1f} MB -> {mb_after:.1f} MB")
    must(after == before, f"descriptors and threads grew from {before} to {after}")
    must(mb_after < mb * share + 3, f"resident memory grew from {mb:.1f} to {mb_after:.1f} MB in {rounds} calls")


def failing() -> None:
    bad = OUT / "bad.mp4"
    if not bad.exists():
        whole = (SHARED / "h264.mp4").read_bytes()
        bad.write_bytes(whole[: len(whole) // 2])
    try:
        upscale(request(source=bad))
    except StvsrError:
        return
    must(False, "a cut file was accepted")


def raising(error: BaseException) -> None:
    def tell(progress: object) -> None:
        raise error

    before = held()
    try:
        upscale(request(), tell)
    except BaseException as caught:
        must(caught is error, f"another error came out: {caught!r}")
    else:
        must(False, "the callback's error was swallowed")
    must(held()[1] == before[1], f"threads are left: {before} {held()}")
    must(not [path for path in OUT.iterdir() if path.name != "bad.mp4"], f"left: {list(OUT.iterdir())}")


def at_once(count: int, work: Callable[[int], object]) -> None:
    errors: list[str] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    must(not any(thread.is_alive() for thread in threads), "a thread hangs")
    must(not errors, f"{errors}")


def packets(name: str) -> str:
    with av.open(str(OUT / f"{name}.mp4")) as made:
        return sha256(b"".join(bytes(p) + str((p.pts, p.dts)).encode() for p in made.demux(video=0))).hexdigest()


def check_loop() -> None:
    loop(lambda: upscale(request()))


def check_hundred() -> None:
    loop(lambda: upscale(request()), warm=50, rounds=100, share=1.02)


def check_loop_errors() -> None:
    loop(failing)
    must({path.name for path in OUT.iterdir()} == {"bad.mp4"}, str(list(OUT.iterdir())))


def check_loop_upscaler() -> None:
    def once() -> None:
        with Upscaler(TOY, Backend(threads=1)) as upscaler:
            must(len(list(upscaler.frames(one_scene(FRAMES, TIMES), SIZE))) == 10, "a frame is missing")

    loop(once)


def check_loop_dropped() -> None:
    def once() -> None:
        with Upscaler(TOY, Backend(threads=1)) as upscaler:
            next(upscaler.frames(one_scene(FRAMES), SIZE))

    def read_some() -> None:
        next(iter(open_reader(SHARED / "h264.mp4")))

    loop(once)
    loop(read_some)


def check_callback_error() -> None:
    raising(RuntimeError("mine"))


def check_callback_interrupt() -> None:
    raising(KeyboardInterrupt())


def check_callback_in_thread() -> None:
    class Mine(BaseException):
        pass

    at_once(1, lambda number: raising(Mine()))


def check_four_threads() -> None:
    alone = upscale(request("alone", "h264.mp4", scale=2))  # at 64x48 x264 itself is not the same twice
    reports: dict[int, Any] = {}
    at_once(4, lambda n: reports.update({n: upscale(request(f"o{n}", "h264.mp4", scale=2))}))
    must([reports[n].frames_out for n in range(4)] == [alone.frames_out] * 4, "counts differ")
    must(len({packets(name) for name in ("alone", "o0", "o1", "o2", "o3")}) == 1, "different videos of one request")


def check_two_threads_one_upscaler() -> None:
    with Upscaler(TOY, Backend(threads=1)) as upscaler:
        expected = [frame.tobytes() for frame in upscaler.frames(one_scene(FRAMES, TIMES), SIZE)]

        def work(number: int) -> None:
            for _ in range(20):
                made = [frame.tobytes() for frame in upscaler.frames(one_scene(FRAMES, TIMES), SIZE)]
                must(made == expected, "other pixels")

        at_once(2, work)


def check_signal_handlers() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    upscale(request())
    must({number: signal.getsignal(number) for number in numbers} == before, "a signal's handler was left changed")

    def mine(number: int, frame: object) -> None:
        pass

    signal.signal(signal.SIGINT, mine)
    upscale(request())
    must(signal.getsignal(signal.SIGINT) is mine, "the host's handler was replaced")


def check_nan_frames() -> None:
    with np.errstate(all="raise"), Upscaler(TOY, Backend(threads=1)) as upscaler:
        bad = np.full((3, 24, 32), np.nan, np.float32)
        for frames in ((bad, FRAMES[0]), (FRAMES[0], bad)):
            try:
                list(upscaler.between(*frames, [0.5], SIZE))
            except StvsrError:
                continue
            must(False, "NaN was accepted")


def check_odd_times() -> None:
    with Upscaler(TOY, Backend(threads=1)) as upscaler:
        for times in ([float("nan")], [float("inf")], [-1], [2], [1, 0], []):
            try:
                made = list(upscaler.between(FRAMES[0], FRAMES[1], times, SIZE))
                must(len(made) == len(times), f"{len(made)} frames for times {times}")
            except StvsrError:
                pass


def check_long(source: str = "long.mp4") -> None:
    """Watch a run: between its first quarter and its last fifth nothing is gained, and memory stays within 2 %."""
    seen: list[tuple[int, tuple[int, int, int], float]] = []

    def tell(progress: Any) -> None:
        if progress.frames_in % max(1, (progress.total_in or 1) // 20) == 0:
            seen.append((progress.frames_in, held(), resident_mb()))

    report = upscale(
        request("long", os.environ.get("STVSR_LONG", source), model=os.environ.get("STVSR_MODEL", TOY)), tell
    )
    steady = [entry for entry in seen if report.frames_in // 4 <= entry[0] <= report.frames_in * 4 // 5]
    print(f"{report.frames_in} frames, {steady[0][2]:.1f} MB -> {steady[-1][2]:.1f} MB, {steady[-1][1]}")
    must(len({entry[1] for entry in steady}) == 1, f"descriptors or threads changed: {steady}")
    must(steady[-1][2] < steady[0][2] * 1.02 + 2, f"memory grew: {[round(entry[2], 1) for entry in steady]}")


CHECKS = {name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")}

if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
