"""The session of VideoINR's decoder that runs its own kernels instead of an engine.

As a graph the decoder is slow: it stores the output of every layer at the target's size.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from ...kernels import videoinr_decoder as decoder
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from ..contract.errors import BackendError
from ..contract.manifest import Precision
from ..contract.weights import read_weights
from .cuda import CudaDevice
from .device import Array, Device

ARCHITECTURE = "videoinr"


class VideoInrDecoderSession(Closing):
    """The decoder of a VideoINR bundle on a GPU, with the inputs and outputs of its graph.

    `weights` replace those of the graph, by name. Features and weights are float16 if `precision` is "fp16"; frames are
    float32.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: CudaDevice,
        precision: Precision = "fp32",
        weights: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> None:
        graph, config = bundle.graph("decoder"), bundle.manifest.architecture.config
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.device: Device = device
        self._device, self._dtype = device, np.dtype(np.float16 if precision == "fp16" else np.float32)
        packed = decoder.pack(
            {**read_weights(bundle.path("decoder").read_bytes()), **weights},
            self._dtype,
            official_sampling=config["official_sampling"],
            frame_upsample=config["frame_upsample"],
        )
        self._weights: decoder.DecoderWeights | None = packed.to(device.constant)
        # By stream, the last features and what was prepared from them: they are decoded at several times.
        self._prepared: dict[int, tuple[Array, decoder.Prepared]] = {}

    def run(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Decode one frame of each pair in three kernel launches, on the current stream.

        Returns {"frame": (B, 3, H, W) float32}. `keep` changes nothing.
        """
        if self._weights is None:
            raise BackendError("The session is closed: open another.")
        features = inputs["features"]
        prepared = self._prepare(features, self._weights)
        height, width = features.shape[2:]
        rows, columns = (
            decoder.target_axis(np.asarray(inputs[name]), size, self._weights.official_sampling).to(
                self._device.constant
            )
            for name, size in (("y", height), ("x", width))
        )
        time = self._device.array(inputs["time"], "float32")
        frame = decoder.decode(prepared, self._weights, time, rows, columns)
        return {"frame": frame.astype(np.float32, copy=False)}

    def close(self) -> None:
        """Free the weights and the prepared features. A second call does nothing."""
        self._weights = None
        self._prepared.clear()

    def _prepare(self, features: Any, weights: decoder.DecoderWeights) -> decoder.Prepared:
        stream = self._device.current_stream()
        cached = self._prepared.get(stream)
        if cached is None or cached[0] is not features:
            prepared = decoder.prepare(features.astype(self._dtype, copy=False), weights)
            cached = self._prepared[stream] = features, prepared
        return cached[1]
