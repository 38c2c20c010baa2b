"""Documents: pages that are one file, load nothing, and run no script but their own."""

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..contract.atomic import atomic_path
from ..contract.errors import RequestError

_FILES = Path(__file__).parent / "page"
_PALETTE = Path(__file__).parents[1] / "palette.css"
_NO_SCRIPT = "default-src 'none'; style-src {style}"
_SECTIONS = "<main>\n{{sections}}\n</main>\n"


def fill(body: str, parts: Mapping[str, str], styles: Sequence[str], policy: str, script: str = "") -> str:
    """Return a document with a body, in which names in double braces are replaced by `parts` and the script.

    `styles` and `script` are files of the folder `page`; `policy` has {style} and {script} for what they allow.
    """
    style = _PALETTE.read_text() + "".join(read(name) for name in styles)
    code = read(script) if script else ""
    allowed = policy.format(style=_source(style), script=_source(code))
    values = {**parts, "policy": allowed, "style": style, "script": code}
    return _replaced(read("document.html"), {**values, "body": _replaced(body, values)})


def read(name: str) -> str:
    """Return a file of the folder `page`."""
    return (_FILES / name).read_text()


def report(title: str, facts: Iterable[str], sections: Iterable[tuple[str, str]]) -> str:
    """Return a document without a script: a title and facts, which are text, and sections of a heading and HTML."""
    parts = {
        "title": html.escape(title),
        "facts": "".join(f"<p>{html.escape(fact)}</p>" for fact in facts),
        "sections": "".join(
            f"<section>\n<h2>{html.escape(heading)}</h2>\n{content}\n</section>\n" for heading, content in sections
        ),
    }
    return fill(_SECTIONS, parts, ["base.css"], _NO_SCRIPT)


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


def _replaced(template: str, values: Mapping[str, str]) -> str:
    """Return a template with the values of the names in double braces; braces in the values stay as they are."""
    before, *rest = template.split("{{")
    return before + "".join(values[name] + text for name, _, text in (part.partition("}}") for part in rest))


def _source(text: str) -> str:
    """Return the source of a policy that allows one inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
