"""The open graphs of a bundle: the base class of those that each backend opens."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from ...kernels.color import Yuv420
from ..contract.axes import shape_of, sizes_of
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from ..contract.errors import BundleError
from ..contract.manifest import Precision, Role
from .cuda import CudaDevice
from .device import Array, Device, Rendering
from .fourier_field import FourierFieldSession
from .kernel_sessions import is_field
from .preparation import Preparation
from .session import Session


class SessionKey(NamedTuple):
    """The key of an open session of a bundle."""

    role: Role
    shapes: tuple[tuple[int, ...], ...] | None = None  # of the inputs; None: a session that is not limited to one size


class Graphs(Closing):
    """The graphs of a bundle. A session of each role opens when it first runs."""

    backend: Literal["ort", "tensorrt", "remote"]

    def __init__(self, bundle: Bundle, device: Device, precision: Precision = "fp32") -> None:
        self.bundle, self.device, self.precision = bundle, device, precision
        self._sessions: OrderedDict[SessionKey, Session] = OrderedDict()
        self._ran: set[SessionKey] = set()  # the sessions that ran before
        self.preparation = Preparation()

    def run(self, role: Role, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Run one graph on the current stream; `keep` as in `Session.run`.

        Raises BundleError if an output has another shape than the manifest states.
        """
        session, key = self.session(role, inputs), self._key(role, inputs)
        with self._counted(key):
            outputs = session.run(inputs, keep=keep)
        graph = self.bundle.graph(role)
        sizes = sizes_of(graph.inputs, {spec.name: _shape(inputs[spec.name]) for spec in graph.inputs})
        for spec in graph.outputs:
            if (actual := _shape(outputs[spec.name])) != (stated := shape_of(spec, sizes)):
                raise BundleError(
                    f"The graph {self.bundle.path(role)} returns '{spec.name}' of the shape {actual}, and its manifest"
                    f" states {stated}: export the bundle again, or use another one."
                )
        return outputs

    def renders(self, role: Role) -> bool:
        """Return whether a decoder's frames can be rendered as pictures, by `renderings`."""
        return isinstance(self.device, CudaDevice) and is_field(self.bundle, role)

    def renderings(self, role: Role, inputs: Mapping[str, Array], size: tuple[int, int]) -> tuple[Rendering, ...]:
        """Return the frame of each pair as it is after `run`, without its values, which pictures are made of later.

        `role` is a decoder that `renders`; see `FourierFieldSession.renderings`.
        """
        session, key = self.session(role, inputs), self._key(role, inputs)
        assert isinstance(session, FourierFieldSession)

        def render(rendering: Rendering, coding: Yuv420 | None) -> tuple[Array, tuple[Array, ...]]:
            with self._counted(key):
                return rendering.render(coding)

        return tuple(Rendering(partial(render, rendering)) for rendering in session.renderings(inputs, size))

    def session(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        """Return a session that accepts inputs of these shapes."""
        key = self._key(role, inputs)
        if key not in self._sessions:
            with self.preparation.opening():
                self._sessions[key] = self._open(key, inputs)
        return self._sessions[key]

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

    @contextmanager
    def _counted(self, key: SessionKey) -> Iterator[None]:
        """Count the time of the block if it is the first run of a session."""
        with nullcontext() if key in self._ran else self.preparation.first_run():
            yield
        self._ran.add(key)

    def _key(self, role: Role, inputs: Mapping[str, Array]) -> SessionKey:
        """Return the key of the session that accepts these inputs."""
        return SessionKey(role)

    def _open(self, key: SessionKey, inputs: Mapping[str, Array]) -> Session:
        raise NotImplementedError

    def _close_session(self, key: SessionKey) -> None:
        self._ran.discard(key)
        self._sessions.pop(key).close()


def _shape(value: Array) -> tuple[int, ...]:
    """Return the shape of an array, or of one of ONNX Runtime's values."""
    shape = value.shape
    return tuple(shape() if callable(shape) else shape)
