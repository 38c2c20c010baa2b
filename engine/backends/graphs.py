"""A bundle's graphs, open in one place by one backend: ONNX Runtime's sessions, or engines for the sizes that come."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import get_args

import numpy as np

from ..contract.axes import sizes_of
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from ..contract.errors import BackendError
from ..contract.manifest import Library, Precision, Role
from ..contract.weights import edit_graphs, read_weights
from .cuda import Gpu
from .cuda_driver import local_target
from .device import Array, Host, Place
from .session import OrtSession, Session, cuda_is_offered, parse_device
from .tensorrt.builder import installed_library, load_library
from .tensorrt.engines import find_engine
from .tensorrt.session import TensorRtSession
from .videoinr_decoder import ARCHITECTURE, ImplicitSession

BACKENDS = ("ort", "tensorrt")
Say = Callable[[str], None]


class Graphs(Closing):
    """Opens a session of each role when it is first run."""

    def __init__(self, bundle: Bundle, place: Place) -> None:
        self.bundle, self.place = bundle, place
        self._sessions: dict[Role, Session] = {}

    def run(self, role: Role, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Run one graph on the current lane."""
        return self.session(role, inputs).run(inputs, keep=keep)

    def session(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        """Return the session that takes these inputs."""
        if role not in self._sessions:
            self._sessions[role] = self._open(role, inputs)
        return self._sessions[role]

    def take_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace weights by their names in the graphs, in sessions that are open; nothing is built anew.

        Raises BundleError for weights that no graph has or that do not fit, BackendError for those that an engine does
        not let go of.
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
    """Graphs in ONNX Runtime, all open from the start."""

    def __init__(self, bundle: Bundle, place: Place, threads: int | None) -> None:
        super().__init__(bundle, place)
        self._threads = threads
        try:
            for graph in bundle.manifest.graphs:
                self._sessions[graph.role] = OrtSession(bundle.path(graph.role), place, threads)
        except BaseException:
            self.close()
            raise

    def take_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Open the graphs again, of bytes with other weights."""
        for role, graph in edit_graphs(self.bundle, weights).items():
            session = OrtSession(graph, self.place, self._threads)
            self._sessions[role].close()
            self._sessions[role] = session


class EngineGraphs(Graphs):
    """Engines of a GPU, found or built when the sizes are known; VideoINR's decoder runs by kernels of its own."""

    def __init__(
        self, bundle: Bundle, gpu: Gpu, precision: Precision, library: Library | None, refit: bool, say: Say
    ) -> None:
        super().__init__(bundle, gpu)
        self._gpu, self._precision, self._refit, self._say = gpu, precision, refit, say
        self._weights: dict[Role, dict[str, np.ndarray]] = {}  # that took the place of the graphs' own
        self._target = local_target(gpu.index) or ""
        self._library = library or installed_library()
        load_library(self._library)

    def session(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        """Return a session whose engine takes these sizes; another takes its place when they change."""
        held = self._sessions.get(role)
        if isinstance(held, TensorRtSession) and not held.takes({n: inputs[n].shape for n in _names(held)}):
            held.close()
            del self._sessions[role]
        return super().session(role, inputs)

    def _open(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        weights = self._weights.get(role, {})
        if role == "decoder" and self.bundle.manifest.architecture.name == ARCHITECTURE:
            return ImplicitSession(self.bundle, self._gpu, self._precision, weights)
        graph = self.bundle.graph(role)
        path = find_engine(
            self.bundle,
            role,
            target=self._target,
            precision=self._precision,
            sizes=sizes_of(graph.inputs, {spec.name: inputs[spec.name].shape for spec in graph.inputs}),
            library=self._library,
            refit=self._refit,
            say=self._say,
        )
        session = TensorRtSession(path, graph, self._library, self._gpu)
        if weights:
            session.refit(weights)
        return session

    def take_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Refit the engines that are open, and those that will be."""
        if not self._refit:
            raise BackendError("Engines keep their weights unless they are opened to take others: ask for refit.")
        edit_graphs(self.bundle, weights)  # raises for what does not fit
        for graph in self.bundle.manifest.graphs:
            held = read_weights(self.bundle.path(graph.role).read_bytes())
            self._weights.setdefault(graph.role, {}).update({n: w for n, w in weights.items() if n in held})
            session = self._sessions.get(graph.role)
            if isinstance(session, TensorRtSession):
                session.refit(self._weights[graph.role])
            elif session is not None:
                session.close()
                del self._sessions[graph.role]


def open_graphs(
    bundle: Bundle,
    *,
    backend: str = "ort",
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
    library: Library | None = None,
    refit: bool = False,
    say: Say = lambda sentence: None,
) -> Graphs:
    """Open a bundle's graphs; device "auto" is the first CUDA GPU if it can be used, and else, with "ort", the CPU.

    `precision`, `library` and `refit`, which lets weights be replaced, are for engines; `say` is told in sentences of
    engines that are not used. Raises BackendError for what cannot be had.
    """
    kind, index = parse_device(device)
    if backend not in BACKENDS:
        raise BackendError(f"There is no backend '{backend}': use one of {', '.join(BACKENDS)}.")
    if precision not in get_args(Precision):
        raise BackendError(f"There is no precision '{precision}': use {' or '.join(get_args(Precision))}.")
    if backend == "tensorrt":
        if kind == "cpu":
            raise BackendError("Engines run on GPUs alone: use --device cuda:0, or --backend ort for the CPU.")
        return EngineGraphs(bundle, Gpu(index), precision, library, refit, say)
    if precision != "fp32":
        raise BackendError("ONNX Runtime computes as the graphs are, in float32: use --backend tensorrt for fp16.")
    if kind != "cpu" and (kind == "cuda" or cuda_is_offered()):
        try:
            return OrtGraphs(bundle, Gpu(index, lanes=1), threads)
        except BackendError:
            if kind == "cuda":
                raise
    return OrtGraphs(bundle, Host(), threads)


def _names(session: Session) -> list[str]:
    return [spec.name for spec in session.inputs]
