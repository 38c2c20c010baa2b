"""Small networks of every kind of window, and synthetic clips that they run on."""

from dataclasses import replace

import numpy as np
import torch
from stvsr.training.adapt.zeroshot import fresh_network
from stvsr.training.networks.base import Network
from stvsr.training.networks.dtsr import DeepTemporalSR, DeepTemporalSRConfig
from stvsr.training.networks.edvr import EDVR, EDVRConfig
from stvsr.training.networks.fourier_s import FourierS, FourierSConfig
from stvsr.training.networks.rbpn import RBPN, RBPNConfig
from stvsr.training.networks.tmnet import TMNet, TMNetConfig
from stvsr.training.networks.toflow import TOFLOW_S, TOFlow
from stvsr.training.networks.videoinr_s import VideoINRS, VideoINRSConfig
from torch import Tensor

SMALL_DTSR = DeepTemporalSRConfig(width=4)


def small_edvr() -> Network:
    """Return an EDVR of three frames with random weights."""
    torch.manual_seed(0)
    return EDVR(EDVRConfig(8, num_frame=3, deformable_groups=2, num_extract_block=1, num_reconstruct_block=1)).eval()


def small_networks() -> dict[str, Network]:
    """Return networks that enlarge, with random weights: sliding windows, a run and a pair, with and without flow."""
    torch.manual_seed(0)
    rbpn = RBPNConfig(base_filter=8, feat=8, num_stages=1, n_resblock=1, frames=3, residual=True)
    return {
        "edvr": small_edvr(),
        "rbpn": RBPN(rbpn),
        "toflow": TOFlow(replace(TOFLOW_S, frames=3, width=8, flow_width=8, flow_levels=2)),
        "tmnet": TMNet(TMNetConfig(nf=8, groups=2, frames=2, front_blocks=1, back_blocks=1, residual=True)),
        "videoinr-s": VideoINRS(VideoINRSConfig()),
        "fourier-s": FourierS(FourierSConfig(features=8, width=8, trunk_blocks=1, motion_features=16, terms=4)),
    }


def small_dtsr(seed: int = 0, coarse: int = 1) -> DeepTemporalSR:
    """Return a network that doubles the frame rate and does more than interpolate."""
    network = fresh_network(DeepTemporalSR(replace(SMALL_DTSR, coarse=coarse)), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        last = network.get_parameter("L8.weight")
        last.add_(0.02 * torch.randn(last.shape, generator=generator))
    return network


def moving_blobs(frames: int, h: int, w: int, seed: int = 0) -> Tensor:
    """Return a clip of moving blobs of many sizes, (N, 3, h, w) in [0, 1]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w].astype(float)
    clip = np.full((frames, 3, h, w), 0.5)
    for _ in range(40):
        centre, velocity, size = random.uniform(0, (h, w)), random.uniform(-1, 1, 2), random.uniform(1, 6)
        colour = random.uniform(-0.5, 0.5, 3)
        for t in range(frames):
            dy, dx = y - centre[0] - t * velocity[0], x - centre[1] - t * velocity[1]
            clip[t] += colour[:, None, None] * (np.exp(-(dy**2 + dx**2) / (2 * size**2)) > 0.5)
    return torch.from_numpy(np.clip(clip, 0, 1)).float()


def noise_clip(frames: int = 20, height: int = 18, width: int = 24, seed: int = 0) -> Tensor:
    """Return a clip of noise that is stronger to the right, (T, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(frames, 3, height, width, generator=generator) - 0.5
    return 0.5 + noise * torch.linspace(0.1, 1, width)


def zero_flow(first: np.ndarray, second: np.ndarray, method: str) -> np.ndarray:
    """Return an optical flow without motion, (2, h, w)."""
    return np.zeros((2, *first.shape[:2]), np.float32)
