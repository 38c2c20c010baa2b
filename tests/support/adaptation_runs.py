"""Made-up lines of the adaptation benchmark, and small training runs that it measures."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from stvsr.training.networks.adavsr import SpatialModuleConfig, TemporalModuleConfig
from stvsr.training.networks.edvr import EDVR
from stvsr.training.networks.registry import find_network

from tests.support.small_networks import small_edvr


def adapted_line(clip: str, before: float, after: float, **trial: Any) -> dict[str, Any]:
    """Return a line of the part self-supervised, with Y-PSNR before and after in dB."""
    return {
        "part": "self-supervised",
        "trial": {"network": "edvr-s", "case": "bicubic", "clip": clip, "steps": 10, "rate": 1e-4, **trial},
        "before": {"psnr_y_db": before, "tof_px": 0.5},
        "after": {"psnr_y_db": after, "tof_px": 0.4},
        "gain_db": after - before,
        "seconds": 3.0,
        "trained": {"step": 20, "schedule": {"steps": 40}},
    }


def meta_line(start: str, optimizer: str, steps: int, db: float, **changes: Any) -> dict[str, Any]:
    """Return a line of the part meta, with Y-PSNR in dB."""
    trial = {"start": start, "optimizer": optimizer, "rate": 0.01 if optimizer == "sgd" else 3e-4, "steps": steps}
    return {"part": "meta", "trial": {**trial, "clip": "a", "kernel": "estimated", **changes}, "psnr_y_db": db}


def save_edvr(folder: Path, seed: int, step: int) -> None:
    """Write the weights of a small EDVR as `stvsr train` does."""
    config = small_edvr().config
    torch.manual_seed(seed)
    network = EDVR(config)
    folder.mkdir(parents=True)
    torch.save({"config": asdict(config), "step": step, "state_dict": network.state_dict()}, folder / "weights.pt")


def save_adavsr(runs: Path) -> None:
    """Write the weights of both small modules of Ada-VSR, plain and meta-trained, as `stvsr train` does."""
    configs: dict[str, TemporalModuleConfig | SpatialModuleConfig] = {
        "temporal": TemporalModuleConfig(width=4, blocks=1),
        "spatial": SpatialModuleConfig(width=4, blocks=1),
    }
    for number, (part, config) in enumerate(configs.items()):
        entry = replace(find_network(f"adavsr-{part}-s"), config=config)
        for path in (runs / f"adavsr/{part}/weights.pt", runs / f"adavsr/meta/{part}.pt"):
            torch.manual_seed(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            state = entry.build(config).state_dict()
            torch.save({"config": asdict(config), "step": 3, "meta": {"steps": 3}, "state_dict": state}, path)
