"""Measure how the threads of ONNX Runtime should wait, and share the work: `python -m benchmarks.threads`.

The graphs of the default network (160x90 to 640x360, one frame between two), and whole runs of `stvsr upscale`, with
each kind of threading in turn; first on the machine as it is, then beside as many busy programs as there are threads.
It takes 5 minutes on two cores.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from stvsr.engine.contract.bundle import find_bundle
from stvsr.engine.contract.cpus import cpu_threads
from stvsr.engine.pipeline.request import DEFAULT_MODEL

from .command_line import add_out, given_command, new_parser
from .media import make_clip
from .pair_sessions import HEIGHT, WIDTH, PairSessions
from .record import record
from .whole_run import upscale_report

_SLEEP = {"session.intra_op.allow_spinning": "0"}
_BLOCKS = {"session.dynamic_block_base": "4"}
# Options of sessions that compute with all threads, the present kind first.
_SESSIONS: dict[str, dict[str, str]] = {
    "spin": {},
    "sleep": _SLEEP,
    "spin, until the run ends": {"session.force_spinning_stop": "1"},
    "spin, dynamic blocks": _BLOCKS,
    "sleep, dynamic blocks": _BLOCKS | _SLEEP,
}
# It ends with the process that started it, in whatever way that ends.
_BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(10**6): pass"


@contextmanager
def _busy_programs(count: int) -> Iterator[None]:
    """Keep CPUs busy by programs of other sessions, which the system's scheduler takes for those of other users."""
    programs = [subprocess.Popen([sys.executable, "-c", _BUSY], start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _graphs(threads: int, frames: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each kind of threading with a function that computes `frames` frames by open sessions."""
    bundle = find_bundle(DEFAULT_MODEL)

    def compute(pair: PairSessions, count: int) -> None:
        for _ in range(count):
            pair.run()

    for name, entries in _SESSIONS.items():
        yield name, partial(compute, PairSessions(bundle, threads, entries), frames)
    yield "one thread", partial(compute, PairSessions(bundle, 1), frames)
    pairs = [PairSessions(bundle, 1) for _ in range(threads)]

    def share() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(partial(compute, count=-(-frames // threads)), pairs))

    yield f"{threads} sessions of one thread", share


def _runs(threads: int, clip: Path, output: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each kind of threading that `stvsr upscale` has with a function that upscales the clip."""
    kinds = {
        "spin": ("--waiting", "spin", "--threads", str(threads)),
        "sleep": ("--waiting", "sleep", "--threads", str(threads)),
        "one thread": ("--threads", "1"),
        f"{threads} sessions of one thread": ("--device", ",".join(["cpu"] * threads), "--threads", "1"),
    }
    for name, options in kinds.items():
        device = () if "--device" in options else ("--device", "cpu")
        yield name, partial(upscale_report, clip, output, *device, *options)


def _medians(kinds: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each function, called in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, work in kinds.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return {name: round(statistics.median(values), 3) for name, values in seconds.items()}


def _table(title: str, quiet: Mapping[str, float], busy: Mapping[str, float]) -> str:
    """Return the seconds of each kind, with their ratios to the first, as Markdown."""
    first = next(iter(quiet))
    rows = [f"| {title} | quiet s | of {first} | busy s | of {first} |", "|---|---|---|---|---|"]
    rows += [
        f"| {name} | {quiet[name]} | {quiet[name] / quiet[first]:.2f} | {busy[name]} | {busy[name] / busy[first]:.2f} |"
        for name in quiet
    ]
    return "\n".join(rows)


def main() -> None:
    """Run the command line; it prints two tables of seconds, in which less is better."""
    parser = new_parser("threads", __doc__)
    add_out(parser)
    parser.add_argument("--threads", type=int, default=max(2, cpu_threads()), help="threads of each kind but one")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, of which the median counts")
    parser.add_argument("--frames", type=int, default=12, help="frames of the clip, and of each turn of the graphs")
    arguments = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {"graphs": {}, "whole runs": {}}
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clip.mp4", WIDTH, HEIGHT, arguments.frames)
        graphs = dict(_graphs(arguments.threads, arguments.frames))
        runs = dict(_runs(arguments.threads, clip, Path(folder) / "out.mp4"))
        for work in graphs.values():
            work()  # opens what the first run opens
        for machine in ("quiet", "busy"):
            with nullcontext() if machine == "quiet" else _busy_programs(arguments.threads):
                results["graphs"][machine] = _medians(graphs, arguments.rounds)
                results["whole runs"][machine] = _medians(runs, arguments.rounds)
    for title, machines in results.items():
        print(_table(title, **machines), end="\n\n")
    figures = {"threads": arguments.threads, "rounds": arguments.rounds, "frames": arguments.frames, "seconds": results}
    record("threads", arguments.out, given_command("threads"), show=False, **figures)


if __name__ == "__main__":
    main()
