"""Clips of VapourSynth: `stvsr.vapoursynth.upscale(clip)` is a clip whose frames are computed when they are requested.

    import stvsr
    import vapoursynth as vs

    clip = vs.core.lsmas.LWLibavSource("clip.mp4")
    stvsr.vapoursynth.upscale(clip, scale=4, factor=2, model="fourier-s").set_output()

A frame that is requested is computed with those that the same window makes, from the frames of the clip that an
undivided run would see: it is the same whichever frames were requested before, and in whatever thread.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..backends.options import Backend
from ..contract.bundle import find_bundles
from ..contract.errors import BackendError, RequestError
from ..contract.picture import as_frame, to_float
from ..contract.windows import InputFrame
from ..media.tags import UNSPECIFIED, ColorTags, coding_of
from .chain import Chain
from .inference import Inference, Preset
from .limits import DEFAULT_THRESHOLD
from .plan import Pass, check_flow, default_factor, default_scale, plan_passes
from .quantities import read_factor, read_scale
from .request import DEFAULT_MODEL
from .scenes import difference, thumbnail
from .segments import segment_around

KEPT_BYTES = 256 << 20  # memory for computed frames, at least those of one window
_KEPT_THUMBNAILS = 64

Clip = Any  # vapoursynth.VideoNode, or a frame of one: VapourSynth is imported only when it is used
ClipFrame = Any


def upscale(
    clip: Clip,
    scale: float | str | Fraction | None = None,
    factor: float | str | Fraction | None = None,
    model: str | Path = DEFAULT_MODEL,
    backend: Backend | None = None,
    *,
    tile: int | None = None,
    flow: str | None = None,
    preset: Preset = "fast",
    scene_threshold: float | None = DEFAULT_THRESHOLD,
) -> Clip:
    """Return a clip with larger frames, and more of them, in the format of `clip`.

    clip: a VapourSynth clip of RGB or YUV frames, progressive, of one format and size.
    scale: in space; None: 4, or the bundle's own.
    factor: output frames for each input frame; None: 2, or the bundle's own.
    model, backend, tile, flow, preset: as in `Upscaler`. Two networks are a call for each.
    scene_threshold: of scene cuts, from 0 to 1; 0 or None finds none. Frames with the property `_SceneChangeNext`, as
        scene detectors set it, are not searched for cuts.

    Frames of 8 and 16 bits and of 32-bit floats in RGB are computed as they are, others are converted by VapourSynth.
    Raises RequestError for a clip or a request that the bundle does not support, BackendError, BundleError.
    """
    vs = _import_vapoursynth()
    _check(clip, vs)
    bundles = find_bundles(model)
    check_flow(bundles, flow)
    exact = Fraction(default_factor(bundles)) if factor is None else read_factor(factor)
    space = default_scale(bundles) if scale is None else read_scale(scale)
    size = round(clip.height * space), round(clip.width * space)
    whole = exact.numerator if exact.denominator == 1 else None
    passes = plan_passes(bundles, (clip.height, clip.width), size, whole)
    if len(passes) > 1:
        raise RequestError(f"'{model}' takes {len(passes)} passes for this: call upscale once for each of them.")
    _check_subsampling(clip, size)
    rgb = _as_rgb(clip, vs)
    network = Chain(passes, backend, Inference(tile, flow, preset))
    on_request = _FramesOnRequest(rgb, network, passes[0], exact, scene_threshold)
    format_out = vs.RGBS if rgb.format.id == vs.RGBS else vs.RGB48
    rate = clip.fps * exact
    blank = vs.core.std.BlankClip(
        width=size[1],
        height=size[0],
        format=format_out,
        length=math.ceil(clip.num_frames * exact),
        fpsnum=rate.numerator,
        fpsden=rate.denominator,
        keep=True,
    )

    def write(n: int, f: ClipFrame) -> ClipFrame:
        picture, properties = on_request.frame(n)
        result = f.copy()
        for plane, values in enumerate(picture):
            np.copyto(np.asarray(result[plane]), values)
        result.props.update(properties)
        return result

    return _in_format_of(clip, vs.core.std.ModifyFrame(blank, blank, write), vs)


class _FramesOnRequest:
    """Computes output frames by their numbers, in any order and from any thread."""

    def __init__(self, clip: Clip, chain: Chain, one: Pass, factor: Fraction, scene_threshold: float | None) -> None:
        self._clip, self._chain, self._factor = clip, chain, factor
        self._window = one.bundle.manifest.window
        self._threshold = scene_threshold or 0.0
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()  # output frames (3, H, W)
        self._most = max(1, KEPT_BYTES // (12 * one.size[0] * one.size[1]))
        self._cuts: dict[int, bool] = {}
        self._thumbnails: OrderedDict[int, np.ndarray] = OrderedDict()

    def frame(self, number: int) -> tuple[np.ndarray, dict[str, Any]]:  # (3, H, W)
        """Return an output frame, and the properties that it has."""
        source = math.floor(number / self._factor)
        with self._lock:
            if number not in self._kept:
                self._compute(source, number)
            self._kept.move_to_end(number)
            return self._kept[number], self._properties(number, source)

    def _compute(self, source: int, number: int) -> None:
        """Compute the outputs of a frame of the clip, and of those that the same windows hold."""
        segment = segment_around(self._window, source, self._clip.num_frames, self._starts_scene)
        outputs = self._numbers(segment.outputs)
        frames = self._chain.frames(self._inputs(segment.inputs, segment.outputs, segment.ends_scene))
        is_float = self._clip.format.bits_per_sample == 32
        for output, picture in zip(outputs, frames, strict=True):
            self._kept[output] = to_float(picture) if is_float else picture
        while len(self._kept) > max(self._most, len(outputs)):
            self._kept.popitem(last=False)

    def _numbers(self, frames: range) -> range:
        """Return the numbers of the output frames that belong to frames of the clip."""
        return range(math.ceil(frames.start * self._factor), math.ceil(frames.stop * self._factor))

    def _inputs(self, numbers: range, with_outputs: range, ends_scene: bool) -> Iterator[InputFrame]:
        for number in numbers:
            wanted = self._numbers(range(number, number + 1)) if number in with_outputs else ()
            times = tuple(output / self._factor - number for output in wanted)
            yield InputFrame(self._read(number), times, ends_scene and number == numbers[-1])

    def _read(self, number: int) -> np.ndarray:  # (3, h, w) in [0, 1]
        with self._clip.get_frame(number) as frame:
            planes = np.stack([np.asarray(plane) for plane in frame])
        return as_frame(planes.clip(0, 1) if planes.dtype.kind == "f" else planes)

    def _starts_scene(self, number: int) -> bool:
        """Return whether a frame of the clip, of a number above 0, begins a scene."""
        if number not in self._cuts:
            with self._clip.get_frame(number - 1) as frame:
                given = frame.props.get("_SceneChangeNext")
            if given is not None:
                self._cuts[number] = bool(given)
            elif not self._threshold:
                self._cuts[number] = False
            else:
                pair = self._thumbnail(number - 1), self._thumbnail(number)
                self._cuts[number] = difference(*pair, self._threshold) >= self._threshold
        return self._cuts[number]

    def _thumbnail(self, number: int) -> np.ndarray:
        if number not in self._thumbnails:
            self._thumbnails[number] = thumbnail(self._read(number))
            if len(self._thumbnails) > _KEPT_THUMBNAILS:
                self._thumbnails.popitem(last=False)
        return self._thumbnails[number]

    def _properties(self, number: int, source: int) -> dict[str, Any]:
        """Return the properties of the frame of the clip, with its duration divided and the cuts at its ends."""
        with self._clip.get_frame(source) as frame:
            properties = {name: value for name, value in frame.props.items() if name != "_Alpha"}
        outputs = self._numbers(range(source, source + 1))
        if properties.get("_DurationDen", 0) and properties.get("_DurationNum", 0):
            duration = Fraction(properties["_DurationNum"], properties["_DurationDen"])
            if "_AbsoluteTime" in properties:
                properties["_AbsoluteTime"] += float((number / self._factor - source) * duration)
            shown = duration / self._factor
            properties["_DurationNum"], properties["_DurationDen"] = shown.numerator, shown.denominator
        starts = number == outputs[0] and source > 0 and self._starts_scene(source)
        following = source + 1
        ends = number == outputs[-1] and following < self._clip.num_frames and self._starts_scene(following)
        return {**properties, "_SceneChangePrev": int(starts), "_SceneChangeNext": int(ends)}


def _import_vapoursynth() -> ModuleType:
    try:
        import vapoursynth
    except ImportError as error:
        raise BackendError(
            f'VapourSynth cannot be imported ({error}): pip install "stvsr[vapoursynth]", with Python 3.12 or later.'
        ) from error
    return vapoursynth


def _check(clip: Clip, vs: ModuleType) -> None:
    """Raise RequestError for a clip that is not of one size and one format of RGB or YUV, or that is interlaced."""
    if not isinstance(clip, vs.VideoNode):
        raise RequestError(f"A clip of VapourSynth is upscaled, and not {type(clip).__name__}: give a VideoNode.")
    if clip.format is None or clip.format.id == 0 or not clip.width:
        raise RequestError("The frames of the clip have several formats or sizes: resize the clip to one first.")
    if clip.format.color_family not in (vs.RGB, vs.YUV):
        raise RequestError(f"The clip is {clip.format.name}: convert it to RGB or YUV first, with core.resize.")
    with clip.get_frame(0) as frame:
        fields = frame.props.get("_FieldBased", 0)
    if fields:
        raise RequestError("The clip is interlaced: deinterlace it first.")


def _check_subsampling(clip: Clip, size: tuple[int, int]) -> None:
    if size[0] % (1 << clip.format.subsampling_h) or size[1] % (1 << clip.format.subsampling_w):
        raise RequestError(
            f"{clip.format.name} has no frames of {size[1]}x{size[0]}: choose another scale, or convert it to RGB."
        )


def _as_rgb(clip: Clip, vs: ModuleType) -> Clip:
    """Return the clip in RGB, of 8 or 16 bits or of 32-bit floats."""
    if clip.format.id in (vs.RGB24, vs.RGB48, vs.RGBS):
        return clip
    if clip.format.color_family == vs.YUV:
        clip = clip.std.SetFrameProps(_Matrix=_matrix(clip))
    return clip.resize.Bicubic(format=vs.RGBS)


def _in_format_of(clip: Clip, result: Clip, vs: ModuleType) -> Clip:
    """Return a clip of RGB in the format of another one."""
    if result.format.id == clip.format.id:
        return result
    if clip.format.color_family == vs.RGB:
        return result.resize.Point(format=clip.format.id)
    with clip.get_frame(0) as frame:
        is_full = frame.props.get("_Range", 1 - frame.props.get("_ColorRange", 1))
    return result.resize.Bicubic(format=clip.format.id, matrix=_matrix(clip), range=is_full)


def _matrix(clip: Clip) -> int:
    """Return the matrix of a clip of YUV, by its first frame. Raises MediaError if it is not supported."""
    with clip.get_frame(0) as frame:
        tagged = frame.props.get("_Matrix", UNSPECIFIED)
    return coding_of(ColorTags(matrix=tagged), clip.height, "").matrix
