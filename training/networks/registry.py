"""The list of networks: name, class, configuration and origin of each. A new network adds one entry here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ...engine.contract.errors import RequestError
from .adavsr import ADAVSR_SPATIAL, ADAVSR_SPATIAL_S, ADAVSR_TEMPORAL, ADAVSR_TEMPORAL_S, SpatialModule, TemporalModule
from .base import Network
from .dtsr import DTSR, DTSR_S, DeepTemporalSR
from .edvr import EDVR, EDVR_L, EDVR_M, EDVR_S
from .fourier_s import FourierS, FourierSConfig
from .rbpn import RBPN, RBPN_S, RBPNConfig
from .rife import RIFE, RIFE_4, RIFE_S
from .stinet import STINET_S, STINet, STINetConfig
from .tmnet import TMNET_S, TMNet, TMNetConfig
from .toflow import TOFLOW, TOFLOW_S, TOFlow
from .videoinr import VideoINR, VideoINRConfig
from .videoinr_s import VideoINRS, VideoINRSConfig
from .zsm import ZSM_S, ZoomingSlowMo, ZoomingSlowMoConfig


@dataclass(frozen=True)
class NetworkEntry:
    """A network of the list: how to build it and where it comes from."""

    name: str  # on the command line and in manifests
    build: Callable[[Any], Network]  # from `config`
    config: Any  # the frozen dataclass that configures the network
    source: str  # the publication
    published: str = ""  # PSNR (dB) / SSIM of the official weights, with the source of the figures
    licence: str = "that of the checkpoint"  # of the weights


_OURS = "Apache-2.0"
_ZSM = "Xiang et al., Zooming Slow-Mo, CVPR 2020"
_TMNET = "Xu et al., TMNet, CVPR 2021"
_STINET = "Yue and Shi, STINet, 2022"
_EDVR = "Wang et al., EDVR, 2019"
_RBPN = "Haris et al., RBPN, CVPR 2019"
_TOFLOW = "Xue et al., TOFlow, 2019"
_RIFE = "Huang et al., RIFE, ECCV 2022"
_DTSR = "Zuckerman et al., Across Scales & Across Dimensions, ECCV 2020"
_ADAVSR = "Gupta et al., Ada-VSR, ACM MM 2021"
_YOO_KIM = "Yoo and Kim 2021"  # tables of public weights, in their paper on self-supervised adaptation

NETWORKS = (
    NetworkEntry("fourier-s", FourierS, FourierSConfig(), "this project", licence=_OURS),
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
    NetworkEntry("edvr-m", EDVR, EDVR_M, _EDVR, f"Vid4 26.79 / 0.8087 ({_YOO_KIM}, table 3)"),
    NetworkEntry("edvr-l", EDVR, EDVR_L, _EDVR, f"Vid4 27.35 / 0.8264, of 7 frames ({_YOO_KIM}, table 1)"),
    NetworkEntry("rbpn-s", RBPN, RBPN_S, _RBPN, licence=_OURS),
    NetworkEntry("rbpn", RBPN, RBPNConfig(), _RBPN, f"Vid4 27.15 / 0.8208 ({_YOO_KIM}, table 1)"),
    NetworkEntry("toflow-s", TOFlow, TOFLOW_S, _TOFLOW, licence=_OURS),
    NetworkEntry("toflow", TOFlow, TOFLOW, _TOFLOW, f"Vid4 25.86 / 0.7625 ({_YOO_KIM}, table 1)"),
    NetworkEntry("rife-s", RIFE, RIFE_S, _RIFE, licence=_OURS),
    NetworkEntry("rife", RIFE, RIFE_4, _RIFE),
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
    """Return the entry of a network by its name. Raises RequestError, with the known names, if there is none."""
    for entry in NETWORKS:
        if entry.name == name:
            return entry
    raise RequestError(f"There is no network '{name}': choose one of {', '.join(e.name for e in NETWORKS)}.")


def configured(entry: NetworkEntry, changes: Mapping[str, str]) -> NetworkEntry:
    """Return an entry with some fields of its configuration replaced.

    `changes` maps field names to new values as text. Raises RequestError for an unknown field, or for text that does
    not convert to the field's type.
    """
    return replace(entry, config=with_changes(entry.config, changes, entry.name))


def with_changes(config: Any, changes: Mapping[str, str], owner: str) -> Any:
    """Return a dataclass with some fields replaced by values given as text.

    `owner` names the dataclass in errors. Raises RequestError as `configured` does.
    """
    values = {}
    for name, text in changes.items():
        known = [field.name for field in fields(config)]
        if name not in known:
            raise RequestError(f"The configuration of {owner} has no field '{name}': choose among {', '.join(known)}.")
        kind = type(getattr(config, name))
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            kinds = {bool: "true or false", int: "a whole number", float: "a number"}
            raise RequestError(
                f"'{text}' is not a value for the field '{name}' of {owner}: write {kinds.get(kind, kind.__name__)}."
            ) from None
    return replace(config, **values)
