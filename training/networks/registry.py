"""The list of networks: name, class and configuration. A new network is one file and one line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .adavsr import ADAVSR_SPATIAL, ADAVSR_SPATIAL_S, ADAVSR_TEMPORAL, ADAVSR_TEMPORAL_S, SpatialModule, TemporalModule
from .base import Network
from .dtsr import DTSR, DTSR_S, DeepTemporalSR
from .edvr import EDVR, EDVR_L, EDVR_M, EDVR_S
from .rbpn import RBPN, RBPN_S, RBPNConfig
from .stinet import STINET_S, STINet, STINetConfig
from .tmnet import TMNET_S, TMNet, TMNetConfig
from .toflow import TOFLOW, TOFLOW_S, TOFlow
from .videoinr import VideoINR, VideoINRConfig
from .videoinr_s import VideoINRS, VideoINRSConfig
from .zsm import ZSM_S, ZoomingSlowMo, ZoomingSlowMoConfig


@dataclass(frozen=True)
class NetworkEntry:
    """How a network of the list is made, and where it comes from."""

    name: str
    build: Callable[[Any], Network]
    config: Any  # the frozen dataclass that ``build`` takes
    source: str
    published: str = ""  # official figures, with their source
    licence: str = "that of the checkpoint"  # of the weights


_OURS = "Apache-2.0"
_ZSM = "Xiang et al., Zooming Slow-Mo, CVPR 2020"
_TMNET = "Xu et al., TMNet, CVPR 2021"
_STINET = "Yue and Shi, STINet, 2022"
_EDVR = "Wang et al., EDVR, 2019"
_RBPN = "Haris et al., RBPN, CVPR 2019"
_TOFLOW = "Xue et al., TOFlow, 2019"
_DTSR = "Zuckerman et al., Across Scales & Across Dimensions, ECCV 2020"
_ADAVSR = "Gupta et al., Ada-VSR, ACM MM 2021"
_ADAPTED = "Yoo and Kim 2021"  # on self-supervised adaptation, with the public weights of other networks

NETWORKS = (
    NetworkEntry("videoinr-s", VideoINRS, VideoINRSConfig(), "this project, after VideoINR", licence=_OURS),
    NetworkEntry(
        "videoinr",
        VideoINR,
        VideoINRConfig(),
        "Chen et al., VideoINR, CVPR 2022",
        "Vid4 25.61 / 0.7709 (Chen et al. 2022, table 1)",
    ),
    NetworkEntry("zsm-s", ZoomingSlowMo, ZSM_S, _ZSM, licence=_OURS),
    NetworkEntry("zsm", ZoomingSlowMo, ZoomingSlowMoConfig(), _ZSM, "Vid4 26.31 / 0.7976 (Yue and Shi 2022, table I)"),
    NetworkEntry("tmnet-s", TMNet, TMNET_S, _TMNET, licence=_OURS),
    NetworkEntry("tmnet", TMNet, TMNetConfig(), _TMNET, "Vid4 26.43 / 0.8016 (Yue and Shi 2022, table I)"),
    NetworkEntry("stinet-s", STINet, STINET_S, _STINET, licence=_OURS),
    NetworkEntry("stinet", STINet, STINetConfig(), _STINET, "Vid4 26.79 / 0.8049 (Yue and Shi 2022, table I)"),
    NetworkEntry("edvr-s", EDVR, EDVR_S, _EDVR, licence=_OURS),
    NetworkEntry("edvr-m", EDVR, EDVR_M, _EDVR, f"Vid4 26.79 / 0.8087 ({_ADAPTED}, table 3)"),
    NetworkEntry("edvr-l", EDVR, EDVR_L, _EDVR, f"Vid4 27.35 / 0.8264, of 7 frames ({_ADAPTED}, table 1)"),
    NetworkEntry("rbpn-s", RBPN, RBPN_S, _RBPN, licence=_OURS),
    NetworkEntry("rbpn", RBPN, RBPNConfig(), _RBPN, f"Vid4 27.15 / 0.8208 ({_ADAPTED}, table 1)"),
    NetworkEntry("toflow-s", TOFlow, TOFLOW_S, _TOFLOW, licence=_OURS),
    NetworkEntry("toflow", TOFlow, TOFLOW, _TOFLOW, f"Vid4 25.86 / 0.7625 ({_ADAPTED}, table 1)"),
    NetworkEntry("dtsr-s", DeepTemporalSR, DTSR_S, _DTSR, licence=_OURS),
    NetworkEntry(
        "dtsr",
        DeepTemporalSR,
        DTSR,
        _DTSR,
        "28.27 / 0.913, RGB, x8 in time, its own clips (Zuckerman et al. 2020, table 1)",
    ),
    NetworkEntry("adavsr-temporal-s", TemporalModule, ADAVSR_TEMPORAL_S, _ADAVSR, licence=_OURS),
    NetworkEntry("adavsr-spatial-s", SpatialModule, ADAVSR_SPATIAL_S, _ADAVSR, licence=_OURS),
    NetworkEntry(
        "adavsr-temporal",
        TemporalModule,
        ADAVSR_TEMPORAL,
        _ADAVSR,
        "Vid4 26.98 / 0.84 of both (Gupta et al. 2021, table 2)",
    ),
    NetworkEntry(
        "adavsr-spatial",
        SpatialModule,
        ADAVSR_SPATIAL,
        _ADAVSR,
        "Vid4 26.98 / 0.84 of both (Gupta et al. 2021, table 2)",
    ),
)


def find_network(name: str) -> NetworkEntry:
    """The entry of that name; raises ``KeyError`` with a sentence that lists the names there are."""
    for entry in NETWORKS:
        if entry.name == name:
            return entry
    raise KeyError(f"unknown network {name!r}; there are {', '.join(e.name for e in NETWORKS)}")


def configured(entry: NetworkEntry, changes: Mapping[str, str]) -> NetworkEntry:
    """The entry with other values in its configuration, written as text.

    Raises ``ValueError`` for a field that there is not, or a value that is none of its kind.
    """
    return replace(entry, config=with_changes(entry.config, changes, entry.name))


def with_changes(config: Any, changes: Mapping[str, str], what: str) -> Any:
    """A dataclass with other values, written as text; ``what`` names it in errors, which are `configured`'s."""
    values = {}
    for name, text in changes.items():
        known = [field.name for field in fields(config)]
        if name not in known:
            raise ValueError(f"{what} has no '{name}' in its configuration; it has {', '.join(known)}")
        kind = type(getattr(config, name))
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise ValueError(f"'{text}' is no value for '{name}' of {what}, which is a {kind.__name__}") from None
    return replace(config, **values)
