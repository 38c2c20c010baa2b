"""Options of `upscale`, `batch` and `serve` from files and from the environment, and the command that prints them.

The order is: the command line, the environment, ./stvsr.toml, the user's stvsr.toml, the default.
"""

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column
from typer.core import TyperCommand

from ..engine.contract.errors import RequestError
from ..engine.contract.files import read_file
from .adaptation import AdaptOptions
from .terminal import headline, new_table, out, plain

COMMANDS = ("upscale", "batch", "serve")
_NAME = "stvsr.toml"
_MOST_BYTES = 1 << 20
# Parameters that are of one call alone.
_NOT_CONFIGURED = frozenset({"help", "output", "folder", "preview", "as_json"})
# Parameters that exclude each other, with their defaults: one from a nearer source resets the others.
_EXCLUSIVE: tuple[dict[str, Any], ...] = (
    {"scale": None, "size": None},
    {"factor": None, "fps": None},
    {"progress": "bar", "no_progress": False},
    {"preview": None, "resume": False},
    {"preview": None, "adapt": False},
    {"preview": None, "format": None},
)
# Parameters that have an effect only with another one: (the other one, whether a value of it lets them, they).
# Without it, those from files and from the environment are reset; on the command line they are refused.
_DEPENDENT: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    ("adapt", bool, tuple(one.name for one in fields(AdaptOptions))),
    ("log_file", bool, ("log_level",)),
    ("backend", "remote".__eq__, ("url", "remote_timeout")),
    ("backend", "tensorrt".__eq__, ("library",)),
    ("executor", "ray".__eq__, ("ray_address",)),
)
_RANKS = {"COMMANDLINE": 3, "ENVIRONMENT": 2, "DEFAULT_MAP": 0}  # a value of ./stvsr.toml has 1


class ConfiguredCommand(TyperCommand):
    """A command whose options have environment variables, and lose to those that were given nearer to the call."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for key, parameter in configurable(self).items():
            parameter.envvar = variable(self.name or "", parameter)
            parameter.show_envvar = False  # in the help, where every option would have one
            if parameter.is_flag and not key.startswith("no-"):
                parameter.secondary_opts = [f"--no-{key}"]  # for a flag that a file or the environment has set

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help without the negative flags, which the epilog states for all."""
        for parameter in self.params:
            parameter.secondary_opts = []
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and let options that were given nearer replace those that they exclude.

        Raises RequestError for a value of a file or of the environment that is not valid.
        """
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except Exception as error:
            parameter = getattr(error, "param", None)
            origin = None if parameter is None else _origin(ctx, self.name or "", parameter)
            if origin is None or not hasattr(error, "format_message"):
                raise
            raise RequestError(f"{origin}: {error.format_message()}".rstrip(".") + ".") from error
        for defaults in _EXCLUSIVE:
            ranks = {name: _rank(ctx, name) for name in defaults if name in ctx.params}
            for name, rank in ranks.items():
                if 0 <= rank < max(ranks.values()):
                    ctx.params[name] = defaults[name]
        parameters = {parameter.name: parameter for parameter in self.params}
        for other, lets, names in _DEPENDENT:
            if other in ctx.params and not lets(ctx.params[other]):
                for name in names:
                    if 0 <= _rank(ctx, name) < _RANKS["COMMANDLINE"]:
                        ctx.params[name] = parameters[name].default
        return rest


def _rank(ctx: Any, name: str) -> int:
    """Return how near to the call a parameter was given; -1: it was not."""
    source = ctx.get_parameter_source(name)
    rank = _RANKS.get("" if source is None else source.name, -1)
    if rank == 0 and ctx.find_root().obj.get((ctx.info_name, name)) == Path(_NAME).absolute():
        return 1
    return rank


def _origin(ctx: Any, command: str, parameter: Any) -> str | None:
    """Return the file or the variable that a parameter comes from; None: neither."""
    source = ctx.get_parameter_source(parameter.name)
    match "" if source is None else source.name:
        case "ENVIRONMENT":
            return f"The variable {variable(command, parameter)}"
        case "DEFAULT_MAP":
            return str(ctx.find_root().obj[command, parameter.name])
    return None


def configurable(command: Any) -> dict[str, Any]:
    """Return the options of a command that can be configured, by their names in files."""
    return {
        _key(parameter): parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name not in _NOT_CONFIGURED
    }


def variable(command: str, parameter: Any) -> str:
    """Return the environment variable of an option."""
    return f"STVSR_{command}_{_key(parameter)}".upper().replace("-", "_")


def _key(parameter: Any) -> str:
    """Return the name of an option in files: its long one on the command line without dashes."""
    long = [name for name in parameter.opts if name.startswith("--")]
    return long[0][2:] if long else str(parameter.name).replace("_", "-")


def files() -> list[Path]:
    """Return the files that options are read from, of which the last one decides."""
    of_user = Path(typer.get_app_dir("stvsr")) / _NAME
    try:
        return [of_user, Path(_NAME).absolute()]
    except FileNotFoundError:  # the working folder was removed
        return [of_user]


def configure(ctx: typer.Context) -> None:
    """Let the commands below a context take their defaults from files. Raises RequestError for a file that is wrong."""
    if ctx.invoked_subcommand not in (*COMMANDS, "config"):
        return
    commands: Mapping[str, Any] = ctx.command.commands  # type: ignore[attr-defined]
    values: dict[str, dict[str, Any]] = {name: {} for name in COMMANDS}
    origins: dict[tuple[str, str], Path] = {}
    for file in files():
        for name, table in _read(file).items():
            if name not in COMMANDS or not isinstance(table, dict):
                raise RequestError(f"{file} has '{name}', and options are below [{'], ['.join(COMMANDS)}]: move it.")
            options = configurable(commands[name])
            for key, value in table.items():
                if key not in options:
                    close = difflib.get_close_matches(key, options, 1)
                    hint = f"did you mean '{close[0]}'?" if close else f"'stvsr config {name}' lists all."
                    raise RequestError(f"{file} has an option '{key}' below [{name}] that cannot be configured: {hint}")
                parameter = options[key]
                values[name][parameter.name] = _as_typed(value, parameter, f"{key} below [{name}] in {file}")
                origins[name, parameter.name] = file
    ctx.default_map = values
    ctx.obj = origins


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return tomllib.loads(read_file(file, _MOST_BYTES).decode())
    except OSError as error:
        raise RequestError(f"{file} cannot be read ({error.strerror}): correct it, or delete it.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{file} is not TOML ({error}): correct it, or delete it.") from error


def _as_typed(value: Any, parameter: Any, where: str) -> Any:
    """Return a value of a file as if it had been typed on the command line. Raises RequestError for another kind."""
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise RequestError(f"{where} is {value!r}: write true or false.")
        return value
    if parameter.multiple:
        if not isinstance(value, list):
            raise RequestError(f"{where} is {value!r}: write a list of texts.")
        return [str(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RequestError(f"{where} is {value!r}: write a text or a number.")
    return str(value)


def config(
    ctx: typer.Context,
    command: Annotated[
        str | None, typer.Argument(metavar="[COMMAND]", help="upscale, batch or serve.", show_default="all three")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print the options of upscale, batch and serve, and where each comes from: environment, stvsr.toml or default."""
    if command is not None and command not in COMMANDS:
        raise RequestError(f"'{command}' has no configuration: choose {', '.join(COMMANDS)}.")
    root = ctx.find_root()
    commands = {
        name: _rows(root, name, root.command.commands[name])  # type: ignore[attr-defined]
        for name in (COMMANDS if command is None else (command,))
    }
    if as_json:
        options = [row for rows in commands.values() for row in rows]
        facts = {"files": [{"path": str(file), "exists": file.exists()} for file in files()], "options": options}
        out.print_json(json.dumps(facts, default=str))
        return
    for file in reversed(files()):
        out.print(f"{plain(file)}{'' if file.exists() else ' (not there)'}", soft_wrap=True)
    for name, rows in commands.items():
        out.print()
        headline(name)
        table = new_table(Column("option", no_wrap=True), "value", "from", Column("variable", no_wrap=True))
        for row in rows:
            value = "" if row["value"] is None else plain(row["value"])
            table.add_row(row["option"], value, plain(row["from"]), row["variable"])
        out.print(table)


def _rows(root: Any, name: str, command: Any) -> list[dict[str, Any]]:
    """Return the value of each option of a command, and where it comes from."""
    ctx = type(root)(command, parent=root, info_name=name)
    rows = []
    for key, parameter in configurable(command).items():
        value, source = parameter.consume_value(ctx, {})
        kind = "" if source is None else source.name
        origin = "default"
        if kind == "ENVIRONMENT":
            origin = "environment"
        elif kind == "DEFAULT_MAP":
            origin = str(root.obj[name, parameter.name])
        elif isinstance(parameter.show_default, str):
            value = parameter.show_default
        rows.append(
            {"command": name, "option": key, "value": value, "from": origin, "variable": variable(name, parameter)}
        )
    return rows
