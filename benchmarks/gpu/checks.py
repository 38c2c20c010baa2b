"""Kernels against their oracles, on shapes that are neither square nor multiples of a block.

The scenes are those of the tests. New arrays begin as NaN, so that what a kernel leaves unwritten shows.
"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
from stvsr.kernels import color, reference
from stvsr.kernels import launcher as module
from stvsr.kernels.deform_conv import DeformConv
from stvsr.kernels.warp import warp

from .bench import Bench
from .decoder import Decoder
from .summary import compared

DTYPES = (np.float32, np.float16)
_FLOAT32, _DECODER = 1e-5, 1e-4  # allowed, of the range; sines of far flows make much of float32's rounding
# Bits of a code, and by how many it is shifted in its sample.
_PIX_FMTS = {"yuv420p": (8, 0), "nv12": (8, 0), "yuv420p10le": (10, 0), "p010le": (10, 6)}
_CODE = 0.5 + 1e-3  # allowed, of a code of 8 or 10 bits


def poisoned() -> AbstractContextManager[Any]:
    """Let every array that a kernel's host code makes begin as NaN."""
    empty = module.empty

    def make(like: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
        array = empty(like, shape, dtype)
        array.reshape(-1).view(np.uint8)[...] = 0xFF
        return array

    return patch.object(module, "empty", make)


def _rounded(truth: np.ndarray, dtype: type) -> np.ndarray | None:
    """What a plain implementation in half precision gives that rounds but once."""
    return truth.astype(dtype) if dtype == np.float16 else None


class Checks:
    """The checks of every kernel by its name: `Checks(bench).warp()`."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.some = 1 if bench.dry_run else None  # of a list of cases

    def _run(self, function: Callable[..., Any], *arrays: np.ndarray, **options: Any) -> Any:
        """Run with NumPy arrays; NumPy's return."""
        there = [self.bench.asarray(array) for array in arrays]
        if self.bench.dry_run:
            out = self.bench.run(function, *there, **options)
        else:
            with poisoned():
                out = function(*there, **options)
        return tuple(map(self.bench.numpy, out)) if isinstance(out, tuple) else self.bench.numpy(out)

    def _check(self, kernel: str, dtype: Any, case: str, call: Callable[[], dict[str, Any]]) -> None:
        self.bench.check("kernels", f"{kernel} {np.dtype(dtype)}, {case}", call)

    def deform_conv(self) -> None:
        """Shapes and groups that no network has, against the oracle."""
        from test_deform_conv import OTHERS, plain_half, scene, truth_of

        cases = {**OTHERS, "64 channels, 8 groups": ((37, 23), DeformConv(64, 64, padding=(1, 1), offset_groups=8))}

        def check(size: tuple[int, int], conv: DeformConv, dtype: type) -> dict[str, Any]:
            x, offset, mask, weight, bias = scene(conv, size)
            x, weight, bias = (array.astype(dtype) for array in (x, weight, bias))
            inputs = (x, offset, mask, weight, bias)
            out = self._run(lambda x, o, m, w, b: conv(x, o, m, conv.pack(w), b), *inputs)
            plain = plain_half(conv, *inputs) if dtype == np.float16 else None
            return compared(out, truth_of(conv, *inputs), _FLOAT32, plain=plain)

        for name, (size, conv) in list(cases.items())[: self.some]:
            for dtype in DTYPES:
                self._check("deform_conv", dtype, name, partial(check, size, conv, dtype))

    def warp(self) -> None:
        """Both layouts, borders and corner conventions, one flow and two."""
        from test_warp import GRID_LIMIT, from_layout, scene, to_layout

        def check(layout: Any, border: Any, corners: bool, channels: int, count: int, dtype: type) -> dict[str, Any]:
            features, flows = scene(channels=channels, size=(7, 45), out=(11, 35), count=count)
            features = features.astype(dtype)
            options = {"border": border, "align_corners": corners, "grid_limit": None if corners else GRID_LIMIT}
            arrays = (to_layout(features, layout), to_layout(flows, layout))
            out = from_layout(self._run(warp, *arrays, layout=layout, **options), layout)
            truth = reference.warp(features, flows, **options)
            return compared(out, truth, _FLOAT32, plain=_rounded(truth, dtype))

        cases = [
            (layout, border, corners, channels, count)
            for layout in ("nchw", "nhwc")
            for border, corners, channels, count in (("zeros", False, 64, 2), ("clamp", True, 37, 1))
        ]
        for case in cases[: self.some]:
            for dtype in DTYPES:
                name = "{}, {}, corners {}, {} channels, {} flows".format(*case)
                self._check("warp", dtype, name, partial(check, *case, dtype))

    def implicit(self) -> None:
        """VideoINR's decoder, official and corrected, near and far flows."""

        def check(options: dict[str, Any], dtype: str) -> dict[str, Any]:
            made, half = Decoder(self.bench, (5, 7), (20, 28), batch=2, **options), dtype == "float16"
            kernels, features = made.kernels(dtype), made.features.to(self.bench.dtype(dtype))
            with contextlib.nullcontext() if self.bench.dry_run else poisoned():
                encoded = kernels.prepare(self.bench.array(features))
                out = self.bench.numpy(kernels.decode(encoded, self.bench.array(made.time)))
            truth = made.oracle(np.float64, np.float16 if half else np.float32)
            return compared(out, truth, _DECODER, plain=made.oracle(np.float16, np.float16) if half else None)

        cases = {"official": {}, "corrected": {"official": False}, "far flows": {"flow_px": 40.0}}
        for name, options in list(cases.items())[: self.some]:
            for dtype in ("float32", "float16"):
                self._check("implicit", dtype, name, partial(check, options, dtype))

    def color(self) -> None:
        """Every pixel format there and back, odd sizes, against the oracle's codes."""

        def check(pix_fmt: str, full: bool, dtype: type) -> dict[str, Any]:
            (bits, shift), weights, size = _PIX_FMTS[pix_fmt], (0.2126, 0.0722), (13, 67)
            rgb = np.random.default_rng(6).uniform(-0.3, 1.3, (3, *size)).astype(dtype)
            planes = self._run(lambda rgb: color.from_rgb(rgb, pix_fmt, weights, full), rgb)
            codes = [plane >> shift for plane in planes]
            if len(codes) == 2:
                codes = [codes[0], codes[1][:, 0::2], codes[1][:, 1::2]]
            exact = reference.rgb_to_yuv420(rgb, weights, full, bits)
            off = max(float(np.abs(code - other).max()) for code, other in zip(codes, exact, strict=True))
            if not off <= _CODE:
                return {"passed": False, "error": f"codes are off by {off:.3f}"}
            made = self._run(lambda *planes: color.to_rgb(planes, pix_fmt, size, weights, full, dtype), *planes)
            truth = reference.yuv420_to_rgb(codes, weights, full, bits)
            return compared(made, truth, _FLOAT32, plain=_rounded(truth, dtype))

        for pix_fmt in list(_PIX_FMTS)[: self.some]:
            for dtype in DTYPES:
                for full in (False, True):
                    name = f"{pix_fmt}, {'full' if full else 'limited'} range"
                    self._check("color", dtype, name, partial(check, pix_fmt, full, dtype))

    def blend(self) -> None:
        """Tiles that overlap, reach out of the picture or lie beside it."""
        from test_blend_kernel import SIZE, blended, random_tiles

        def check(channels: int, dtype: type) -> dict[str, Any]:
            tiles = random_tiles(channels, dtype)
            out, _ = self._run(blended(tiles, channels, SIZE, dtype), *(tile for tile, _, _ in tiles))
            truth = reference.blend_tiles(tiles, SIZE)
            return compared(out, truth, _FLOAT32, plain=_rounded(truth, dtype))

        for channels in (3, 1)[: self.some]:
            for dtype in DTYPES:
                self._check("blend", dtype, f"{channels} channels", partial(check, channels, dtype))
