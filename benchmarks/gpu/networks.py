"""Whole networks: eager PyTorch, `torch.compile`, and the engine's backends.

Latency is of one window, from inputs on the device until its frames are there. Throughput is of a stream of frames
from and to the host's memory, several windows in flight. Weights are random, but for bundles that are shipped.
Half precision in PyTorch is `torch.autocast`; float32 takes TF32 where PyTorch does by default.
"""

import copy
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from stvsr.training.checkpoints import random_weights
from stvsr.training.networks.registry import NETWORKS, find_network

from .bench import Bench
from .summary import compared, summary, verdict
from .window import MIXED, TorchWindow, Window

_FIRST = ("videoinr-s", "videoinr", "edvr-m", "zsm")
BY_WORTH = (*_FIRST, *sorted((e.name for e in NETWORKS if e.name not in _FIRST), key=lambda name: name.endswith("-s")))
COMPILED = ("videoinr", "videoinr-s", "edvr-m", "zsm")
DTYPES = ("float32", "float16")
SIZES = ((144, 180), (270, 480))  # rows, columns
SCALE = 4
VIDEOINR_FACTOR = 4.0  # VideoINR is to be so many times as fast as in eager float32 PyTorch
_BOUNDS = {"float32": (1e-3, 1e-4), "float16": (1e-1, 1e-2)}  # largest and mean error of an engine, of the range
_CASE_S, _COMPILE_S, _EXPORT_S = 10.0, 60.0, 60.0  # what each takes at most, or nearly so
_STREAM_S = 1.5
_IN_FLIGHT = 3

# Backends of the engine, and the precisions that they are asked for.
ENGINES = {"ort": ("float32",), "tensorrt": DTYPES}


def measure(bench: Bench, name: str, bundles: Path | None, *, compiled: bool) -> None:
    """Record a network at every size; with `compiled`, by `torch.compile` alone."""
    network, _ = random_weights(find_network(name))
    network = network.eval().to(bench.device)
    with ExitStack() as opened:
        backends: list[str] = []
        bundle = None
        if not compiled:
            backends = [backend for backend in ENGINES if _can(bench, name, backend)]
            with bench.guarded(_CASE_S, part="networks", network=name, case="bundle"):
                if backends:
                    folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
                    bundle = _bundle(bench, name, network, bundles, folder)
        for size in _sizes(bench, name, compiled):
            window = Window(bench, network, size, SCALE)
            if compiled:
                _measure_torch(bench, name, network, window, "torch.compile")
                continue
            _measure_torch(bench, name, network, window, "eager")
            if name == "videoinr":
                _measure_torch(bench, name, network, window, MIXED)
            for backend in backends if bundle else ():
                for dtype in ENGINES[backend]:
                    what = _what(name, window, backend, dtype)
                    with bench.guarded(_CASE_S, **what):
                        bench.record(**what, **_engine(bench, bundle, network, window, backend, dtype))


def _sizes(bench: Bench, name: str, compiled: bool) -> tuple[tuple[int, int], ...]:
    """Compilation takes longest, so that but VideoINR is compiled for one size."""
    if bench.dry_run:
        return ((16, 24),)
    return SIZES[:1] if bench.quick or (compiled and not name.startswith("videoinr")) else SIZES


def _what(name: str, window: Window, backend: str, dtype: str) -> dict[str, Any]:
    return {"part": "networks", "network": name, "case": window.name, "backend": backend, "dtype": dtype}


def _measure_torch(bench: Bench, name: str, network: Any, window: Window, backend: str) -> None:
    for dtype in DTYPES:
        what = _what(name, window, backend, dtype)
        with bench.guarded(_COMPILE_S if backend == "torch.compile" else _CASE_S, **what):
            began = time.perf_counter()
            by = TorchWindow(bench, network, window, dtype, backend)
            memory = bench.peak_bytes(by.run)
            first_s = time.perf_counter() - began
            figures = {**summary(bench.wall_ms(by.run)), "first_s": round(first_s, 1), "memory_bytes": memory}
            figures |= {"frames": window.frames_out, "frames_per_s": _frames_per_s(bench, by, figures["ms"])}
            bench.record(**what, **figures, **_ratio(bench, what, figures["ms"]))


def _frames_per_s(bench: Bench, by: TorchWindow, ms: float) -> float:
    """Frames a second of windows that follow one another, from and to page-locked memory."""
    count = 2 if bench.dry_run else int(min(60, max(2 * _IN_FLIGHT, 1e3 * _STREAM_S / ms)))
    lanes = [by.lane() for _ in range(_IN_FLIGHT)]
    for lane in lanes:
        lane()
    bench.sync()
    began = time.perf_counter()
    for number in range(count):
        lanes[number % len(lanes)]()
    bench.sync()
    return count * by.window.frames_out / (time.perf_counter() - began)


def _ratio(bench: Bench, what: dict[str, Any], ms: float) -> dict[str, Any]:
    """How many times as fast as eager float32 it is, and VideoINR's goal."""
    same = {**what, "backend": "eager", "dtype": "float32"}
    eager = [line["ms"] for line in bench.lines() if same.items() <= line.items() and "ms" in line]
    if not eager or what == same:
        return {}
    figures: dict[str, Any] = {"over_eager_float32": eager[-1] / ms}
    if what["network"] == "videoinr" and what["backend"] in (*ENGINES, MIXED):
        figures["goal"] = verdict([("eager float32", figures["over_eager_float32"], VIDEOINR_FACTOR, False)])
    return figures


def _can(bench: Bench, name: str, backend: str) -> bool:
    """Whether a backend is here; if not, a line says why."""
    what = {"part": "networks", "network": name, "backend": backend}
    try:
        if backend == "ort":
            import onnxruntime

            if not bench.dry_run and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise ImportError("this ONNX Runtime has no CUDA provider: install onnxruntime-gpu")
        else:
            from stvsr.engine.backends.tensorrt.builder import load_library

            if bench.dry_run:
                raise ImportError("engines run on a GPU alone")
            load_library("tensorrt-rtx")
    except Exception as absent:
        bench.record(**what, missing=" ".join(str(absent).split())[:300])
        return False
    return True


def _bundle(bench: Bench, name: str, network: Any, bundles: Path | None, folder: Path) -> Any:
    """Return a network's bundle: one that is shipped, whose weights the network takes; one of a folder; a new one."""
    from stvsr.engine.contract.bundle import Bundle, find_bundle
    from stvsr.engine.contract.errors import BundleError

    try:
        bundle = find_bundle(name)
    except BundleError:
        if bundles and (bundles / name).is_dir():
            bundle = Bundle.load(bundles / name)
        else:
            if bench.left_s < _EXPORT_S:
                raise TimeoutError("no time was left to export it") from None
            from stvsr.export.exporter import export_bundle

            return Bundle.load(export_bundle(find_network(name), copy.deepcopy(network), folder / name))
    import onnx
    from onnx import numpy_helper

    state = network.state_dict()
    for graph in bundle.manifest.graphs:
        for tensor in onnx.load(bundle.path(graph.role)).graph.initializer:
            if tensor.name in state:
                state[tensor.name] = bench.torch.from_numpy(numpy_helper.to_array(tensor).copy())
    network.load_state_dict(state)
    return bundle


def _options(backend: str, dtype: str, device: str) -> dict[str, Any]:
    """How sessions and upscalers of a backend are asked for."""
    precision = {"precision": {"float32": "fp32", "float16": "fp16"}[dtype]} if backend == "tensorrt" else {}
    return {"backend": backend, "device": device, **precision}


def _engine(bench: Bench, bundle: Any, network: Any, window: Window, backend: str, dtype: str) -> dict[str, Any]:
    """Latency, memory, agreement with PyTorch and throughput of a bundle."""
    from stvsr.engine.backends.graphs import open_graphs

    options = _options(backend, dtype, "cpu" if bench.dry_run else "cuda:0")
    free = _free_bytes(bench)
    began = time.perf_counter()
    with open_graphs(bundle, **options) as graphs:
        run = window.engine(graphs)
        run()
        bench.sync()
        first_s = time.perf_counter() - began
        name = f"{bundle.manifest.name} by {backend} {dtype}, {window.name}"
        bench.check("networks", name, lambda: _agrees(bench, network, window, run, dtype))
        free -= _free_bytes(bench)
        figures: dict[str, Any] = {**summary(bench.wall_ms(run)), "first_s": round(first_s, 1)}
        if backend == "tensorrt" and window.kind != "pair":
            what = _what(bundle.manifest.name, window, "tensorrt in a PyCUDA host", dtype)
            with bench.guarded(_CASE_S, **what):
                bench.record(**what, **_in_pycuda(bench, graphs, window))
    figures |= {"memory_bytes": free or None, "frames": window.frames_out, "fingerprint": bundle.fingerprint}
    figures["frames_per_s"] = _stream(bench, bundle, window, options, figures["ms"])
    return figures | _ratio(bench, _what(bundle.manifest.name, window, backend, dtype), figures["ms"])


def _in_pycuda(bench: Bench, graphs: Any, window: Window) -> dict[str, Any]:
    """Latency of the same engine where arrays and stream are PyCUDA's."""
    import pycuda.driver as cuda
    from pycuda.gpuarray import GPUArray, to_gpu

    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        values = [bench.numpy(value) for value in (window.frames, *window.others)]
        inputs = {spec.name: to_gpu(v) for spec, v in zip(graphs.bundle.graph("network").inputs, values, strict=True)}
        session, stream = graphs.session("network", inputs), cuda.Stream()
        outputs = {name: GPUArray(made.shape, made.dtype) for name, made in session.run(inputs).items()}

        def run() -> None:
            session.run(inputs, outputs=outputs, stream=stream)
            stream.synchronize()

        return summary(bench.wall_ms(run))
    finally:
        context.pop()


def _agrees(bench: Bench, network: Any, window: Window, run: Callable[..., list[Any]], dtype: str) -> dict[str, Any]:
    with bench.torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        truth = TorchWindow(bench, network, window, "float32", "eager").run()
    out = run()
    bench.sync()
    pairs = [np.concatenate([bench.numpy(part).ravel() for part in parts]) for parts in (out, truth)]
    return compared(*pairs, *_BOUNDS[dtype])


def _stream(bench: Bench, bundle: Any, window: Window, options: dict[str, Any], ms: float) -> float:
    """Frames a second of the engine's upscaler, frames in memory in and out."""
    from stvsr.engine.contract.windows import one_scene
    from stvsr.engine.pipeline.upscaler import Upscaler

    height, width = window.size
    least = max(window.frames_in, 2)
    count = least if bench.dry_run else least + int(min(60, max(6, 1e3 * _STREAM_S / ms * window.frames_out / 2)))
    frames = np.random.default_rng(0).random((count, 3, height, width), np.float32)
    scale = window.space_factor
    times = (Fraction(0), Fraction(1, 2)) if window.doubles else (Fraction(0),)

    def run(some: np.ndarray) -> int:
        return sum(1 for _ in upscaler.frames(one_scene(some, times), (height * scale, width * scale)))

    with Upscaler(bundle, **options) as upscaler:
        run(frames[:least])
        began = time.perf_counter()
        made = run(frames)
        return made / (time.perf_counter() - began)


def _free_bytes(bench: Bench) -> int:
    if bench.dry_run:
        return 0
    bench.torch.cuda.empty_cache()
    return bench.torch.cuda.mem_get_info()[0]
