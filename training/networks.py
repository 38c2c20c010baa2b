"""The list of networks: name, class and configuration. A new network is one file and one line here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from .videoinr import VideoINR, VideoINRConfig
from .videoinr_s import VideoINRS, VideoINRSConfig


@dataclass(frozen=True)
class NetworkEntry:
    """How a network of the list is made, and what a bundle of it can do."""

    name: str
    build: Callable[[Any], nn.Module]
    config: Any  # the frozen dataclass that ``build`` takes
    scales: tuple[float, float]  # smallest and largest spatial scale
    halo_px: int | None  # input pixels around a tile that its centre depends on; None: cannot be tiled
    source: str
    licence: str  # of the weights, unless an export says otherwise


NETWORKS = (
    NetworkEntry(
        "videoinr-s",
        VideoINRS,
        VideoINRSConfig(),
        (1.0, 8.0),
        64,
        "this project, after Chen et al., CVPR 2022",
        "Apache-2.0",
    ),
    NetworkEntry(
        "videoinr",
        VideoINR,
        VideoINRConfig(),
        (1.0, 8.0),
        None,
        "Chen et al., VideoINR, CVPR 2022",
        "that of the checkpoint",
    ),
)


def find_network(name: str) -> NetworkEntry:
    """The entry of that name; raises ``KeyError`` with a sentence that lists the names there are."""
    for entry in NETWORKS:
        if entry.name == name:
            return entry
    raise KeyError(f"unknown network {name!r}; there are {', '.join(e.name for e in NETWORKS)}")
