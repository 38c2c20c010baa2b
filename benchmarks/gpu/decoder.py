"""VideoINR's decoder at its official widths, with random weights: by the kernels, by PyTorch and by the oracle."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from stvsr.kernels import reference, videoinr_decoder
from stvsr.training.networks.ops import target_coordinates
from stvsr.training.networks.videoinr import VideoINR, VideoINRConfig

from .bench import Bench


def decoder_state(network: Any) -> dict[str, np.ndarray]:
    """Return the weights of a network's decoder by name, float32."""
    return {
        name: value.detach().cpu().float().numpy() for name, value in network.state_dict().items() if "imnet" in name
    }


class KernelDecoder:
    """The decoder of a network by the kernels: `prepare` once per pair of frames, `decode` for each time."""

    def __init__(self, bench: Bench, network: Any, size: tuple[int, int], target: tuple[int, int], dtype: str) -> None:
        self.bench = bench
        official, factor = network.config.official_sampling, network.config.frame_upsample
        weights = videoinr_decoder.pack(
            decoder_state(network), np.dtype(dtype), official_sampling=official, frame_upsample=factor
        )
        self.weights = weights.to(bench.asarray)
        self.host_axes = [
            videoinr_decoder.target_axis(target_coordinates(n, m).numpy(), n, official)
            for n, m in zip(size, target, strict=True)
        ]
        self.axes = [axis.to(bench.asarray) for axis in self.host_axes]

    def prepare(self, features: Any) -> Any:
        """Prepare a pair of frames. features: (B, 3 * nf + 6, h, w), an array for the kernels."""
        return self.bench.run(videoinr_decoder.prepare, features, self.weights)

    def decode(self, encoded: Any, time: Any) -> Any:
        """Decode one frame per batch item. time: (B,) float32. Returns (B, 3, H, W)."""
        return self.bench.run(videoinr_decoder.decode, encoded, self.weights, time, *self.axes)

    def prepare_and_decode(self, features: Any, time: Any) -> Any:
        """Prepare a pair of frames and decode one frame per batch item."""
        return self.decode(self.prepare(features), time)


class Decoder:
    """A decoder and random features; its flows are about `flow_px` pixels long."""

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
        # The decoder has its official widths; the encoder is not used, so it is as small as possible.
        config = replace(VideoINRConfig(), front_blocks=1, back_blocks=1, official_sampling=official)
        self.network = VideoINR(config).eval()
        torch.nn.init.normal_(self.network.flow_imnet.net[-1].weight, std=0.1 * flow_px)
        self.network.to(bench.device)
        self.features = bench.normal(batch, 3 * config.nf + 6, *size)
        self.features[:, -6:] = bench.uniform(batch, 6, *size)
        self.time = torch.linspace(0.2, 0.9, batch, device=bench.device)
        self.y, self.x = (target_coordinates(n, m).to(bench.device) for n, m in zip(size, target, strict=True))

    def kernels(self, dtype: str) -> KernelDecoder:
        """Return the decoder by the kernels."""
        return KernelDecoder(self.bench, self.network, self.size, self.target, dtype)

    def eager(self, dtype: str) -> Callable[[], Any]:
        """Return a function that decodes by PyTorch, with weights and features of this dtype, to (B, 3, H, W)."""
        kind = self.bench.dtype(dtype)
        network, features = copy.deepcopy(self.network).to(kind), self.features.to(kind)

        def decode() -> Any:
            with self.bench.torch.no_grad():
                return network.decode(features, self.time, self.y, self.x)

        return decode

    def oracle(self, dtype: type, rounded: type) -> np.ndarray:
        """Decode by the oracle in steps of `dtype`, from weights and features rounded to `rounded` before."""
        state, config = decoder_state(self.network), self.network.config
        return reference.videoinr_decode(
            {name: value.astype(rounded) for name, value in state.items()},
            self.features.cpu().numpy().astype(rounded),
            self.time.cpu().numpy(),
            *self.kernels("float32").host_axes,
            official_sampling=config.official_sampling,
            frame_upsample=config.frame_upsample,
            dtype=dtype,
        )
