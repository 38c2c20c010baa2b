"""The measured cases of each kernel: sizes of networks, PyTorch's operators for the same task, and the bytes moved.

Bytes count each input once and each output once. Operations are the multiplications and additions of products; sines,
interpolation and index arithmetic are not counted. Flows and offsets change slowly between pixels, as those of networks
do. Grids for PyTorch's `grid_sample` are computed beforehand.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import torch
from stvsr.kernels import color, fourier_field, fusion_inputs
from stvsr.kernels.deform_conv import DeformConv
from stvsr.kernels.warp import PLANAR_VARIANTS, variant_key, warp
from stvsr.training.networks import ops
from torch.nn import functional

from . import torch_reference
from .bench import Bench
from .decoder import Decoder
from .field import FieldScene
from .torch_reference import RgbToYuv, flow_grid

Size = tuple[int, int]  # rows, columns
DTYPES = ("float32", "float16")
_BT709 = (0.2126, 0.0722)
_COMPOSITION = "composition of torch operators"
# Allowed maximal and mean error, relative to the range; sines magnify rounding.
_BOUNDS = {"float32": (1e-4, 1e-5), "float16": (2e-3, 1e-3)}
_CODE_BOUNDS = {"float32": (1e-2, 1e-4), "float16": (1e-2, 1e-4)}  # a code half-way between two may round either way
# Codes of maps that are rounded to half: more of them round the other way.
_PICTURE_BOUNDS = {"float32": (1e-2, 1e-4), "float16": (2e-2, 1e-3)}
_DECODER_BOUNDS = {"float32": (1e-3, 1e-5), "float16": (5e-2, 2e-3)}


@dataclass
class Case:
    """One kernel at one size, and the PyTorch operators that it is compared with; the first one is for the goal."""

    kernel: str
    name: str
    dtype: str
    call: Callable[..., Any]
    against: dict[str, Callable[[], Any]]
    moved_bytes: int
    operations: int = 0
    truth: Callable[[], Any] | None = None  # the result of PyTorch in float32
    bounds: dict[str, tuple[float, float]] = field(default_factory=lambda: _BOUNDS)
    parts: dict[str, Callable[[], Any]] = field(default_factory=dict)  # timed separately
    memory: bool = False  # measure the memory too
    key: str = ""  # of the kernel in the table of variants, if it has several
    candidates: tuple[Any, ...] = ()  # the variants, which `call` takes as `variant`


def _sizes(bench: Bench, *sizes: Size) -> tuple[Size, ...]:
    """Return the sizes of this run: a tiny one in a dry run, the middle one in a quick run."""
    return ((9, 14),) if bench.dry_run else (sizes[len(sizes) // 2],) if bench.quick else sizes


def _bytes(*arrays: Any) -> int:
    return sum(array.numel() * array.element_size() for array in arrays)


def deform_conv_cases(bench: Bench) -> Iterator[Case]:
    """Yield 64 channels, 8 offset groups, 3x3."""
    conv = DeformConv(64, 64, padding=(1, 1), offset_groups=8)
    for height, width in _sizes(bench, (144, 180), (270, 480), (540, 960)):
        for dtype in DTYPES:
            x, weight, bias = (
                bench.normal(*shape, dtype=dtype) for shape in ((1, 64, height, width), (64, 64, 3, 3), (64,))
            )
            offset, mask = bench.smooth(144, height, width, 2.0), bench.uniform(1, 72, height, width)
            arrays = [bench.array(tensor) for tensor in (x, offset, mask)]
            packed = conv.pack(bench.array(weight))
            strips = bench.run(conv.pack_features, arrays[0])
            yield Case(
                "deform_conv",
                f"64 channels, 8 groups, 3x3, {width}x{height}",
                dtype,
                partial(bench.run, conv, *arrays, packed, bench.array(bias)),
                _deform_conv_in_torch(x, offset, mask, weight, bias),
                _bytes(x, offset, mask, weight, bias, x),
                2 * 64 * 64 * 9 * height * width,
                partial(_deform_conv_truth, x, offset, mask, weight, bias),
                parts={
                    "features into strips": partial(bench.run, conv.pack_features, arrays[0]),
                    "from strips": partial(bench.run, conv, strips, *arrays[1:], packed, bench.array(bias)),
                },
                key=conv.key(dtype),
                candidates=conv.candidates(dtype),
            )


def _deform_conv_in_torch(x: Any, offset: Any, mask: Any, weight: Any, bias: Any) -> dict[str, Callable[[], Any]]:
    """Return torchvision's operator, if it can be imported, and a composition of PyTorch's."""
    composition = partial(_deform_conv_composition, x, offset, mask, weight, bias)
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError):  # RuntimeError: torchvision was built for another torch
        return {_COMPOSITION: composition}
    offset, mask = offset.to(x.dtype), mask.to(x.dtype)  # the operator takes a single dtype
    operator = partial(deform_conv2d, x, offset, weight, bias, padding=1, mask=mask)
    return {"torchvision.ops.deform_conv2d": operator, _COMPOSITION: composition}


def _deform_conv_composition(x: Any, offset: Any, mask: Any, weight: Any, bias: Any) -> Any:
    return ops.modulated_deform_conv2d(x, offset, mask.to(x.dtype), weight, bias, 1, 1, 1, 8)


def _deform_conv_truth(*tensors: Any) -> Any:
    return _deform_conv_composition(*(tensor.float() for tensor in tensors))


def warp_cases(bench: Bench) -> Iterator[Case]:
    """Yield 64 channels, one and two flows, both layouts."""
    for (height, width), layout, count, dtype in product(
        _sizes(bench, (270, 480), (540, 960)), ("nchw", "nhwc"), (1, 2), DTYPES
    ):
        memory = bench.torch.channels_last if layout == "nhwc" else bench.torch.contiguous_format
        x = bench.normal(1, 64, height, width, dtype=dtype).contiguous(memory_format=memory)
        flows = bench.smooth(2 * count, height, width, 8.0).contiguous(memory_format=memory)
        arrays = [bench.array(t.permute(0, 2, 3, 1) if layout == "nhwc" else t) for t in (x, flows)]
        each = [flows[:, 2 * i : 2 * i + 2] for i in range(count)]
        grids = [flow_grid(bench, flow).to(x.dtype) for flow in each]
        yield Case(
            "warp",
            f"64 channels, {count} flow{'s' * (count > 1)}, {layout}, {width}x{height}",
            dtype,
            partial(bench.run, warp, *arrays, layout=layout),
            {"torch grid_sample": partial(_grid_samples, x, grids), "with its grid": partial(_warps, x, each)},
            _bytes(x, flows) + count * _bytes(x),
            truth=partial(_warp_truth, x, each, layout),
            key=variant_key(dtype, count) if layout == "nchw" else "",
            candidates=PLANAR_VARIANTS if layout == "nchw" else (),
        )


def _grid_samples(x: Any, grids: list[Any]) -> list[Any]:
    return [functional.grid_sample(x, grid, align_corners=False) for grid in grids]


def _warps(x: Any, flows: list[Any]) -> list[Any]:
    return [ops.warp(x, flow) for flow in flows]


def _warp_truth(x: Any, flows: list[Any], layout: str) -> Any:
    planar = torch.cat(_warps(x.float(), flows), 1)
    return planar.permute(0, 2, 3, 1) if layout == "nhwc" else planar


def videoinr_decoder_cases(bench: Bench) -> Iterator[Case]:
    """Yield VideoINR's decoder, x4: the preparation of a pair, and one time."""
    for height, width in ((2, 3),) if bench.dry_run else _sizes(bench, (144, 180), (270, 480)):
        for dtype in DTYPES:
            decoder = Decoder(bench, (height, width), (4 * height, 4 * width))
            kernels, time = decoder.kernels(dtype), bench.array(decoder.time)
            features = bench.array(decoder.features.to(bench.dtype(dtype)))
            size, target = bench.dtype(dtype).itemsize, 16 * height * width
            # Multiplications per target pixel, in the layers that follow those that `prepare` computes per input pixel.
            products = 64 * 64 + 64 * 256 + 256 * 64
            products += (64 + 6) * 64 + 64 * 64 + 64 * 256 + 256 * 4
            products += 2 * (64 + 6) * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 3
            yield Case(
                "videoinr_decoder",
                f"VideoINR's decoder, {width}x{height} to {4 * width}x{4 * height}",
                dtype,
                partial(kernels.prepare_and_decode, features, time),
                {"eager PyTorch": decoder.eager(dtype)},
                size * (decoder.features.numel() + 3 * target),
                2 * target * products + 2 * 198 * 256 * height * width,
                decoder.eager("float32"),
                _DECODER_BOUNDS,
                {"decode": partial(kernels.decode, kernels.prepare(features), time)},
                memory=True,
            )


def fusion_inputs_cases(bench: Bench) -> Iterator[Case]:
    """Yield the inputs of Fourier-S's fusion, with 32 features of each frame, at one time and at two."""
    for (height, width), times in product(_sizes(bench, (180, 320), (360, 640), (540, 960)), (1, 2)):
        motion = bench.smooth(5 * times, height, width, 8.0).view(times, 5, height, width)
        time = torch.linspace(0.25, 0.5, times, device=bench.device)
        for dtype in DTYPES:
            x = bench.normal(1, 70, height, width, dtype=dtype)
            repeated = x.expand(times, -1, -1, -1)
            yield Case(
                "fusion_inputs",
                f"inputs of Fourier-S's fusion, {times} time{'s' * (times > 1)}, {width}x{height}",
                dtype,
                partial(bench.run, fusion_inputs.fusion_inputs, *(bench.array(a) for a in (x, motion, time))),
                {_COMPOSITION: partial(torch_reference.fusion_inputs, repeated, motion, time)},
                _bytes(x, motion, time) + times * (80 * x.element_size() + 3 * 4) * height * width,
                truth=partial(torch_reference.fusion_inputs, repeated.float(), motion, time),
                key=fusion_inputs.variant_key(dtype),
                candidates=fusion_inputs.candidates(32, dtype),
            )


def fourier_field_cases(bench: Bench) -> Iterator[Case]:
    """Yield Fourier-S's last step: x4, and a factor that is no integer, as a frame and as a picture."""
    coding = color.Yuv420("nv12", _BT709, False)
    convert = RgbToYuv(bench, coding.pix_fmt, coding.luma_weights)
    for height, width in ((2, 3),) if bench.dry_run else _sizes(bench, (180, 320), (360, 640), (540, 960)):
        for target in ((4 * height, 4 * width), (3 * height + 1, 3 * width + 1)):
            scene = FieldScene(bench, (height, width), target)
            for dtype in DTYPES:
                size, pixels = bench.dtype(dtype).itemsize, target[0] * target[1]
                maps = size * (scene.coefficients.numel() + scene.base.numel())
                name = f"Fourier-S's last step, {width}x{height} to {target[1]}x{target[0]}"
                operations = 2 * 3 * pixels * scene.coefficients.shape[1]
                candidates = fourier_field.PHASES_VARIANTS if scene.integer else ()
                keys = [fourier_field.variant_key(dtype, picture) if candidates else "" for picture in (False, True)]
                yield Case(
                    "fourier_field",
                    name,
                    dtype,
                    scene.kernel(dtype),
                    {"eager PyTorch": scene.eager(dtype)},
                    maps + 4 * 3 * pixels,
                    operations,
                    scene.eager("float32"),
                    memory=True,
                    key=keys[0],
                    candidates=candidates,
                )
                yield Case(
                    "fourier_field",
                    f"{name}, as nv12",
                    dtype,
                    scene.picture(dtype, coding),
                    {
                        "eager PyTorch": partial(_picture_in_torch, scene.eager(dtype), convert),
                        "two kernels": scene.converted(dtype, coding),
                    },
                    maps + 3 * pixels // 2,
                    operations,
                    partial(_picture_in_torch, scene.eager("float32"), convert),
                    _PICTURE_BOUNDS,
                    memory=True,
                    key=keys[1],
                    candidates=candidates,
                )


def _picture_in_torch(render: Callable[[], Any], convert: RgbToYuv) -> Any:
    return convert(render()[0])


def color_cases(bench: Bench) -> Iterator[Case]:
    """Yield 1080p and 2160p frames of 8 and 10 bits."""
    for height, width in ((6, 10),) if bench.dry_run else _sizes(bench, (1080, 1920), (2160, 3840)):
        for pix_fmt in ("nv12", "p010le"):
            convert = RgbToYuv(bench, pix_fmt, _BT709)
            for dtype in DTYPES:
                rgb = bench.uniform(3, height, width, dtype=dtype)
                yield Case(
                    "color",
                    f"from RGB, {pix_fmt}, {width}x{height}",
                    dtype,
                    partial(bench.run, color.from_rgb, bench.array(rgb), pix_fmt, _BT709, False),
                    {_COMPOSITION: partial(convert, rgb)},
                    _bytes(rgb, *convert(rgb)),
                    truth=partial(convert, rgb),
                    bounds=_CODE_BOUNDS,
                )


CASES: dict[str, Callable[[Bench], Iterator[Case]]] = {
    "deform_conv": deform_conv_cases,
    "warp": warp_cases,
    "videoinr_decoder": videoinr_decoder_cases,
    "fusion_inputs": fusion_inputs_cases,
    "fourier_field": fourier_field_cases,
    "color": color_cases,
}
