"""Fourier-S's last step with random maps: by the kernel, by PyTorch and by the oracle, as frames and as pictures."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from stvsr.kernels import color, fourier_field, reference
from stvsr.kernels.color import Yuv420
from stvsr.training.networks.fourier_s import FourierS
from stvsr.training.networks.ops import target_coordinates

from .bench import Bench


class FieldScene:
    """Maps of `size`, and a target of `target` rows and columns; at integer factors both are rendered by phases."""

    def __init__(self, bench: Bench, size: tuple[int, int], target: tuple[int, int], batch: int = 1) -> None:
        self.bench, self.target = bench, target
        self.network = FourierS().eval().to(bench.device)
        self.integer = all(m % n == 0 for n, m in zip(size, target, strict=True))
        pixels = [(1, m // n) if self.integer else (n, m) for n, m in zip(size, target, strict=True)]
        self.y, self.x = (target_coordinates(n, m) for n, m in pixels)
        self.whole = [target_coordinates(n, m).numpy() for n, m in zip(size, target, strict=True)]
        terms = self.network.config.terms
        self.coefficients, self.base = bench.normal(batch, 2 * terms, *size), bench.uniform(batch, 3, *size)
        weights = self.network.field.frequency, self.network.field.colour, self.network.field.spread
        frequency, colour, spread = (weight.detach().cpu().double().numpy() for weight in weights)
        self.field = fourier_field.Field(frequency, colour, float(spread))
        y, x = self.y.numpy(), self.x.numpy()
        if self.integer:
            self._table = fourier_field.phase_table(self.field, y, x).to(bench.asarray)
        cells = ((at[-1] - at[0]) / (len(at) - 1) for at in self.whole)
        arrays = self.field.frequency, self.field.damped(*cells), y, x
        self._at = [bench.asarray(np.ascontiguousarray(array, np.float32)) for array in arrays]

    def kernel(self, dtype: str) -> Callable[..., Any]:
        """Return a function that renders the frame by the kernel; at integer factors it takes a `variant`."""
        maps = self._maps(dtype)
        if self.integer:
            return partial(self.bench.run, fourier_field.render_phases, *maps, self._table)
        return partial(self.bench.run, fourier_field.render_at, *maps, *self._at)

    def picture(self, dtype: str, coding: Yuv420) -> Callable[..., tuple[Any, ...]]:
        """Return a function that renders the planes of the picture by the kernel, which takes a variant as `kernel`."""
        maps = self._maps(dtype)

        def render(**options: Any) -> tuple[Any, ...]:
            if self.integer:
                arguments = self._table, self.target, coding
                return self.bench.run(fourier_field.picture_of_phases, *maps, *arguments, **options).planes
            return self.bench.run(fourier_field.picture_at, *maps, *self._at, coding, **options).planes

        return render

    def converted(self, dtype: str, coding: Yuv420) -> Callable[[], tuple[Any, ...]]:
        """Return a function that renders the frame and converts it to the planes of a picture, by two kernels."""
        kernel = self.kernel(dtype)
        return lambda: self.bench.run(color.from_rgb, kernel()[0], *coding)

    def _maps(self, dtype: str) -> list[Any]:
        return [self.bench.array(m.to(self.bench.dtype(dtype))) for m in (self.coefficients, self.base)]

    def eager(self, dtype: str) -> Callable[[], Any]:
        """Return a function that renders the frame in PyTorch, in the dtype."""
        network: Any = copy.deepcopy(self.network).to(self.bench.dtype(dtype))
        maps = [m.to(self.bench.dtype(dtype)) for m in (self.coefficients, self.base)]
        at = [m.to(self.bench.device, self.bench.dtype(dtype)) for m in (self.y, self.x)]
        decode = network.decode_integer if self.integer else network.decode

        def run() -> Any:
            with self.bench.torch.no_grad():
                return decode(*maps, *at)

        return run

    def oracle(self, dtype: str) -> np.ndarray:
        """Return the frame of maps that are rounded to a dtype, in float64."""
        coefficients, base = (self.bench.numpy(m).astype(dtype) for m in (self.coefficients, self.base))
        return reference.fourier_field(
            coefficients, base, self.field.frequency, self.field.colour, self.field.spread, *self.whole
        )
