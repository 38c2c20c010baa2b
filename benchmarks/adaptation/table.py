"""The tables of the README, from the lines: each goal with the measured figure, then the figures of all parts."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..record import write_between
from .automatic import automatic_rows
from .gate import KINDS, TRIALS, agreement
from .goals import KERNELS, coverage, decibels, goals, latest, mean, meta_lines
from .meta import curves
from .selection import selection_rows
from .spatial import CASES, LEARNERS
from .temporal import METHODS
from .trials import Figures

BEGIN, END = "<!-- adaptation: python -m benchmarks.adaptation table OUT -->", "<!-- /adaptation -->"


def table(lines: Sequence[Figures]) -> str:
    """Return the tables of all parts as Markdown."""
    head = ["| goal | limit | measured | | clips, training |", "|---|---|---|---|---|"]
    tables = ["\n".join([*head, *(goal.row for goal in goals(lines))])]
    parts = (automatic_rows, selection_rows, _spatial_rows, _meta_rows, _zero_shot_rows, _gate_rows)
    for rows in (part(lines) for part in parts):
        if rows:
            tables.append("\n".join(rows))
    if failed := [line for line in lines if "failed" in line]:
        tables.append(
            "\n".join(f"- {line['part']}, {line['trial']['clip']}: failed, {line['failed']}" for line in failed)
        )
    return "\n\n".join(tables)


def write_table(lines: Sequence[Figures], readme: Path) -> None:
    """Write the tables between the markers of a file; raises ValueError if it lacks them."""
    write_between(readme, BEGIN, END, table(lines))


def _spatial_rows(lines: Sequence[Figures]) -> list[str]:
    rows = []
    for part, name, value in [
        *(("self-supervised", "case", case) for case in CASES),
        *(("distilled", "learner", learner) for learner in LEARNERS),
    ]:
        networks = dict.fromkeys(
            line["trial"]["network"] for line in lines if line["part"] == part and line["trial"].get(name) == value
        )
        for network in networks:
            measured = latest(lines, part, network=network, **{name: value})
            if not measured:
                continue
            psnr, tof = (
                f"{mean(measured, 'before', key):{form}} to {mean(measured, 'after', key):{form}}"
                for key, form in (("psnr_y_db", ".2f"), ("tof_px", ".3f"))
            )
            gains = ", ".join(f"{line['gain_db']:+.2f}" for line in measured)
            trial = measured[0]["trial"]
            seconds = mean(measured, "seconds")
            rows.append(
                f"| {part} | {network} | {value} | {trial['steps']} at {trial['rate']:g} | {psnr} | {gains} | {tof} |"
                f" {'' if seconds is None else format(seconds, '.0f')} |"
            )
    head = [
        "| part | network | blur or learner | steps, rate | Y-PSNR, dB | gain of each clip, dB | tOF, px | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return [*head, *rows] if rows else []


def _meta_rows(lines: Sequence[Figures]) -> list[str]:
    rows: list[str] = []
    for kind in KERNELS:
        measured = curves(meta_lines(lines, kind))
        steps = sorted({step for curve in measured.values() for step in curve})
        if measured and not rows:
            rows = [
                f"| start, optimizer, blur: Y-PSNR in dB after steps | {' | '.join(map(str, steps))} |",
                f"|---|{'---|' * len(steps)}",
            ]
        for name, curve in measured.items():
            cells = (f"{curve[step]:.2f}" if step in curve else "" for step in steps)
            rows.append(f"| {name}, {kind} | {' | '.join(cells)} |")
    return rows


def _zero_shot_rows(lines: Sequence[Figures]) -> list[str]:
    measured = latest(lines, "zero-shot")
    if not measured:
        return []
    rows = [
        f"| clip: Y-PSNR in dB | motion, px | frames shrunk by | {' | '.join(METHODS)} |",
        f"|---|---|---|{'---|' * len(METHODS)}",
    ]
    for line in measured:
        cells = (f"{decibels(line, name):.2f}" for name in METHODS)
        rows.append(f"| {line['trial']['clip']} | {line['motion_px']:.1f} | {line['coarse']} | {' | '.join(cells)} |")
    means = (f"{np.mean([decibels(line, name) for line in measured]):.2f}" for name in METHODS)
    return [*rows, f"| mean | | | {' | '.join(means)} |"]


def _gate_rows(lines: Sequence[Figures]) -> list[str]:
    networks = dict.fromkeys(line["trial"]["network"] for line in lines if line["part"] == "gate")
    measured = [
        line for n in networks for trial in TRIALS for line in latest(lines, "gate", network=n, **asdict(trial))
    ]
    summary = agreement([{**line, **line["trial"]} for line in measured])
    if not summary:
        return []
    rows = [
        "| gate: assumed blur | right verdicts | largest miss, dB | mean gain with the gate, dB | without, dB |"
        " clips, training |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        if kind in summary:
            figures = summary[kind]
            rows.append(
                f"| {kind} | {figures['agree']} of {figures['trials']} | {figures['largest_miss_db']:.2f} |"
                f" {figures['kept_db']:+.3f} | {figures['always_db']:+.3f} | {coverage(measured)} |"
            )
    return rows
