"""ONNX Runtime as a Python backend of Triton, for a server that comes without the backend "onnxruntime".

One such server is in the wheel nvidia-pytriton, which runs without a GPU and without containers. Beside its Python
backend (`BACKENDS/python`, with the stub for this version of Python), this file is `BACKENDS/onnxruntime/model.py`.
Its stub needs NumPy 1; STVSR_TRITON_SITE names the folder of its packages (pip install --target FOLDER "numpy<2"
onnxruntime). Then the repositories of `stvsr triton` are served as they are.
"""

import json
import os
import sys
from typing import Any

if site := os.environ.get("STVSR_TRITON_SITE"):
    sys.path.insert(0, site)  # the server starts Python with a path of its own

import numpy as np
import onnxruntime
import triton_python_backend_utils as utils


class TritonPythonModel:
    """A graph. Requests that the server joined run as one batch."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """Open the graph of a model."""
        config = json.loads(arguments["model_config"])
        self.inputs, self.outputs = ([tensor["name"] for tensor in config[side]] for side in ("input", "output"))
        path = os.path.join(arguments["model_repository"], arguments["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests, each of which has the batch as its first axis."""
        every = [
            {name: utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        joined = {name: np.concatenate([one[name] for one in every]) for name in self.inputs} if every[1:] else every[0]
        results = self.session.run(self.outputs, joined)
        if not every[1:]:
            return [self._response(results)]
        stops = np.cumsum([len(one[self.inputs[0]]) for one in every])
        return [self._response(part) for part in zip(*(np.split(r, stops[:-1]) for r in results), strict=True)]

    def _response(self, results: Any) -> Any:
        tensors = [utils.Tensor(name, result) for name, result in zip(self.outputs, results, strict=True)]
        return utils.InferenceResponse(tensors)
