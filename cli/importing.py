"""The command that makes bundles of the weights of others: `import`."""

from pathlib import Path
from typing import Annotated

import typer

from .terminal import headline, note, training_extra


def import_(
    weights: Annotated[Path, typer.Argument(help="A .pth, .safetensors or .pkl file of weights, or an .onnx graph.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")],
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, for the manifest.", show_default="unknown")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Where the weights come from, for the manifest.", show_default="unknown")
    ] = None,
    scale: Annotated[
        int | None, typer.Option(help="Factor by which an ONNX graph enlarges.", min=1, show_default="found by trial")
    ] = None,
    value_range: Annotated[
        int | None,
        typer.Option("--range", help="Value of white in an ONNX graph: 1 or 255.", show_default="found by trial"),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Order of an ONNX graph's axes: NCHW or NHWC.", show_default="found by trial")
    ] = None,
    halo: Annotated[
        int | None,
        typer.Option(help="Pixels by which tiles overlap on each side.", min=0, show_default="measured"),
    ] = None,
    flow_scale: Annotated[
        float | None,
        typer.Option(
            help="Of RIFE: 0.5 or 0.25 for frames of 4K and larger motion, 2 or 4 for small frames.", show_default="1"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
) -> None:
    """Make a bundle of others' weights: a network of single images that spandrel knows, RIFE, or an ONNX graph.

    The bundle's graphs are compared with the original. Files that contain code are refused.
    """
    with training_extra("import"):
        from ..export.image_onnx import OnnxOptions
        from ..export.importer import ImportOptions, import_weights

        options = ImportOptions(licence, source, halo, flow_scale, OnnxOptions(scale, value_range, layout))
        for sentence in import_weights(weights, output, options, overwrite):
            note(sentence)
    headline(output)
