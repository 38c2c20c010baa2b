"""Weights that learn quickly: the true gain of a few steps, by which weights of the network are adapted.

The network learns from its own results under the true degradation, without analysis and gate, from a crop of few
frames, and is compared with the truth on the same frames and, if it makes frames at any time, on those between.
"""

import argparse
import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from stvsr.engine.contract.bundle import Bundle, find_bundle
from stvsr.engine.pipeline.flow import picture_flow
from stvsr.export.bundle_network import load_network
from stvsr.training.adapt.degradation import Degradation
from stvsr.training.adapt.protocol import Budget
from stvsr.training.adapt.selection import CHOICES, Adapts, select
from stvsr.training.adapt.selfsupervised import SelfSupervised

from .automatic import INPUTS, restored_scores, subjects
from .trials import Figures, Lines, degraded, middle_crop

PART = "selection"
RATES: dict[Adapts, float] = {"all": 5e-4, "scales": 3e-3, "last": 2e-3, "low-rank": 2e-3}
_STEPS = 10


def selection(lines: Lines, options: argparse.Namespace) -> None:
    """Measure a line for each clip, input and choice of weights."""
    bundle = find_bundle(options.bundle)
    for clip, subject in subjects(bundle, options):
        for adapts in CHOICES:
            trial = {
                **subject,
                "size": options.size,
                "adapts": adapts,
                "rate": options.rates.get(adapts, RATES[adapts]),
                "steps": options.adapt_steps or _STEPS,
                "seed": options.seed,
            }
            lines.measure_once(PART, trial, partial(_measure, bundle, clip, trial, options))


def _measure(bundle: Bundle, clip: Path, trial: Figures, options: argparse.Namespace) -> Figures:
    network, made = load_network(bundle), INPUTS[trial["input"]]
    step = 2 if network.window.kind == "pair" else 1
    true = middle_crop(clip, options.cache, step * (options.frames - 1) + 1, options.size)
    known = Degradation(made.degradation.kernel, made.degradation.noise, made.crf)
    degrade = known.degrader(options.seed)
    small = degraded(true[::step], degrade)
    method = SelfSupervised(
        rate=trial["rate"], degrade=degrade, correct=known.corrector(), flow=picture_flow, adapts=trial["adapts"]
    )
    adapted = method.adapt(network, small, Budget(trial["steps"]), options.seed)
    before = restored_scores(network, small, true)
    count = sum(parameter.numel() for parameter in select(copy.deepcopy(network), trial["adapts"]))
    network.load_state_dict(adapted.weights)
    after = restored_scores(network, small, true)
    gains = {name: round(after[name] - before[name], 4) for name in after}
    seconds = adapted.record.seconds - adapted.record.details["restoring_seconds"]
    return {"before": before, "gains": gains, "parameters": count, "seconds": round(seconds, 2)}


def selection_rows(lines: Sequence[Figures]) -> list[str]:
    """Return the table of the part, from its measured lines: means over clips."""
    measured = {str(line["trial"]): line for line in lines if line["part"] == PART and "gains" in line}
    if not measured:
        return []
    groups: dict[tuple[str, ...], list[Figures]] = {}
    for line in measured.values():
        t = line["trial"]
        key: tuple[str, ...] = (
            t["network"],
            t["input"],
            t["adapts"],
            f"{t['rate']:g}",
            str(t["steps"]),
            str(line["parameters"]),
        )
        groups.setdefault(key, []).append(line)
    rows = [
        "| selection: network | input | adapted | rate | steps | parameters | clips | gain, dB | between inputs, dB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, group in groups.items():
        between = [line["gains"]["between_psnr_y_db"] for line in group if "between_psnr_y_db" in line["gains"]]
        gain = np.mean([line["gains"]["psnr_y_db"] for line in group])
        cell = f"{np.mean(between):+.3f}" if between else ""
        rows.append(f"| {' | '.join(key)} | {len(group)} | {gain:+.3f} | {cell} |")
    return rows
