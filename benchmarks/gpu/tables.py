"""Markdown tables of the GPU benchmark's lines, and the list of its checks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]

_UNITS = {"gb_per_s": "GB/s, read and written"}  # of the floors; TFLOP/s for the others
_NAMING_FIELDS = ("part", "kernel", "network", "check", "case", "backend", "dtype")


def tables(lines: Sequence[Line]) -> str:
    """Return the tables of all measurements, then a list of everything that failed or was left out."""
    parts = ("floors", "variants", "kernels", "networks", "batches", "command")
    by_part: dict[str, list[Line]] = {name: [] for name in parts}
    for line in lines:
        by_part.setdefault(line.get("part", ""), []).append(line)
    sections = [
        _device(lines),
        _floors(by_part["floors"]),
        _variants(by_part["variants"]),
        _kernels(by_part["kernels"]),
        _networks(by_part["networks"]),
        _batches(by_part["batches"]),
        _command(by_part["command"]),
        _gaps(lines),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def checks(lines: Sequence[Line]) -> str:
    """Return one line for each check, failed ones first."""
    ordered = sorted((line for line in lines if "check" in line), key=lambda line: line["passed"])
    rows = []
    for line in ordered:
        detail = line.get("error") or "largest error {:.2e} of {:.2e}, mean {:.2e} of {:.2e}".format(
            *(line[name] for name in ("max_error", "max_bound", "mean_error", "mean_bound"))
        )
        rows.append(f"{'passed' if line['passed'] else 'FAILED'}  {line['check']}: {detail}")
    failed = sum(not line["passed"] for line in ordered)
    return "\n".join([f"{len(ordered)} checks, {failed} failed", *rows]) + "\n"


def _device(lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    hardware, versions = lines[-1]["hardware"], lines[-1]["versions"]
    parts = [str(hardware.get("gpu", "no GPU")), *(f"{name} {version}" for name, version in versions.items())]
    states = [line["state"] for line in lines if line.get("state")]
    parts += [f"driver {states[0]['driver_version']}"] if states else []
    dry_run = any(line.get("dry_run") for line in lines)
    warning = "A dry run without a GPU: these figures are meaningless.\n\n" if dry_run else ""
    clocks = "; ".join(
        f"{s['clocks.sm']} and {s['clocks.mem']} (memory) at {s['temperature.gpu']} degrees"
        for s in (*states[:1], *states[-1:])
    )
    return f"{warning}{', '.join(parts)}." + (f" Clocks at the start and at the end: {clocks}." if clocks else "")


def _floors(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        rates = [f"{value:.0f} {_UNITS.get(name, 'TFLOP/s')}" for name, value in line.get("floors", {}).items()]
        rows.append([line["case"], line.get("dtype", "float32"), "".join(rates), _spread(line)])
    return _table(["floor", "type", "rate", "ms (10% to 90%)"], rows)


def _variants(lines: Sequence[Line]) -> str:
    rows = [
        [line["kernel"], line["case"], line["dtype"], line["variant"], _spread(line)] for line in lines if "ms" in line
    ]
    best = [f"Fastest, {line['case']}: {line['fastest']}." for line in lines if "fastest" in line]
    table = _table(["kernel", "case", "type", "variant", "ms (10% to 90%)"], rows)
    return "\n\n".join(filter(None, (table, "  \n".join(best))))


def _kernels(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        if "ms" not in line:
            continue
        others = "; ".join(f"{name} {figures['ms']:.3f}" for name, figures in line["against"].items())
        floor = f"{line['floor_ms']:.3f} ({line['floor_of']})" if "floor_ms" in line else ""
        ratios = [f"{line[name]:.2f}" if name in line else "" for name in ("over_floor", "speedup")]
        parts = "; ".join(f"{name} {figures['ms']:.3f}" for name, figures in line.get("parts", {}).items())
        memory = "; ".join(f"{name} {v / 1e6:.0f}" for name, v in line.get("memory_bytes", {}).items() if v is not None)
        cells = [line["kernel"], line["case"], line["dtype"], _spread(line), floor, ratios[0], others, ratios[1]]
        also = (line.get("variant"), parts, memory and f"MB: {memory}")
        rows.append([*cells, "; ".join(filter(None, also)), line["goal"]])
    head = ["kernel", "case", "type", "ms (10% to 90%)", "floor, ms", "times the floor", "PyTorch, ms", "speedup"]
    return _table([*head, "also", "goal"], rows)


def _networks(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        if "ms" not in line:
            continue
        memory = line.get("memory_bytes")
        fps, ratio = (f"{line[name]:.2f}" if line.get(name) else "" for name in ("frames_per_s", "over_eager_float32"))
        cells = [line["network"], line["case"], line["backend"], line["dtype"], _spread(line)]
        cells += [f"{line['ms'] / line['frames']:.2f}", fps, f"{memory / 1e6:.0f}" if memory else "", ratio]
        rows.append([*cells, line.get("goal", "")])
    head = ["network", "case", "backend", "type", "ms per window (10% to 90%)", "ms per frame", "frames/s", "MB"]
    return _table([*head, "speedup over eager float32", "goal"], rows)


def _batches(lines: Sequence[Line]) -> str:
    rows = [
        [
            line["network"],
            line["case"],
            str(line["batch"]),
            line["precision"],
            _spread(line),
            f"{line['ms_per_window']:.3f}",
        ]
        for line in lines
        if "ms" in line
    ]
    head = ["network", "case", "windows at once", "precision", "ms (10% to 90%)", "ms per window"]
    return _table(head, rows)


def _command(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        if "fps" not in line:
            continue
        busy = [
            f"{line[f'{stage}_seconds']:.1f}" for stage in ("decode", "inference", "encode", "opening", "first_run")
        ]
        cells = [line["network"], line["case"], line["backend"], line["used"], f"{line['seconds']:.1f}"]
        rows.append([*cells, f"{line['fps']:.1f}", *busy, line.get("goal", "")])
    head = [
        "command",
        "case",
        "backend",
        "precision",
        "s",
        "frames/s",
        "decoding, s",
        "network, s",
        "encoding, s",
        "opening, s",
    ]
    return _table([*head, "first runs, s", "goal"], rows)


def _gaps(lines: Sequence[Line]) -> str:
    entries: list[str] = []
    missing: dict[str, list[str]] = {}
    for line in lines:
        where = ", ".join(str(line[name]) for name in _NAMING_FIELDS if name in line)
        if line.get("check"):
            entries += [] if line["passed"] else [f"- {where}: the check failed"]
            continue
        if "missing" in line:
            by = line.get("backend", line["part"])
            missing.setdefault(f"- {by}: {line['missing']}", []).append(line.get("network") or line["kernel"])
        for name in ("error", "skipped"):
            entries += [f"- {where}: {line[name]}"] if name in line else []
        entries += [f"- {where}, {name}: {error}" for name, error in line.get("errors", {}).items()]
    entries += [f"{reason} ({', '.join(names)})" for reason, names in missing.items()]
    return "Not measured, or failed:\n\n" + "\n".join(entries) if entries else ""


def _spread(line: Line) -> str:
    return f"{line['ms']:.3f} ({line['ms_p10']:.3f} to {line['ms_p90']:.3f})"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    rows = list(rows)
    if not rows:
        return ""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
