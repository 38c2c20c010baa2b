"""Tables of the GPU benchmark's records, in Markdown, and the list of its checks."""

from collections.abc import Iterable, Mapping
from typing import Any

Line = Mapping[str, Any]


def tables(lines: list[Line]) -> str:
    """Everything that was measured, with what fell short and what failed or was left out."""
    of = lambda part: [line for line in lines if line.get("part") == part]  # noqa: E731
    sections = [_device(lines), _floors(of("floors")), _kernels(of("kernels")), _networks(of("networks")), _gaps(lines)]
    return "\n\n".join(section for section in sections if section) + "\n"


def checks(lines: list[Line]) -> str:
    """One line for each check, those that failed first."""
    made = sorted((line for line in lines if "check" in line), key=lambda line: line["passed"])
    rows = []
    for line in made:
        told = line.get("error") or "largest error {:.2e} of {:.2e}, mean {:.2e} of {:.2e}".format(
            *(line[name] for name in ("max_error", "max_bound", "mean_error", "mean_bound"))
        )
        rows.append(f"{'passed' if line['passed'] else 'FAILED'}  {line['check']}: {told}")
    failed = sum(not line["passed"] for line in made)
    return "\n".join([f"{len(made)} checks, {failed} failed", *rows]) + "\n"


def _device(lines: list[Line]) -> str:
    if not lines:
        return ""
    hardware, versions = lines[-1]["hardware"], lines[-1]["versions"]
    told = [str(hardware.get("gpu", "no GPU")), *(f"{name} {version}" for name, version in versions.items())]
    states = [line["state"] for line in lines if line.get("state")]
    told += [f"driver {states[0]['driver_version']}"] if states else []
    dry = (
        "A dry run without a GPU: these figures say nothing.\n\n" if any(line.get("dry_run") for line in lines) else ""
    )
    clocks = "; ".join(
        f"{s['clocks.sm']} and {s['clocks.mem']} (memory) at {s['temperature.gpu']} degrees"
        for s in (*states[:1], *states[-1:])
    )
    return f"{dry}{', '.join(told)}." + (f" Clocks at the start and at the end: {clocks}." if clocks else "")


def _floors(lines: list[Line]) -> str:
    rows = []
    for line in lines:
        rates = [f"{value:.0f} {_UNITS.get(name, 'TFLOP/s')}" for name, value in line.get("floors", {}).items()]
        rows.append([line["case"], line.get("dtype", "float32"), "".join(rates), _spread(line)])
    return _table(["floor", "type", "rate", "ms (10% to 90%)"], rows)


_UNITS = {"gb_per_s": "GB/s, read and written"}


def _kernels(lines: list[Line]) -> str:
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
        rows.append([*cells, "; ".join(filter(None, (parts, memory and f"MB: {memory}"))), line["goal"]])
    head = ["kernel", "case", "type", "ms (10% to 90%)", "floor, ms", "times the floor", "PyTorch, ms", "times as fast"]
    return _table([*head, "also", "goal"], rows)


def _networks(lines: list[Line]) -> str:
    rows = []
    for line in lines:
        if "ms" not in line:
            continue
        memory = line.get("memory_bytes")
        fps, ratio = (f"{line[name]:.2f}" if line.get(name) else "" for name in ("frames_per_s", "over_eager_float32"))
        cells = [line["network"], line["case"], line["backend"], line["dtype"], _spread(line)]
        cells += [f"{line['ms'] / line['frames']:.2f}", fps, f"{memory / 1e6:.0f}" if memory else "", ratio]
        rows.append([*cells, line.get("goal", "")])
    head = ["network", "case", "by", "type", "ms a window (10% to 90%)", "ms a frame", "frames a second", "MB"]
    return _table([*head, "times as fast as eager float32", "goal"], rows)


def _gaps(lines: list[Line]) -> str:
    told: list[str] = []
    missing: dict[str, list[str]] = {}
    for line in lines:
        where = ", ".join(str(line[name]) for name in _WHERE if name in line)
        if line.get("check"):
            told += [] if line["passed"] else [f"- {where}: the check failed"]
            continue
        if "missing" in line:
            by = line.get("backend", line["part"])
            missing.setdefault(f"- {by}: {line['missing']}", []).append(line.get("network") or line["kernel"])
        for name in ("error", "skipped"):
            told += [f"- {where}: {line[name]}"] if name in line else []
        told += [f"- {where}, {name}: {error}" for name, error in line.get("errors", {}).items()]
    told += [f"{reason} ({', '.join(names)})" for reason, names in missing.items()]
    return "Not measured, or failed:\n\n" + "\n".join(told) if told else ""


_WHERE = ("part", "kernel", "network", "check", "case", "backend", "dtype")


def _spread(line: Line) -> str:
    return f"{line['ms']:.3f} ({line['ms_p10']:.3f} to {line['ms_p90']:.3f})"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    rows = list(rows)
    if not rows:
        return ""
    made = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in made)
