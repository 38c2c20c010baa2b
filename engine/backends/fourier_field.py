"""The session of Fourier-S's decoders that runs its own kernel instead of a graph.

As graphs the decoders write several maps of the target's size before the frame; the kernel writes the frame alone, or
nothing but the picture that is made of it.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import numpy as np

from ...kernels import fourier_field
from ...kernels.color import Yuv420
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from ..contract.errors import BackendError
from ..contract.manifest import Role
from ..contract.weights import read_weights
from .cuda import CudaDevice
from .device import Array, Device, Rendering

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
        maps, y, x = self._inputs(inputs)
        if self._integer:
            return {"frame": fourier_field.render_phases(*maps, self._table(self._field, y, x))}
        return {"frame": fourier_field.render_at(*maps, *self._at(self._field, y, x))}

    def renderings(self, inputs: Mapping[str, Array], size: tuple[int, int]) -> tuple[Rendering, ...]:
        """Return the frames of each pair, of `size` (H, W), for pictures: one kernel launch renders a picture.

        `inputs` are those of the graph; positions are those of whole frames, which begin with the maps' first row and
        column. What pads the input is left out.
        """
        if self._field is None:
            raise BackendError("The session is closed: open another.")
        (coefficients, base), y, x = self._inputs(inputs)
        table = None
        if self._integer:
            table = self._table(self._field, y, x)
            # Chroma samples of odd factors have target pixels of several input pixels, which `at` renders.
            y, x = (
                ((np.arange(pixels) + 0.5) / len(at) - 0.5).astype(np.float32)
                for pixels, at in zip(size, (y, x), strict=True)
            )
        at = self._at(self._field, y, x)
        maps = [(coefficients[i : i + 1], base[i : i + 1]) for i in range(len(base))]
        return tuple(Rendering(partial(_render, *of_pair, table, at, size)) for of_pair in maps)

    def close(self) -> None:
        """Free the weights. A second call does nothing."""
        self._field = None
        self._tables.clear()

    def _inputs(self, inputs: Mapping[str, Array]) -> tuple[tuple[Array, Array], np.ndarray, np.ndarray]:
        """Return the coefficients and the base, the rows, and the columns."""
        coefficients, base = (self._device.array(inputs[name], "float32") for name in ("coefficients", "base"))
        return (coefficients, base), np.asarray(inputs["y"], np.float32), np.asarray(inputs["x"], np.float32)

    def _at(self, field: fourier_field.Field, y: np.ndarray, x: np.ndarray) -> tuple[Array, Array, Array, Array]:
        """Return the arguments of `render_at` after the maps."""
        cells = ((at[-1] - at[0]) / max(len(at) - 1, 1) for at in (y, x))

        def constant(array: np.ndarray) -> Array:
            return self._device.constant(np.ascontiguousarray(array, np.float32))

        return constant(field.frequency), constant(field.damped(*cells)), constant(y), constant(x)

    def _table(self, field: fourier_field.Field, y: np.ndarray, x: np.ndarray) -> fourier_field.PhaseTable:
        key = y.tobytes() + b"," + x.tobytes()
        if key not in self._tables:
            self._tables[key] = fourier_field.phase_table(field, y, x).to(self._device.constant)
        return self._tables[key]


def _render(
    coefficients: Array,
    base: Array,
    table: fourier_field.PhaseTable | None,
    at: tuple[Array, Array, Array, Array],
    size: tuple[int, int],
    coding: Yuv420 | None,
) -> tuple[Array, tuple[Array, ...]]:
    """Render a picture; see `Rendering`."""
    picture: fourier_field.Picture
    if table is not None and (coding is None or not any(factor % 2 for factor in table.factors)):
        picture = fourier_field.picture_of_phases(coefficients, base, table, size, coding)
    else:
        picture = fourier_field.picture_at(coefficients, base, *at, coding)
    return picture.finite, tuple(plane[0] for plane in picture.planes)
