"""The command that makes bundles of trained weights: `export`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..engine.contract.errors import RequestError
from .options import ConfigOption
from .terminal import headline, read_pairs, training_extra


def export(
    network: Annotated[str, typer.Argument(help="A network's name: videoinr-s, ...")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")],
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="weights.pt of `stvsr train`, or an official checkpoint.", show_default="none"),
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Use random weights, which serve only to measure speed.")
    ] = False,
    config: ConfigOption = None,
    scores: Annotated[
        Path | None, typer.Option(help="JSON of `stvsr evaluate`, for the manifest.", show_default="none")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
) -> None:
    """Export trained weights as a bundle of graphs, checked against PyTorch."""
    if (weights is None) != untrained:
        raise RequestError("Choose either --weights FILE or --untrained.")
    judged = _read_scores(scores) if scores else {}
    with training_extra():
        from ..export.exporter import export_bundle
        from ..training.checkpoints import load_weights, random_weights
        from ..training.networks.registry import configured, find_network

        entry, changes = find_network(network), read_pairs(config or [])
        trained, training = (
            load_weights(entry, weights, changes) if weights else random_weights(configured(entry, changes))
        )
        kept: dict[str, Any] = {key: judged[key] for key in ("protocol", "mean", "gain_db") if key in judged}
        folder = export_bundle(entry, trained, output, training, kept, overwrite)
    headline(folder)


def _read_scores(path: Path) -> dict[str, Any]:
    """Read the JSON of `stvsr evaluate`. Raises RequestError for a missing or damaged file."""
    try:
        judged = json.loads(path.read_text())
    except OSError as error:
        raise RequestError(f"The scores {path} cannot be read ({error.strerror}): choose another file.") from error
    except ValueError as error:
        raise RequestError(f"The scores {path} are not JSON ({error}): run `stvsr evaluate -o` again.") from error
    if not isinstance(judged, dict):
        raise RequestError(f"The scores {path} are not those of `stvsr evaluate`: run it again with -o.")
    if "evaluations" in judged:
        raise RequestError(f"The scores {path} are those of several bundles: evaluate the one that is exported, alone.")
    return judged
