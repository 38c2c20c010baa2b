"""Kernels against their oracles, at sizes that are neither square nor multiples of a block.

Arrays that kernels write to start as NaN, so that elements that no kernel writes are found.
"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
from stvsr.kernels import color, launcher, reference
from stvsr.kernels.deform_conv import DeformConv
from stvsr.kernels.fusion_inputs import fusion_inputs
from stvsr.kernels.warp import warp

from tests.support.kernel_scenes import (
    DEFORM_CONVS,
    GRID_LIMIT,
    deform_conv_in_plain_half,
    deform_conv_scene,
    deform_conv_truth,
    from_layout,
    fusion_scene,
    to_layout,
    warp_scene,
)

from .bench import Bench
from .decoder import Decoder
from .field import FieldScene
from .summary import compared

DTYPES = (np.float32, np.float16)
# Allowed errors, relative to the range; far flows of the decoder magnify the rounding of float32.
_FLOAT32, _DECODER = 1e-5, 1e-4
# Bits of a code, and its left shift within a sample.
_PIX_FMTS = {"yuv420p": (8, 0), "nv12": (8, 0), "yuv420p10le": (10, 0), "p010le": (10, 6)}
_CODE = 0.5 + 1e-3  # allowed error of a code: rounding to the nearest


def poisoned() -> AbstractContextManager[Any]:
    """Return a context in which `launcher.empty` fills new arrays with NaN."""
    empty = launcher.empty

    def poisoned_empty(like: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
        array = empty(like, shape, dtype)
        array.reshape(-1).view(np.uint8)[...] = 0xFF
        return array

    return patch.object(launcher, "empty", poisoned_empty)


def check_deform_conv(bench: Bench) -> None:
    """Check shapes and groups that no network has, and those of a network."""
    cases = {**DEFORM_CONVS, "64 channels, 8 groups": ((37, 23), DeformConv(64, 64, padding=(1, 1), offset_groups=8))}

    def check(size: tuple[int, int], conv: DeformConv, dtype: Any) -> dict[str, Any]:
        x, offset, mask, weight, bias = deform_conv_scene(conv, size)
        inputs = (x.astype(dtype), offset, mask, weight.astype(dtype), bias.astype(dtype))
        out = _run(bench, lambda x, o, m, w, b: conv(x, o, m, conv.pack(w), b), *inputs)
        plain = deform_conv_in_plain_half(conv, *inputs) if dtype == np.float16 else None
        return compared(out, deform_conv_truth(conv, *inputs), _FLOAT32, plain=plain)

    for name, (size, conv) in _some(bench, list(cases.items())):
        for dtype in DTYPES:
            _check(bench, "deform_conv", dtype, name, partial(check, size, conv, dtype))


def check_warp(bench: Bench) -> None:
    """Check both layouts, borders and corner conventions, with one flow and with two."""

    def check(case: tuple[Any, ...], dtype: Any) -> dict[str, Any]:
        layout, border, corners, channels, count = case
        features, flows = warp_scene(channels=channels, size=(7, 45), out=(11, 35), count=count)
        features = features.astype(dtype)
        options: dict[str, Any] = {
            "border": border,
            "align_corners": corners,
            "grid_limit": None if corners else GRID_LIMIT,
        }
        arrays = (to_layout(features, layout), to_layout(flows, layout))
        out = from_layout(_run(bench, warp, *arrays, layout=layout, **options), layout)
        truth = reference.warp(features, flows, **options)
        return compared(out, truth, _FLOAT32, plain=truth.astype(dtype) if dtype == np.float16 else None)

    cases: list[tuple[Any, ...]] = [
        (layout, border, corners, channels, count)
        for layout in ("nchw", "nhwc")
        for border, corners, channels, count in (("zeros", False, 64, 2), ("clamp", True, 37, 1))
    ]
    for case in _some(bench, cases):
        for dtype in DTYPES:
            name = "{}, {}, corners {}, {} channels, {} flows".format(*case)
            _check(bench, "warp", dtype, name, partial(check, case, dtype))


def check_videoinr_decoder(bench: Bench) -> None:
    """Check the official and the corrected decoder, with near and far flows."""

    def check(options: dict[str, Any], dtype: str) -> dict[str, Any]:
        decoder, half = Decoder(bench, (5, 7), (20, 28), batch=2, **options), dtype == "float16"
        kernels, features = decoder.kernels(dtype), decoder.features.to(bench.dtype(dtype))
        with contextlib.nullcontext() if bench.dry_run else poisoned():
            encoded = kernels.prepare(bench.array(features))
            out = bench.numpy(kernels.decode(encoded, bench.array(decoder.time)))
        truth = decoder.oracle(np.float64, np.float16 if half else np.float32)
        return compared(out, truth, _DECODER, plain=decoder.oracle(np.float16, np.float16) if half else None)

    cases: dict[str, dict[str, Any]] = {
        "official": {},
        "corrected": {"official": False},
        "far flows": {"flow_px": 40.0},
    }
    for name, options in _some(bench, list(cases.items())):
        for dtype in ("float32", "float16"):
            _check(bench, "videoinr_decoder", dtype, name, partial(check, options, dtype))


def check_fusion_inputs(bench: Bench) -> None:
    """Check two pairs at two times each, with motion that leads far outside."""

    def check(count: int, dtype: Any) -> dict[str, Any]:
        features, motion = fusion_scene(count, (11, 45), times=4)
        time = np.array([0.0, 0.3, 0.5, 1.0], np.float32)
        features = features.astype(dtype)
        inputs, base = _run(bench, fusion_inputs, features, motion, time)
        # A tenth of motion that leads far outside would widen the range that errors are relative to.
        kept = [*range(2 * count + 9), *range(2 * count + 13, 2 * count + 16)]
        out, truth = (
            np.concatenate([array[:, kept], blend], axis=1)
            for array, blend in ((inputs, base), reference.fusion_inputs(features, motion, time))
        )
        return compared(out, truth, _FLOAT32, plain=truth.astype(dtype) if dtype == np.float16 else None)

    for count in _some(bench, [32, 5]):
        for dtype in DTYPES:
            _check(bench, "fusion_inputs", dtype, f"{count} features", partial(check, count, dtype))


def check_fourier_field(bench: Bench) -> None:
    """Check integer factors and others, at odd sizes, as frames and as pictures."""

    def check(target: tuple[int, int], dtype: str) -> dict[str, Any]:
        scene = FieldScene(bench, (5, 37), target, batch=2)
        with contextlib.nullcontext() if bench.dry_run else poisoned():
            out = bench.numpy(scene.kernel(dtype)())
        truth = scene.oracle(dtype)
        return compared(out, truth, _FLOAT32, plain=truth.astype(np.float16) if dtype == "float16" else None)

    def check_picture(target: tuple[int, int], dtype: str) -> dict[str, Any]:
        coding = color.Yuv420("yuv420p10le", (0.2126, 0.0722), False)
        scene = FieldScene(bench, (5, 37), target)
        with contextlib.nullcontext() if bench.dry_run else poisoned():
            planes = [bench.numpy(plane)[0] for plane in scene.picture(dtype, coding)()]
        exact = reference.rgb_to_yuv420(scene.oracle(dtype)[0], coding.luma_weights, coding.full_range, bits=10)
        codes, truth = (np.concatenate([plane.ravel() for plane in each]).astype(float) for each in (planes, exact))
        return compared(codes, truth, (_CODE + 0.02) / np.ptp(truth))

    for target in _some(bench, [(20, 148), (10, 111), (13, 90)]):
        for dtype in ("float32", "float16"):
            name = "5x37 to {}x{}".format(*target)
            _check(bench, "fourier_field", dtype, name, partial(check, target, dtype))
            if target != (10, 111):  # odd factors are rendered as any others
                _check(bench, "fourier_field", dtype, f"{name}, a picture", partial(check_picture, target, dtype))


def check_color(bench: Bench) -> None:
    """Check the codes of every pixel format at an odd size."""

    def check(pix_fmt: str, full: bool, dtype: Any) -> dict[str, Any]:
        (bits, shift), weights = _PIX_FMTS[pix_fmt], (0.2126, 0.0722)
        rgb = np.random.default_rng(6).uniform(-0.3, 1.3, (3, 13, 67)).astype(dtype)
        planes = [plane >> shift for plane in _run(bench, lambda rgb: color.from_rgb(rgb, pix_fmt, weights, full), rgb)]
        if len(planes) == 2:
            planes = [planes[0], planes[1][:, 0::2], planes[1][:, 1::2]]
        codes = np.concatenate([plane.ravel() for plane in planes]).astype(np.float64)
        exact = np.concatenate([plane.ravel() for plane in reference.rgb_to_yuv420(rgb, weights, full, bits)])
        return compared(codes, exact, _CODE / np.ptp(exact))

    for pix_fmt in _some(bench, list(_PIX_FMTS)):
        for dtype in DTYPES:
            for full in (False, True):
                name = f"{pix_fmt}, {'full' if full else 'limited'} range"
                _check(bench, "color", dtype, name, partial(check, pix_fmt, full, dtype))


CHECKS: dict[str, Callable[[Bench], None]] = {
    "deform_conv": check_deform_conv,
    "warp": check_warp,
    "videoinr_decoder": check_videoinr_decoder,
    "fusion_inputs": check_fusion_inputs,
    "fourier_field": check_fourier_field,
    "color": check_color,
}


def _some(bench: Bench, cases: list[Any]) -> list[Any]:
    """Return all cases, or only the first in a dry run."""
    return cases[:1] if bench.dry_run else cases


def _run(bench: Bench, function: Callable[..., Any], *arrays: np.ndarray, **options: Any) -> Any:
    """Run a function of the kernels on the device; takes and returns NumPy arrays."""
    uploaded = [bench.asarray(array) for array in arrays]
    with contextlib.nullcontext() if bench.dry_run else poisoned():
        out = bench.run(function, *uploaded, **options)
    return tuple(map(bench.numpy, out)) if isinstance(out, tuple) else bench.numpy(out)


def _check(bench: Bench, kernel: str, dtype: Any, case: str, call: Callable[[], dict[str, Any]]) -> None:
    bench.check("kernels", f"{kernel} {np.dtype(dtype)}, {case}", call)
