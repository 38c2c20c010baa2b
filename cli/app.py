"""The command line: `stvsr upscale | models | info | compile | ...`, with the commands of the other files here."""

import errno
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..engine.contract.errors import DeviceMemoryError, StvsrError
from ..engine.contract.interrupts import received
from ..engine.contract.shortage import MEMORY, describe_shortage, is_of_memory, was_memory_short
from .adaptation import adapt
from .batch import batch
from .benchmark import benchmark
from .bundles import compile_, install, models, pack
from .compare import compare
from .config import COMMANDS, ConfiguredCommand, config, configure
from .evaluation import evaluate
from .exporting import export
from .importing import import_
from .info import info
from .serving import serve
from .terminal import answers, fail, interrupt_number, interrupted, out, protect_streams, quiet_encoders
from .training import train
from .triton import triton
from .upscale import upscale

_ENDED = "Interrupted: the command did not end."


class _Commands(TyperGroup):
    """The commands; a signal in one that says nothing else ends with a sentence and the exit code 128 + the signal."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(interrupted(_ENDED, interrupt_number(interrupt))) from None
        except Exception as error:
            # Typer prints it; the class is Click's, and newer versions of Typer have one of their own.
            if isinstance(code := getattr(error, "exit_code", None), int) and hasattr(error, "format_message"):
                answers.fail("usage", error.format_message(), code)
            raise


app = typer.Typer(
    cls=_Commands,
    help="Upscale video in space and time.",
    epilog="Exit codes: 0 done, 1 an error, 2 wrong options, 128 + the signal that ended it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

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
    """Run the command line. An error that the user can mend is one line on stderr, with exit code 1.

    With --json it is an object on stdout, too.
    """
    protect_streams()
    quiet_encoders()
    answers.begin(errors_as_json="--json" in sys.argv)
    try:
        _run()
    except BaseException as error:
        number = received()
        code = error.code if isinstance(error, SystemExit) else None
        if number is not None and code not in (0, 128 + number):
            raise SystemExit(interrupted(_ENDED, number)) from None  # whatever the interrupt became on its way
        if isinstance(error, Exception):
            answers.fail("internal", f"{type(error).__name__}: {error}", 1)
        raise
    finally:
        answers.opened.close()


def _run() -> None:
    try:
        app()
    except StvsrError as error:
        is_named = MEMORY in str(error) or isinstance(error, DeviceMemoryError)
        if not is_named and (is_of_memory(error) or was_memory_short()):
            fail(f"{MEMORY} ({error})", "shortage")
        fail(error, error.code)
    except Exception as error:
        if (shortage := describe_shortage(error)) is not None:
            fail(shortage, "shortage")
        if isinstance(error, FileExistsError):  # of a folder that is made; files are replaced, or refused before
            fail(f"{error.filename} is a file, and a folder is needed there: name another one.", "environment")
        if not isinstance(error, OSError) or error.errno not in _ENVIRONMENT:
            raise
        fail(f"{error.filename or 'A file'} cannot be used: {error.strerror}.", "environment")


def _version(requested: bool) -> None:
    if requested:
        out.print(f"stvsr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Upscale video in space and time."""
    configure(ctx)


_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Upscale": (upscale, batch, adapt),
    "Compare and measure": (compare, evaluate, benchmark),
    "Bundles": (models, info, install, pack, import_, compile_),
    "Train": (train, export),
    "Serve": (serve, triton),
    "Configuration": (config,),
}
for _panel, _commands in _COMMANDS.items():
    for _command in _commands:
        _name = _command.__name__.rstrip("_")
        _sources: str | None = None
        if _name in COMMANDS:
            _sources = (
                f"Options come from stvsr.toml and STVSR_* variables, too: stvsr config {_name}."
                " A flag that was set there is switched off by --no-FLAG."
            )
        app.command(_name, cls=ConfiguredCommand if _sources else None, epilog=_sources, rich_help_panel=_panel)(
            _command
        )
