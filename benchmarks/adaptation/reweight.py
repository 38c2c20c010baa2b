"""Seconds to replace about three million weights in a bundle, and in a live ONNX Runtime session.

The network is `edvr-m` with random weights; all new weights differ from them. A session is opened anew from the edited
bytes of the graph, since ONNX Runtime cannot replace the initializers of an open session.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stvsr import Bundle
from stvsr.engine.backends.device import CpuDevice
from stvsr.engine.backends.onnxruntime import OrtSession
from stvsr.engine.contract.weights import edit_graphs, read_weights, replace_weights
from stvsr.export.bundle_network import load_network, write_adapted
from stvsr.export.exporter import export_bundle
from stvsr.training.checkpoints import random_weights
from stvsr.training.networks.registry import find_network

from .trials import Figures, Lines


def reweight(lines: Lines, options: argparse.Namespace) -> None:
    """Measure one line."""
    trial = {"network": options.reweighted, "runs": options.timings}
    lines.measure_once("reweight", trial, lambda: _timed(options))


def _timed(options: argparse.Namespace) -> Figures:
    entry = find_network(options.reweighted)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        network = random_weights(entry)[0]
        bundle = Bundle.load(export_bundle(entry, network, folder / "parent"))
        role = bundle.manifest.graphs[0].role
        weights = {
            name: (1.01 * value + 1e-3).astype(value.dtype)
            for name, value in read_weights(bundle.path(role).read_bytes()).items()
            if value.dtype.kind == "f" and name in network.state_dict()
        }
        window = {"frames": np.random.default_rng(0).random((1, bundle.manifest.window.frames, 3, 64, 64), np.float32)}

        def write_bundle(run: int) -> Bundle:
            return replace_weights(bundle, weights, folder / f"bundle-{run}")

        def open_session(run: int) -> OrtSession:
            return OrtSession(edit_graphs(bundle, weights)[role], CpuDevice(), options.threads)

        def write_checked(run: int) -> Bundle:
            loaded = load_network(bundle)
            new = loaded.state_dict() | {name: torch.from_numpy(value) for name, value in weights.items()}
            return write_adapted(
                bundle, loaded, new, torch.from_numpy(window["frames"][0]), folder / f"checked-{run}", {}
            )

        written, bundle_seconds = _median(write_bundle, options.timings)
        session, session_seconds = _median(open_session, options.timings)
        _, checked_seconds = _median(write_checked, options.timings)
        with (
            session,
            OrtSession(written.path(role), CpuDevice(), options.threads) as bundled,
            OrtSession(bundle.path(role)) as original,
        ):
            outputs = [opened.run(window)["upscaled"] for opened in (session, bundled, original)]
    if not np.array_equal(outputs[0], outputs[1]) or np.array_equal(outputs[0], outputs[2]):
        raise RuntimeError("the session and the bundle differ, or do not have the new weights")
    return {
        "weights": sum(value.size for value in weights.values()),
        "bundle_seconds": bundle_seconds,
        "session_seconds": session_seconds,
        "bundle_checked_seconds": checked_seconds,
    }


def _median(call: Callable[[int], Any], runs: int) -> tuple[Any, float]:
    """Return the last result and the median of the seconds."""
    seconds, result = [], None
    for run in range(runs):
        start = time.perf_counter()
        result = call(run)
        seconds.append(time.perf_counter() - start)
    return result, round(statistics.median(seconds), 4)
