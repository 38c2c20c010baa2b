"""Sessions of the default network's graphs, by ONNX Runtime itself, so that any of its options can be tried."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.manifest import Role
from stvsr.engine.pipeline.runners import decoder_inputs

WIDTH, HEIGHT, SCALE = 160, 90, 4  # of an input frame in pixels, and the factor in space


class PairSessions:
    """The sessions of a pair's bundle on the CPU, and the inputs of one frame between two frames of noise.

    threads: CPU threads of each session. entries: ONNX Runtime's configuration by name. profiles: a folder for the
    profile of each session; None: none is written.
    """

    def __init__(
        self, bundle: Bundle, threads: int, entries: Mapping[str, str] | None = None, profiles: Path | None = None
    ) -> None:
        decoder, axes = decoder_inputs(bundle.manifest, (HEIGHT, WIDTH), (SCALE * HEIGHT, SCALE * WIDTH))
        roles: tuple[Role, ...] = ("encoder", "refiner", decoder)
        self.sessions: dict[Role, Any] = {}
        for role in roles:
            if all(graph.role != role for graph in bundle.manifest.graphs):
                continue
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.enable_mem_pattern = threads, False
            for name, value in (entries or {}).items():
                options.add_session_config_entry(name, value)
            if profiles is not None:
                options.enable_profiling, options.profile_file_prefix = True, str(profiles / role)
            path = str(bundle.path(role))
            self.sessions[role] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        noise = np.random.default_rng(0).random((1, 2, 3, HEIGHT, WIDTH), np.float32)
        self._inputs = {"frames": bundle.manifest.size.pad(noise), "time": np.array([0.5], np.float32), **axes}

    def run(self) -> dict[Role, float]:
        """Compute one frame, from its pair on, and return the seconds of each graph."""
        values: dict[str, Any] = dict(self._inputs)
        seconds: dict[Role, float] = {}
        for role, session in self.sessions.items():
            inputs = {one.name: values[one.name] for one in session.get_inputs()}
            began = time.perf_counter()
            outputs = session.run(None, inputs)
            seconds[role] = time.perf_counter() - began
            values |= dict(zip([one.name for one in session.get_outputs()], outputs, strict=True))
        return seconds
