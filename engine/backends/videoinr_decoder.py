"""VideoINR's decoder by kernels of its own: it is weakest as a graph, which holds every layer at the target's size."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from ...kernels import videoinr_decoder as implicit
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from ..contract.errors import BackendError
from ..contract.manifest import Precision
from ..contract.weights import read_weights
from .cuda import Gpu
from .device import Array

ARCHITECTURE = "videoinr"


class ImplicitSession(Closing):
    """The decoder of a bundle of VideoINR on a GPU; takes and gives what its graph does.

    `weights` take the place of the graph's, by their names.
    """

    def __init__(
        self,
        bundle: Bundle,
        gpu: Gpu,
        precision: Precision = "fp32",
        weights: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> None:
        graph, config = bundle.graph("decoder"), bundle.manifest.architecture.config
        self.inputs, self.outputs, self.device = graph.inputs, graph.outputs, gpu.device
        self._gpu, self._dtype = gpu, np.dtype(np.float32 if precision == "fp32" else np.float16)
        packed = implicit.pack(
            {**read_weights(bundle.path("decoder").read_bytes()), **weights},
            self._dtype,
            official_sampling=config["official_sampling"],
            frame_upsample=config["frame_upsample"],
        )
        self._weights: implicit.DecoderWeights | None = packed.on(gpu.constant)
        self._prepared: dict[int, tuple[Array, implicit.Prepared]] = {}  # of each lane the last one, by its stream

    def run(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Decode one frame of each pair in three launches, on the current stream."""
        if self._weights is None:
            raise BackendError("The session is closed: open another.")
        features = inputs["features"]
        encoded = self._encoded(features)
        height, width = features.shape[2:]
        official = self._weights.official_sampling
        rows, columns = (
            implicit.target_axis(np.asarray(inputs[name]), size, official).on(self._gpu.constant)
            for name, size in (("y", height), ("x", width))
        )
        time = self._gpu.array(inputs["time"], "float32")
        frame = implicit.decode(encoded, self._weights, time, rows, columns)
        return {"frame": frame if frame.dtype == np.float32 else frame.astype(np.float32)}

    def close(self) -> None:
        """Free what is held; a second call does nothing."""
        self._weights = None
        self._prepared.clear()

    def _encoded(self, features: Any) -> implicit.Prepared:
        assert self._weights is not None
        lane = self._gpu.current()
        held = self._prepared.get(lane)
        if held is None or held[0] is not features:
            prepared = implicit.prepare(features.astype(self._dtype, copy=False), self._weights)
            held = self._prepared[lane] = features, prepared
        return held[1]
