"""The command line: `stvsr upscale | models | info | compile | export | train | adapt | evaluate`."""

import errno
from typing import Annotated

import typer

from . import __version__
from .cli_adaptation import adapt
from .cli_batch import batch
from .cli_bundles import compile_, install, models, pack
from .cli_evaluation import evaluate
from .cli_info import info
from .cli_serving import serve
from .cli_training import export, train
from .cli_upscale import upscale
from .engine.contract.errors import StvsrError
from .terminal import fail, out, plain

app = typer.Typer(help="Upscale video in space and time.", no_args_is_help=True, pretty_exceptions_enable=False)

# Faults of the environment, not of this program: full or read-only disks, missing permissions, too many files, names.
_ENVIRONMENT = {
    getattr(errno, name, None)  # not every system has each of them
    for name in [
        "EACCES",
        "EDQUOT",
        "EISDIR",
        "EMFILE",
        "ENAMETOOLONG",
        "ENFILE",
        "ENOSPC",
        "ENOTDIR",
        "EPERM",
        "EROFS",
    ]
}


def main() -> None:
    """Run the command line. An error that the user can mend is one line on stderr, with exit code 1."""
    try:
        app()
    except StvsrError as error:
        fail(plain(error))
    except OSError as error:
        if error.errno not in _ENVIRONMENT:
            raise
        fail(f"{plain(error.filename or 'A file')} cannot be used: {plain(error.strerror)}.")


def _version(requested: bool) -> None:
    if requested:
        out.print(f"stvsr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Upscale video in space and time."""


for _command in (upscale, batch, models, info, install, pack, serve, adapt, export, train, evaluate):
    app.command()(_command)
app.command("compile")(compile_)
