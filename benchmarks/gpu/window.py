"""One window of a network: random inputs, and functions that compute it in PyTorch or by the engine's sessions."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from stvsr.engine.contract.manifest import ContinuousSpace, ContinuousTime
from stvsr.engine.pipeline.runners import decoder_inputs, refine
from stvsr.training.networks.base import decode_pair
from stvsr.training.networks.ops import target_coordinates

from .bench import Bench
from .decoder import KernelDecoder

MIXED = "eager encoder, CUDA decoder"  # the backend that is VideoINR with the decoder as kernels
GRAPH = "CUDA graph"  # the backend that is PyTorch, captured


class Window:
    """Inputs of one window, on the device; frames are padded to the multiple of pixels that the network needs.

    size: rows and columns. scale: the space factor of a network that supports any. batch: windows that are computed at
    once.
    """

    def __init__(self, bench: Bench, network: Any, size: tuple[int, int], scale: int, batch: int = 1) -> None:
        torch = bench.torch
        self.bench, self.kind, self.frames_in = bench, network.window.kind, network.window.frames
        height, width = self.size = tuple(network.size.padded(n) for n in size)
        # A run shares its last frame with the next run.
        counts = {"pair": 2, "run": 2 * (self.frames_in - 1), "sliding": 1, "doubled": 2 * self.frames_in}
        self.frames_out = counts[self.kind]
        self.doubles = self.kind != "sliding"
        continuous = isinstance(network.space, ContinuousSpace)
        self.space_factor = scale if continuous else network.space.factors[0]
        self.name = f"{width}x{height} to {width * self.space_factor}x{height * self.space_factor}"
        self.frames = bench.uniform(batch, self.frames_in, 3, height, width)
        self.others = [bench.normal(batch, len(flow.pairs), 2, height, width) for flow in network.flows]
        self.moments = [torch.full((batch,), moment, device=bench.device) for moment in (0.0, 0.5)]
        if self.kind != "pair" and isinstance(network.time, ContinuousTime):
            self.others.append(self.moments[1])
        self.target = (height * self.space_factor, width * self.space_factor)
        # The phases of one input pixel for a network that decodes integer factors faster, else whole axes.
        self.integer = hasattr(network, "decode_integer")
        pixels = (1, 1) if self.integer else self.size
        self.y, self.x = (target_coordinates(n, n * self.space_factor).to(bench.device) for n in pixels)

    def engine(self, graphs: Any) -> Callable[..., list[Any]]:
        """Return a function that computes the window by a bundle's open graphs; its frames stay on the device."""
        if self.kind == "pair":
            role, axes = decoder_inputs(graphs.bundle.manifest, self.size, self.target)
            frames, moments = self._shared(self.frames), [moment.cpu().numpy() for moment in self.moments]

            def run() -> list[Any]:
                with graphs.device.stream(0):
                    features = graphs.run("encoder", {"frames": frames}, keep=True)
                    maps = (refine(graphs, features, moment) for moment in moments)
                    return [graphs.run(role, {**refined, **axes})["frame"] for refined in maps]

            return run
        specs = graphs.bundle.graph("network").inputs
        values = [self._shared(value) for value in (self.frames, *self.others)]
        inputs = {spec.name: value for spec, value in zip(specs, values, strict=True)}

        def run_network() -> list[Any]:
            with graphs.device.stream(0):
                return [graphs.run("network", inputs)["upscaled"]]

        return run_network

    def _shared(self, tensor: Any) -> Any:
        """Return a tensor as an array for the engine that shares its memory."""
        if self.bench.dry_run:
            return tensor.numpy()
        import cupy

        return cupy.asarray(tensor)


class TorchWindow:
    """A window in PyTorch: eager, by `torch.compile`, as a CUDA graph, or with VideoINR's decoder as kernels."""

    def __init__(self, bench: Bench, network: Any, window: Window, dtype: str, backend: str) -> None:
        self.bench, self.window, self.dtype = bench, window, dtype
        compiled = backend == "torch.compile"
        if compiled:
            bench.torch.compiler.reset()

        def maybe_compiled(function: Any) -> Any:
            options = {"backend": "eager"} if bench.dry_run else {}
            return bench.torch.compile(function, dynamic=False, **options) if compiled else function

        self._replay: Callable[[], list[Any]] | None = None
        self._decoder = None
        if backend == MIXED:
            self._decoder = KernelDecoder(bench, network, window.size, window.target, dtype)
        if window.kind == "pair":
            self._encode = maybe_compiled(network.encode)
            self._decode = maybe_compiled(functools.partial(decode_pair, network, integer=window.integer))
        else:
            self._forward = maybe_compiled(network)
        if backend == GRAPH and not bench.dry_run:
            self._replay = self._captured()

    def _captured(self) -> Callable[[], list[Any]]:
        """Return a function that replays the window as a CUDA graph."""
        torch, graph = self.bench.torch, self.bench.torch.cuda.CUDAGraph()
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(3):
                self.run()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            out = self.run()

        def replay() -> list[Any]:
            graph.replay()
            return out

        return replay

    def run(self, frames: Any = None) -> list[Any]:
        """Return the output frames, on the device. frames: (1, N, 3, h, w); None: the window's own."""
        if self._replay is not None and frames is None:
            return self._replay()
        bench, window = self.bench, self.window
        half = bench.torch.autocast(bench.device.type, bench.torch.float16, enabled=self.dtype == "float16")
        frames = window.frames if frames is None else frames
        with bench.torch.no_grad(), half:
            if window.kind != "pair":
                return [self._forward(frames, *window.others)]
            features = self._encode(frames)
            if self._decoder is not None:
                encoded = self._decoder.prepare(bench.array(features[0].to(bench.dtype(self.dtype)).contiguous()))
                moments = [bench.array(moment) for moment in window.moments]
                # The tensors share the memory of the kernels' outputs.
                return [bench.torch.from_dlpack(self._decoder.decode(encoded, moment)) for moment in moments]
            return [self._decode(features, moment, window.y, window.x) for moment in window.moments]

    def on_new_stream(self) -> Callable[[], Any]:
        """Return a function that queues upload, network and download of the window on a stream of its own."""
        bench, torch = self.bench, self.bench.torch
        if bench.dry_run:
            return self.run
        stream = torch.cuda.Stream()
        frames = self.window.frames.cpu().pin_memory()
        pinned: list[Any] = []

        def queue() -> None:
            with torch.cuda.stream(stream), self._kernels_on(stream):
                outs = self.run(frames.to(bench.device, non_blocking=True))
                if not pinned:
                    pinned.extend(torch.empty(out.shape, dtype=out.dtype, pin_memory=True) for out in outs)
                for target, out in zip(pinned, outs, strict=True):
                    target.copy_(out, non_blocking=True)

        return queue

    def _kernels_on(self, stream: Any) -> AbstractContextManager[Any]:
        """Make a stream of PyTorch's the current one of CuPy, on which kernels are launched."""
        if self._decoder is None:
            return nullcontext()
        import cupy

        return cupy.cuda.ExternalStream(stream.cuda_stream)
