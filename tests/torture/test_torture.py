"""The corpus as tests: a tenth of it by default, another part with `-m slow`, and all with STVSR_TORTURE=all."""

import os
import zlib
from pathlib import Path

import pytest

from tests.torture.case import Case
from tests.torture.clips import write_shared
from tests.torture.corpus import all_cases
from tests.torture.runner import run

pytestmark = pytest.mark.long

SEED = int(os.environ.get("STVSR_TORTURE_SEED", "1"))
ALL = os.environ.get("STVSR_TORTURE") == "all"
LONG = (
    "fault.",
    "api.",
    "checkpoint.",
    "compile.",
    "media.time.long",
    "security.network",
    "option.factor.1000",
    "media.size.",
)
ALWAYS = {
    "fault.sigterm",
    "fault.sigint-early-2",
    "fault.stdout-full",
    "fault.processes",
    "bundle.graph.nan",
    "bundle.graph.endless",
    "bundle.external.beside",
    "bundle.name.markup",
}


def _chosen() -> list[object]:
    """Return the cases as parameters: of the quick ones a tenth by default, of the others every third as slow tests."""
    parameters: list[object] = []
    for case in all_cases(SEED):
        draw = zlib.crc32(case.name.encode()) % 30
        quick = not case.name.startswith(LONG)
        if case.name in ALWAYS or (quick and draw % 10 == 0):
            parameters.append(pytest.param(case, id=case.name))
        elif ALL or draw % 5 == 1:
            parameters.append(pytest.param(case, id=case.name, marks=pytest.mark.slow))
    return parameters


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips and the bundle of all cases."""
    return write_shared(tmp_path_factory.mktemp("torture"))


@pytest.mark.parametrize("case", _chosen())
def test_a_case_ends_cleanly(case: Case, tmp_path: Path, shared: Path) -> None:
    result = run(case, tmp_path, shared)
    if result.skipped:
        pytest.skip(result.skipped)
    assert result.faults == {}, f"exit code {result.rc}: {result.err[-600:]}"


def test_names_of_cases_are_unique() -> None:
    names = [case.name for case in all_cases(1)]
    assert len(names) == len(set(names))
    assert len(names) > 500
