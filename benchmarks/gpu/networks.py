"""Measurements of whole networks: eager PyTorch, `torch.compile`, and the engine's backends.

Latency is that of one window, from inputs on the device until its frames are on the device. Throughput is that of a
stream of frames from and to host memory, with several windows in flight. Weights are random, except those of shipped
bundles. Half precision in PyTorch is `torch.autocast`; float32 uses TF32 where PyTorch does by default.
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
from stvsr import Backend, Bundle, BundleError, Upscaler, one_scene
from stvsr.engine.contract.manifest import Precision
from stvsr.training.checkpoints import random_weights
from stvsr.training.networks.registry import NETWORKS, find_network

from .bench import Bench
from .summary import compared, summary, verdict
from .window import GRAPH, MIXED, TorchWindow, Window

_FIRST = ("fourier-s", "videoinr-s", "videoinr", "edvr-m", "zsm")
BY_PRIORITY = (
    *_FIRST,
    *sorted((entry.name for entry in NETWORKS if entry.name not in _FIRST), key=lambda name: name.endswith("-s")),
)
COMPILED = ("fourier-s", "videoinr", "videoinr-s", "edvr-m", "zsm")
DTYPES = ("float32", "float16")
SIZES = ((144, 180), (270, 480))  # rows, columns
SMALL_SIZES = ((144, 180), (360, 640))  # of networks made for speed
BATCHES, BATCH_SIZES = (1, 2, 4, 8), ((144, 180), (180, 320))
SCALE = 4
VIDEOINR_FACTOR = 4.0  # the goal of VideoINR: at least this many times as fast as eager float32 PyTorch
# Allowed maximal and mean error of an engine, relative to the range.
_BOUNDS = {"float32": (1e-3, 1e-4), "tf32": (1e-2, 1e-3), "float16": (1e-1, 1e-2)}
_CASE_S, _COMPILE_S, _EXPORT_S = 10.0, 60.0, 60.0  # upper limits of the time that each takes, approximately
_STREAM_S = 1.5
_IN_FLIGHT = 3

# The engine's precisions, by the names that the lines of the benchmark have for types.
PRECISIONS: dict[str, Precision] = {"float32": "fp32", "tf32": "tf32", "float16": "fp16"}
ENGINES = ("ort", "tensorrt")  # kinds of the engine's backends


def measure(bench: Bench, name: str, bundles: Path | None, *, compiled: bool) -> None:
    """Record a network at every size; with `compiled`, by `torch.compile` alone."""
    network, _ = random_weights(find_network(name))
    network = network.eval().to(bench.device)
    with ExitStack() as stack:
        backends: list[str] = []
        bundle = None
        if not compiled:
            backends = [backend for backend in ENGINES if _is_available(bench, name, backend)]
            with bench.guarded(_CASE_S, part="networks", network=name, case="bundle"):
                if backends:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    bundle = _bundle(bench, name, network, bundles, folder)
        for size in _sizes(bench, name, compiled):
            window = Window(bench, network, size, SCALE)
            if compiled:
                _measure_torch(bench, name, network, window, "torch.compile")
                continue
            _measure_torch(bench, name, network, window, "eager")
            _measure_torch(bench, name, network, window, GRAPH)
            if name == "videoinr":
                _measure_torch(bench, name, network, window, MIXED)
            for backend in backends if bundle else ():
                for dtype in DTYPES[:1] if bench.dry_run else PRECISIONS:
                    fields = _fields(name, window, backend, dtype)
                    with bench.guarded(_CASE_S, **fields):
                        bench.record(**fields, **_engine(bench, bundle, network, window, backend, dtype))


def _sizes(bench: Bench, name: str, compiled: bool) -> tuple[tuple[int, int], ...]:
    """Return the sizes to measure; compilation is slow, so only VideoINR is compiled for more than one size."""
    if bench.dry_run:
        return ((16, 24),)
    sizes = SMALL_SIZES if name.endswith("-s") else SIZES
    return sizes[:1] if bench.quick or (compiled and not name.startswith("videoinr")) else sizes


def measure_batches(bench: Bench, name: str, bundles: Path | None) -> None:
    """Record the latency of several windows at once in ONNX Runtime, at the precision that a run takes by itself."""
    from stvsr.engine.backends.graphs import open_graphs

    network, _ = random_weights(find_network(name))
    network = network.eval().to(bench.device)
    if not _is_available(bench, name, "ort"):
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = _bundle(bench, name, network, bundles, Path(folder))
        device = "cpu" if bench.dry_run else "cuda:0"
        precision = "fp32" if bench.dry_run else Backend("ort", device).precision_on_gpu(bundle.manifest)
        for size in ((16, 24),) if bench.dry_run else BATCH_SIZES:
            for batch in BATCHES[:2] if bench.dry_run else BATCHES:
                window = Window(bench, network, size, SCALE, batch)
                fields = {"part": "batches", "network": name, "case": window.name, "batch": batch}
                with bench.guarded(_CASE_S, **fields), open_graphs(bundle, Backend("ort", device, precision)) as graphs:
                    run = window.engine(graphs)
                    figures = summary(bench.wall_ms(run))
                    each = figures["ms"] / batch
                    bench.record(**fields, precision=precision, **figures, ms_per_window=each)


def _fields(name: str, window: Window, backend: str, dtype: str) -> dict[str, Any]:
    return {"part": "networks", "network": name, "case": window.name, "backend": backend, "dtype": dtype}


def _measure_torch(bench: Bench, name: str, network: Any, window: Window, backend: str) -> None:
    for dtype in DTYPES:
        fields = _fields(name, window, backend, dtype)
        with bench.guarded(_COMPILE_S if backend == "torch.compile" else _CASE_S, **fields):
            began = time.perf_counter()
            runner = TorchWindow(bench, network, window, dtype, backend)
            memory = bench.peak_bytes(runner.run)
            first_s = time.perf_counter() - began
            figures = {**summary(bench.wall_ms(runner.run)), "first_s": round(first_s, 1), "memory_bytes": memory}
            figures["frames"] = window.frames_out
            if backend != GRAPH:  # one graph has one window in flight
                figures["frames_per_s"] = _frames_per_s(bench, runner, figures["ms"])
            bench.record(**fields, **figures, **_ratio(bench, fields, figures["ms"]))


def _frames_per_s(bench: Bench, runner: TorchWindow, ms: float) -> float:
    """Return the throughput of consecutive windows from and to page-locked memory, in frames/s."""
    count = 2 if bench.dry_run else int(min(60, max(2 * _IN_FLIGHT, 1e3 * _STREAM_S / ms)))
    streams = [runner.on_new_stream() for _ in range(_IN_FLIGHT)]
    for queue in streams:
        queue()
    bench.sync()
    began = time.perf_counter()
    for number in range(count):
        streams[number % len(streams)]()
    bench.sync()
    return count * runner.window.frames_out / (time.perf_counter() - began)


def _ratio(bench: Bench, fields: dict[str, Any], ms: float) -> dict[str, Any]:
    """Return the speedup over eager float32, and the verdict on VideoINR's goal."""
    same = {**fields, "backend": "eager", "dtype": "float32"}
    eager = [line["ms"] for line in bench.lines() if same.items() <= line.items() and "ms" in line]
    if not eager or fields == same:
        return {}
    figures: dict[str, Any] = {"over_eager_float32": eager[-1] / ms}
    if fields["network"] == "videoinr" and fields["backend"] in (*ENGINES, MIXED):
        figures["goal"] = verdict([("eager float32", figures["over_eager_float32"], VIDEOINR_FACTOR, False)])
    return figures


def _is_available(bench: Bench, name: str, backend: str) -> bool:
    """Return whether a backend is installed; record the reason if it is not."""
    fields = {"part": "networks", "network": name, "backend": backend}
    try:
        if backend == "ort":
            import onnxruntime

            if not bench.dry_run and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise ImportError("this ONNX Runtime has no CUDA provider: install onnxruntime-gpu")
        else:
            from stvsr.engine.backends.choice import engines_unavailable

            if bench.dry_run:
                raise ImportError("engines run only on a GPU")
            reason = engines_unavailable()
            if reason:
                raise ImportError(reason)
    except Exception as absent:
        bench.record(**fields, missing=" ".join(str(absent).split())[:300])
        return False
    return True


def _bundle(bench: Bench, name: str, network: Any, bundles: Path | None, folder: Path) -> Bundle:
    """Return a network's bundle, shipped, from `bundles`, or exported to `folder`, and load its weights into `network`.

    Raises TimeoutError if the time that is left does not suffice for an export.
    """
    from stvsr.engine.contract.bundle import find_bundle

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


def _engine(bench: Bench, bundle: Any, network: Any, window: Window, kind: str, dtype: str) -> dict[str, Any]:
    """Return latency, memory and throughput of a bundle, and check that it agrees with PyTorch."""
    from stvsr.engine.backends.graphs import OrtGraphs, open_graphs

    device = "cpu" if bench.dry_run else "cuda:0"
    backend = Backend(kind=kind, device=device, precision=PRECISIONS[dtype])  # type: ignore[arg-type]
    free = _free_bytes(bench)
    began = time.perf_counter()
    with open_graphs(bundle, backend) as graphs:
        run = window.engine(graphs)
        run()
        bench.sync()
        first_s = time.perf_counter() - began
        name = f"{bundle.manifest.name} by {kind} {dtype}, {window.name}"
        bench.check("networks", name, lambda: _compare(bench, network, window, run, dtype))
        free -= _free_bytes(bench)
        figures: dict[str, Any] = {**summary(bench.wall_ms(run)), "first_s": round(first_s, 1)}
        if isinstance(graphs, OrtGraphs):
            figures["captured"] = graphs.captured
        if kind == "tensorrt" and window.kind != "pair":
            fields = _fields(bundle.manifest.name, window, "tensorrt in a PyCUDA host", dtype)
            with bench.guarded(_CASE_S, **fields):
                bench.record(**fields, frames=window.frames_out, **_in_pycuda(bench, graphs, window))
    figures |= {"memory_bytes": free or None, "frames": window.frames_out, "fingerprint": bundle.fingerprint}
    figures["frames_per_s"] = _stream(bench, bundle, window, backend, figures["ms"])
    return figures | _ratio(bench, _fields(bundle.manifest.name, window, kind, dtype), figures["ms"])


def _in_pycuda(bench: Bench, graphs: Any, window: Window) -> dict[str, Any]:
    """Return the latency of the same engine with arrays and a stream of PyCUDA."""
    import pycuda.driver as cuda
    from pycuda.gpuarray import GPUArray, to_gpu

    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        values = [bench.numpy(value) for value in (window.frames, *window.others)]
        inputs = {spec.name: to_gpu(v) for spec, v in zip(graphs.bundle.graph("network").inputs, values, strict=True)}
        session, stream = graphs.session("network", inputs), cuda.Stream()
        outputs = {name: GPUArray(array.shape, array.dtype) for name, array in session.run(inputs).items()}

        def run() -> None:
            session.run(inputs, outputs=outputs, stream=stream)
            stream.synchronize()

        return summary(bench.wall_ms(run))
    finally:
        context.pop()


def _compare(bench: Bench, network: Any, window: Window, run: Callable[..., list[Any]], dtype: str) -> dict[str, Any]:
    """Compare an engine's frames with those of PyTorch in float32, without TF32."""
    with bench.torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        truth = TorchWindow(bench, network, window, "float32", "eager").run()
    out = run()
    bench.sync()
    flat = [np.concatenate([bench.numpy(frame).ravel() for frame in frames]) for frames in (out, truth)]
    return compared(flat[0], flat[1], *_BOUNDS[dtype])


def _stream(bench: Bench, bundle: Any, window: Window, backend: Backend, ms: float) -> float:
    """Return the throughput of the engine's upscaler with frames in host memory, in frames/s."""
    height, width = window.size
    least = max(window.frames_in, 2)
    count = least if bench.dry_run else least + int(min(60, max(6, 1e3 * _STREAM_S / ms * window.frames_out / 2)))
    frames = np.random.default_rng(0).random((count, 3, height, width), np.float32)
    scale = window.space_factor
    times = (Fraction(0), Fraction(1, 2)) if window.doubles else (Fraction(0),)

    def run(some: np.ndarray) -> int:
        return sum(1 for _ in upscaler.frames(one_scene(some, times), (height * scale, width * scale)))

    with Upscaler(bundle, backend) as upscaler:
        run(frames[:least])
        began = time.perf_counter()
        output_frames = run(frames)
        return output_frames / (time.perf_counter() - began)


def _free_bytes(bench: Bench) -> int:
    if bench.dry_run:
        return 0
    bench.torch.cuda.empty_cache()
    return bench.torch.cuda.mem_get_info()[0]
