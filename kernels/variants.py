"""The variants of kernels: tile sizes, threads and ways of reading, of which a card has a fastest one.

`variants.json` records the fastest variants that `python -m benchmarks.gpu` found, by the name of the card. A card that
it does not name takes those of a card of the same compute capability, else the kernel's first variant, of which nothing
was measured.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .launcher import Card

TABLE = Path(__file__).with_suffix(".json")
FORMAT = 1  # of the table


class Variant(Protocol):
    """A NamedTuple of the parameters of a kernel, in the order of its text."""

    def _asdict(self) -> dict[str, Any]: ...


V = TypeVar("V", bound=Variant)


def choose(kernel: str, candidates: Sequence[V], card: Card | None) -> V:
    """Return the variant of a kernel for a card; the first one without a card.

    kernel: the key of the table, with the dtype: "deform_conv float16". A recorded variant that the kernel does not
    have any more is ignored.
    """
    recorded = recorded_for(card, _stored()).get(kernel) if card else None
    return next((variant for variant in candidates if variant._asdict() == recorded), candidates[0])


def recorded_for(card: Card, table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the recorded variants for a card, by kernel: its own, else those of a card like it."""
    cards: Mapping[str, Any] = table["cards"]
    like = [entry for entry in cards.values() if entry["compute_capability"] == card.compute_capability]
    own = [cards[card.name]] if card.name in cards else []
    return {kernel: dict(record["variant"]) for entry in (*like, *own) for kernel, record in entry["kernels"].items()}


def with_record(
    table: Mapping[str, Any], card: Card, kernel: str, variant: Variant, evidence: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a copy of a table with the fastest variant of a kernel on a card, and the figures that show it."""
    changed = json.loads(json.dumps(table))
    entry = changed["cards"].setdefault(card.name, {"compute_capability": card.compute_capability, "kernels": {}})
    entry["kernels"][kernel] = {"variant": variant._asdict(), **evidence}
    return dict(changed)


def read_table(path: Path = TABLE) -> dict[str, Any]:
    """Read a table; a file that is missing is an empty one. Raises ValueError for another format."""
    if not path.exists():
        return {"format": FORMAT, "cards": {}}
    table = json.loads(path.read_text(encoding="utf-8"))
    if table.get("format") != FORMAT:
        raise ValueError(f"{path} is not a table of variants of format {FORMAT}: restore the file")
    return dict(table)


def write_table(table: Mapping[str, Any], path: Path = TABLE) -> None:
    """Write a table; a reader sees the old one or the new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    new.replace(path)


def text_of(variant: Variant) -> str:
    """Return a variant in one line: "pixels 64, depth 32"."""
    return ", ".join(f"{name} {value}" for name, value in variant._asdict().items())


@functools.cache
def _stored() -> dict[str, Any]:
    return read_table()
