"""Outputs of the official architectures, and their weights: stored, or made from the names of the state dict."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.paths import ORACLES, SHARED
from tests.support.procedural import procedural_weights

HERE = ORACLES
BESIDE = SHARED / "oracles"  # the large ones, beside a checkout that has them


class Oracle:
    """One oracle: `record` is its JSON, `arrays` are its inputs and outputs, `weights` its official state dict."""

    def __init__(self, folder: Path, name: str, gain: float, offset_gain: float) -> None:
        self.name = name
        self.record: dict[str, Any] = {}
        if (folder / f"{name}.json").is_file():
            self.record = json.loads((folder / f"{name}.json").read_text())
        with np.load(folder / f"{name}.npz") as arrays:
            self.arrays = {key: value for key, value in arrays.items() if not key.startswith("sd/")}
            stored = {key[3:]: torch.from_numpy(value) for key, value in arrays.items() if key.startswith("sd/")}
        shapes = {key: tuple(entry["shape"]) for key, entry in self.record.get("keys", {}).items()}
        self.weights: dict[str, Tensor] = stored or procedural_weights(shapes, gain, offset_gain)

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])


def read_oracle(name: str, gain: float = 1.0, offset_gain: float = 16.0) -> Oracle:
    """Read an oracle of this project, or a large one beside it; raise FileNotFoundError where that is absent."""
    for folder in (HERE, BESIDE):
        if (folder / f"{name}.npz").is_file():
            return Oracle(folder, name, gain, offset_gain)
    raise FileNotFoundError(f"the oracle {name} is too large for this project, and is not beside the checkout")


def load_oracle(name: str, gain: float = 1.0, offset_gain: float = 16.0) -> Oracle:
    """The same, but where it is absent the test is skipped."""
    try:
        return read_oracle(name, gain, offset_gain)
    except FileNotFoundError as absent:
        pytest.skip(str(absent))
