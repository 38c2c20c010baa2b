"""Compiles kernels to the PTX that an engine contains, with the parameters that the engine passes.

TensorRT passes to an ahead-of-time plugin pointers to its inputs, then 32-bit integers, then pointers to its outputs,
and no floating-point numbers. So a kernel's source is rewritten as text: its parameters are put in this order, and the
remaining ones are computed at its head.
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

from .....kernels import launcher
from ....contract.errors import BackendError

_KERNEL = re.compile(
    r'extern "C" __global__ void\s+(?P<bounds>__launch_bounds__\s*\([^)]*\)\s*)?'
    r"(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)\s*\{"
)


class Entry(NamedTuple):
    """The source of one kernel in CUDA C++, and the macros that it is compiled with."""

    function: str
    source: str
    defines: launcher.Defines


def entry(name: str, function: str, parameters: tuple[str, ...], head: str, defines: launcher.Defines) -> Entry:
    """Rewrite a kernel of `kernels/NAME.cu` to take `parameters`, in this order.

    A parameter is the name of one of the kernel's own, or the declaration of a new one. `head` is C++ that defines the
    kernel's other parameters. Other kernels of the source become device functions.
    """

    def rewrite(match: re.Match[str]) -> str:
        declarations = [" ".join(text.split()) for text in match["parameters"].split(",")]
        if match["name"] != function:
            return f"static __device__ void {match['name']}({', '.join(declarations)}) {{"
        own = {text.rpartition(" ")[2]: text for text in declarations}
        new = ", ".join(own.get(parameter, parameter) for parameter in parameters)
        return f'extern "C" __global__ void {match["bounds"] or ""}{function}({new}) {{\n{head}'

    source = _KERNEL.sub(rewrite, (launcher.HERE / f"{name}.cu").read_text(encoding="utf-8"))
    return Entry(function, source, defines)


@functools.cache
def compile_ptx(kernel: Entry, target: str) -> str:
    """Compile a kernel for a compute capability such as "sm89", once in a process.

    Uses NVRTC if CuPy is installed, else nvcc. Raises BackendError if neither is installed, or if compilation fails.
    """
    if re.fullmatch(r"sm\d+", target) is None:
        raise BackendError(f"Unknown compute capability '{target}': write it as in sm89.")
    return find_compiler()(kernel, f"compute_{target[2:]}")


def find_compiler() -> Callable[[Entry, str], str]:
    """Return the function that compiles kernels on this machine. Raises BackendError if there is no compiler."""
    try:
        import cupy
    except ImportError:
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            raise BackendError(
                'Plugins are compiled by CuPy or nvcc, and neither is installed: pip install "stvsr[cuda]".'
            ) from None
        return functools.partial(_compile_with_nvcc, nvcc)
    return functools.partial(_compile_with_nvrtc, cupy)


def _compile_with_nvrtc(cupy: Any, kernel: Entry, architecture: str) -> str:
    nvrtc = cupy.cuda.nvrtc
    folders = [f"-I{folder}" for folder in _include_folders(cupy.cuda.get_cuda_path())]
    options = (*launcher.compile_options(kernel.defines), *folders, f"-arch={architecture}")
    try:
        program = nvrtc.createProgram(kernel.source, f"{kernel.function}.cu", (), ())
    except RuntimeError as failure:
        reason = " ".join(str(failure).split())
        raise BackendError(f'CuPy cannot load NVRTC ({reason}): pip install "stvsr[cuda]".') from failure
    try:
        nvrtc.compileProgram(program, options)
        ptx = nvrtc.getPTX(program)
    except nvrtc.NVRTCError as failure:
        raise _compile_error(kernel, architecture, nvrtc.getProgramLog(program) or str(failure)) from failure
    finally:
        nvrtc.destroyProgram(program)
    return ptx.decode() if isinstance(ptx, bytes) else str(ptx)


def _compile_with_nvcc(nvcc: str, kernel: Entry, architecture: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, ptx = Path(folder) / f"{kernel.function}.cu", Path(folder) / "kernel.ptx"
        source.write_text(kernel.source, encoding="utf-8")
        command = [nvcc, "--ptx", f"--gpu-architecture={architecture}", *launcher.compile_options(kernel.defines)]
        done = subprocess.run([*command, str(source), "-o", str(ptx)], capture_output=True, text=True)
        if done.returncode:
            raise _compile_error(kernel, architecture, done.stderr)
        return ptx.read_text(encoding="utf-8")


def _include_folders(toolkit: str | None) -> list[Path]:
    """Return the existing folders of CUDA's headers: those of wheels beside CuPy, and that of the toolkit."""
    wheels = [path for folder in sys.path for path in sorted(Path(folder).glob("nvidia/*/include"))]
    folders = [*wheels, *([Path(toolkit) / "include"] if toolkit else [])]
    return [folder for folder in folders if folder.is_dir()]


def _compile_error(kernel: Entry, architecture: str, log: str) -> BackendError:
    lines = log.splitlines() or ["no message"]
    reason = next((line for line in lines if "error" in line), lines[0]).strip()
    return BackendError(
        f"The kernel {kernel.function} cannot be compiled for {architecture} ({reason}): use a CUDA toolkit that"
        " supports this compute capability, with its headers."
    )
