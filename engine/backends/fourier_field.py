"""The session of Fourier-S's decoders that runs its own kernel instead of a graph.

As graphs the decoders write several maps of the target's size before the frame; the kernel writes the frame alone.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from ...kernels import fourier_field
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from ..contract.errors import BackendError
from ..contract.manifest import Role
from ..contract.weights import read_weights
from .cuda import CudaDevice
from .device import Array, Device

ARCHITECTURE = "fourier-s"


class FourierFieldSession(Closing):
    """A decoder of a Fourier-S bundle on a GPU, with the inputs and outputs of its graph.

    `weights` replace those of the graph, by name.
    """

    def __init__(
        self,
        bundle: Bundle,
        role: Role,
        device: CudaDevice,
        weights: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> None:
        graph = bundle.graph(role)
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.device: Device = device
        self._device, self._integer = device, role == "integer_decoder"
        stored = {**read_weights(bundle.path(role).read_bytes()), **weights}
        frequency, colour = (stored[f"field.{name}"].astype(np.float64) for name in ("frequency", "colour"))
        self._field: fourier_field.Field | None = fourier_field.Field(frequency, colour, float(stored["field.spread"]))
        self._tables: dict[bytes, fourier_field.PhaseTable] = {}  # by the phases of an input pixel

    def run(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Render one frame in one kernel launch, on the current stream.

        Returns {"frame": (B, 3, H, W) float32}. `keep` changes nothing.
        """
        if self._field is None:
            raise BackendError("The session is closed: open another.")
        coefficients, base = (self._device.array(inputs[name], "float32") for name in ("coefficients", "base"))
        y, x = (np.asarray(inputs[name], np.float32) for name in ("y", "x"))
        if self._integer:
            return {"frame": fourier_field.render_phases(coefficients, base, self._table(self._field, y, x))}
        cells = ((at[-1] - at[0]) / max(len(at) - 1, 1) for at in (y, x))
        arrays = self._field.frequency, self._field.damped(*cells), y, x
        constants = (self._device.constant(np.ascontiguousarray(array, np.float32)) for array in arrays)
        return {"frame": fourier_field.render_at(coefficients, base, *constants)}

    def close(self) -> None:
        """Free the weights. A second call does nothing."""
        self._field = None
        self._tables.clear()

    def _table(self, field: fourier_field.Field, y: np.ndarray, x: np.ndarray) -> fourier_field.PhaseTable:
        key = y.tobytes() + b"," + x.tobytes()
        if key not in self._tables:
            self._tables[key] = fourier_field.phase_table(field, y, x).to(self._device.constant)
        return self._tables[key]
