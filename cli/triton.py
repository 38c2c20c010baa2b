"""The command that writes a model repository for Triton."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .terminal import headline, interruptible, new_table, out, plain


def triton(
    bundle: Annotated[str, typer.Argument(help="A bundle's name or folder, or a chain TEMPORAL+SPATIAL.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="REPOSITORY", help="The folder of the repository.")],
    backend: Annotated[
        str, typer.Option(help="What Triton computes with: onnxruntime, or tensorrt for the bundle's engines.")
    ] = "onnxruntime",
    max_batch: Annotated[
        int, typer.Option(help="Most windows that Triton computes at once, where a graph allows it.", min=1)
    ] = 8,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32, tf32 or fp16.", show_default="fp32; with tensorrt, that of the engines"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="With tensorrt: the compute capability of the server's GPU, as sm89.", show_default="the only one"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a repository that this command wrote.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the models as JSON.")] = False,
) -> None:
    """Write a bundle's models as a repository for the Triton inference server."""
    from ..engine.backends.remote.repository import write_repository
    from ..engine.contract.bundle import find_bundles

    with interruptible("nothing was written"):
        models = write_repository(
            find_bundles(bundle),
            output,
            backend=backend,  # type: ignore[arg-type]  # validated by write_repository
            precision=precision,  # type: ignore[arg-type]
            target=target,
            max_batch=max_batch,
            overwrite=overwrite,
        )
    batches = {model.name: max_batch if model.joins else None for model in models}
    if as_json:
        facts = [
            {"name": m.name, "graphs": [graph.role for graph in m.graphs], "max_batch": batches[m.name]} for m in models
        ]
        out.print_json(json.dumps(facts))
        return
    table = new_table("model", "graphs", "windows at once")
    for model in models:
        roles = " -> ".join(graph.role for graph in model.graphs)
        table.add_row(plain(model.name), roles, f"up to {max_batch}" if batches[model.name] else "one request")
    headline(output)
    out.print(table)
    out.print(
        f"Serve it by: tritonserver --model-repository={plain(output)} --disable-auto-complete-config", soft_wrap=True
    )
