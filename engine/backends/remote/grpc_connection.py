"""The protocol over gRPC, by Triton's client library."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...contract.errors import BackendError
from .address import Address
from .protocol import (
    CONNECT_S,
    DATATYPES,
    ModelMetadata,
    RefusedError,
    Tensor,
    TimedOutError,
    UnreachableError,
    check_output,
    reason_of,
)

_MOST_BYTES = (1 << 31) - 1  # of a message: gRPC's own limit
_UNAVAILABLE, _TOO_LATE = "StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED"


class GrpcConnection:
    """Requests over one gRPC channel, without a proxy. Raises BackendError if the library is not installed."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        try:
            from tritonclient import grpc
        except (ImportError, RuntimeError) as error:  # RuntimeError: the library is there without its gRPC part
            raise BackendError(
                f'{address} needs Triton\'s client library: pip install "stvsr[remote]", or use http://.'
            ) from error
        self._grpc: Any = grpc
        self._timeout_s = timeout_s
        self._client: Any = grpc.InferenceServerClient(
            address.netloc,
            ssl=address.secure,
            channel_args=[
                ("grpc.max_send_message_length", _MOST_BYTES),
                ("grpc.max_receive_message_length", _MOST_BYTES),
                ("grpc.enable_http_proxy", 0),
                # A server that was restarted is found at the next attempt.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )

    def metadata(self, model: str) -> ModelMetadata:
        """Return what the server says about a model."""
        with self._failures(self._describe_s):
            answer = self._client.get_model_metadata(model, client_timeout=self._describe_s)
        inputs, outputs = (
            {tensor.name: Tensor(tensor.datatype, tuple(tensor.shape)) for tensor in side}
            for side in (answer.inputs, answer.outputs)
        )
        return ModelMetadata(tuple(answer.versions), inputs, outputs)

    def parameters(self, model: str) -> dict[str, str] | None:
        """Return the parameters in a model's configuration."""
        try:
            with self._failures(self._describe_s):
                answer = self._client.get_model_config(model, client_timeout=self._describe_s)
        except RefusedError:
            return None
        return {name: value.string_value for name, value in answer.config.parameters.items()}

    def infer(
        self, model: str, version: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, Tensor]
    ) -> dict[str, np.ndarray]:
        """Run a model once."""
        sent = []
        for name, array in inputs.items():
            sent.append(self._grpc.InferInput(name, list(array.shape), DATATYPES[array.dtype.name]))
            sent[-1].set_data_from_numpy(array)
        requested = [self._grpc.InferRequestedOutput(name) for name in outputs]
        with self._failures(self._timeout_s):
            answer = self._client.infer(
                model, sent, model_version=version, outputs=requested, client_timeout=self._timeout_s
            )
        actual = {each.name: Tensor(each.datatype, tuple(each.shape)) for each in answer.get_response().outputs}
        if actual.keys() != outputs.keys():
            raise RefusedError(f"its answer has the outputs {', '.join(actual)}, expected {', '.join(outputs)}")
        for name, expected in outputs.items():
            check_output(name, actual[name], expected)
        try:
            return {name: answer.as_numpy(name) for name in outputs}
        except ValueError:
            raise RefusedError("an output has other bytes than its shape") from None

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    @property
    def _describe_s(self) -> float:
        return min(CONNECT_S, self._timeout_s)

    @contextmanager
    def _failures(self, timeout_s: float) -> Iterator[None]:
        """Turn the library's exception into the failure that it stands for."""
        from tritonclient.utils import InferenceServerException

        try:
            yield
        except InferenceServerException as error:
            status, reason = error.status(), reason_of(error.message() or "no reason given")
            if status == _UNAVAILABLE:
                raise UnreachableError(reason) from error
            if status == _TOO_LATE:
                raise TimedOutError(f"no answer within {timeout_s:g} s") from error
            raise RefusedError(reason) from error
