"""Small networks of single images, of the architectures that spandrel knows, with random weights."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

# Architecture: module and class, scale and small configuration.
SMALL: dict[str, tuple[str, int, dict[str, Any]]] = {
    "Compact": ("SRVGG.SRVGGNetCompact", 2, {"num_feat": 16, "num_conv": 3, "upscale": 2}),
    "ESRGAN": ("RRDB.RRDBNet", 4, {"num_filters": 16, "num_blocks": 1}),
    "SPAN": ("span.SPAN", 2, {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 16, "upscale": 2}),
    "PLKSR": ("RealPLKSR.RealPLKSR", 2, {"dim": 16, "n_blocks": 2, "upscaling_factor": 2, "kernel_size": 5}),
    "SAFMN": ("safmn.SAFMN", 2, {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}),
    "RCAN": ("rcan_arch.RCAN", 2, {"scale": 2, "n_resgroups": 1, "n_resblocks": 2, "n_feats": 16, "reduction": 4}),
    "MoSR": ("mosr_arch.MoSR", 2, {"upscale": 2, "n_block": 2, "dim": 16}),
    "RealCUGAN": ("upcunet_v3.UpCunet2x_fast", 2, {}),
    "SwiftSRGAN": ("SwiftSRGAN.Generator", 4, {"num_channels": 16, "num_blocks": 2}),
    "DITN": ("DITN_Real.DITN_Real", 2, {"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1, "upscale": 2}),
    "MoESR": ("MoESR.MoESR", 2, {"scale": 2, "dim": 16, "n_blocks": 1, "n_block": 1, "upsample_dim": 16}),
}
QUICK = ("Compact", "SPAN")


def need_spandrel() -> None:
    """Skip a test where spandrel is missing, or does not load beside this torchvision."""
    try:
        import spandrel  # noqa: F401
    except (ImportError, RuntimeError) as absent:
        pytest.skip(f"spandrel is not there: {absent}")


def build(architecture: str, **changes: Any) -> torch.nn.Module:
    """Return a small network, with changes to its configuration."""
    path, _, config = SMALL[architecture]
    module, _, name = path.partition(".")
    loaded = importlib.import_module(f"spandrel.architectures.{architecture}.__arch.{module}")
    torch.manual_seed(0)
    return getattr(loaded, name)(**{**config, **changes}).eval()


def save_weights(network: torch.nn.Module, path: Path) -> Path:
    """Write the weights of a network as safetensors or, by the name of the file, as a checkpoint of PyTorch."""
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save({"params_ema": state}, path)
    return path
