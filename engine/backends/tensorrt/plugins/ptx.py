"""Kernels as PTX for an engine that holds them: with the arguments that the engine passes, for one compute capability.

An ahead-of-time plugin is handed pointers to its inputs, then 32-bit integers, then pointers to its outputs, and no
number that is a float. A kernel's source is rewritten to that order as text; what is left of its parameters is
computed at its head.
"""

import functools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .....kernels import launcher as module
from ....contract.errors import BackendError

_KERNEL = re.compile(
    r'extern "C" __global__ void\s+(?P<bounds>__launch_bounds__\s*\([^)]*\)\s*)?'
    r"(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)\s*\{"
)


class Entry(NamedTuple):
    """One kernel's source in CUDA C++, and what it is compiled with."""

    function: str
    source: str
    defines: module.Defines


def entry(name: str, function: str, parameters: tuple[str, ...], head: str, defines: module.Defines) -> Entry:
    """Rewrite a kernel of `kernels/NAME.cu` to take `parameters`, in this order.

    Each is the name of one of the kernel's own, or a declaration of a new one. `head` defines those that are not among
    them, in C++. The source's other kernels are left out.
    """

    def rewritten(match: re.Match[str]) -> str:
        declarations = [" ".join(text.split()) for text in match["parameters"].split(",")]
        if match["name"] != function:
            return f"static __device__ void {match['name']}({', '.join(declarations)}) {{"
        own = {text.rpartition(" ")[2]: text for text in declarations}
        taken = ", ".join(own.get(parameter, parameter) for parameter in parameters)
        return f'extern "C" __global__ void {match["bounds"] or ""}{function}({taken}) {{\n{head}'

    source = _KERNEL.sub(rewritten, (module.HERE / f"{name}.cu").read_text(encoding="utf-8"))
    return Entry(function, source, defines)


@functools.cache
def compile_ptx(kernel: Entry, target: str) -> str:
    """Compile for a compute capability such as "sm89", once in a process.

    By NVRTC where CuPy is installed, else by nvcc. Raises BackendError where neither is there or compilation fails.
    """
    if re.fullmatch(r"sm\d+", target) is None:
        raise BackendError(f"There is no compute capability '{target}': name one as in sm89.")
    return find_compiler()(kernel, f"compute_{target[2:]}")


def find_compiler() -> Callable[[Entry, str], str]:
    """Return what compiles kernels here; BackendError where nothing does."""
    try:
        import cupy
    except ImportError:
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            raise BackendError(
                'Plugins are compiled by CuPy or nvcc, and neither is there: pip install "stvsr[cuda]".'
            ) from None
        return functools.partial(_by_nvcc, nvcc)
    return functools.partial(_by_nvrtc, cupy)


def _by_nvrtc(cupy: Any, kernel: Entry, architecture: str) -> str:
    nvrtc = cupy.cuda.nvrtc
    folders = [f"-I{folder}" for folder in _includes(cupy.cuda.get_cuda_path())]
    options = (*module.compile_options(kernel.defines), *folders, f"-arch={architecture}")
    try:
        program = nvrtc.createProgram(kernel.source, f"{kernel.function}.cu", (), ())
    except RuntimeError as failure:
        reason = " ".join(str(failure).split())
        raise BackendError(f'CuPy cannot load NVRTC ({reason}): pip install "stvsr[cuda]".') from failure
    try:
        nvrtc.compileProgram(program, options)
        ptx = nvrtc.getPTX(program)
    except nvrtc.NVRTCError as failure:
        raise _failed(kernel, architecture, nvrtc.getProgramLog(program) or str(failure)) from failure
    finally:
        nvrtc.destroyProgram(program)
    return ptx.decode() if isinstance(ptx, bytes) else str(ptx)


def _by_nvcc(nvcc: str, kernel: Entry, architecture: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, ptx = Path(folder) / f"{kernel.function}.cu", Path(folder) / "kernel.ptx"
        source.write_text(kernel.source, encoding="utf-8")
        command = [nvcc, "--ptx", f"--gpu-architecture={architecture}", *module.compile_options(kernel.defines)]
        done = subprocess.run([*command, str(source), "-o", str(ptx)], capture_output=True, text=True)
        if done.returncode:
            raise _failed(kernel, architecture, done.stderr)
        return ptx.read_text(encoding="utf-8")


def _includes(toolkit: str | None) -> list[Path]:
    """Folders of CUDA's headers: of wheels beside CuPy, and of the toolkit, where they are."""
    wheels = [path for folder in sys.path for path in sorted(Path(folder).glob("nvidia/*/include"))]
    folders = [*wheels, *([Path(toolkit) / "include"] if toolkit else [])]
    return [folder for folder in folders if folder.is_dir()]


def _failed(kernel: Entry, architecture: str, log: str) -> BackendError:
    lines = log.splitlines() or ["no message"]
    reason = next((line for line in lines if "error" in line), lines[0]).strip()
    return BackendError(
        f"The kernel {kernel.function} cannot be compiled for {architecture} ({reason}): use a CUDA toolkit that knows"
        " this capability, with its headers."
    )
