"""An inference server that has the models of a bundle: checked once, then asked for runs."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar, get_args

import numpy as np

from ...contract.axes import shape_of, sizes_of
from ...contract.bundle import Bundle
from ...contract.closing import Closing
from ...contract.errors import BackendError, DeviceMemoryError
from ...contract.manifest import Precision
from ..onnxruntime import OUT_OF_MEMORY
from .address import Address
from .models import FINGERPRINT, PRECISION, VERSION, ServedModel, served_models
from .protocol import Connection, ModelMetadata, RefusedError, TimedOutError, UnreachableError

_PAUSES_S = (0.0, 0.5, 2.0)  # before each further attempt: runs have no effects, so they may be repeated
_Answer = TypeVar("_Answer")


class InferenceServer(Closing):
    """A server of the Open Inference Protocol. It may be used from several threads.

    `timeout_s` limits the wait for one answer. Every method raises BackendError if the server cannot be reached or
    refuses, after further attempts if the connection breaks.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address, self._timeout_s = address, timeout_s
        self._connection = _connect(address, timeout_s)

    def check(self, bundle: Bundle, warn: Callable[[str], None]) -> Precision:
        """Check that the server has the models of this bundle, and return the precision in which they compute.

        `warn` receives a sentence if the server does not tell from which bundle its models were written.
        """
        found = {model.name: self._checked(model, bundle) for model in served_models(bundle.manifest)}
        unknown = [name for name, parameters in found.items() if FINGERPRINT not in parameters]
        if unknown:
            warn(
                f"The inference server {self.address} does not tell from which bundle its models {', '.join(unknown)}"
                " were written: their weights may be others."
            )
        precisions = {parameters.get(PRECISION) for parameters in found.values()}
        return next((known for known in get_args(Precision) if precisions == {known}), "fp32")

    def run(self, model: ServedModel, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a model once. Raises DeviceMemoryError if the server's memory is too small, RequestError for shapes."""
        arrays = {spec.name: np.asarray(inputs[spec.name], spec.dtype) for spec in model.inputs}
        sizes = sizes_of(model.inputs, {name: array.shape for name, array in arrays.items()})
        sent = {
            spec.name: arrays[spec.name].reshape(model.sent_shape(spec, arrays[spec.name].shape))
            for spec in model.inputs
        }
        expected = {
            spec.name: model.described(spec)._replace(shape=model.sent_shape(spec, shape_of(spec, sizes)))
            for spec in model.outputs
        }
        results = self._ask(model, lambda: self._connection.infer(model.name, VERSION, sent, expected))
        return {spec.name: results[spec.name].reshape(shape_of(spec, sizes)) for spec in model.outputs}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _checked(self, model: ServedModel, bundle: Bundle) -> dict[str, str]:
        """Return the parameters in the configuration of a model, empty if the server tells none.

        Raises BackendError if the model is missing, or has another version, other tensors or another fingerprint.
        """
        metadata = self._ask(model, lambda: self._connection.metadata(model.name), missing=True)
        if metadata.versions and VERSION not in metadata.versions:
            raise BackendError(
                f"The inference server {self.address} has version {' and '.join(metadata.versions)} of the model"
                f" '{model.name}', and not {VERSION}: {_remedy(bundle)}."
            )
        self._check_tensors(model, metadata, bundle)
        parameters = self._ask(model, lambda: self._connection.parameters(model.name)) or {}
        fingerprint = parameters.get(FINGERPRINT, bundle.fingerprint)
        if fingerprint != bundle.fingerprint:
            raise BackendError(
                f"The model '{model.name}' of the inference server {self.address} was written from another bundle"
                f" (fingerprint {fingerprint[:12]}..., expected {bundle.fingerprint[:12]}...): use that bundle, or"
                f" {_remedy(bundle)}."
            )
        return parameters

    def _check_tensors(self, model: ServedModel, metadata: ModelMetadata, bundle: Bundle) -> None:
        for specs, actual in ((model.inputs, metadata.inputs), (model.outputs, metadata.outputs)):
            expected = {spec.name: model.described(spec) for spec in specs}
            if actual != expected:
                has, wanted = (", ".join(f"'{n}' {t}" for n, t in side.items()) for side in (actual, expected))
                raise BackendError(
                    f"The model '{model.name}' of the inference server {self.address} has the tensors {has}, expected"
                    f" {wanted}: {_remedy(bundle)}."
                )

    def _ask(self, model: ServedModel, ask: Callable[[], _Answer], missing: bool = False) -> _Answer:
        """Make a request, again if the connection breaks; with `missing`, a refusal means that there is no model."""
        pauses_s = list(_PAUSES_S)
        while True:
            try:
                return ask()
            except UnreachableError as error:
                if not pauses_s:
                    raise BackendError(
                        f"The inference server {self.address} cannot be reached ({error}): start it, or name another"
                        " by --url."
                    ) from error
                time.sleep(pauses_s.pop(0))
            except TimedOutError as error:
                raise BackendError(
                    f"The inference server {self.address} did not answer in time ({error}): wait longer by"
                    " --remote-timeout, or use smaller tiles (--tile)."
                ) from error
            except RefusedError as error:
                if OUT_OF_MEMORY.search(str(error)):
                    raise DeviceMemoryError(
                        f"The memory of the inference server {self.address} is too small for this work ({error}): use"
                        " smaller tiles (--tile)."
                    ) from error
                if missing:
                    raise BackendError(
                        f"The inference server {self.address} has no model '{model.name}' ({error}): load a repository"
                        " that 'stvsr triton' wrote of the bundle, or name another server by --url."
                    ) from error
                raise BackendError(
                    f"The inference server {self.address} did not run the model '{model.name}' ({error})."
                ) from error


def _connect(address: Address, timeout_s: float) -> Connection:
    if address.protocol == "grpc":
        from .grpc_connection import GrpcConnection

        return GrpcConnection(address, timeout_s)
    from .http_connection import HttpConnection

    return HttpConnection(address, timeout_s)


def _remedy(bundle: Bundle) -> str:
    return f"write its repository again ('stvsr triton {bundle.folder} -o REPOSITORY') and load that"
