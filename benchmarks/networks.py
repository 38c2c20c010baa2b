"""Every network in one table: ``python -m benchmarks.networks`` measures them and writes the table of README.md.

Each is exported with random weights and run on one window of 64x64 pixels, eager PyTorch and ONNX Runtime in turn in
one process; an output frame takes its share of that time. Memory is that of a process which upscales with the engine
and without PyTorch. Agreement is the largest difference from the official network's output, of its range.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .record import RESULTS, record

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- networks: python -m benchmarks.networks -->", "<!-- /networks -->"
SIDE = 64


def peak(folder: str, threads: int) -> None:
    """Prints the peak memory of this process, in bytes, after it has upscaled a few frames of 64x64 pixels."""
    from fractions import Fraction

    from stvsr.engine.contract.bundle import Bundle
    from stvsr.engine.contract.windows import one_scene
    from stvsr.engine.pipeline.chain import Route, default_factor, default_scale, plan_route
    from stvsr.engine.pipeline.run import peak_memory_bytes

    bundle = Bundle.load(folder)
    factor, side = default_factor([bundle]), round(SIDE * default_scale([bundle]))
    frames = np.random.default_rng(0).random((8, 3, SIDE, SIDE), np.float32)
    times = tuple(Fraction(part, factor) for part in range(factor))
    with Route(plan_route([bundle], (SIDE, SIDE), (side, side), factor), device="cpu", threads=threads) as route:
        for _ in route.frames(one_scene(frames, times)):
            pass
    print(peak_memory_bytes())


def measure(name: str, arguments: argparse.Namespace, command: str) -> None:
    import torch
    from stvsr.engine.contract.bundle import Bundle
    from stvsr.export.exporter import export_bundle
    from stvsr.training.checkpoints import random_weights
    from stvsr.training.networks.registry import find_network

    from tests.support.agreement import AGREEMENTS

    torch.set_num_threads(arguments.threads)
    entry = find_network(name)
    network, _ = random_weights(entry)
    with tempfile.TemporaryDirectory() as temporary:
        began = time.perf_counter()
        folder = export_bundle(entry, network, Path(temporary) / name)
        export_seconds = time.perf_counter() - began
        bundle = Bundle.load(folder)
        turns, frames = _turns(network, bundle, arguments)
        ask = [sys.executable, "-m", "benchmarks.networks", "--peak", str(folder), "--threads", str(arguments.threads)]
        memory = int(subprocess.run(ask, check=True, capture_output=True, text=True).stdout)
        size = sum(path.stat().st_size for path in folder.glob("*.onnx"))
    agreement = None
    for oracle in AGREEMENTS:
        if oracle.network == name:
            with contextlib.suppress(FileNotFoundError):
                agreement = oracle.difference()
    ort, eager = (statistics.median(side) / frames for side in zip(*turns, strict=True))
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
        agreement=agreement,
        input=[SIDE, SIDE],
        frames_per_window=frames,
        onnxruntime_ms_per_frame=round(1e3 * ort, 1),
        eager_ms_per_frame=round(1e3 * eager, 1),
        eager_over_onnxruntime=round(statistics.median(e / o for o, e in turns), 2),
        peak_memory_mb=round(memory / 1e6),
        graphs_mb=round(size / 1e6, 1),
        export_seconds=round(export_seconds, 1),
        threads=arguments.threads,
    )


def _turns(network: Any, bundle: Any, arguments: argparse.Namespace) -> tuple[list[tuple[float, float]], int]:
    """Seconds of a window in ONNX Runtime and in eager PyTorch, turn by turn, and how many frames it gives."""
    import torch
    from stvsr.engine.backends.session import open_session
    from stvsr.training.networks.ops import target_coordinates

    window = bundle.manifest.window
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.rand(1, window.frames, 3, SIDE, SIDE, generator=generator)]
    inputs += [torch.randn(1, len(flow.pairs), 2, SIDE, SIDE, generator=generator) for flow in bundle.manifest.flows]
    with contextlib.ExitStack() as opened:
        opened.enter_context(torch.no_grad())
        sessions = {
            graph.role: opened.enter_context(
                open_session(bundle.path(graph.role), device="cpu", threads=arguments.threads)
            )
            for graph in bundle.manifest.graphs
        }
        if window.kind == "pair":
            at = {"y": target_coordinates(SIDE, 4 * SIDE), "x": target_coordinates(SIDE, 4 * SIDE)}
            moments = [torch.zeros(1), torch.full((1,), 0.5)]

            def graph() -> None:
                features = sessions["encoder"].run({"frames": inputs[0].numpy()}, keep=True)
                for moment in moments:
                    feed = {name: value.numpy() for name, value in (*at.items(), ("time", moment))}
                    sessions["decoder"].run({**features, **feed})

            def eager() -> None:
                features = network.encode(inputs[0])
                for moment in moments:
                    network.decode(*features, time=moment, **at)

        else:
            if bundle.manifest.time.kind == "continuous":
                inputs.append(torch.full((1,), 0.5))
            feed = {spec.name: value.numpy() for spec, value in zip(sessions["network"].inputs, inputs, strict=True)}

            def graph() -> None:
                sessions["network"].run(feed)

            def eager() -> None:
                network(*inputs)

        graph(), eager()
        turns = [(_seconds(graph), _seconds(eager)) for _ in range(arguments.runs)]
    # Runs share a frame with the next one.
    frames = {"pair": 2, "run": 2 * (window.frames - 1), "sliding": 1, "doubled": 2 * window.frames}[window.kind]
    return turns, frames


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def table(results: Path) -> str:
    """The table of README.md, from the last line of each network."""
    from stvsr.training.networks.registry import NETWORKS

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


def write_table(results: Path) -> None:
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}")


def main() -> None:
    from stvsr.training.networks.registry import NETWORKS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="names; all when none is given")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON lines")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only write the table from the lines that are there")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.networks or [entry.name for entry in NETWORKS]
    if arguments.table:
        pass
    elif len(names) == 1:
        measure(names[0], arguments, " ".join(["python -m benchmarks.networks", *sys.argv[1:]]))
    else:  # each in a process of its own: memory that one leaves behind does not slow the next one
        options = ["--threads", str(arguments.threads), "--runs", str(arguments.runs)]
        options += ["--out", str(arguments.out)] if arguments.out != RESULTS else []  # a record names its command
        for name in names:
            subprocess.run([sys.executable, "-m", "benchmarks.networks", name, *options], check=True, env=os.environ)
    if arguments.out == RESULTS:
        write_table(arguments.out)


if __name__ == "__main__":
    if "--peak" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--peak")
        parser.add_argument("--threads", type=int)
        asked = parser.parse_args()
        peak(asked.peak, asked.threads)
    else:
        main()
