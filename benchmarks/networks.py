"""Measure every network, and write the table of this folder's README.md: `python -m benchmarks.networks`.

Each network is exported with random weights and run on one window of 64x64 pixels, in eager PyTorch and in ONNX Runtime
alternately in one process; the time per output frame is its share of the window's. Memory is that of a process that
upscales with the engine, without PyTorch. Agreement is the largest difference from the output of the official network,
relative to its range.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from stvsr import Bundle
from stvsr.engine.backends.onnxruntime import open_session
from stvsr.engine.backends.session import Session
from stvsr.export.exporter import export_bundle
from stvsr.training.checkpoints import random_weights
from stvsr.training.networks.base import Network, decode_pair
from stvsr.training.networks.ops import target_coordinates
from stvsr.training.networks.registry import NETWORKS, find_network

from tests.support.agreement import AGREEMENTS

from .command_line import add_out, add_threads, given_command, new_parser
from .record import README, RESULTS, record, write_between

BEGIN, END = "<!-- networks: python -m benchmarks.networks -->", "<!-- /networks -->"
SIDE = 64


def measure(name: str, arguments: argparse.Namespace, command: str) -> None:
    """Record the figures of one network."""
    torch.set_num_threads(arguments.threads)
    entry = find_network(name)
    network, _ = random_weights(entry)
    with tempfile.TemporaryDirectory() as temporary:
        start = time.perf_counter()
        folder = export_bundle(entry, network, Path(temporary) / name)
        export_seconds = time.perf_counter() - start
        bundle = Bundle.load(folder)
        seconds, frames = _window_seconds(network, bundle, arguments)
        memory = _peak_memory(folder, arguments.threads)
        size = sum(path.stat().st_size for path in folder.glob("*.onnx"))
    ort, eager = (statistics.median(runs) / frames for runs in zip(*seconds, strict=True))
    record(
        "networks",
        arguments.out,
        command,
        network=name,
        parameters=sum(p.numel() for p in network.parameters()),
        window=bundle.manifest.window.model_dump(),
        space=str(bundle.manifest.space),
        time=str(bundle.manifest.time),
        published=entry.published,
        source=entry.source,
        agreement=_agreement(name),
        input=[SIDE, SIDE],
        frames_per_window=frames,
        onnxruntime_ms_per_frame=round(1e3 * ort, 1),
        eager_ms_per_frame=round(1e3 * eager, 1),
        eager_over_onnxruntime=round(statistics.median(e / o for o, e in seconds), 2),
        peak_memory_mb=round(memory / 1e6),
        graphs_mb=round(size / 1e6, 1),
        export_seconds=round(export_seconds, 1),
        threads=arguments.threads,
    )


def _peak_memory(folder: Path, threads: int) -> int:
    """Return the peak memory in bytes of a process without PyTorch that upscales with a bundle."""
    command = [sys.executable, "-m", "benchmarks.peak_memory", str(folder), "--threads", str(threads)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _agreement(name: str) -> float | None:
    """Return the difference from the official network, or None if there is no oracle for it."""
    difference = None
    for oracle in AGREEMENTS:
        if oracle.network == name:
            with contextlib.suppress(FileNotFoundError):
                difference = oracle.difference()
    return difference


def _window_seconds(
    network: Network, bundle: Bundle, arguments: argparse.Namespace
) -> tuple[list[tuple[float, float]], int]:
    """Return the seconds of a window in ONNX Runtime and in eager PyTorch for each run, and its output frames."""
    window = bundle.manifest.window
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.rand(1, window.frames, 3, SIDE, SIDE, generator=generator)]
    inputs += [torch.randn(1, len(flow.pairs), 2, SIDE, SIDE, generator=generator) for flow in bundle.manifest.flows]
    if bundle.manifest.time.kind == "continuous" and window.kind != "pair":
        inputs.append(torch.full((1,), 0.5))
    with contextlib.ExitStack() as opened:
        opened.enter_context(torch.no_grad())
        sessions = {
            graph.role: opened.enter_context(
                open_session(bundle.path(graph.role), device="cpu", threads=arguments.threads)
            )
            for graph in bundle.manifest.graphs
        }
        calls = _pair_calls if window.kind == "pair" else _network_calls
        run_graph, run_eager = calls(network, sessions, inputs)
        run_graph(), run_eager()
        seconds = [(_seconds(run_graph), _seconds(run_eager)) for _ in range(arguments.runs)]
    # A run shares one frame with the next run.
    frames = {"pair": 2, "run": 2 * (window.frames - 1), "sliding": 1, "doubled": 2 * window.frames}[window.kind]
    return seconds, frames


Calls = tuple[Callable[[], Any], Callable[[], Any]]  # one window in ONNX Runtime, and in eager PyTorch


def _pair_calls(network: Any, sessions: Mapping[Any, Session], inputs: list[torch.Tensor]) -> Calls:
    integer = "integer_decoder" in sessions
    target = {name: target_coordinates(1, 4) if integer else target_coordinates(SIDE, 4 * SIDE) for name in "yx"}
    times = [torch.zeros(1), torch.full((1,), 0.5)]

    def run_graph() -> None:
        features = sessions["encoder"].run({"frames": inputs[0].numpy()}, keep=True)
        for moment in times:
            maps = {**features, "time": moment.numpy()}
            if "refiner" in sessions:
                maps = sessions["refiner"].run(maps, keep=True)
            arrays = {name: value.numpy() for name, value in target.items()}
            sessions["integer_decoder" if integer else "decoder"].run({**maps, **arrays})

    def run_eager() -> None:
        features = network.encode(inputs[0])
        for moment in times:
            decode_pair(network, features, moment, **target, integer=integer)

    return run_graph, run_eager


def _network_calls(network: Any, sessions: Mapping[Any, Session], inputs: list[torch.Tensor]) -> Calls:
    session = sessions["network"]
    arrays = {spec.name: value.numpy() for spec, value in zip(session.inputs, inputs, strict=True)}
    return lambda: session.run(arrays), lambda: network(*inputs)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def table(results: Path) -> str:
    """Return the table, from the last line of each network."""
    lines = [json.loads(line) for line in (results / "networks.jsonl").read_text().splitlines()]
    last = {line["network"]: line for line in lines}
    rows = [
        "| network | parameters | space | time | window | agreement | ms a frame, ONNX Runtime | eager | ratio |"
        " memory | published (PSNR dB / SSIM, luma) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in NETWORKS:
        line = last.get(entry.name)
        if line is None:
            continue
        window = line["window"]
        cells = [
            f"`{entry.name}`",
            f"{line['parameters'] / 1e6:.2f} M",
            line["space"],
            line["time"],
            f"{window['kind']} of {window['frames']}",
            "" if line["agreement"] is None else f"{line['agreement']:.0e}",
            f"{line['onnxruntime_ms_per_frame']:.0f}",
            f"{line['eager_ms_per_frame']:.0f}",
            f"{line['eager_over_onnxruntime']:.2f}",
            f"{line['peak_memory_mb']} MB",
            entry.published,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Run the command line."""
    parser = new_parser("networks", __doc__)
    parser.add_argument("networks", nargs="*", help="names of networks (default: all)")
    add_out(parser)
    add_threads(parser)
    parser.add_argument("--runs", type=int, default=3, help="timed windows of each network")
    parser.add_argument("--table", action="store_true", help="measure nothing, and write the table from the lines")
    arguments = parser.parse_args()
    names = arguments.networks or [entry.name for entry in NETWORKS]
    if arguments.table:
        pass
    elif len(names) == 1:
        measure(names[0], arguments, given_command("networks"))
    else:  # each in a separate process: memory that one leaves behind does not slow down the next one
        options = ["--threads", str(arguments.threads), "--runs", str(arguments.runs)]
        options += ["--out", str(arguments.out)] if arguments.out != RESULTS else []  # a record holds its command
        for name in names:
            subprocess.run([sys.executable, "-m", "benchmarks.networks", name, *options], check=True)
    if arguments.out == RESULTS:
        write_between(README, BEGIN, END, table(arguments.out))


if __name__ == "__main__":
    main()
