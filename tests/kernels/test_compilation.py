"""Compilation of every kernel variant by nvcc, for every GPU architecture."""

import importlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from stvsr.kernels import launcher

from tests.support import cuda_cpu

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
ENDS = (80, 120)  # the oldest and the newest one: a third of the time
SOURCES = sorted(launcher.HERE.glob("*.cu"))
# The first variants in half precision are compiled by default, and of the small kernels all.
_SMALL = ("color", "strips")


def _variants() -> Iterator[Any]:
    for source in SOURCES:
        listed = importlib.import_module(f"stvsr.kernels.{source.stem}").VARIANTS
        first = next(defines for defines in listed if ("DTYPE", "half") in defines)
        for defines in listed:
            marks = () if defines == first or source.stem in _SMALL else pytest.mark.slow
            yield pytest.param(
                source, defines, id="-".join((source.stem, *(value for _, value in defines))), marks=marks
            )


VARIANTS = list(_variants())
ALL = [pytest.param(*one.values, id=one.id, marks=[pytest.mark.slow, pytest.mark.long]) for one in VARIANTS]
_RESOURCES = re.compile(
    r"Compiling entry function '(?P<function>\w+)' for 'sm_(?P<architecture>\d+)a?'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def test_every_kernel_lists_its_variants() -> None:
    assert {source.stem for source in SOURCES} == {
        "color",
        "deform_conv",
        "fourier_field",
        "fusion_inputs",
        "strips",
        "videoinr_decoder",
        "warp",
    }
    assert len({param.id for param in VARIANTS}) == len(VARIANTS)
    assert {param.values[0] for param in VARIANTS} == set(SOURCES)


def test_sources_include_no_header_that_the_wheels_of_cuda_lack() -> None:
    own = {path.name for path in launcher.HERE.glob("*.cuh")}
    text = "\n".join(path.read_text() for path in [*SOURCES, *launcher.HERE.glob("*.cuh")])
    of_tests = {path.name for path in cuda_cpu.HEADERS.glob("*_on_cpu.h")}
    included = set(re.findall(r"#include [<\"](.+?)[>\"]", text)) - of_tests
    assert included == own | {"cuda_fp16.h"}


@pytest.mark.parametrize(("source", "defines"), VARIANTS)
def test_nvcc_compiles_without_spills(
    source: Path, defines: launcher.Defines, tmp_path: Path, record_property: Any
) -> None:
    _check_compilation(source, defines, ENDS, tmp_path, record_property)


@pytest.mark.parametrize(("source", "defines"), ALL)
def test_nvcc_compiles_for_every_architecture_without_spills(
    source: Path, defines: launcher.Defines, tmp_path: Path, record_property: Any
) -> None:
    _check_compilation(source, defines, ARCHITECTURES, tmp_path, record_property)


def _check_compilation(
    source: Path, defines: launcher.Defines, architectures: Sequence[int], folder: Path, record_property: Any
) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed: kernels are not compiled for GPUs")
    targets = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in architectures]
    options = [*launcher.compile_options(defines), *targets, "-Xptxas=-v", "-Werror=all-warnings"]
    command = [nvcc, "-c", *options, str(source), "-o", str(folder / "kernel.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    entries = [match.groupdict() for match in _RESOURCES.finditer(done.stderr)]
    assert len(entries) == len(cuda_cpu.kernel_names(source)) * len(architectures), done.stderr
    for entry in entries:
        name = f"{entry['function']} sm_{entry['architecture']}"
        record_property(f"registers of {name}", entry["registers"])
        print(f"{source.stem} {dict(defines)} {name}: {entry['registers']} registers")
    assert [entry for entry in entries if entry["stores"] != "0" or entry["loads"] != "0"] == []
