"""The protocol over HTTP: JSON, with the tensors as bytes behind it (the extension for binary tensors)."""

import http.client
import json
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, LifoQueue
from typing import Any
from urllib.parse import quote

import numpy as np

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

_HEADER_LENGTH = "Inference-Header-Content-Length"  # bytes of JSON in a message, in front of the tensors
_MOST_JSON = 1 << 20  # bytes of JSON in an answer
_NOT_READY = frozenset({429, 502, 503, 504})
_NUMPY_TYPES = {datatype: np.dtype(name) for name, datatype in DATATYPES.items()}


class HttpConnection:
    """Requests over HTTP connections that stay open, as many as threads ask at once. No proxy is used."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._idle: LifoQueue[http.client.HTTPConnection] = LifoQueue()

    def metadata(self, model: str) -> ModelMetadata:
        """Return what the server says about a model."""
        answer = self._get_json(_path(model))
        try:
            inputs, outputs = (_tensors(answer[side]) for side in ("inputs", "outputs"))
            return ModelMetadata(tuple(map(str, answer.get("versions") or ())), inputs, outputs)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise RefusedError("it does not speak the Open Inference Protocol, version 2") from None

    def parameters(self, model: str) -> dict[str, str] | None:
        """Return the parameters in a model's configuration."""
        try:
            found = self._get_json(f"{_path(model)}/config").get("parameters") or {}
            return {name: str(value.get("string_value", "")) for name, value in found.items()}
        except (RefusedError, AttributeError):
            return None

    def infer(
        self, model: str, version: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, Tensor]
    ) -> dict[str, np.ndarray]:
        """Run a model once."""
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        request = {
            "inputs": [
                {
                    "name": name,
                    "datatype": DATATYPES[array.dtype.name],
                    "shape": array.shape,
                    "parameters": {"binary_data_size": array.nbytes},
                }
                for name, array in arrays.items()
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
        }
        head = json.dumps(request).encode()
        body = [head, *(array.reshape(-1).view(np.uint8).data for array in arrays.values())]
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(head) + sum(array.nbytes for array in arrays.values())),
            _HEADER_LENGTH: str(len(head)),
        }
        path = f"{_path(model)}/versions/{quote(version)}/infer"
        with self._exchange("POST", path, self._timeout_s, body, headers) as response:
            return _read_outputs(response, outputs)

    def close(self) -> None:
        """Close every idle connection."""
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return

    def _get_json(self, path: str) -> Any:
        with self._exchange("GET", path, min(CONNECT_S, self._timeout_s)) as response:
            try:
                return json.loads(response.read(_MOST_JSON))
            except ValueError:
                raise RefusedError("its answer is not JSON") from None

    @contextmanager
    def _exchange(
        self, method: str, path: str, timeout_s: float, body: Iterable[Any] = (), headers: Mapping[str, str] = {}
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and yield its answer, of status 200; the connection is used again if all of it was read."""
        connection = self._take()
        answered, limit_s = False, timeout_s
        try:
            if connection.sock is None:
                connection.timeout = limit_s = min(CONNECT_S, timeout_s)
                connection.connect()
                limit_s = timeout_s
            connection.sock.settimeout(timeout_s)
            with suppress(
                BrokenPipeError, ConnectionResetError
            ):  # a server that refuses a body need not read all of it
                connection.request(method, self._address.path + path, body or None, dict(headers))
            response = connection.getresponse()
            if response.status != 200:
                raise _refusal(response)
            yield response
            answered = response.read(1) == b"" and not response.will_close
        except TimeoutError as error:
            raise TimedOutError(f"no answer within {limit_s:g} s") from error
        except http.client.HTTPException as error:
            self.close()  # connections of the same age are broken too
            raise UnreachableError(f"the connection broke: {type(error).__name__}") from error
        except OSError as error:
            self.close()
            raise UnreachableError(error.strerror or str(error) or type(error).__name__) from error
        finally:
            if answered:
                self._idle.put(connection)
            else:
                connection.close()

    def _take(self) -> http.client.HTTPConnection:
        try:
            return self._idle.get_nowait()
        except Empty:
            host, port = self._address.host, self._address.port
            if self._address.secure:
                return http.client.HTTPSConnection(host, port, context=ssl.create_default_context())
            return http.client.HTTPConnection(host, port)


def _path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"


def _tensors(described: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
    return {each["name"]: Tensor(each["datatype"], tuple(map(int, each["shape"]))) for each in described}


def _refusal(response: http.client.HTTPResponse) -> RefusedError | UnreachableError:
    """Return the failure that an answer of another status than 200 stands for."""
    text = response.read(_MOST_JSON).decode(errors="replace")
    with suppress(ValueError, KeyError, TypeError):  # a message of another form is shown as it is
        text = str(json.loads(text)["error"])
    kind = UnreachableError if response.status in _NOT_READY else RefusedError
    return kind(reason_of(f"status {response.status}: {text}").rstrip(":"))


def _read_outputs(response: http.client.HTTPResponse, outputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Read the tensors of an answer, in the order in which its JSON lists them, each into an array of its own."""
    length = response.headers.get(_HEADER_LENGTH, "")
    if not length.isdecimal() or int(length) > _MOST_JSON:
        raise RefusedError("its answer holds no binary tensors, an extension of the protocol that stvsr needs")
    try:
        described = json.loads(response.read(int(length)))["outputs"]
        actual = [(each["name"], each["parameters"]["binary_data_size"]) for each in described]
        tensors = _tensors(described)
    except (KeyError, TypeError, ValueError):
        raise RefusedError("its answer does not describe the outputs") from None
    if tensors.keys() != outputs.keys():
        raise RefusedError(f"its answer has the outputs {', '.join(tensors)}, expected {', '.join(outputs)}")
    results = {}
    for name, size in actual:
        check_output(name, tensors[name], outputs[name])
        array = np.empty(outputs[name].shape, _NUMPY_TYPES[outputs[name].datatype])
        if size != array.nbytes:
            raise RefusedError(f"its output '{name}' has {size} bytes, expected {array.nbytes}")
        rest = array.reshape(-1).view(np.uint8).data
        while rest:
            count = response.readinto(rest)
            if not count:
                raise http.client.IncompleteRead(b"", len(rest))
            rest = rest[count:]
        results[name] = array
    return results
