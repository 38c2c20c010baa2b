"""Documents: pages that are one file, load nothing, and run no script but their own."""

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..contract.atomic import atomic_path
from ..contract.errors import RequestError

_FILES = Path(__file__).parent / "page"
_NO_SCRIPT = "default-src 'none'; style-src {style}"


def fill(template: str, parts: Mapping[str, str], styles: Sequence[str], policy: str, script: str = "") -> str:
    """Return a document, whose names in double braces are replaced by `parts`, the style and the script.

    `styles` and `script` are files of the folder `page`; `policy` has {style} and {script} for what they allow.
    """
    style = "".join((_FILES / name).read_text() for name in styles)
    code = (_FILES / script).read_text() if script else ""
    allowed = policy.format(style=_source(style), script=_source(code))
    values = {**parts, "policy": allowed, "style": style, "script": code}
    before, *rest = (_FILES / template).read_text().split("{{")
    return before + "".join(values[name] + text for name, _, text in (part.partition("}}") for part in rest))


def report(title: str, facts: Iterable[str], sections: Iterable[tuple[str, str]]) -> str:
    """Return a document without a script: a title and facts, which are text, and sections of a heading and HTML."""
    parts = {
        "title": html.escape(title),
        "facts": "".join(f"<p>{html.escape(fact)}</p>" for fact in facts),
        "sections": "".join(
            f"<section>\n<h2>{html.escape(heading)}</h2>\n{content}\n</section>\n" for heading, content in sections
        ),
    }
    return fill("report.html", parts, ["base.css"], _NO_SCRIPT)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of text; the first cell of a row is its heading."""
    columns = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    lines = []
    for first, *cells in rows:
        others = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{html.escape(first)}</th>{others}</tr>')
    body = "".join(lines)
    return f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'


def write_page(path: Path, content: str, *, overwrite: bool = False) -> int:
    """Write a page, and return its size in bytes. Raises RequestError as `check_page` does."""
    check_page(path, overwrite)
    encoded = content.encode()
    with atomic_path(path) as partial:
        partial.write_bytes(encoded)
    return len(encoded)


def check_page(path: Path, overwrite: bool) -> None:
    """Raise RequestError for a page that cannot be written there."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"{path} is no name of a page: let it end in .html.")
    if not path.parent.is_dir():
        raise RequestError(f"The folder {path.parent} for the page does not exist: create it first.")
    if path.is_dir() or (path.exists() and not overwrite):
        raise RequestError(f"{path} exists already: choose another page, or pass --overwrite.")


def _source(text: str) -> str:
    """Return the source of a policy that allows one inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
