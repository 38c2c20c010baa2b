"""The agreement of each network of official size with the official code: one entry of `AGREEMENTS` for each oracle."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stvsr.training.checkpoints import load_official
from stvsr.training.networks.base import Network
from stvsr.training.networks.ops import target_coordinates
from stvsr.training.networks.registry import find_network
from stvsr.training.networks.spynet import IMAGENET_MEAN, IMAGENET_STD
from torch import Tensor

from tests.support.oracle import Oracle, read_oracle
from tests.support.procedural import videoinr_weights

MEAN, STD = (torch.tensor(value).view(1, 1, 3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))


@dataclass(frozen=True)
class Agreement:
    """A comparison of one network's outputs with those of an oracle."""

    network: str  # name in the registry
    oracle: str
    compare: Callable[[Any, Oracle], list[tuple[Tensor, str]]]  # -> outputs, each with the oracle's name for it
    gain: float = 1.0  # of procedural weights
    offset_gain: float = 16.0
    bound: float = 1e-5  # on the difference
    changes: tuple[tuple[str, Any], ...] = ()  # to fields of the network's configuration
    weights: Callable[[Oracle], dict[str, Tensor]] = lambda oracle: oracle.weights

    def difference(self) -> float:
        """Return the largest difference over all outputs, relative to the range of the official output.

        Raises FileNotFoundError if the oracle is absent.
        """
        oracle = read_oracle(self.oracle, self.gain, self.offset_gain)
        entry = find_network(self.network)
        config = type(entry.config)(**{**vars(entry.config), **dict(self.changes)})
        network: Network = entry.build(config).eval()
        load_official(network, self.weights(oracle))
        with torch.no_grad():
            pairs = [(actual.numpy(), oracle.arrays[name]) for actual, name in self.compare(network, oracle)]
        return max(float(np.abs(actual - expected).max() / np.ptp(expected)) for actual, expected in pairs)


def _videoinr(network: Any, oracle: Oracle) -> list[tuple[Tensor, str]]:
    outputs = []
    for case, record in oracle.record["cases"].items():
        if not record["test"]:
            continue
        frames = oracle.tensor("in/x36" if case.startswith("x36") else "in/x")
        features = network.encode(frames)
        y, x = (target_coordinates(n, m) for n, m in zip(frames.shape[3:], record["out_shape"][2:], strict=True))
        for time in record["times"]:
            outputs.append((network.decode(*features, torch.tensor([time]), y, x), f"out/{case}/t{time:.6f}"))
    return outputs


def _rbpn(network: Any, oracle: Oracle) -> list[tuple[Tensor, str]]:
    others = oracle.tensor("in/neighbor")
    half = others.shape[1] // 2
    frames = torch.cat((others[:, :half], oracle.tensor("in/x")[:, None], others[:, half:]), 1)
    return [(network(frames, oracle.tensor("in/flow"))[:, 0], "out/y")]


def _dtsr(network: Any, oracle: Oracle) -> list[tuple[Tensor, str]]:
    return [(network(oracle.tensor("in/x").transpose(1, 2)).transpose(1, 2), "out/eval_resize")]


def _stinet(network: Any, oracle: Oracle) -> list[tuple[Tensor, str]]:
    inputs = oracle.tensor("in/x") * STD + MEAN, oracle.tensor("in/f_flow"), oracle.tensor("in/b_flow")
    low, early, final = ((output - MEAN) / STD for output in network.reconstructions(*inputs))
    high = torch.stack((early, final), 1)
    if subset := oracle.record.get("subset"):
        steps = subset["out/h_finalrec"]
        high = high[..., :: steps["row_step"], :: steps["column_step"]]
    return [(low, "out/l_rec"), (high, "out/h_finalrec")]


def _aliased(oracle: Oracle) -> dict[str, Tensor]:
    return oracle.weights | {alias: oracle.weights[name] for alias, name in oracle.record["aliases"].items()}


def _videoinr_weights(oracle: Oracle) -> dict[str, Tensor]:
    return videoinr_weights({key: tuple(entry["shape"]) for key, entry in oracle.record["keys"].items()})


def _sliding(network: Any, oracle: Oracle) -> list[tuple[Tensor, str]]:
    names = [name.removeprefix("in/") for name in oracle.arrays if name.startswith("in/")]
    return [(network(oracle.tensor(f"in/{name}"))[:, 0], f"out/{name}") for name in names]


AGREEMENTS = (
    Agreement("videoinr", "videoinr_full_procedural", _videoinr, bound=5e-4, weights=_videoinr_weights),
    Agreement("zsm", "zsm_full_procedural", lambda net, o: [(net(o.tensor("in/x4")), "out/x4")], 0.8),
    Agreement(
        "tmnet", "tmnet_full_procedural", lambda net, o: [(net(o.tensor("in/x3"), o.tensor("in/t")), "out/x3")], 0.8
    ),
    Agreement("stinet", "stinet_full_procedural", _stinet, 0.9, 12.0, weights=_aliased),
    Agreement("edvr-m", "edvr_m", _sliding),
    Agreement("edvr-l", "edvr_l_procedural", _sliding, 0.8, 12.0),
    Agreement("rbpn", "rbpn_full_procedural", _rbpn, 0.7),
    Agreement(
        "toflow",
        "tof_basicsr",
        lambda net, o: [(net(o.tensor("in/x"))[:, 0], "out/adapt_true")],
        changes=(("enlarge", 1),),
    ),
    Agreement("dtsr", "dtsr", _dtsr),
)
