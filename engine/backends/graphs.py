"""A bundle's graphs, opened on one device by one backend: ONNX Runtime's sessions, or engines for the sizes in use."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import numpy as np

from ..contract.axes import sizes_of
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from ..contract.errors import BackendError
from ..contract.manifest import Role
from ..contract.weights import edit_graphs, read_weights
from .cuda import CudaDevice
from .cuda_driver import local_target
from .device import Array, Device
from .onnxruntime import OrtSession, open_on
from .options import Backend, parse_device
from .session import Session
from .tensorrt.engines import find_engine
from .tensorrt.library import installed_library, load_library
from .tensorrt.session import TensorRtSession
from .videoinr_decoder import ARCHITECTURE, VideoInrDecoderSession

Warn = Callable[[str], None]


class Graphs(Closing):
    """The graphs of a bundle. A session of each role opens when it first runs."""

    def __init__(self, bundle: Bundle, device: Device) -> None:
        self.bundle, self.device = bundle, device
        self._sessions: dict[Role, Session] = {}

    def run(self, role: Role, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Run one graph on the current stream; `keep` as in `Session.run`."""
        return self.session(role, inputs).run(inputs, keep=keep)

    def session(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        """Return a session that accepts inputs of these shapes."""
        if role not in self._sessions:
            self._sessions[role] = self._open(role, inputs)
        return self._sessions[role]

    def refit(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace weights, by their names in the graphs, while sessions stay open.

        Raises BundleError for weights that no graph has or that do not fit, BackendError for weights that an engine
        cannot replace.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close every session."""
        with ExitStack() as opened:
            for session in self._sessions.values():
                opened.enter_context(session)
        self._sessions.clear()

    def _open(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        raise NotImplementedError


class OrtGraphs(Graphs):
    """Graphs in ONNX Runtime. The first one is opened at once, so that a device that does not work is noticed."""

    def __init__(self, bundle: Bundle, device: Device, threads: int | None) -> None:
        super().__init__(bundle, device)
        self._threads = threads
        self._weights: dict[str, np.ndarray] = {}  # replacements of the graphs' own
        self._edited: dict[Role, bytes] = {}
        first = bundle.manifest.graphs[0].role
        self._sessions[first] = self._open(first, {})

    def _open(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        return OrtSession(self._edited.get(role, self.bundle.path(role)), self.device, self._threads)

    def refit(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace weights by opening edited copies of the graphs from memory."""
        replaced = {**self._weights, **weights}
        self._edited = edit_graphs(self.bundle, replaced)
        self._weights = replaced
        for role in list(self._sessions):
            session = self._open(role, {})
            self._sessions[role].close()
            self._sessions[role] = session


class EngineGraphs(Graphs):
    """Engines on a GPU, found or built when the sizes are known. VideoINR's decoder runs on kernels of its own."""

    def __init__(self, bundle: Bundle, device: CudaDevice, backend: Backend, warn: Warn) -> None:
        super().__init__(bundle, device)
        self._cuda, self._backend, self._warn = device, backend, warn
        self._weights: dict[Role, dict[str, np.ndarray]] = {}  # replacements of the graphs' own
        self._target = local_target(device.index) or ""
        self._library = backend.library or installed_library()
        load_library(self._library)

    def session(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        """Return a session whose engine accepts these sizes; it replaces one whose engine does not."""
        session = self._sessions.get(role)
        if isinstance(session, TensorRtSession) and not session.takes({n: inputs[n].shape for n in _names(session)}):
            session.close()
            del self._sessions[role]
        return super().session(role, inputs)

    def _open(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        weights = self._weights.get(role, {})
        if role == "decoder" and self.bundle.manifest.architecture.name == ARCHITECTURE:
            return VideoInrDecoderSession(self.bundle, self._cuda, self._backend.precision, weights)
        graph = self.bundle.graph(role)
        path = find_engine(
            self.bundle,
            role,
            target=self._target,
            precision=self._backend.precision,
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
        for graph in self.bundle.manifest.graphs:
            names = read_weights(self.bundle.path(graph.role).read_bytes())
            self._weights.setdefault(graph.role, {}).update({n: w for n, w in weights.items() if n in names})
            session = self._sessions.get(graph.role)
            if isinstance(session, TensorRtSession):
                session.refit(self._weights[graph.role])
            elif session is not None:
                session.close()
                del self._sessions[graph.role]


def ignore_warnings(sentence: str) -> None:
    """Discard a warning."""


def open_graphs(bundle: Bundle, backend: Backend | None = None, warn: Warn = ignore_warnings) -> Graphs:
    """Open a bundle's graphs; without a `backend`, in ONNX Runtime on the best device.

    `warn` receives a sentence for each engine that cannot be used and is built again. Raises BackendError if the
    backend or the device is not available, BundleError if a graph cannot be loaded.
    """
    backend = backend or Backend()
    if backend.kind == "tensorrt":
        _, index = parse_device(backend.device)
        return EngineGraphs(bundle, CudaDevice(index), backend, warn)
    return open_on(backend.device, lambda device: OrtGraphs(bundle, device, backend.threads))


def _names(session: Session) -> list[str]:
    return [spec.name for spec in session.inputs]
