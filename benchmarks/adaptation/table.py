"""The tables of README.md, from the lines: each bar, what was reached, by how much it was missed; then the figures."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .bars import KERNELS, bars, coverage, decibels, latest, mean, meta_lines
from .gate import KINDS, TRIALS, agreement
from .meta import curves
from .temporal import METHODS
from .trials import Figures

BEGIN, END = "<!-- adaptation: python -m benchmarks.adaptation table OUT -->", "<!-- /adaptation -->"


def table(lines: Sequence[Figures]) -> str:
    """Markdown of all parts."""
    head = ["| what | bar | reached | | of |", "|---|---|---|---|---|"]
    tables = ["\n".join([*head, *(bar.row for bar in bars(lines))])]
    for rows in (_space_rows(lines), _meta_rows(lines), _zero_shot_rows(lines), _gate_rows(lines)):
        if rows:
            tables.append("\n".join(rows))
    if failed := [line for line in lines if "failed" in line]:
        tables.append(
            "\n".join(f"- {line['part']}, {line['trial']['clip']}: failed, {line['failed']}" for line in failed)
        )
    return "\n\n".join(tables)


def write_table(lines: Sequence[Figures], readme: Path) -> None:
    """Put the tables between the markers of a file; raises ``ValueError`` where it has none."""
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme} has no line {BEGIN} with {END} after it: add both where the table is to be")
    readme.write_text(f"{before}{BEGIN}\n\n{table(lines)}\n\n{END}{after}")


def _space_rows(lines: Sequence[Figures]) -> list[str]:
    rows = []
    for part, name, value in [
        *(("self-supervised", "case", case) for case in ("bicubic", "estimated", "given")),
        *(("distilled", "learner", who) for who in ("student", "distilled", "teacher")),
    ]:
        networks = dict.fromkeys(
            line["trial"]["network"] for line in lines if line["part"] == part and line["trial"].get(name) == value
        )
        for network in networks:
            some = latest(lines, part, network=network, **{name: value})
            if not some:
                continue
            psnr, tof = (
                f"{mean(some, 'before', key):{form}} to {mean(some, 'after', key):{form}}"
                for key, form in (("psnr_y_db", ".2f"), ("tof_px", ".3f"))
            )
            gains = ", ".join(f"{line['gain_db']:+.2f}" for line in some)
            trial = some[0]["trial"]
            seconds = mean(some, "seconds")
            rows.append(
                f"| {part} | {network} | {value} | {trial['steps']} at {trial['rate']:g} | {psnr} | {gains} | {tof} |"
                f" {'' if seconds is None else format(seconds, '.0f')} |"
            )
    head = [
        "| part | network | blur, or who learns | steps, rate | Y-PSNR, dB | gain of each clip | tOF, px | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return [*head, *rows] if rows else []


def _meta_rows(lines: Sequence[Figures]) -> list[str]:
    rows: list[str] = []
    for kind in KERNELS:
        found = curves(meta_lines(lines, kind))
        steps = sorted({step for curve in found.values() for step in curve})
        if found and not rows:
            rows = [f"| start, blur | {' | '.join(map(str, steps))} |", f"|---|{'---|' * len(steps)}"]
        for name, curve in found.items():
            cells = (f"{curve[step]:.2f}" if step in curve else "" for step in steps)
            rows.append(f"| {name}, {kind} | {' | '.join(cells)} |")
    return rows


def _zero_shot_rows(lines: Sequence[Figures]) -> list[str]:
    some = latest(lines, "zero-shot")
    if not some:
        return []
    rows = [f"| clip | motion, px | seen smaller by | {' | '.join(METHODS)} |", f"|---|---|---|{'---|' * len(METHODS)}"]
    for line in some:
        cells = (f"{decibels(line, name):.2f}" for name in METHODS)
        rows.append(f"| {line['trial']['clip']} | {line['motion_px']:.1f} | {line['coarse']} | {' | '.join(cells)} |")
    means = (f"{np.mean([decibels(line, name) for line in some]):.2f}" for name in METHODS)
    return [*rows, f"| mean | | | {' | '.join(means)} |"]


def _gate_rows(lines: Sequence[Figures]) -> list[str]:
    networks = dict.fromkeys(line["trial"]["network"] for line in lines if line["part"] == "gate")
    some = [line for n in networks for trial in TRIALS for line in latest(lines, "gate", network=n, **asdict(trial))]
    found = agreement([{**line, **line["trial"]} for line in some])
    if not found:
        return []
    rows = [
        "| gate: blur that is assumed | agrees with the truth | largest miss, dB | mean gain with it | without | of |",
        "|---|---|---|---|---|---|",
    ]
    for name in KINDS:
        if name in found:
            of = found[name]
            rows.append(
                f"| {name} | {of['agree']} of {of['trials']} | {of['largest_miss_db']:.2f} | {of['kept_db']:+.3f} |"
                f" {of['always_db']:+.3f} | {coverage(some)} |"
            )
    return rows
