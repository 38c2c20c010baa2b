"""What is measured of each kernel: sizes that networks meet, PyTorch's operators for the same, and what must be moved.

Bytes count each input once and each output once; operations are the multiplications and additions of products alone:
sines, interpolation and index arithmetic are left out. Flows and offsets change slowly from place to place, as those of
networks do. Grids for PyTorch's `grid_sample` are made beforehand.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from stvsr.kernels import blend, color
from stvsr.kernels.deform_conv import DeformConv
from stvsr.kernels.warp import warp
from stvsr.training.networks import ops

from .bench import Bench
from .decoder import Decoder
from .torch_reference import BlendInTorch, YuvInTorch, flow_grid

Size = tuple[int, int]  # rows, columns
DTYPES = ("float32", "float16")
_BT709 = (0.2126, 0.0722)
_COMPOSITION = "composition of torch operators"
# Largest and mean error allowed, of the range; sines magnify rounding.
_BOUNDS = {"float32": (1e-4, 1e-5), "float16": (2e-3, 1e-3)}
_CODE_BOUNDS = {"float32": (1e-2, 1e-4), "float16": (1e-2, 1e-4)}  # a code half-way between two may go either way
_DECODER_BOUNDS = {"float32": (1e-3, 1e-5), "float16": (5e-2, 2e-3)}


@dataclass
class Case:
    """One kernel at one size, and what it is compared with; the first of that is what the goal means."""

    kernel: str
    name: str
    dtype: str
    call: Callable[[], Any]
    against: dict[str, Callable[[], Any]]
    moved_bytes: int
    operations: int = 0
    truth: Callable[[], Any] | None = None  # by PyTorch in float32
    bounds: dict[str, tuple[float, float]] = field(default_factory=lambda: _BOUNDS)
    more: dict[str, Callable[[], Any]] = field(default_factory=dict)  # timed apart
    memory: bool = False


def _sizes(bench: Bench, *sizes: Size) -> tuple[Size, ...]:
    """The sizes of this run: tiny without a GPU, the middle one for a quick run."""
    return ((9, 14),) if bench.dry_run else (sizes[len(sizes) // 2],) if bench.quick else sizes


def _bytes(*arrays: Any) -> int:
    return sum(array.numel() * array.element_size() for array in arrays)


def deform_conv(bench: Bench) -> Iterator[Case]:
    """64 channels, 8 offset groups, 3x3."""
    conv = DeformConv(64, 64, padding=(1, 1), offset_groups=8)
    for height, width in _sizes(bench, (144, 180), (270, 480), (540, 960)):
        for dtype in DTYPES:
            x, weight, bias = (
                bench.normal(*shape, dtype=dtype) for shape in ((1, 64, height, width), (64, 64, 3, 3), (64,))
            )
            offset, mask = bench.smooth(144, height, width, 2.0), bench.uniform(1, 72, height, width)
            arrays = [bench.array(tensor) for tensor in (x, offset, mask, weight, bias)]
            packed = conv.pack(arrays[3])

            def composition(x=x, offset=offset, mask=mask, weight=weight, bias=bias) -> Any:
                return ops.modulated_deform_conv2d(x, offset, mask.to(x.dtype), weight, bias, 1, 1, 1, 8)

            against: dict[str, Callable[[], Any]] = {}
            try:
                from torchvision.ops import deform_conv2d

                casts = [tensor.to(x.dtype) for tensor in (offset, mask)]  # it takes one type

                def operator(x=x, casts=casts, weight=weight, bias=bias, of=deform_conv2d) -> Any:
                    return of(x, casts[0], weight, bias, padding=1, mask=casts[1])

                against["torchvision.ops.deform_conv2d"] = operator
            except (ImportError, RuntimeError):  # RuntimeError: it was built for another torch
                pass
            against[_COMPOSITION] = composition
            yield Case(
                "deform_conv",
                f"64 channels, 8 groups, 3x3, {width}x{height}",
                dtype,
                lambda a=arrays, p=packed: bench.run(conv, a[0], a[1], a[2], p, a[4]),
                against,
                _bytes(x, offset, mask, weight, bias, x),
                2 * 64 * 64 * 9 * height * width,
                lambda a=(x, offset, mask, weight, bias): ops.modulated_deform_conv2d(
                    *(tensor.float() for tensor in a), 1, 1, 1, 8
                ),
            )


def warping(bench: Bench) -> Iterator[Case]:
    """64 channels, one and two flows, both layouts."""
    grid_sample = bench.torch.nn.functional.grid_sample
    for height, width in _sizes(bench, (270, 480), (540, 960)):
        for layout in ("nchw", "nhwc"):
            for count in (1, 2):
                for dtype in DTYPES:
                    x, flows = (
                        bench.normal(1, 64, height, width, dtype=dtype),
                        bench.smooth(2 * count, height, width, 8.0),
                    )
                    memory = bench.torch.channels_last if layout == "nhwc" else bench.torch.contiguous_format
                    x, flows = x.contiguous(memory_format=memory), flows.contiguous(memory_format=memory)
                    there = [bench.array(t.permute(0, 2, 3, 1) if layout == "nhwc" else t) for t in (x, flows)]
                    grids = [flow_grid(bench, flows[:, 2 * i : 2 * i + 2]).to(x.dtype) for i in range(count)]

                    def truth(x=x, flows=flows, count=count, layout=layout) -> Any:
                        made = [ops.warp(x.float(), flows[:, 2 * i : 2 * i + 2]) for i in range(count)]
                        made = bench.torch.cat(made, 1)
                        return made.permute(0, 2, 3, 1) if layout == "nhwc" else made

                    yield Case(
                        "warp",
                        f"64 channels, {count} flow{'s' * (count > 1)}, {layout}, {width}x{height}",
                        dtype,
                        lambda there=there, layout=layout: bench.run(warp, *there, layout=layout),
                        {
                            "torch grid_sample": lambda x=x, grids=grids: [
                                grid_sample(x, grid, align_corners=False) for grid in grids
                            ],
                            "with its grid": lambda x=x, flows=flows, count=count: [
                                ops.warp(x, flows[:, 2 * i : 2 * i + 2]) for i in range(count)
                            ],
                        },
                        _bytes(x, flows) + count * _bytes(x),
                        truth=truth,
                    )


def implicit(bench: Bench) -> Iterator[Case]:
    """VideoINR's decoder, x4: what depends on the pair, and one time."""
    for height, width in ((2, 3),) if bench.dry_run else _sizes(bench, (144, 180), (270, 480)):
        for dtype in DTYPES:
            made = Decoder(bench, (height, width), (4 * height, 4 * width))
            kernels, time = made.kernels(dtype), bench.array(made.time)
            features = bench.array(made.features.to(bench.dtype(dtype)))
            encoded = kernels.prepare(features)
            size, target = bench.dtype(dtype).itemsize, 16 * height * width
            # Multiplications for each target pixel, of the layers after those that `prepare` does at the input's size.
            products = 64 * 64 + 64 * 256 + 256 * 64
            products += (64 + 6) * 64 + 64 * 64 + 64 * 256 + 256 * 4
            products += 2 * (64 + 6) * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 3
            yield Case(
                "implicit",
                f"VideoINR's decoder, {width}x{height} to {4 * width}x{4 * height}",
                dtype,
                lambda k=kernels, f=features, t=time: k.decode(k.prepare(f), t),
                {"eager PyTorch": made.eager(dtype)},
                size * (made.features.numel() + 3 * target),
                2 * target * products + 2 * 198 * 256 * height * width,
                made.eager("float32"),
                _DECODER_BOUNDS,
                {"decode": lambda k=kernels, e=encoded, t=time: k.decode(e, t)},
                memory=True,
            )


def colour(bench: Bench) -> Iterator[Case]:
    """1080p and 2160p, 8 and 10 bits, there and back."""
    for height, width in ((6, 10),) if bench.dry_run else _sizes(bench, (1080, 1920), (2160, 3840)):
        for pix_fmt in ("nv12", "p010le"):
            for dtype in DTYPES:
                scene = YuvInTorch(bench, (height, width), pix_fmt, _BT709)
                planes = [bench.asarray(plane) for plane in scene.planes]
                tensor = bench.uniform(3, height, width, dtype=dtype)
                rgb, picture = bench.array(tensor), f"{pix_fmt}, {width}x{height}"
                moved = _bytes(tensor) + sum(plane.nbytes for plane in scene.planes)
                yield Case(
                    "color",
                    f"to RGB, {picture}",
                    dtype,
                    lambda p=planes, n=pix_fmt, s=(height, width), d=dtype: bench.run(
                        color.to_rgb, p, n, s, _BT709, False, np.dtype(d)
                    ),
                    {_COMPOSITION: lambda s=scene, d=dtype: s.to_rgb(bench.dtype(d))},
                    moved,
                    truth=lambda s=scene: s.to_rgb(bench.torch.float32),
                )
                yield Case(
                    "color",
                    f"from RGB, {picture}",
                    dtype,
                    lambda r=rgb, n=pix_fmt: bench.run(color.from_rgb, r, n, _BT709, False),
                    {_COMPOSITION: lambda s=scene, t=tensor: s.from_rgb(t)},
                    moved,
                    truth=lambda s=scene, t=tensor: s.from_rgb(t),
                    bounds=_CODE_BOUNDS,
                )


def blending(bench: Bench) -> Iterator[Case]:
    """Four tiles that overlap by 64 pixels, and the picture of them: 3840x2160."""
    for dtype in DTYPES:
        scene = BlendInTorch(bench, (12, 20) if bench.dry_run else (2160, 3840), 4 if bench.dry_run else 64, dtype)
        tiles = [bench.array(tile) for tile in scene.tiles]
        like, kind = tiles[0], np.dtype(dtype)
        canvas = bench.run(blend.new_canvas, like, 3, scene.size)

        def add(tiles=tiles, canvas=canvas, scene=scene) -> None:
            for tile, place in zip(tiles, scene.places, strict=True):
                bench.run(blend.add_tile, canvas, tile, place, (scene.overlap,) * 4)

        def whole(like=like, scene=scene, add=add, kind=kind) -> Any:
            fresh = bench.run(blend.new_canvas, like, 3, scene.size)
            add(canvas=fresh)
            return bench.run(blend.normalised, fresh, kind)

        pixels = scene.size[0] * scene.size[1]
        of_tiles = _bytes(*scene.tiles)
        covered = sum(tile.shape[1] * tile.shape[2] for tile in scene.tiles)
        name = f"{scene.size[1]}x{scene.size[0]}"
        sums = 4 * 4 * pixels  # of the canvas: three channels and the weight, float32
        yield Case(
            "blend",
            f"add four tiles, {name}",
            dtype,
            add,
            {_COMPOSITION: scene.add},
            of_tiles + 2 * 4 * 4 * covered,
            more={"canvas, tiles and picture": whole},
        )
        add()
        scene.add()
        yield Case(
            "blend",
            f"picture of a canvas, {name}",
            dtype,
            lambda canvas=canvas, kind=kind: bench.run(blend.normalised, canvas, kind),
            {_COMPOSITION: scene.normalised},
            sums + 3 * pixels * kind.itemsize,
            truth=scene.normalised,
        )


CASES: dict[str, Callable[[Bench], Iterator[Case]]] = {
    "deform_conv": deform_conv,
    "warp": warping,
    "implicit": implicit,
    "color": colour,
    "blend": blending,
}
