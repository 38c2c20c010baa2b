"""Commands and code of the README pages, and the files that they name."""

import contextlib
import re
import shlex
from pathlib import Path

import stvsr

from tests.support.media import make_video, pan

ROOT = Path(stvsr.__file__).parent
SERVER = "http://127.0.0.1:8000"
ROOMS = ("benchmarks", "cli", "engine", "export", "kernels", "tests", "training")
PAGES = sorted([*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))])


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def stvsr_commands(page: Path) -> list[list[str]]:
    """Return the arguments of every `stvsr` command in the page's shell blocks."""
    commands = []
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|", line.partition(" #")[0]):
                if part.strip().startswith("stvsr "):
                    commands.append(shlex.split(part)[1:])
    return commands


def run_block(block: str, folder: Path) -> None:
    """Run Python code in a folder that holds `clip.mp4`; code that uses a server has one."""
    make_video(folder / "clip.mp4", pan(4, (32, 48)))
    with contextlib.ExitStack() as stack:
        if SERVER in block:
            from tests.support.servers import serving  # needs stvsr[serve]

            block = block.replace(SERVER, stack.enter_context(serving(folder / "server")))
        stack.enter_context(contextlib.chdir(folder))
        exec(compile(block, "page", "exec"), {"__name__": "page"})
