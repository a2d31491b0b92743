"""Exit statuses and messages are the same for every command."""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import gymnasium as gym
import pytest

from gato_gym.commands.common import Command, CommandFailed, Invocation, parse, run_command
from gato_gym.commands.flags import Names, Numbers, flag


@dataclass(frozen=True)
class Work(Command):
    """Work.

    Attributes:
        inputs: What to work on.
        size: How large.
        kind: Of which kind.
        counts: Some numbers.
        names: Some names.
        weights: Weights by name.
        fast: Work fast.
        checked: Check the work.
    """

    stopped: ClassVar[str] = "stopped: the same command resumes"
    error: ClassVar[BaseException | None] = None

    inputs: Annotated[tuple[str, ...], flag(name="input")]
    size: int = 1
    kind: Literal["good", "bad"] | None = None
    counts: Annotated[tuple[int, ...], Numbers] = (1, 2)
    names: Annotated[tuple[str, ...], Names] = ("a",)
    weights: Mapping[str, Any] = field(default_factory=dict)
    fast: bool = False
    checked: bool = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}: expected 1 or more, {'as ' * 40}said")

    def run(self, call: Invocation) -> None:
        """Raise what the test asks for."""
        if self.error is not None:
            raise self.error


def work(*arguments: str) -> int:
    return run_command(Work, ["--input", "x", *arguments], prog="work")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", ["60", "200"])
def test_the_help_has_headings_between_flags(
    width: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)

    def help_of(sections: Mapping[str, str]) -> list[str]:
        monkeypatch.setattr(Work, "sections", sections)
        shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr("sys.stdout", shown)
        assert run_command(Work, ["--help"], prog="work") == 0
        shown.seek(0)
        return shown.read().splitlines()

    plain, lines = help_of({}), help_of({"--input": "what", "--fast": "how"})
    headings = [line for line in lines if line not in plain]
    assert [line.strip("├─┤ ") for line in headings] == ["what", "how"]
    for heading, name in zip(headings, ("--input", "--fast"), strict=True):
        assert name in lines[lines.index(heading) + 1]
        assert encoding == "ascii" or len(heading) == len(plain[-1]), "as wide as the box"
    assert [line for line in lines if line in plain] == plain, "no other line changes"


def test_fields_are_flags() -> None:
    arguments = "--input x y --kind bad --counts 3,5 --names b,c --fast --no-checked --weights"
    read = parse(Work, [*arguments.split(), '{"a": 2}'], prog="work")
    assert dataclasses.asdict(read) == {
        "inputs": ("x", "y"),
        "size": 1,
        "kind": "bad",
        "counts": (3, 5),
        "names": ("b", "c"),
        "weights": {"a": 2},
        "fast": True,
        "checked": False,
    }
    assert parse(Work, ["--input", "x"], prog="work") == Work(("x",))


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (ValueError("size is 3:\nexpected 4"), 2, "error: size is 3: expected 4\n"),
        (gym.error.NameNotFound("no such environment"), 2, "error: no such environment\n"),
        (ImportError("pip install it"), 2, "error: pip install it\n"),
        (FileNotFoundError("no dataset"), 2, "error: no dataset\n"),
        (PermissionError("--trust-zip is missing"), 2, "error: --trust-zip is missing\n"),
        (OSError("the disk is full"), 1, "error: the disk is full\n"),
        (FloatingPointError("the loss is nan"), 1, "error: the loss is nan\n"),
        (CommandFailed("a worker died\nresume with --resume"), 1,
         "error: a worker died\nresume with --resume\n"),
        (KeyboardInterrupt(), 130, "stopped: the same command resumes\n"),
        (KeyboardInterrupt("stopped at step 3"), 130, "stopped at step 3\n"),
    ],
)  # fmt: skip
def test_statuses(
    error: BaseException | None,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Work, "error", error)
    assert work() == status
    assert capsys.readouterr().err == said


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Work, "error", KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        work()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "0"], "error: size is 0: expected 1 or more, as as"),
        (["--size", "many"], "error: --size: invalid literal for int() with base 10: 'many'"),
        (["--kind", "worse"], "invalid choice 'worse' for argument '--kind'. Expected one of"),
        (["--counts", "1,b"], "'1,b': expected whole numbers, such as 1,3,10"),
        (["--weights", "[1"], "'[1' is not JSON"),
        (["--weights", "[1]"], "'[1]' is no JSON object"),
        (["--siez", "2"], "Unrecognized options: --siez"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert work(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


def test_a_missing_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(Work, [], prog="work") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Missing from work: --input")
    assert error.endswith("see work --help\n")


def test_a_warning_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Work, "run", lambda self, call: warnings.warn("be careful", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert work() == 0
    assert capsys.readouterr().err == "UserWarning: be careful\n"


def test_processes_beside_the_first_are_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Work, "run", lambda self, call: call.console.print("done"))
    monkeypatch.setenv("RANK", "1")
    assert work() == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert work() == 0
    assert capsys.readouterr().out == "done\n"
