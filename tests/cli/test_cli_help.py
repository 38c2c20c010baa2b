"""The rendered help of every command states each default and each unit."""

import inspect
import re
from typing import Any, get_type_hints

import pytest
import typer
from stvsr.cli.app import app
from typer.testing import CliRunner

COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)  # type: ignore[union-attr]
# Words in the help of an option that is a quantity, and one of the units or ranges that the help must then state.
UNITS = {
    "--tile": "pixels",
    "--size": "pixels",
    "--fps": "frames per second",
    "--input-fps": "frames per second",
    "--patch": "pixels",
    "--adapt-seconds": "seconds",
    "--adapt-steps": "steps",
    "--steps": "steps",
    "--scene-threshold": "from 0",
    "--shapes": "pixels",
    "--factor": "frame",
    "--scale": "factor",
}


def rendered(command: str) -> str:
    """Return the help text as one line, without the box."""
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "400", "NO_COLOR": "1", "TERM": "dumb"})
    assert done.exit_code == 0, done.output
    return done.output


def option_rows(command: str) -> dict[str, str]:
    """Return the rows of the help, by the option's long name or, without one, its short name."""
    rows: dict[str, str] = {}
    name = ""
    for line in rendered(command).splitlines():
        text = line.strip("│ ").strip()
        if match := re.match(r"(?:\*\s+)?((?:-\w|--[\w-]+)(?:[ ,]+(?:-\w|--[\w-]+))*)\s", text + " "):
            names = re.findall(r"--[\w-]+|-\w", match[1])
            name = next((n for n in names if n.startswith("--")), names[0])
            rows[name] = text
        elif name and text and not text.startswith(("╰", "╭")):
            rows[name] += " " + text
    return rows


def callbacks() -> list[Any]:
    commands = [command.callback for command in app.registered_commands]
    return [pytest.param(callback, id=callback.__name__) for callback in commands if callback is not None]


@pytest.mark.parametrize("callback", callbacks())
def test_every_option_states_its_default(callback: Any) -> None:
    """A flag is off by default; every other option that is not required shows a default."""
    rows = option_rows(callback.__name__.rstrip("_"))
    hints = get_type_hints(callback, include_extras=True)
    checked = 0
    for parameter in inspect.signature(callback).parameters.values():
        option = getattr(hints[parameter.name], "__metadata__", [None])[0]  # the context of a command has none
        if not isinstance(option, typer.models.OptionInfo):
            continue
        # Within Annotated, typer stores the first name of an option as its default.
        first = [option.default] if isinstance(option.default, str) else []
        names = [*first, *(option.param_decls or ())] or [f"--{parameter.name.replace('_', '-')}"]
        name = next((n for n in names if n.startswith("--")), names[0])
        row = rows[name]
        if parameter.default is inspect.Parameter.empty:
            assert "[required]" in row, row
        elif parameter.default is not False:
            assert "[default: " in row, row
            if parameter.default is not None and not isinstance(option.show_default, str):
                assert f"[default: {parameter.default}]" in row, row
        checked += 1
    assert checked


@pytest.mark.parametrize("command", COMMANDS)
def test_every_quantity_states_its_unit(command: str) -> None:
    for name, row in option_rows(command).items():
        if name in UNITS:
            assert UNITS[name] in row.lower(), row


@pytest.mark.parametrize("command", COMMANDS)
def test_no_default_is_written_by_hand(command: str) -> None:
    """A default in brackets in the help text would be taken for markup and vanish."""
    text = rendered(command)
    assert "[/]" not in text
    for callback in (c.callback for c in app.registered_commands):
        for hint in get_type_hints(callback, include_extras=True).values():
            for option in getattr(hint, "__metadata__", ()):
                assert "[" not in (getattr(option, "help", None) or "")


def test_defaults_beside_constants_of_the_engine_are_those() -> None:
    """The help is printed without the modules of the engine, so that it repeats some of their values."""
    from stvsr.engine.backends.options import DEFAULT_TIMEOUT_S, WAITING
    from stvsr.engine.pipeline.adaptation import DEFAULT_SECONDS
    from stvsr.engine.pipeline.limits import DEFAULT_THRESHOLD
    from stvsr.engine.pipeline.request import DEFAULT_MODEL

    rows = option_rows("upscale")
    for name, value in {
        "--waiting": WAITING,
        "--remote-timeout": f"{DEFAULT_TIMEOUT_S:g}",
        "--adapt-seconds": f"{DEFAULT_SECONDS:g} without --adapt-steps",
        "--scene-threshold": f"{DEFAULT_THRESHOLD:g}",
        "--model": DEFAULT_MODEL,
    }.items():
        assert re.search(rf"\[default: \(?{re.escape(value)}\)?\]", rows[name]), rows[name]


def test_adapt_and_upscale_share_their_options() -> None:
    adapt, upscale = option_rows("adapt"), option_rows("upscale")
    from stvsr.cli.adaptation import AdaptOptions

    names = AdaptOptions().given()
    assert {"--adapt-per", "--adapt-steps", "--degradation", "--seed"} <= names.keys()
    for name in names:
        assert adapt[name].partition(" ")[2].split() == upscale[name].partition(" ")[2].split()


def test_completion_can_be_installed() -> None:
    done = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert "--install-completion" in done.output
