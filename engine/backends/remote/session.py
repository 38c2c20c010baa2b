"""Sessions on an inference server: graphs that run there, on arrays that are here."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ...contract.axes import shape_of, sizes_of
from ...contract.bundle import Bundle
from ...contract.closing import Closing
from ...contract.manifest import Role
from ..device import Array, CpuDevice, Device
from .models import ensemble_model, graph_model
from .server import InferenceServer


class RemoteDevice(CpuDevice):
    """An inference server, named by its address: frames are here before and after each run, in tiles as for a GPU."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Later(NamedTuple):
    """A result that was not computed: the ensemble that needs it starts with these inputs."""

    inputs: Mapping[str, np.ndarray]
    shape: tuple[int, ...]  # of the result


class RemoteSession(Closing):
    """A graph on an inference server.

    A graph whose results are kept for another one sends nothing: the decoder that gets them at last asks the ensemble
    of all three, so that features never travel.
    """

    def __init__(self, server: InferenceServer, bundle: Bundle, role: Role, device: Device) -> None:
        self._server, self._manifest, self._role = server, bundle.manifest, role
        self._model = graph_model(bundle.manifest, role)
        self.inputs, self.outputs = self._model.inputs, self._model.outputs
        self.device: Device = device

    def run(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Compute every output; see `Session.run`. Raises BackendError as `InferenceServer.run`."""
        given = {name: value for name, value in inputs.items() if not isinstance(value, _Later)}
        later = [value for value in inputs.values() if isinstance(value, _Later)]
        if later:
            given |= later[0].inputs
        if keep and self._role in ("encoder", "refiner"):
            sizes = sizes_of(self.inputs, {spec.name: inputs[spec.name].shape for spec in self.inputs})
            return {spec.name: _Later(given, shape_of(spec, sizes)) for spec in self.outputs}
        return self._server.run(ensemble_model(self._manifest, self._role) if later else self._model, given)

    def close(self) -> None:
        """Do nothing: the server keeps its models."""
