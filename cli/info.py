"""The command that describes a bundle, a video, or the devices of this machine."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ..engine.contract.errors import RequestError
from .bundles import bundle_facts
from .terminal import new_table, out, plain


def info(
    target: Annotated[
        str | None,
        typer.Argument(metavar="BUNDLE|VIDEO", help="A bundle (name or folder), a video, or a folder of images."),
    ] = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="List the devices of this machine, and what can compute on each.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Describe a bundle, a video, a folder of images, or the devices of this machine."""
    from ..engine.contract.bundle import MANIFEST, find_bundle, named_bundles

    if devices == (target is not None):
        raise RequestError("Name one thing to describe: a bundle, a video, or --devices.")
    if target is None:
        _print_devices(as_json)
        return
    if target in named_bundles() or (Path(target) / MANIFEST).exists():
        facts = bundle_facts(find_bundle(target))
    else:
        from ..engine.media.pipes import is_pipe
        from ..engine.media.reader import describe

        if not Path(target).suffix and not Path(target).exists() and not is_pipe(target):
            raise RequestError(f"There is no bundle and no file '{target}': see 'stvsr models', or check the path.")
        facts = describe(target)
    if as_json:
        out.print_json(json.dumps(facts, default=str))
        return
    table = new_table("", "")
    table.show_header = False
    for key, value in facts.items():
        text = json.dumps(value, default=str) if isinstance(value, (dict, list, tuple)) else value
        table.add_row(Text(plain(key), "bold"), plain(text))
    out.print(table)


def _print_devices(as_json: bool) -> None:
    """Print every backend on every device, the chosen one first."""
    from ..engine.backends.choice import describe_device, find_candidates

    candidates = find_candidates()
    chosen = next((candidate for candidate in candidates if candidate.unavailable is None), None)
    facts = [
        {
            **candidate._asdict(),
            "description": describe_device(candidate.device),
            "available": candidate.unavailable is None,
            "chosen": candidate is chosen,
        }
        for candidate in candidates
    ]
    if as_json:
        out.print_json(json.dumps(facts))
        return
    table = new_table("device", "", "backend", "")
    for candidate, fact in zip(candidates, facts, strict=True):
        state = "chosen by --backend auto" if fact["chosen"] else plain(candidate.unavailable or "available")
        table.add_row(candidate.device, plain(fact["description"]), candidate.title, state)
    out.print(table)
