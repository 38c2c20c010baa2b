"""The table of the fastest variants: what it records, and what kernels take from it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from stvsr.kernels import fourier_field, fusion_inputs, launcher, variants
from stvsr.kernels.deform_conv import DeformConv
from stvsr.kernels.launcher import Card
from stvsr.kernels.warp import PLANAR_VARIANTS, variant_key


class Tile(NamedTuple):
    rows: int
    threads: int


TILES = (Tile(64, 256), Tile(64, 128), Tile(128, 256))
CARD, LIKE_IT, OTHER = Card("NVIDIA H200", "9.0"), Card("NVIDIA H100 PCIe", "9.0"), Card("NVIDIA L4", "8.9")


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that replaces the table of the package."""
    return lambda table: monkeypatch.setattr(variants, "_stored", lambda: table)


def recorded(card: Card, variant: Any, table: dict[str, Any] | None = None) -> dict[str, Any]:
    table = {"format": variants.FORMAT, "cards": {}} if table is None else table
    return variants.with_record(table, card, "kernel float16", variant, {"ms": {"a case": 1.5}})


def test_a_card_takes_its_own_variant_or_that_of_a_card_like_it(stored: Any) -> None:
    stored(recorded(CARD, TILES[2]))
    assert variants.choose("kernel float16", TILES, CARD) == TILES[2]
    assert variants.choose("kernel float16", TILES, LIKE_IT) == TILES[2]
    assert variants.choose("kernel float16", TILES, OTHER) == TILES[0]
    assert variants.choose("kernel float16", TILES, None) == TILES[0]
    assert variants.choose("kernel float32", TILES, CARD) == TILES[0]
    other = variants.with_record(recorded(CARD, TILES[2]), LIKE_IT, "another kernel", TILES[1], {})
    stored(other)
    assert variants.choose("kernel float16", TILES, LIKE_IT) == TILES[2], "its own entry lacks this kernel"
    stored(recorded(LIKE_IT, TILES[1], recorded(CARD, TILES[2])))
    assert variants.choose("kernel float16", TILES, LIKE_IT) == TILES[1]
    assert variants.choose("kernel float16", TILES, CARD) == TILES[2]


def test_a_variant_that_a_kernel_has_no_more_is_ignored(stored: Any) -> None:
    stored(recorded(CARD, Tile(32, 32)))
    assert variants.choose("kernel float16", TILES, CARD) == TILES[0]


def test_a_table_survives_writing(tmp_path: Path) -> None:
    path = tmp_path / "variants.json"
    assert variants.read_table(path) == {"format": 1, "cards": {}}
    table = recorded(CARD, TILES[1])
    variants.write_table(table, path)
    assert variants.read_table(path) == table
    assert [file.name for file in tmp_path.iterdir()] == ["variants.json"]
    record = table["cards"]["NVIDIA H200"]["kernels"]["kernel float16"]
    assert record == {"variant": {"rows": 64, "threads": 128}, "ms": {"a case": 1.5}}
    path.write_text(json.dumps({"format": 2}))
    with pytest.raises(ValueError, match="format 1"):
        variants.read_table(path)


def test_the_package_has_a_table_whose_entries_are_measured() -> None:
    known: dict[str, tuple[Any, ...]] = {
        variant_key(dtype, count): PLANAR_VARIANTS for dtype in ("f4", "f2") for count in (1, 2)
    }
    for dtype in ("f4", "f2"):
        for outs in (64, 128):
            known[DeformConv(8, outs).key(dtype)] = DeformConv(8, outs).candidates(dtype)
        known[fusion_inputs.variant_key(dtype)] = fusion_inputs.candidates(32, dtype)
        for picture in (False, True):
            known[fourier_field.variant_key(dtype, picture)] = fourier_field.PHASES_VARIANTS
    for name, card in variants.read_table()["cards"].items():
        assert name
        assert card["compute_capability"].count(".") == 1
        for kernel, record in card["kernels"].items():
            assert record["variant"] in [variant._asdict() for variant in known[kernel]]
            assert record["ms"]
            assert record["date"]


def test_arrays_of_the_cpu_take_the_first_variant() -> None:
    assert launcher.card_of(np.zeros(1)) is None
