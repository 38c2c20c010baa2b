"""Seconds until new weights serve: those of some three million in a bundle, and in a live ONNX Runtime session.

The network is `edvr-m`, of random weights; the new ones differ from them everywhere. A session takes them as the edited
graph's bytes, from which it is opened: ONNX Runtime has no way to replace initializers in one that is open.
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
from stvsr.engine.backends.device import Host
from stvsr.engine.backends.session import OrtSession
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.weights import edit_graphs, read_weights, replace_weights
from stvsr.export.bundle_network import network_of, write_adapted
from stvsr.export.exporter import export_bundle
from stvsr.training.checkpoints import random_weights
from stvsr.training.networks.registry import find_network

from .trials import Figures, Lines


def reweight(lines: Lines, options: argparse.Namespace) -> None:
    """One line."""
    trial = {"network": options.reweighted, "runs": options.timings}
    lines.once("reweight", trial, lambda: _timed(options))


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

        def into_bundle(turn: int) -> Bundle:
            return replace_weights(bundle, weights, folder / f"bundle-{turn}")

        def into_session(turn: int) -> OrtSession:
            return OrtSession(edit_graphs(bundle, weights)[role], Host(), options.threads)

        def checked(turn: int) -> Bundle:
            held = network_of(bundle)
            new = held.state_dict() | {name: torch.from_numpy(value) for name, value in weights.items()}
            return write_adapted(
                bundle, held, new, torch.from_numpy(window["frames"][0]), folder / f"checked-{turn}", {}
            )

        made, bundle_seconds = _median(into_bundle, options.timings)
        session, session_seconds = _median(into_session, options.timings)
        _, checked_seconds = _median(checked, options.timings)
        with (
            session,
            OrtSession(made.path(role), Host(), options.threads) as other,
            OrtSession(bundle.path(role)) as old,
        ):
            outputs = [some.run(window)["upscaled"] for some in (session, other, old)]
    if not np.array_equal(outputs[0], outputs[1]) or np.array_equal(outputs[0], outputs[2]):
        raise RuntimeError("a session and a bundle of the same new weights differ, or do not have them")
    return {
        "weights": sum(value.size for value in weights.values()),
        "bundle_seconds": bundle_seconds,
        "session_seconds": session_seconds,
        "bundle_checked_seconds": checked_seconds,
    }


def _median(call: Callable[[int], Any], runs: int) -> tuple[Any, float]:
    """The last result and the median of seconds."""
    seconds, result = [], None
    for turn in range(runs):
        start = time.perf_counter()
        result = call(turn)
        seconds.append(time.perf_counter() - start)
    return result, round(statistics.median(seconds), 4)
