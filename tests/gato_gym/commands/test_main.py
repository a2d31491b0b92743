"""The command ``gato-gym``: its subcommands are found, listed, and light to look at."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import gato_gym
from gato_gym.commands import main as command
from gato_gym.commands.common import Command, Invocation, run_command

ROOT = Path(__file__).parents[3]
DECLARED: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "entry-points"
]["gato_gym.commands"]


@dataclasses.dataclass(frozen=True)
class Greet(Command):
    """Greet someone.

    Attributes:
        name: Who is greeted.
    """

    name: str = "you"

    def run(self, call: Invocation) -> int:
        """Print, and fail."""
        call.console.print(f"hello {self.name}, {call.line('--more')}")
        return 1


@pytest.fixture
def greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that offers one subcommand, ``greet``."""
    entry = EntryPoint("greet", "gato_gym.commands.greeting:Greet", command.GROUP)

    def entry_points(*, group: str) -> list[EntryPoint]:
        assert group == command.GROUP
        return [entry]

    monkeypatch.setattr(command, "entry_points", entry_points)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Greet)


@pytest.mark.usefixtures("greeting")
def test_a_packages_subcommand_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["greet", "--name", "a b"]) == 1
    assert capsys.readouterr().out == "hello a b, gato-gym greet --name 'a b' --more\n"


@pytest.mark.usefixtures("greeting")
def test_an_unknown_subcommand_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["great", "--name", "a"]) == 2
    assert capsys.readouterr().err == (
        "error: no command 'great', expected one of greet: did you mean greet?\n"
    )


@pytest.mark.usefixtures("greeting")
@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_alone_it_lists_its_subcommands(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 0
    assert "  greet  Greet someone." in capsys.readouterr().out


@pytest.mark.usefixtures("greeting")
def test_a_subcommand_shows_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["greet", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: gato-gym greet" in shown
    assert "Who is greeted. (default: you)" in shown


def test_an_older_installation_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "entry_points", lambda group: [])
    assert command.main(["tasks"]) == 2
    assert "offers no subcommands" in (said := capsys.readouterr().err)
    assert "install it again" in said
    assert command.main(["--version"]) == 0


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"gato-gym {gato_gym.__version__}\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", gato_gym.__version__)


def test_what_is_installed_offers_what_is_declared() -> None:
    installed = {name: entry.value for name, entry in command.find_commands().items()}
    assert {name: installed.get(name) for name in DECLARED} == DECLARED, "run make .venv"


@pytest.mark.parametrize("name", DECLARED)
def test_every_subcommand_describes_each_of_its_flags(name: str) -> None:
    module, _, attribute = DECLARED[name].partition(":")
    subcommand: type[Command] = getattr(importlib.import_module(module), attribute)
    assert issubclass(subcommand, Command)
    described = "\n".join(base.__doc__ or "" for base in subcommand.__mro__)
    assert dataclasses.is_dataclass(subcommand)
    for field in dataclasses.fields(subcommand):
        if field.name not in ("acting", "command", "playing", "record"):  # groups of flags
            assert re.search(rf"^ +{field.name}: \S", described, re.MULTILINE), field.name
    title = importlib.import_module(f"{module.partition('.')[0]}.commands").__doc__
    assert title, "the group's heading in the help"


@pytest.mark.parametrize("name", ["train", "finetune", "bench"])
def test_every_section_of_a_help_begins_with_its_flag(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module, _, attribute = DECLARED[name].partition(":")
    subcommand: type[Command] = getattr(importlib.import_module(module), attribute)
    assert run_command(subcommand, ["--help"], prog=name) == 0
    shown = capsys.readouterr().out
    positions = []
    for flag, heading in subcommand.sections.items():
        section = re.search(rf" {heading}[ ─┤]*\n[│ ]*{flag} ", shown)
        assert section is not None, f"no section {heading!r} that begins with {flag}"
        positions.append(section.start())
    assert positions == sorted(positions)
    assert len(positions) > 1


def test_the_help_of_all_imports_neither_networks_nor_simulators() -> None:
    modules = sorted({value.partition(":")[0] for value in DECLARED.values()})
    heavy = ("torch", "mujoco", "metaworld", "minigrid", "ale_py", "stable_baselines3", "jax")
    code = f"import sys, {', '.join(modules)}; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
