"""The words of the code base: no private vocabulary, and docstrings that say plainly what a thing is or does."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
import stvsr

ROOT = Path(stvsr.__file__).parent
FOLDERS = ("benchmarks", "cli", "engine", "export", "kernels", "tests", "training")
FILES = sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))])
NATIVE = sorted(path for folder in ("engine/cpp", "kernels") for path in (ROOT / folder).rglob("*.[chi]*p*"))

# Words of an earlier private vocabulary, with the term that replaced each of them.
PRIVATE = {
    "place": "index, position, span, or Device",
    "places": "indices, positions, or spans",
    "crew": "WorkerGroup",
    "leg": "Pass",
    "legs": "passes",
    "lane": "stream",
    "lanes": "streams",
    "canvas": "output buffer",
    "canvases": "output buffers",
    "feed": "WindowFrames, input",
    "feeds": "inputs",
    "relay": "split_times",
    "recipe": "EngineSpec",
    "settled": "drain",
    "say": "warn",
    "told": "reported, given",
}
PRIVATE_NAMES = {"Place", "Gpu", "Crew", "Route", "SceneRoutes", "Leg", "Feed", "Wanted", "Recipe", "take_weights"}
# In prose these words have no other sense in this code base; "place", "say" and "feed" have.
PRIVATE_PROSE = re.compile(r"\b(crews?|legs?|lanes?|canvas(es)?|relay(s|ed)?|recipes?|settled)\b", re.IGNORECASE)
RIDDLE = re.compile(r"(What|Whether|Which|Of|How|It|That|There|Where|Gives|Says|The same|Those)\b")


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name, lineno=line) | ast.ClassDef(name=name, lineno=line):
                yield name, line
            case ast.arg(arg=name, lineno=line) | ast.Name(id=name, lineno=line):
                yield name, line
            case ast.Attribute(attr=name, lineno=line):
                yield name, line


def words(identifier: str) -> list[str]:
    """Split snake_case and CamelCase into lower-case words."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", identifier)]


def docstrings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield text, getattr(node, "lineno", 1)


def comments(source: str) -> Iterator[tuple[str, int]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string, token.start[0]


def faults(source: str, path: str) -> list[str]:
    """Return a sentence for each private word and each riddle."""
    tree, found = ast.parse(source), []
    for name, line in identifiers(tree):
        where = f"{path}:{line}: '{name}'"
        if name in PRIVATE_NAMES:
            found.append(f"{where} is a private name")
        found += [f"{where} contains '{word}': {PRIVATE[word]}" for word in words(name) if word in PRIVATE]
    for text, line in docstrings(tree):
        first = text.splitlines()[0]
        if RIDDLE.match(first):
            found.append(f"{path}:{line}: write an imperative or a noun phrase instead of '{first}'")
    for text, line in [*docstrings(tree), *comments(source)]:
        if match := PRIVATE_PROSE.search(text):
            found.append(f"{path}:{line}: '{match[0]}' is a private word")
    return found


@pytest.mark.parametrize("folder", [*FOLDERS, "."])
def test_python_code_has_no_private_words(folder: str) -> None:
    files = [path for path in FILES if path.name != Path(__file__).name]
    here = [path for path in files if (path.parent == ROOT if folder == "." else path.is_relative_to(ROOT / folder))]
    assert here
    assert [line for path in here for line in faults(path.read_text(), str(path.relative_to(ROOT)))] == []


def test_native_code_has_no_private_words() -> None:
    assert NATIVE
    found = []
    for path in NATIVE:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if PRIVATE_PROSE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("place = 1", 1),
        ("def f(next_leg): ...", 1),
        ("x.lane(3)", 1),
        ("class Crew: ...", 2),
        ("def replaced(positions): ...", 0),
        ('def f():\n    """Whether it works."""', 1),
        ('def f():\n    """Return whether it works."""', 0),
        ("x = 1  # of each lane", 1),
        ("in_place = 1", 1),
    ],
)
def test_private_words_are_found(source: str, count: int) -> None:
    assert len(faults(source, "x.py")) == count
