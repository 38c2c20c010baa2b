"""Options from files and from the environment, in their order, and `stvsr config`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from stvsr.cli.app import app
from stvsr.cli.config import COMMANDS, configurable, variable

from tests.support.commands import Run, assert_one_clear_error, run_inside

Write = Callable[..., None]


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return run_inside(monkeypatch, capsys)


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Write:
    """Return a function that writes the file of the working folder, and the user's; both are empty at first."""
    here, user = tmp_path / "here", tmp_path / "user"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("typer.get_app_dir", lambda name: str(user / name))

    def write(*, here_text: str = "", user_text: str = "") -> None:
        (here / "stvsr.toml").write_text(here_text)
        (user / "stvsr").mkdir(parents=True, exist_ok=True)
        (user / "stvsr" / "stvsr.toml").write_text(user_text)

    return write


def values(inside: Run, command: str) -> dict[str, tuple[Any, str]]:
    """Return the value of each option of a command, and where it comes from."""
    done = inside("config", command, "--json")
    assert done.returncode == 0, done.stderr
    return {row["option"]: (row["value"], row["from"]) for row in json.loads(done.stdout)["options"]}


def test_a_working_folder_that_was_removed_has_no_file(inside: Run, write: Write, tmp_path: Path) -> None:
    write(user_text="[upscale]\ncrf = 40")
    shutil.rmtree(tmp_path / "here")
    assert values(inside, "upscale")["crf"][0] == "40"


def test_the_nearest_source_decides(
    inside: Run, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy: Path, short: Path
) -> None:
    assert values(inside, "upscale")["crf"] == ("the encoder's own", "default")
    write(user_text="[upscale]\ncrf = 40\ntile = 64\n[serve]\nport = 9000\nwarm = ['edvr-s']")
    user = str(tmp_path / "user" / "stvsr" / "stvsr.toml")
    assert values(inside, "upscale")["crf"] == ("40", user)
    assert values(inside, "serve")["port"] == ("9000", user)
    assert values(inside, "serve")["warm"] == (["edvr-s"], user)
    assert values(inside, "batch")["crf"][1] == "default"
    write(user_text="[upscale]\ncrf = 40\ntile = 64", here_text=f"[upscale]\ncrf = 30\nmodel = '{toy}'\nscale = 2")
    here = str(tmp_path / "here" / "stvsr.toml")
    found = values(inside, "upscale")
    assert (found["crf"], found["tile"]) == (("30", here), ("64", user))
    monkeypatch.setenv("STVSR_UPSCALE_CRF", "20")
    monkeypatch.setenv("STVSR_UPSCALE_OVERWRITE", "1")
    assert values(inside, "upscale")["crf"] == ("20", "environment")

    report = json.loads(inside("upscale", short, "-o", tmp_path / "o.mp4", "--json").stdout)
    assert (report["bundle"], report["size_out"]) == ("toy", [96, 64])
    again = inside("upscale", short, "-o", tmp_path / "o.mp4", "--json", "-s", "3", "--crf", "51")
    assert json.loads(again.stdout)["size_out"] == [144, 96], "the output is replaced, as the environment has it"


def test_an_option_excludes_those_of_farther_sources(
    inside: Run, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy: Path, short: Path
) -> None:
    write(user_text="[upscale]\nsize = '60x40'\nfps = 100", here_text=f"[upscale]\nscale = 2\nmodel = '{toy}'")

    def run(*arguments: str) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(
            inside("upscale", short, "-o", tmp_path / "o.mp4", "--overwrite", "--json", *arguments).stdout
        )
        return report

    assert (run()["size_out"], run()["rate_out"]) == ([96, 64], "100")
    assert (run("--size", "100x66")["size_out"], run("-t", "3")["rate_out"]) == ([100, 66], "75")
    monkeypatch.setenv("STVSR_UPSCALE_SIZE", "120x80")
    assert run()["size_out"] == [120, 80]
    assert run("-s", "1")["size_out"] == [48, 32]
    assert run("-s", "1", "--size", "9x9")["error"]["code"] == "request", "of one source they contradict each other"


def test_an_option_of_a_file_waits_for_the_one_that_it_needs(
    inside: Run, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy: Path, short: Path
) -> None:
    waiting = "adapt-seconds = 3\nseed = 5\nlog-level = 'debug'\nlibrary = 'tensorrt'\nurl = 'http://127.0.0.1:1'"
    write(here_text=f"[upscale]\nmodel = '{toy}'\nscale = 2\n{waiting}")
    monkeypatch.setenv("STVSR_UPSCALE_COARSE", "2")
    done = inside("upscale", short, "-o", tmp_path / "o.mp4")
    assert done.returncode == 0, done.stderr
    given = inside("upscale", short, "-o", tmp_path / "p.mp4", "--adapt-steps", "3")
    assert_one_clear_error(given, "--adapt-steps has no effect without --adapt")
    assert_one_clear_error(
        inside("upscale", short, "-o", tmp_path / "p.mp4", "--adapt", "--backend", "remote"), "server"
    )


def test_a_flag_of_a_file_is_switched_off(inside: Run, write: Write, tmp_path: Path, toy: Path, short: Path) -> None:
    write(here_text=f"[upscale]\nmodel = '{toy}'\nscale = 2\noverwrite = true\nresume = true\nadapt = true")
    output = tmp_path / "o.mp4"
    output.touch()
    assert_one_clear_error(inside("upscale", short, "-o", output, "--no-overwrite", "--no-adapt"), "exists already")
    shown = inside("upscale", short, "--preview", tmp_path / "page.html", "--end", "0.1")
    assert shown.returncode == 0, shown.stderr
    refused = inside("upscale", short, "--preview", tmp_path / "page.html", "--resume")
    assert_one_clear_error(refused, "leave out --resume.")
    assert "--no-overwrite" not in inside("upscale", "--help").stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[upscale]\nscael = 2", ["'scael'", "did you mean 'scale'"]),
        ("[upscale]\noutput = 'x.mp4'", ["'output'", "cannot be configured"]),
        ("scale = 2", ["'scale'", "[upscale], [batch], [serve]"]),
        ("[train]\nsteps = 2", ["'train'"]),
        ("[upscale]\noverwrite = 'yes'", ["overwrite", "true or false"]),
        ("[upscale]\nscale = [2]", ["scale", "a text or a number"]),
        ("[upscale]\nencoder-option = 'a=b'", ["encoder-option", "a list"]),
        ("[upscale]\ncrf = 'x'", ["'--crf'", "valid integer"]),
        ("[upscale", ["not TOML"]),
    ],
)
def test_a_wrong_file_is_named(
    inside: Run, write: Write, tmp_path: Path, short: Path, text: str, words: list[str]
) -> None:
    write(here_text=text)
    assert_one_clear_error(inside("upscale", short), str(tmp_path / "here" / "stvsr.toml"), *words)
    assert inside("models", "--json").returncode == 0, "other commands do not read it"


def test_a_wrong_variable_is_named(inside: Run, write: Write, monkeypatch: pytest.MonkeyPatch, short: Path) -> None:
    monkeypatch.setenv("STVSR_UPSCALE_CRF", "x")
    assert_one_clear_error(inside("upscale", short), "STVSR_UPSCALE_CRF", "valid integer")
    assert_one_clear_error(inside("config", "train"), "'train' has no configuration")


def test_every_option_but_a_few_can_be_configured(inside: Run, write: Write) -> None:
    group: Any = typer.main.get_command(app)
    printed = inside("config").stdout
    for name in COMMANDS:
        command = group.commands[name]
        left_out = {parameter.name for parameter in command.params if parameter.param_type_name == "option"}
        left_out -= {parameter.name for parameter in configurable(command).values()}
        assert left_out <= {"help", "output", "folder", "preview", "as_json"}
        variables = [variable(name, parameter) for parameter in configurable(command).values()]
        assert len(set(variables)) == len(variables)
        assert name in printed.splitlines()
        assert all(one in printed for one in variables)
