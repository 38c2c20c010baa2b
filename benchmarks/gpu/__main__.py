"""Check and measure on a GPU, in one call: ``python -m benchmarks.gpu OUT [--part kernels|networks|all] [--quick]``.

OUT/gpu.jsonl has a line for each measurement as soon as it is made; OUT/gpu.md the tables, OUT/checks.txt the checks,
OUT/errors.txt where errors came from. Kernels come first: against their oracles, then at the sizes of networks against
the floor and PyTorch. Then networks: eager PyTorch, the engine's backends, `torch.compile`. Each step is a process of
its own, so that one that crashes or hangs takes nothing along. The exit code is 1 if a check failed.

``--dry-run`` runs every path on the CPU at tiny sizes; its figures say nothing.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..record import RESULTS
from .bench import Bench, OutOfTimeError, gpu_state
from .tables import checks, tables

KERNELS = ("deform_conv", "warp", "implicit", "color", "blend")
_STEP_S = 180.0  # at most, of one step
_GRACE_S = 10.0  # a step that does not end by itself when its time is over is ended after so many seconds more


def steps(part: str, networks: list[str], compiled: list[str]) -> list[str]:
    """Names of the steps of a part, by worth."""
    of_kernels = ["floors", *(f"kernel:{name}" for name in KERNELS)]
    of_networks = [f"network:{name}" for name in networks[:4]] + [f"compile:{name}" for name in compiled]
    of_networks += [f"network:{name}" for name in networks[4:]]
    return {"kernels": of_kernels, "networks": of_networks, "all": of_kernels + of_networks}[part]


def run_step(step: str, bench: Bench, bundles: Path | None) -> None:
    """Do one step, here."""
    kind, _, name = step.partition(":")
    try:
        if kind == "floors":
            from . import kernels as gpu_kernels

            bench.record(part="device", state=gpu_state(), tf32=bench.tf32())
            gpu_kernels.measure_floors(bench)
        elif kind == "kernel":
            try:
                if not bench.dry_run:
                    import cupy  # noqa: F401
            except ImportError as absent:
                bench.record(part="kernels", kernel=name, missing=f"CuPy ({absent}): install stvsr[cuda]")
                return
            _kernel(bench, name)
        else:
            from . import networks as gpu_networks

            gpu_networks.measure(bench, name, bundles, compiled=kind == "compile")
    except OutOfTimeError:
        pass
    except Exception as error:
        bench.record(part="steps", case=step, error=bench.told(error))
    if kind != "floors":
        bench.record(part="device", case=step, state=gpu_state())


def _kernel(bench: Bench, name: str) -> None:
    """Check and measure a kernel; whichever fails as a whole is a check that failed, and leaves the other."""

    def checked() -> None:
        from . import checks as gpu_checks

        getattr(gpu_checks.Checks(bench), name)()

    def measured() -> None:
        from . import kernels as gpu_kernels

        gpu_kernels.measure(bench, name)

    for part in (checked, measured):
        try:
            part()
        except OutOfTimeError:
            raise
        except Exception as error:
            told = bench.told(error)
            bench.record(part="kernels", check=f"{name}, {part.__name__}", passed=False, error=told)


def orchestrate(arguments: argparse.Namespace, until: float, after: Callable[[], Any] = lambda: None) -> None:
    """Run each step in a process of its own, while there is time, and `after` before each and at the end."""
    for step in steps(arguments.part, arguments.networks, arguments.compile):
        after()
        left_s = until - time.time()
        if left_s < 5:
            _append(arguments, case=step, skipped="no time was left")
            continue
        ends = min(until, time.time() + _STEP_S)
        command = [sys.executable, "-m", "benchmarks.gpu", *arguments.asked, "--step", step, "--until", str(ends)]
        try:
            code = subprocess.run(command, timeout=ends - time.time() + _GRACE_S, check=False).returncode
        except subprocess.TimeoutExpired:
            _append(arguments, case=step, error="it did not end in time and was stopped")
            continue
        if code:
            failed: dict[str, Any] = {"case": step, "error": f"its process ended with code {code}"}
            _append(arguments, **failed)
            if step.startswith("kernel:"):
                _append(arguments, check=step, passed=False, **failed)
    after()


def _append(arguments: argparse.Namespace, **figures: Any) -> None:
    bench_of(arguments, time.time()).record(part="steps", **figures)


def bench_of(arguments: argparse.Namespace, until: float) -> Bench:
    """Return the bench of these arguments."""
    command = " ".join(["python -m benchmarks.gpu", *(a for a in arguments.asked if Path(a) != arguments.out), "OUT"])
    return Bench(arguments.out, command, dry_run=arguments.dry_run, quick=arguments.quick, until=until)


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line; an error ends the program with a sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a folder, new or empty of gpu.jsonl")
    parser.add_argument("--part", choices=["kernels", "networks", "all"], default="all")
    parser.add_argument("--quick", action="store_true", help="one size of each case")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, at tiny sizes, to try the script")
    parser.add_argument("--budget-s", type=float, default=500.0, help="seconds that the whole run may take")
    parser.add_argument("--networks", nargs="*", help="networks by worth; all when left out")
    parser.add_argument("--compile", nargs="*", default=None, help="networks for torch.compile, by worth")
    parser.add_argument("--bundles", type=Path, help="a folder of bundles by network; others are exported when needed")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    arguments.asked = [
        word for word in words if word not in ("--step", arguments.step, "--until", str(arguments.until))
    ]
    if arguments.part != "kernels":
        from .networks import BY_WORTH, COMPILED

        arguments.networks = list(BY_WORTH) if arguments.networks is None else arguments.networks
        arguments.compile = list(COMPILED) if arguments.compile is None else arguments.compile
    else:
        arguments.networks, arguments.compile = [], []
    if arguments.dry_run and arguments.out.resolve() == RESULTS.resolve():
        parser.error("a dry run measures nothing that is worth keeping: name another folder than benchmarks/results")
    if (
        arguments.step is None
        and (arguments.out / "gpu.jsonl").exists()
        and arguments.out.resolve() != RESULTS.resolve()
    ):
        parser.error(f"{arguments.out} holds a run already: name another folder")
    return arguments


def main(words: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    began = time.time()
    arguments = parse(sys.argv[1:] if words is None else words)
    if arguments.step:
        run_step(arguments.step, bench_of(arguments, arguments.until), arguments.bundles)
        return 0
    if not arguments.dry_run:
        import torch

        if not torch.cuda.is_available():
            print("There is no CUDA device that PyTorch can use: install a driver, or try the script with --dry-run.")
            return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    until = began + arguments.budget_s
    bench = bench_of(arguments, until)
    lines_before = len(bench.lines())

    def write() -> list[dict[str, Any]]:
        lines = bench.lines()[lines_before:]
        (arguments.out / "gpu.md").write_text(tables(lines))
        (arguments.out / "checks.txt").write_text(checks(lines))
        return lines

    if arguments.dry_run:  # one process: nothing that crashes a GPU can happen
        for step in steps(arguments.part, arguments.networks, arguments.compile):
            run_step(step, bench, arguments.bundles)
    else:
        orchestrate(arguments, until, after=write)
    bench.record(part="device", state=gpu_state(), seconds=round(time.time() - began, 1))
    lines = write()
    print(f"\n{tables(lines)}\n{checks(lines)}")
    return int(any(not line["passed"] for line in lines if "check" in line))


if __name__ == "__main__":
    sys.exit(main())
