"""Sessions on an inference server: graphs that run there, on arrays that are here."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ...contract.bundle import Bundle
from ...contract.closing import Closing
from ...contract.manifest import Role
from ..device import Array, CpuDevice, Device
from .models import ensemble_model, graph_model
from .server import InferenceServer


class RemoteDevice(CpuDevice):
    """An inference server, named by its address: frames are here before and after each run."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Encoding(NamedTuple):
    """The results of an encoder that did not run: the ensemble computes them again from its inputs."""

    inputs: Mapping[str, np.ndarray]


class RemoteSession(Closing):
    """A graph on an inference server.

    An encoder whose results are kept sends nothing: the decoder that gets them asks the ensemble of both, so that
    features never travel.
    """

    def __init__(self, server: InferenceServer, bundle: Bundle, role: Role, device: Device) -> None:
        self._server, self._manifest, self._role = server, bundle.manifest, role
        self._model = graph_model(bundle.manifest, role)
        self.inputs, self.outputs = self._model.inputs, self._model.outputs
        self.device: Device = device

    def run(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Compute every output; see `Session.run`. Raises BackendError as `InferenceServer.run`."""
        if keep and self._role == "encoder":
            return {spec.name: _Encoding(inputs) for spec in self.outputs}
        encodings = [value for value in inputs.values() if isinstance(value, _Encoding)]
        if not encodings:
            return self._server.run(self._model, inputs)
        given = {name: value for name, value in inputs.items() if not isinstance(value, _Encoding)}
        return self._server.run(ensemble_model(self._manifest, self._role), {**encodings[0].inputs, **given})

    def close(self) -> None:
        """Do nothing: the server keeps its models."""
