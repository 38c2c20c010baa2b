"""Check and measure on a GPU: `python -m benchmarks.gpu OUT [--part variants|kernels|networks|command|all] [--quick]`.

OUT/gpu.jsonl gets one line per measurement, as soon as it is finished; OUT/gpu.md has the tables, OUT/checks.txt the
checks, and OUT/errors.txt the tracebacks. Kernels are checked against their oracles, then measured at the sizes that
networks use, next to the floor and PyTorch, after the fastest variants of this card have been found and written to
`kernels/variants.json`. Networks follow: eager PyTorch, the engine's backends, `torch.compile`.
Before both, whole runs of `stvsr upscale` are measured.
Each step is a process of its own, so that a crash or a hang does not stop the others. The exit code is 1 if a check
failed, and 2 without a CUDA device.

`--dry-run` runs every path on the CPU at tiny sizes; its figures are meaningless.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..record import RESULTS
from . import variants
from .bench import Bench, OutOfTimeError, gpu_state
from .tables import checks, tables

COMMANDS = ("fourier-s", "edvr-s")
BATCHED = ("fourier-s", "edvr-s")
KERNELS = ("deform_conv", "warp", "videoinr_decoder", "fusion_inputs", "fourier_field", "color")
_STEP_S = 180.0  # time limit of a step
_GRACE_S = 10.0  # extra time before a step that exceeded its limit is killed


def steps(part: str, networks: list[str], compiled: list[str]) -> list[str]:
    """Return the names of the steps of a part, the most important first."""
    of_variants = [f"variants:{name}" for name in variants.KERNELS]
    of_kernels = ["floors", *of_variants, *(f"kernel:{name}" for name in KERNELS)]
    of_networks = [f"network:{name}" for name in networks[:4]] + [f"compile:{name}" for name in compiled]
    of_networks += [f"batches:{name}" for name in BATCHED if name in networks]
    of_networks += [f"network:{name}" for name in networks[4:]]
    of_command = [f"command:{name}" for name in COMMANDS]
    everything = of_command + of_kernels + of_networks
    return {
        "variants": of_variants,
        "kernels": of_kernels,
        "networks": of_networks,
        "command": of_command,
        "all": everything,
    }[part]


def run_step(step: str, bench: Bench, bundles: Path | None) -> None:
    """Run one step in this process."""
    kind, _, name = step.partition(":")
    try:
        if kind == "floors":
            from . import kernels

            bench.record(part="device", state=gpu_state(), tf32=bench.tf32())
            kernels.measure_floors(bench)
        elif kind in ("kernel", "variants"):
            try:
                if not bench.dry_run:
                    import cupy  # noqa: F401
            except ImportError as absent:
                bench.record(part="kernels", kernel=name, missing=f"CuPy ({absent}): install stvsr[cuda]")
                return
            if kind == "variants":
                variants.measure(bench, name)
            else:
                _run_kernel(bench, name)
        elif kind == "command":
            from . import command

            command.measure(bench, name)
        elif kind == "batches":
            from . import networks

            networks.measure_batches(bench, name, bundles)
        else:
            from . import networks

            networks.measure(bench, name, bundles, compiled=kind == "compile")
    except OutOfTimeError:
        pass
    except Exception as error:
        bench.record(part="steps", case=step, error=bench.describe(error))
    if kind != "floors":
        bench.record(part="device", case=step, state=gpu_state())


def _run_kernel(bench: Bench, name: str) -> None:
    """Check and measure a kernel. An exception in one half is recorded as a failed check; the other half still runs."""

    def checked() -> None:
        from .checks import CHECKS

        CHECKS[name](bench)

    def measured() -> None:
        from . import kernels

        kernels.measure(bench, name)

    for part in (checked, measured):
        try:
            part()
        except OutOfTimeError:
            raise
        except Exception as error:
            check = f"{name}, {part.__name__}"
            bench.record(part="kernels", check=check, passed=False, error=bench.describe(error))


def orchestrate(arguments: argparse.Namespace, until: float, after: Callable[[], Any] = lambda: None) -> None:
    """Run each step in a process of its own until the time is up, and call `after` before each step and at the end."""
    for step in steps(arguments.part, arguments.networks, arguments.compile):
        after()
        left_s = until - time.time()
        if left_s < 5:
            _append(arguments, case=step, skipped="no time was left")
            continue
        ends = min(until, time.time() + _STEP_S)
        command = [sys.executable, "-m", "benchmarks.gpu", *arguments.words, "--step", step, "--until", str(ends)]
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
    open_bench(arguments, time.time()).record(part="steps", **figures)


def open_bench(arguments: argparse.Namespace, until: float) -> Bench:
    """Return the bench for parsed arguments; `until` is when its time is up, in seconds since the epoch."""
    command = " ".join(["python -m benchmarks.gpu", *(w for w in arguments.words if Path(w) != arguments.out), "OUT"])
    return Bench(arguments.out, command, dry_run=arguments.dry_run, quick=arguments.quick, until=until)


def parse(words: list[str]) -> argparse.Namespace:
    """Parse the command line; exits with a message if it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="output folder, new or without a gpu.jsonl")
    parser.add_argument("--part", choices=["variants", "kernels", "networks", "command", "all"], default="all")
    parser.add_argument("--quick", action="store_true", help="measure one size of each case")
    parser.add_argument("--dry-run", action="store_true", help="run on the CPU at tiny sizes, to test the script")
    parser.add_argument("--budget-s", type=float, default=500.0, help="time limit of the whole run in seconds")
    parser.add_argument("--networks", nargs="*", help="networks, the most important first; default: all")
    parser.add_argument("--compile", nargs="*", default=None, help="networks for torch.compile, most important first")
    parser.add_argument("--bundles", type=Path, help="folder of exported bundles, one subfolder per network")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    arguments.words = [
        word for word in words if word not in ("--step", arguments.step, "--until", str(arguments.until))
    ]
    if arguments.part in ("networks", "all"):
        from .networks import BY_PRIORITY, COMPILED

        arguments.networks = list(BY_PRIORITY) if arguments.networks is None else arguments.networks
        arguments.compile = list(COMPILED) if arguments.compile is None else arguments.compile
    else:
        arguments.networks, arguments.compile = [], []
    in_results = arguments.out.resolve() == RESULTS.resolve()
    if arguments.dry_run and in_results:
        parser.error("the figures of a dry run are meaningless: use another folder than benchmarks/results")
    if arguments.step is None and (arguments.out / "gpu.jsonl").exists() and not in_results:
        parser.error(f"{arguments.out} already has the results of a run: use another folder")
    return arguments


def main(words: list[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    began = time.time()
    arguments = parse(sys.argv[1:] if words is None else words)
    if arguments.step:
        run_step(arguments.step, open_bench(arguments, arguments.until), arguments.bundles)
        return 0
    if not arguments.dry_run:
        import torch

        if not torch.cuda.is_available():
            print("PyTorch finds no CUDA device: install a driver, or test the script with --dry-run.")
            return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    until = began + arguments.budget_s
    bench = open_bench(arguments, until)
    lines_before = len(bench.lines())

    def write() -> list[dict[str, Any]]:
        lines = bench.lines()[lines_before:]
        (arguments.out / "gpu.md").write_text(tables(lines))
        (arguments.out / "checks.txt").write_text(checks(lines))
        return lines

    if arguments.dry_run:  # one process: on the CPU no step can crash a GPU
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
