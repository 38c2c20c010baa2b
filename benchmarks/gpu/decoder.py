"""VideoINR's decoder at its official widths, with random weights: by the kernels, by PyTorch and by the oracle."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from stvsr.kernels import reference
from stvsr.kernels import videoinr_decoder as implicit
from stvsr.training.networks.ops import target_coordinates
from stvsr.training.networks.videoinr import VideoINR, VideoINRConfig

from .bench import Bench


def decoder_state(network: Any) -> dict[str, np.ndarray]:
    """Return the weights of a network's decoder by name."""
    return {
        name: value.detach().cpu().float().numpy() for name, value in network.state_dict().items() if "imnet" in name
    }


class KernelDecoder:
    """The kernels' decoder of one network: `prepare` once for a pair of frames, `decode` for each time."""

    def __init__(self, bench: Bench, network: Any, size: tuple[int, int], target: tuple[int, int], dtype: str) -> None:
        self.bench = bench
        official, factor = network.config.official_sampling, network.config.frame_upsample
        state = decoder_state(network)
        weights = implicit.pack(state, np.dtype(dtype), official_sampling=official, frame_upsample=factor)
        self.weights = weights.on(bench.asarray)
        places = [target_coordinates(n, m).numpy() for n, m in zip(size, target, strict=True)]
        self.host_axes = [implicit.target_axis(place, n, official) for place, n in zip(places, size, strict=True)]
        self.axes = [axis.on(bench.asarray) for axis in self.host_axes]

    def prepare(self, features: Any) -> Any:
        """What depends on the pair alone. features: (B, 3 * nf + 6, h, w) of the kernels' arrays."""
        return self.bench.run(implicit.prepare, features, self.weights)

    def decode(self, encoded: Any, time: Any) -> Any:
        """(B,) float32 -> (B, 3, H, W)."""
        return self.bench.run(implicit.decode, encoded, self.weights, time, *self.axes)


class Decoder:
    """A decoder and features to decode; its flows are of `flow_px` pixels or so."""

    def __init__(
        self,
        bench: Bench,
        size: tuple[int, int],
        target: tuple[int, int],
        *,
        official: bool = True,
        flow_px: float = 1.0,
        batch: int = 1,
    ) -> None:
        torch = bench.torch
        torch.manual_seed(0)
        self.bench, self.size, self.target = bench, size, target
        # The decoder's widths are official; what encodes is not wanted here.
        config = replace(VideoINRConfig(), front_blocks=1, back_blocks=1, official_sampling=official)
        self.network = VideoINR(config).eval()
        torch.nn.init.normal_(self.network.flow_imnet.net[-1].weight, std=0.1 * flow_px)
        self.network.to(bench.device)
        self.features = bench.normal(batch, 3 * config.nf + 6, *size)
        self.features[:, -6:] = bench.uniform(batch, 6, *size)
        self.time = torch.linspace(0.2, 0.9, batch, device=bench.device)
        self.y, self.x = (target_coordinates(n, m).to(bench.device) for n, m in zip(size, target, strict=True))

    def kernels(self, dtype: str) -> KernelDecoder:
        """Return the kernels' decoder."""
        return KernelDecoder(self.bench, self.network, self.size, self.target, dtype)

    def eager(self, dtype: str) -> Callable[[], Any]:
        """Return what decodes by PyTorch, weights and features in this precision. -> (B, 3, H, W)"""
        kind = self.bench.dtype(dtype)
        network, features = copy.deepcopy(self.network).to(kind), self.features.to(kind)

        def decode() -> Any:
            with self.bench.torch.no_grad():
                return network.decode(features, self.time, self.y, self.x)

        return decode

    def oracle(self, dtype: type, rounded: type) -> np.ndarray:
        """The oracle's answer in steps of `dtype`, to weights and features that are rounded before."""
        state, config = decoder_state(self.network), self.network.config
        return reference.implicit_decode(
            {name: value.astype(rounded) for name, value in state.items()},
            self.features.cpu().numpy().astype(rounded),
            self.time.cpu().numpy(),
            *self.kernels("float32").host_axes,
            official_sampling=config.official_sampling,
            frame_upsample=config.frame_upsample,
            dtype=dtype,
        )
