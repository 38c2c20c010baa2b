"""A bundle's graphs, opened by one backend: sessions of ONNX Runtime, engines for the sizes in use, or a server."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..contract.axes import sizes_of
from ..contract.bundle import Bundle
from ..contract.errors import BackendError
from ..contract.manifest import Precision, Role
from ..contract.weights import edit_graphs, read_weights
from .bundle_graphs import Graphs, SessionKey
from .choice import cuda_unavailable, engines_unavailable
from .cuda import CudaDevice
from .cuda_driver import device_name, local_target
from .device import Array, Device
from .kernel_sessions import has_kernel, open_kernel_session
from .onnxruntime import FixedShapes, OrtSession, open_on
from .options import DEFAULT_TIMEOUT_S, Backend, parse_device
from .preparation import Preparation
from .remote.address import parse_address
from .remote.server import InferenceServer
from .remote.session import RemoteDevice, RemoteSession
from .session import Session
from .tensorrt.engines import find_engine
from .tensorrt.half import COORDINATES, graph_to_fp16
from .tensorrt.library import installed_library, load_library
from .tensorrt.session import TensorRtSession

Warn = Callable[[str], None]
SESSIONS = 8  # of one graph in ONNX Runtime on a GPU, each for the shapes of its inputs


class OrtGraphs(Graphs):
    """Graphs in ONNX Runtime. The first one is opened at once, so that a device that does not work is noticed.

    On a GPU a session is for one size, and the sessions of the last sizes stay open.
    """

    backend = "ort"

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        backend: Backend,
        precision: Precision = "fp32",
        *,
        captures: bool = True,
    ) -> None:
        super().__init__(bundle, device, precision)
        self._backend, self._captures = backend, captures
        self._weights: dict[str, np.ndarray] = {}  # replacements of the graphs' own
        self._edited: dict[Role, bytes] = {}
        first = SessionKey(bundle.manifest.graphs[0].role)
        self._sessions[first] = self._open(first, {})

    @property
    def captured(self) -> bool:
        """The capture of runs: true if all open sessions of ONNX Runtime run as CUDA graphs."""
        return all(session.captured for session in self._sessions.values() if isinstance(session, OrtSession))

    def session(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        """Return a session that accepts inputs of these shapes; on a GPU, it accepts no others."""
        session = super().session(role, inputs)
        key = self._key(role, inputs)
        self._sessions.move_to_end(key)
        others = [other for other in self._sessions if other.role == role and other != key]
        for number, other in enumerate(reversed(others), start=1):
            if other.shapes is None or number >= SESSIONS:
                self._close_session(other)
        return session

    def _key(self, role: Role, inputs: Mapping[str, Array]) -> SessionKey:
        if not isinstance(self.device, CudaDevice) or has_kernel(self.bundle, role):
            return SessionKey(role)
        return SessionKey(role, tuple(tuple(inputs[spec.name].shape) for spec in self.bundle.graph(role).inputs))

    def _open(self, key: SessionKey, inputs: Mapping[str, Array]) -> Session:
        if isinstance(self.device, CudaDevice) and has_kernel(self.bundle, key.role):
            return open_kernel_session(self.bundle, key.role, self.device, self.precision, self._weights)
        entry = self.bundle.graph(key.role)
        graph: Path | bytes = self._edited.get(key.role, self.bundle.path(key.role))
        if self.precision == "fp16":
            flows = {flow.name for flow in self.bundle.manifest.flows}
            graph = graph_to_fp16(graph, COORDINATES | flows)
        fixed = None
        if key.shapes is not None:
            # Refuses shapes that contradict each other.
            sizes_of(entry.inputs, dict(zip((spec.name for spec in entry.inputs), key.shapes, strict=True)))
            fixed = FixedShapes(entry.inputs, entry.outputs, key.shapes)
        return OrtSession(
            graph,
            self.device,
            self._backend.threads,
            self.precision,
            fixed,
            self._backend.time_limit_s,
            captures=self._captures,
            waiting=self._backend.waiting,
        )

    def refit(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace weights by opening edited copies of the graphs from memory."""
        replaced = {**self._weights, **weights}
        self._edited = edit_graphs(self.bundle, replaced)
        self._weights = replaced
        for key in list(self._sessions):
            self._close_session(key)


class EngineGraphs(Graphs):
    """Engines on a GPU, found or built when the sizes are known."""

    backend = "tensorrt"

    def __init__(self, bundle: Bundle, device: CudaDevice, backend: Backend, warn: Warn) -> None:
        super().__init__(bundle, device, backend.precision_on_gpu(bundle.manifest))
        self._cuda, self._backend, self._warn = device, backend, warn
        self._weights: dict[Role, dict[str, np.ndarray]] = {}  # replacements of the graphs' own
        self._target = local_target(device.index) or ""
        self._library = backend.library or installed_library()
        load_library(self._library)

    def session(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        """Return a session whose engine accepts these sizes; it replaces one whose engine does not."""
        session = self._sessions.get(SessionKey(role))
        if isinstance(session, TensorRtSession) and not session.takes({n: inputs[n].shape for n in _names(session)}):
            self._close_session(SessionKey(role))
        return super().session(role, inputs)

    def _open(self, key: SessionKey, inputs: Mapping[str, Array]) -> Session:
        role = key.role
        weights = self._weights.get(role, {})
        if has_kernel(self.bundle, role):
            return open_kernel_session(self.bundle, role, self._cuda, self.precision, weights)
        graph = self.bundle.graph(role)
        path = find_engine(
            self.bundle,
            role,
            target=self._target,
            precision=self.precision,
            sizes=sizes_of(graph.inputs, {spec.name: inputs[spec.name].shape for spec in graph.inputs}),
            library=self._library,
            refit=self._backend.refit,
            warn=self._warn,
        )
        session = TensorRtSession(path, graph, self._library, self._cuda)
        if weights:
            try:
                session.refit(weights)
            except BaseException:
                session.close()
                raise
        return session

    def refit(self, weights: Mapping[str, np.ndarray]) -> None:
        """Refit the engines that are open, and those that open later."""
        if not self._backend.refit:
            raise BackendError("These engines were compiled without refit: open the bundle with Backend(refit=True).")
        edit_graphs(self.bundle, weights)  # raises BundleError for weights that do not fit
        former = self._weights
        self._weights = {}
        try:
            for graph in self.bundle.manifest.graphs:
                names = read_weights(self.bundle.path(graph.role).read_bytes())
                replaced = {name: weight for name, weight in weights.items() if name in names}
                self._weights[graph.role] = {**former.get(graph.role, {}), **replaced}
                session = self._sessions.get(SessionKey(graph.role)) if replaced else None
                if isinstance(session, TensorRtSession):
                    session.refit(self._weights[graph.role])
                elif session is not None:
                    self._close_session(SessionKey(graph.role))
        except BaseException:
            self._weights = former
            for key in list(self._sessions):  # they open again with the former weights
                self._close_session(key)
            raise


class RemoteGraphs(Graphs):
    """Graphs on an inference server, which is checked at once: its models, their tensors and their fingerprints."""

    backend = "remote"

    def __init__(self, bundle: Bundle, backend: Backend, warn: Warn) -> None:
        assert backend.url is not None  # checked by the record
        self._server = InferenceServer(parse_address(backend.url), backend.timeout_s or DEFAULT_TIMEOUT_S)
        try:
            precision = self._server.check(bundle, warn)
        except BaseException:
            self._server.close()
            raise
        super().__init__(bundle, RemoteDevice(str(self._server.address)), precision)

    def _open(self, key: SessionKey, inputs: Mapping[str, Array]) -> Session:
        return RemoteSession(self._server, self.bundle, key.role, self.device)

    def refit(self, weights: Mapping[str, np.ndarray]) -> None:
        """Raise BackendError: the weights of a server belong to all of its clients."""
        raise BackendError("An inference server keeps its weights: use --backend ort to replace them.")

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._server.close()


def ignore_warnings(sentence: str) -> None:
    """Discard a warning."""


def open_graphs(
    bundle: Bundle, backend: Backend | None = None, warn: Warn = ignore_warnings, *, captures: bool = True
) -> Graphs:
    """Open a bundle's graphs; without a `backend`, by the fastest one of this machine.

    `captures` is that of `OrtSession`. `warn` receives a sentence for each engine that cannot be used and is built
    again, and for a GPU that "auto" leaves idle. Raises BackendError if the backend or the device is not available,
    BundleError if a graph cannot be loaded.
    """
    preparation = Preparation()
    with preparation.opening():
        graphs = _open_graphs(bundle, backend or Backend(), warn, captures)
    graphs.preparation = preparation
    return graphs


def _open_graphs(bundle: Bundle, backend: Backend, warn: Warn, captures: bool) -> Graphs:
    if backend.kind == "remote":
        return RemoteGraphs(bundle, backend, warn)
    kind, index = parse_device(backend.device)
    if backend.kind == "tensorrt" or (backend.kind == "auto" and kind != "cpu" and not engines_unavailable(index)):
        return EngineGraphs(bundle, CudaDevice(index), backend, warn)

    def open_with(device: Device) -> OrtGraphs:
        if isinstance(device, CudaDevice):
            precision = backend.precision_on_gpu(bundle.manifest)
            return OrtGraphs(bundle, device, backend, precision, captures=captures)
        if backend.precision not in ("auto", "fp32"):
            raise BackendError(
                f"There is no GPU that works, and the CPU computes in float32: leave out --precision"
                f" {backend.precision}, or see 'stvsr info --devices'."
            )
        return OrtGraphs(bundle, device, backend)

    graphs = open_on(backend.device, open_with)
    if kind == "auto" and not isinstance(graphs.device, CudaDevice) and (gpu := device_name(0)):
        reason = cuda_unavailable() or "ONNX Runtime cannot open a session on it; --device cuda:0 tells why."
        warn(f"The CPU computes, and {gpu} does not. {reason}")
    return graphs


def _names(session: Session) -> list[str]:
    return [spec.name for spec in session.inputs]
