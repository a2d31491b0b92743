"""What the commands share.

* :class:`Command` -- a command; its fields are its flags.
* :class:`Invocation` -- how it was called.
* :func:`run_command` -- runs one, and turns what goes wrong into a line and an exit status.
* :func:`parse` -- a command from what was typed.
* :class:`CommandFailed` -- ends a command with the status 1.

The exit status is 0 when a command did what was asked, 1 when something failed on the way, 2 when
what was asked cannot be done, and 130 after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TextIO, TypeVar

import gymnasium as gym
import tyro
from rich.console import Console

from gato_gym.commands.flags import REGISTRY
from gato_gym.terminal import new_console

DONE, FAILED, MISUSED, STOPPED = 0, 1, 2, 130

CANNOT_BE_DONE = (
    gym.error.Error, FileExistsError, FileNotFoundError, ImportError, PermissionError, ValueError,
)  # fmt: skip
"""Errors in what was asked: another command line, file or installation is needed."""

_COLOUR = re.compile("\x1b\\[[0-9;]*m")

MARKERS = (
    tyro.conf.DisallowNone,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.OmitArgPrefixes,
    tyro.conf.OmitSubcommandPrefixes,
    tyro.conf.SuppressFixed,
)


class CommandFailed(Exception):
    """Something failed that a message describes; a second line may say how to resume."""


@dataclass(frozen=True)
class Invocation:
    """How a command was called.

    Attributes:
        prog: Its name, such as ``gato-gym train``.
        arguments: What was typed after the name.
        console: Prints to stdout; under ``torchrun``, in the first process alone.
    """

    prog: str
    arguments: Sequence[str]
    console: Console

    def line(self, *more: str) -> str:
        """The command line as a shell takes it."""
        return shlex.join([*self.prog.split(), *self.arguments, *more])


class Command(ABC):
    """A command: a dataclass whose fields are its flags and whose docstring is its help."""

    stopped: ClassVar[str] = ""
    """What is said after Ctrl-C, where a KeyboardInterrupt says nothing itself."""
    sections: ClassVar[Mapping[str, str]] = {}
    """Headings in the help, by the flag that each precedes."""

    @abstractmethod
    def run(self, call: Invocation) -> int | None:
        """Do it; returns the exit status, None for 0."""


C = TypeVar("C", bound=Command)


def run_command(
    command: type[Command], arguments: Sequence[str] | None = None, *, prog: str
) -> int:
    """Run a command; returns its exit status.

    Args:
        command: Its class.
        arguments: None takes the process's.
        prog: How it is called.
    """
    typed = sys.argv[1:] if arguments is None else list(arguments)
    quiet = os.environ.get("RANK", "0") != "0"
    call = Invocation(prog, typed, new_console(soft_wrap=True, quiet=quiet))
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            try:
                requested = parse(command, typed, prog=prog)
            except SystemExit as end:  # the help was shown
                return int(end.code or DONE)
            return requested.run(call) or DONE
    except SystemExit as end:
        complain(f"sys.exit({end.code!r}) was called by code that the command runs: mend that code")
        return FAILED
    except KeyboardInterrupt as stop:
        if said := _told(stop) or command.stopped:
            print(said, file=sys.stderr)
        return STOPPED
    except CommandFailed as error:
        print(f"error: {_told(error)}", file=sys.stderr)
        return FAILED
    except CANNOT_BE_DONE as error:
        return complain(_told(error))
    except (ArithmeticError, OSError) as error:
        complain(_told(error))
        return FAILED


def _told(error: BaseException) -> str:
    """What an error says, and the notes on it."""
    return "; ".join(filter(None, (str(error), *getattr(error, "__notes__", ()))))


def complain(message: str) -> int:
    """Print an error as one line; returns the status of a mistake in what was asked."""
    print("error:", " ".join(message.split()), file=sys.stderr)
    return MISUSED


def parse(command: type[C], arguments: Sequence[str], *, prog: str) -> C:
    """A command with the values that were typed.

    Raises:
        SystemExit: The help was asked for, and shown.
        ValueError: What was typed is no such command line, or the values do not go together.
    """
    stderr = io.StringIO()
    help_in_sections = _with_headings(command.sections)
    with contextlib.redirect_stderr(stderr), _in_one_line(arguments), help_in_sections:
        try:
            return tyro.cli(command, prog=prog, args=arguments, config=MARKERS, registry=REGISTRY)
        except SystemExit as end:
            if not end.code:
                raise
            cause: Any = end.__context__
    if isinstance(cause, ValueError):  # the command's own check of its values
        raise cause
    # tyro draws a box: a title, what is wrong, and where help is, parted by rules
    lines = [line.strip("│| ") for line in stderr.getvalue().splitlines()[1:]]
    words = " ".join(line for line in lines if not re.match("[+╰]?[-─]{3}", line))
    words = re.split(" ?(?:Argument|For full) helptext", words)[0].removeprefix("Error parsing ")
    raise ValueError(f"{' '.join(words.split()).rstrip('.')}: see {prog} --help")


class _Help(io.StringIO):
    """Takes what is printed for another file, as that file would show it."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file = file

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._file.encoding

    def isatty(self) -> bool:
        return self._file.isatty()


@contextlib.contextmanager
def _with_headings(sections: Mapping[str, str]) -> Iterator[None]:
    """Print the help with a heading before each of these flags."""
    printed = _Help(sys.stdout)
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines(keepends=True):
            plain = _COLOUR.sub("", line).rstrip("\n")
            heading = sections.get(plain.strip("│ ").split(" ")[0])
            if heading is not None:
                boxed = f"├─ {heading} ".ljust(len(plain) - 1, "─") + "┤"
                print(boxed if plain.startswith("│") else f" {heading}")
            sys.stdout.write(line)


@contextlib.contextmanager
def _in_one_line(arguments: Sequence[str]) -> Iterator[None]:
    """No line of an error is wrapped."""
    before = os.environ.get("COLUMNS")
    if not {"-h", "--help"} & set(arguments):
        os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS", None)
        if before is not None:
            os.environ["COLUMNS"] = before


def _print_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    print(f"{category.__name__}: {message}", file=sys.stderr)
