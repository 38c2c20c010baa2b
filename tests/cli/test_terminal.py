"""Printed text cannot control the terminal, and a stream that cannot be written does not end a run."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stvsr.cli.terminal import Terminal, new_table, plain

from tests.support.paths import TESTS

CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@given(st.text(st.characters(categories=None)))
def test_plain_text_has_no_character_that_controls_a_terminal(text: str) -> None:
    shown = plain(text)
    assert not CONTROL.search(shown)
    if not CONTROL.search(text) and not re.search("[\u061c\u200e\u200f\u2028\u2029]", text):
        assert shown == text


def test_escapes_are_readable() -> None:
    assert plain("a\x1b[2J\n\x9b\udcff é 🐝 [/red]") == r"a\x1b[2J\n\x9b\udcff é 🐝 [/red]"


def test_markup_and_names_of_emoji_are_printed_as_they_are() -> None:
    console = Terminal()
    console.file = io.StringIO()
    console.print("a[/b] [bold]x :bee: \\[", soft_wrap=True)
    assert console.file.getvalue() == "a[/b] [bold]x :bee: \\[\n"
    console.file = io.StringIO()
    console.print_json(json.dumps({"name": "\x9b2J"}))
    assert console.file.getvalue().isascii()
    assert json.loads(console.file.getvalue()) == {"name": "\x9b2J"}


@pytest.mark.parametrize("columns", ["30", None])
def test_a_table_shows_every_character(columns: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long words are broken in a narrow terminal; in a file or a pipe each row is one line."""
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    console = Terminal()
    console.file = io.StringIO()
    table = new_table("input", "output")
    table.add_row("i" * 100, "o" * 50)
    console.print(table)
    text = console.file.getvalue()
    assert (text.count("i"), text.count("o")) == (100 + 1, 50 + 1)
    assert max(map(len, text.splitlines())) <= 30 if columns else len(text.splitlines()) == 2


@pytest.mark.parametrize("path", sorted((TESTS.parent / "cli").glob("*.py")), ids=lambda path: path.name)
def test_no_command_uses_markup(path: Path) -> None:
    """The consoles print it as it is: names, titles and manifests would be able to use it too."""
    assert re.findall(r"\[(?:bold|red|yellow|green|dim)\b[^]]*\]|\[/\]", path.read_text()) == []


def test_a_full_output_is_noted_and_not_an_error() -> None:
    code = "from stvsr.cli.terminal import out\nfor _ in range(3): out.print('x' * 10000)\n"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert done.stderr.startswith("Note: Standard output cannot be written (No space left on device)")
    assert done.stderr.count("Note:") == 1


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_its_reader_closes_does_not_end_a_run(stream: str) -> None:
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    code = (
        "import os, sys\nfrom stvsr.cli.terminal import err, out\nread, write = os.pipe()\n"
        f"os.dup2(write, sys.{stream}.fileno())\nos.close(read)\nos.close(write)\n"
        "for _ in range(3):\n    err.print('x' * 10000)\n    out.print('x' * 10000)\n"
        f"print('done', file=sys.{other})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert getattr(done, other).endswith("done\n")


def test_an_output_in_ascii_shows_escapes() -> None:
    code = "from stvsr.cli.terminal import out, protect_streams\nprotect_streams()\nout.print('é🐝 \\udcff')"
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout.strip()) == (0, r"\xe9\U0001f41d \udcff")
