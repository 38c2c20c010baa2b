"""The record of how a network is computed: backend, device, precision, library and threads."""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ..contract.cpus import cpu_threads
from ..contract.errors import BackendError
from ..contract.manifest import Library, Manifest, Precision
from .remote.address import parse_address

Kind = Literal["auto", "ort", "tensorrt", "remote"]
RequestedPrecision = Literal["auto", "fp32", "tf32", "fp16"]
Waiting = Literal["spin", "sleep"]
MOST_THREADS = 1024
DEFAULT_TIMEOUT_S = 60.0
WAITING: Waiting = "sleep"  # chosen by `python -m benchmarks.threads`
LARGEST_LOSS = 1 / 255  # a step of 8 bits; of a precision that "auto" chooses, at the 99.9th percentile of pixels


@dataclass(frozen=True)
class Backend:
    """The backend of a bundle's graphs. Raises BackendError for values that contradict each other or do not exist.

    kind: "ort" runs the graphs in ONNX Runtime, "tensorrt" runs engines compiled from them, "remote" sends frames to an
        inference server that has them; "auto" takes engines where an installed library runs on the GPU, else ONNX
        Runtime.
    device: "cpu", "cuda:N", or "auto": the first CUDA device if the backend can use it, else the CPU. Several of one
        kind, such as "cuda:0,cuda:1", share the work of one stream of frames; "cpu,cpu" is two sessions on the CPU.
    precision: of products on a GPU; the CPU computes in "fp32". "auto" is the fastest one whose loss the bundle records
        and that changes fewer than 0.1 % of the pixels by a step of 8 bits.
    library: the TensorRT library; None: the one that is installed.
    threads: CPU threads of ONNX Runtime; None: one for each CPU that the process may use, by its affinity and by the
        quota of its control groups.
    waiting: how threads of ONNX Runtime wait for each other: "spin" is a busy loop, which beside other busy programs
        delays the work itself, "sleep" leaves the CPU to others; None: WAITING.
    refit: compile engines whose weights can be replaced. ONNX Runtime can always replace them.
    time_limit_s: seconds that one run of a graph in ONNX Runtime may take, for bundles that are not trusted; None: any.
    url: of the server of a "remote" backend: "http://HOST:PORT" or "grpc://HOST:PORT"; https and grpcs use TLS.
    timeout_s: seconds to wait for one answer of that server; None: DEFAULT_TIMEOUT_S.
    """

    kind: Kind = "auto"
    device: str = "auto"
    precision: RequestedPrecision = "auto"
    library: Library | None = None
    threads: int | None = None
    waiting: Waiting | None = None
    refit: bool = False
    time_limit_s: float | None = None
    url: str | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        _check_choice("backend", self.kind, get_args(Kind))
        _check_choice("precision", self.precision, get_args(RequestedPrecision))
        if self.waiting is not None:
            _check_choice("kind of waiting", self.waiting, get_args(Waiting))
        kind = self._device_kind()
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise BackendError(f"The number of threads is {self.threads}: give 1 to {MOST_THREADS}.")
        if self.time_limit_s is not None and not 0 < self.time_limit_s <= threading.TIMEOUT_MAX:
            raise BackendError(f"The time limit is {self.time_limit_s:g} s: give a number above 0.")
        if self.kind == "remote":
            self._check_remote()
            return
        if self.url is not None or self.timeout_s is not None:
            option = "--url" if self.url is not None else "--remote-timeout"
            raise BackendError(f"{option} has no effect without --backend remote: add it, or leave it out.")
        if self.kind == "tensorrt":
            if kind == "cpu":
                raise BackendError("Engines run only on GPUs: use --device cuda:0, or --backend ort for the CPU.")
            if self.library is not None:
                _check_choice("library", self.library, get_args(Library))
            if self.threads is not None:
                raise BackendError("--threads has no effect on engines, which run on the GPU: leave it out.")
            if self.waiting is not None:
                raise BackendError("--waiting has no effect on engines, which run on the GPU: leave it out.")
        else:
            if kind == "cpu" and self.precision not in ("auto", "fp32"):
                raise BackendError(
                    f"The CPU computes in float32: leave out --precision {self.precision}, or use --device cuda:0."
                )
            if self.library is not None:
                raise BackendError("--library has no effect without --backend tensorrt: add it, or leave it out.")

    def by_device(self) -> tuple["Backend", ...]:
        """Return the backend of each of the devices, between which the CPU's threads are shared."""
        devices = self.device.split(",")
        if len(devices) == 1:
            return (self,)
        threads = self.threads
        if parse_device(devices[0])[0] == "cpu":
            threads = threads or max(1, cpu_threads() // len(devices))
        return tuple(replace(self, device=device, threads=threads) for device in devices)

    def with_threads(self, threads: int) -> "Backend":
        """Return the backend with a number of CPU threads, or as it is where they have no effect.

        They have none on engines, on GPUs that are named and on an inference server.
        """
        takes_threads = self.kind in ("auto", "ort") and self._device_kind() != "cuda"
        return replace(self, threads=threads) if takes_threads else self

    def _device_kind(self) -> Literal["auto", "cpu", "cuda"]:
        """Return the kind of the devices. Raises BackendError for devices of different kinds."""
        kinds = [parse_device(device)[0] for device in self.device.split(",")]
        if len(kinds) > 1 and (len(set(kinds)) > 1 or kinds[0] == "auto"):
            raise BackendError(
                f"The devices '{self.device}' cannot share work: name GPUs by their numbers, such as cuda:0,cuda:1."
            )
        return kinds[0]

    def _check_remote(self) -> None:
        if self.url is None:
            raise BackendError("--backend remote needs the address of a server: add --url http://HOST:PORT.")
        parse_address(self.url)
        if self.timeout_s is not None and not 0 < self.timeout_s < float("inf"):
            raise BackendError(f"The remote server's time limit is {self.timeout_s:g} s: give seconds above 0.")
        given = {
            "--device": self.device != "auto",
            "--precision": self.precision != "auto",
            "--library": self.library is not None,
            "--threads": self.threads is not None,
            "--waiting": self.waiting is not None,
            "--time-limit": self.time_limit_s is not None,
            "refit": self.refit,
        }
        for option, has_value in given.items():
            if has_value:
                raise BackendError(
                    f"{option} has no effect with --backend remote, where the server decides: leave it out."
                )

    def precision_on_gpu(self, manifest: Manifest) -> Precision:
        """Return the precision in which a GPU computes a bundle."""
        if self.precision != "auto":
            return self.precision
        candidates: tuple[Literal["fp16", "tf32"], ...] = ("fp16", "tf32")  # the fastest first
        for precision in candidates:
            loss = manifest.precisions.get(precision)
            if loss is not None and loss.p999 < LARGEST_LOSS:
                return precision
        return "fp32"


def with_refit(backend: Backend) -> Backend:
    """Return a backend whose open graphs take new weights, where it can have them."""
    return backend if backend.kind == "remote" else replace(backend, refit=True)


def parse_device(device: str) -> tuple[Literal["auto", "cpu", "cuda"], int]:
    """Parse "auto", "cpu", "cuda" or "cuda:N" into its kind and index. Raises BackendError for anything else."""
    match = re.fullmatch(r"(auto)|(cpu)|cuda(?::(\d+))?", device)
    if match is None:
        raise BackendError(f"Unknown device '{device}': use 'auto', 'cpu' or 'cuda:N', where N is the GPU's number.")
    kind: Literal["auto", "cpu", "cuda"] = "auto" if match[1] else "cpu" if match[2] else "cuda"
    return kind, int(match[3] or 0)


def listed(choices: Sequence[str]) -> str:
    """Return the choices as text: "fp32, tf32 or fp16"."""
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BackendError(f"Unknown {what} '{value}': use {listed(choices)}.")
