"""The command ``gato-gym``, also ``python -m gato_gym``: finds its subcommands and runs one.

* :func:`main` -- the command. Alone, or with ``--help``, it lists the subcommands.
* :func:`find_commands` -- the subcommands that installed packages offer.

A package offers subcommands in the entry-point group ``gato_gym.commands``: each entry point names
a subclass of :class:`~gato_gym.commands.common.Command`.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from rich.table import Table

import gato_gym
from gato_gym.commands.common import DONE, Command, complain, exit_status, run_command
from gato_gym.terminal import new_console

GROUP = "gato_gym.commands"


def find_commands() -> dict[str, EntryPoint]:
    """The subcommands by name, not loaded yet."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: As typed after ``gato-gym``; None takes the process's.

    Returns:
        The exit status (:mod:`gato_gym.commands.common`).
    """
    typed = sys.argv[1:] if arguments is None else list(arguments)
    name, rest = (typed[0], typed[1:]) if typed else ("--help", [])
    commands = find_commands()
    if name == "--version":
        print(f"gato-gym {gato_gym.__version__}")
        return DONE
    if not commands:
        return complain(
            "this installation of gato-gym offers no subcommands, expected those that its "
            "pyproject.toml names: install it again, with make .venv or pip install"
        )
    if name in ("-h", "--help"):
        _print_help(commands)
        return DONE
    if name not in commands:
        close = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {close[0]}?" if close else "see gato-gym --help"
        return complain(f"no command {name!r}, expected one of {', '.join(commands)}: {hint}")

    def work() -> int:
        _see_working_directory()
        return run_command(commands[name].load(), rest, prog=f"gato-gym {name}")

    return exit_status(work)


def _see_working_directory() -> None:
    """Modules of the working directory can be named too, and hide no installed one.

    Python looks for an editable installation after all of ``sys.path``: its folder precedes.
    """
    here, home = os.getcwd(), str(Path(gato_gym.__file__).parents[1])
    if not {"", here} & set(sys.path):
        sys.path += [place for place in (home, here) if place not in sys.path]


def _print_help(commands: dict[str, EntryPoint]) -> None:
    """The subcommands in groups, one for each package that offers some, this one's first."""
    console = new_console(highlight=False)
    console.print("usage: gato-gym COMMAND …\n\n" + (gato_gym.__doc__ or "").splitlines()[0])
    packages = {entry.module.partition(".")[0] for entry in commands.values()}
    width = max(map(len, commands))
    for package in sorted(packages, key=lambda name: (name != __name__.partition(".")[0], name)):
        table = Table.grid(padding=(0, 2))
        for name, entry in commands.items():
            if entry.module.startswith(f"{package}."):
                command: type[Command] = entry.load()
                table.add_row(f"  {name:{width}}", (command.__doc__ or "").splitlines()[0])
        title = importlib.import_module(f"{package}.commands").__doc__ or package
        console.print(f"\n{title.splitlines()[0]}", markup=False)
        console.print(table)
    console.print("\n  gato-gym COMMAND --help shows the flags of one; --version the version.")
