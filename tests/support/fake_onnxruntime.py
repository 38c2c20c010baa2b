"""ONNX Runtime with a CUDA provider for the fake GPU: sessions compute on the CPU, in the memory of its arrays."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from stvsr.engine.backends import graphs, onnxruntime


class FakeOrt:
    """ONNX Runtime as the engine sees it: tests change how it behaves, and read how sessions were opened."""

    def __init__(self) -> None:
        self._real: Any = onnxruntime.import_onnxruntime()
        self.opened: list[dict[str, str]] = []  # options of the CUDA provider of every session
        self.runs = 0
        self.capturable = True  # whether every node can be computed on the GPU
        self.capture_fails = False  # when a session first runs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self) -> None: ...

    def InferenceSession(self, graph: Any, options: Any, *, providers: list[Any], **others: Any) -> Any:  # noqa: N802
        if providers == ["CPUExecutionProvider"]:
            return self._real.InferenceSession(graph, options, providers=providers, **others)
        (_, provider), _ = providers
        if provider["enable_cuda_graph"] == "1" and not self.capturable:
            raise RuntimeError("all compute graph nodes have not been partitioned to the CUDA EP")
        self.opened.append(provider)
        return _CudaSession(
            self, self._real.InferenceSession(graph, options, providers=["CPUExecutionProvider"]), provider
        )


class _CudaSession:
    def __init__(self, ort: FakeOrt, session: Any, provider: dict[str, str]) -> None:
        self._ort, self._session = ort, session
        self._captures = provider["enable_cuda_graph"] == "1"
        self._bound: list[Any] | None = None  # of the first run, which later ones of a captured graph repeat

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def io_binding(self) -> Any:
        binding = self._session.io_binding()
        bound: list[Any] = []

        def bind(method: Any) -> Any:
            def on_cpu(name: str, device: str, index: int, *where: Any) -> None:
                assert (device, index) == ("cuda", 0)
                bound.append((name, *where))
                method(name, "cpu", 0, *where)

            return on_cpu

        return SimpleNamespace(
            bind_input=bind(binding.bind_input), bind_output=bind(binding.bind_output), real=binding, bound=bound
        )

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        if self._captures and self._ort.capture_fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        if self._captures:
            assert self._bound in (None, binding.bound), "a captured graph reads and writes the same memory"
            self._bound = list(binding.bound)
        self._ort.runs += 1
        self._session.run_with_iobinding(binding.real, options)


@contextmanager
def with_cuda() -> Iterator[FakeOrt]:
    """Give ONNX Runtime a CUDA provider."""
    ort = FakeOrt()
    with (
        patch.object(onnxruntime, "import_onnxruntime", lambda: ort),
        patch.object(graphs, "engines_unavailable", lambda *_: "No library is installed."),
    ):
        yield ort
