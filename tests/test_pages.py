"""The pages for readers: their code runs, their commands parse, their links lead somewhere."""

import re
from pathlib import Path

import pytest
import typer
from stvsr.cli.app import app

from tests.support.pages import PAGES, ROOT, blocks, run_block, stvsr_commands

NEEDS_A_GPU = ("pycuda", "cupy")
CODE = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python"), 1)
    if not any(name in block for name in NEEDS_A_GPU)
]
COMMANDS = [
    pytest.param(arguments, id=f"{page.relative_to(ROOT)}: {' '.join(arguments)}")
    for page in PAGES
    for arguments in stvsr_commands(page)
]


@pytest.mark.parametrize("block", CODE)
def test_python_code_runs(block: str, tmp_path: Path) -> None:
    if "import vapoursynth" in block:
        pytest.importorskip("vapoursynth", reason="VapourSynth is not installed: pip install vapoursynth")
    run_block(block, tmp_path)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands_have_only_known_options(arguments: list[str]) -> None:
    group = typer.main.get_command(app)
    name, *options = arguments
    if name.startswith("-"):
        assert name in ("--help", "--version", "--install-completion")
        return
    command = group.commands[name]  # type: ignore[attr-defined]
    command.make_context(name, options, resilient_parsing=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.M)
            slugs = [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings]
            assert heading in slugs, target


def test_a_bundle_is_named_only_after_it_was_made() -> None:
    """Commands that read a bundle outside the package follow, on their page, the command that writes it."""
    for page in PAGES:
        written: set[str] = set()
        for arguments in stvsr_commands(page):
            read = {part for argument in arguments for part in argument.split("+") if part.startswith("bundles/")}
            if "-o" in arguments:
                output = arguments[arguments.index("-o") + 1]
                read.discard(output)
                written.add(output)
            assert read <= written, f"{page.relative_to(ROOT)}: {' '.join(arguments)}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_every_room_has_a_page() -> None:
    rooms = "backends backends/tensorrt benchmark compare contract cpp media pipeline serving"
    others = "cli engine export kernels training training/adapt training/networks benchmarks"
    for room in [*others.split(), *(f"engine/{room}" for room in rooms.split())]:
        assert (ROOT / room / "README.md").is_file(), room
