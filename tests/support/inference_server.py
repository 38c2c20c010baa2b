"""A small server of the Open Inference Protocol: it loads a Triton model repository, and runs it in ONNX Runtime.

It speaks HTTP, with the extensions for binary tensors and for model configurations, and gRPC. Shapes are checked as
Triton checks them: a model with a batch takes its dimensions behind the batch axis, and undoes `reshape`.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

Arrays = dict[str, np.ndarray]
_LENGTH = "Inference-Header-Content-Length"
_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 500: "INTERNAL", 501: "UNIMPLEMENTED", 503: "UNAVAILABLE"}


class ServerError(Exception):
    """An error that a client gets, with the status of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Repository:
    """The models of a folder. `runs` lists the model and the shapes of every run that a client asked for."""

    def __init__(self, folder: Path) -> None:
        self.configs: dict[str, Any] = {}
        self.sessions: dict[str, onnxruntime.InferenceSession] = {}
        self.runs: list[tuple[str, dict[str, tuple[int, ...]]]] = []
        self.shares_configuration = True
        self.before_run: Callable[[], None] = lambda: None  # may raise a ServerError, wait, or end the server
        for path in sorted(folder.glob("*/config.pbtxt")):
            config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
            assert config.name == path.parent.name
            self.configs[config.name] = config
            assert [child.name for child in path.parent.iterdir() if child.is_dir()] == ["1"]
            assert list(config.version_policy.specific.versions) == [1]
            if config.platform != "ensemble":
                assert config.backend == "onnxruntime"
                options = onnxruntime.SessionOptions()
                options.log_severity_level = 3
                self.sessions[config.name] = onnxruntime.InferenceSession(
                    str(path.parent / "1" / "model.onnx"), options, providers=["CPUExecutionProvider"]
                )

    def config(self, name: str, version: str = "") -> Any:
        if name not in self.configs:
            raise ServerError(404, f"Request for unknown model: '{name}' is not found")
        if version not in ("", "1"):
            raise ServerError(404, f"Request for unknown model: '{name}' version {version} is not found")
        return self.configs[name]

    def shared_config(self, name: str) -> Any:
        if not self.shares_configuration:
            raise ServerError(501, "no such extension")
        return self.config(name)

    def metadata(self, name: str, version: str = "") -> dict[str, Any]:
        config = self.config(name, version)
        batch = [-1] * (config.max_batch_size > 0)
        inputs, outputs = (
            [
                {
                    "name": tensor.name,
                    "datatype": model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"),
                    "shape": [*batch, *tensor.dims],
                }
                for tensor in side
            ]
            for side in (config.input, config.output)
        )
        return {"name": name, "versions": ["1"], "platform": "test", "inputs": inputs, "outputs": outputs}

    def ask(self, name: str, version: str, inputs: Arrays) -> Arrays:
        """Run a model for a client."""
        self.config(name, version)
        self.runs.append((name, {key: value.shape for key, value in inputs.items()}))
        self.before_run()
        return self.run(name, inputs)

    def run(self, name: str, inputs: Arrays) -> Arrays:
        config = self.config(name)
        given = {tensor.name: _model_tensor(config, tensor, inputs) for tensor in config.input}
        if config.platform != "ensemble":
            outputs = [tensor.name for tensor in config.output]
            results = self.sessions[name].run(outputs, given)
            return dict(zip(outputs, results, strict=True))
        for step in config.ensemble_scheduling.step:
            assert step.model_version == 1
            results = self.run(step.model_name, {key: given[value] for key, value in step.input_map.items()})
            given |= {value: results[key] for key, value in step.output_map.items()}
        return {tensor.name: given[tensor.name] for tensor in config.output}


def _model_tensor(config: Any, tensor: Any, inputs: Arrays) -> np.ndarray:
    """Return an input as the graph takes it. Raises ServerError for another type or shape than configured."""
    if tensor.name not in inputs:
        raise ServerError(400, f"expected the input '{tensor.name}'")
    value = inputs[tensor.name]
    batch, shape = [], value.shape
    if config.max_batch_size:
        batch, shape = [value.shape[0]], value.shape[1:]
        if batch[0] > config.max_batch_size:
            raise ServerError(400, f"inference request batch-size must be <= {config.max_batch_size}")
    fits = len(shape) == len(tensor.dims)
    if not fits or any(size not in (-1, actual) for size, actual in zip(tensor.dims, shape, strict=True)):
        raise ServerError(400, f"unexpected shape for input '{tensor.name}': {list(shape)}")
    return value.reshape([*batch, *tensor.reshape.shape]) if tensor.HasField("reshape") else value


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    repository: Repository

    def do_GET(self) -> None:
        self._answer(self._describe)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(lambda: self._infer(body))

    def _describe(self) -> tuple[bytes, int | None]:
        name, *rest = self.path.removeprefix("/v2/models/").split("/")
        if rest == ["config"]:
            config = self.repository.shared_config(name)
            return json_format.MessageToJson(config, preserving_proto_field_name=True).encode(), None
        assert not rest
        return json.dumps(self.repository.metadata(name)).encode(), None

    def _infer(self, body: bytes) -> tuple[bytes, int | None]:
        name, _, version, _ = self.path.removeprefix("/v2/models/").split("/")
        start = int(self.headers[_LENGTH])
        request = json.loads(body[:start])
        inputs = {}
        for tensor in request["inputs"]:
            stop = start + tensor["parameters"]["binary_data_size"]
            inputs[tensor["name"]] = _array(body[start:stop], tensor["datatype"], tensor["shape"])
            start = stop
        results = self.repository.ask(name, version, inputs)
        requested = [output["name"] for output in request["outputs"] if output["parameters"]["binary_data"]]
        outputs = [
            {
                "name": key,
                "datatype": np_to_triton_dtype(results[key].dtype),
                "shape": results[key].shape,
                "parameters": {"binary_data_size": results[key].nbytes},
            }
            for key in requested
        ]
        head = json.dumps({"model_name": name, "model_version": "1", "outputs": outputs}).encode()
        return head + b"".join(results[key].tobytes() for key in requested), len(head)

    def _answer(self, make: Callable[[], tuple[bytes, int | None]]) -> None:
        try:
            (body, length), status = make(), 200
        except ServerError as error:
            body, length, status = json.dumps({"error": str(error)}).encode(), None, error.status
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if length is not None:
            self.send_header(_LENGTH, str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


class _Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _grpc_errors(context):
            found = self.repository.metadata(request.name, request.version)
        return json_format.ParseDict(found, service_pb2.ModelMetadataResponse())

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _grpc_errors(context):
            return service_pb2.ModelConfigResponse(config=self.repository.shared_config(request.name))

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        pairs = zip(request.inputs, request.raw_input_contents, strict=True)
        inputs = {tensor.name: _array(content, tensor.datatype, tensor.shape) for tensor, content in pairs}
        with _grpc_errors(context):
            results = self.repository.ask(request.model_name, request.model_version, inputs)
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        for output in request.outputs:
            value = results[output.name]
            answer.outputs.add(name=output.name, datatype=np_to_triton_dtype(value.dtype), shape=value.shape)
            answer.raw_output_contents.append(value.tobytes())
        return answer


def _array(content: bytes, datatype: str, shape: Any) -> np.ndarray:
    return np.frombuffer(content, triton_to_np_dtype(datatype)).reshape(tuple(shape))


@contextmanager
def _grpc_errors(context: Any) -> Iterator[None]:
    try:
        yield
    except ServerError as error:
        context.abort(getattr(grpc.StatusCode, _CODES[error.status]), str(error))


class InferenceServer:
    """The server, on a port of this machine: `http://` or `grpc://`. `stop` ends it at once, within a run too."""

    def __init__(self, repository: Repository, protocol: str, port: int = 0) -> None:
        self.repository, self.protocol = repository, protocol
        self._http: ThreadingHTTPServer | None = None
        self._grpc: Any = None
        if protocol == "http":
            handler = type("Handler", (_Handler,), {"repository": repository})
            self._http = QuietHttpServer(("127.0.0.1", port), handler)
            self.port = self._http.server_address[1]
            threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        else:
            options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
            self._grpc = grpc.server(ThreadPoolExecutor(4), options=options)
            service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(repository), self._grpc)
            self.port = self._grpc.add_insecure_port(f"127.0.0.1:{port}")
            self._grpc.start()

    @property
    def url(self) -> str:
        return f"{self.protocol}://127.0.0.1:{self.port}"

    def stop(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        else:
            self._grpc.stop(grace=None).wait(2)  # within a run, it would wait for itself


class QuietHttpServer(ThreadingHTTPServer):
    """Closes its connections when it is closed."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._requests: list[Any] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self._requests.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for request in self._requests:
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about connections that end."""


@contextmanager
def serving(folder: Path, protocol: str) -> Iterator[InferenceServer]:
    """Serve a repository until the end of the block."""
    server = InferenceServer(Repository(folder), protocol)
    try:
        yield server
    finally:
        server.stop()


def wait(seconds: float) -> Callable[[], None]:
    """Return a function that waits before a run."""
    return lambda: time.sleep(seconds)
