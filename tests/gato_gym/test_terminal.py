"""What is printed for people: names as they are, wherever they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.table import Table

import benchmarks
import gato_gym
import policies
from benchmarks.run import main
from gato_gym.terminal import new_console

NAME = "runs/[v2]:factory:[/]"


def test_lines_and_tables_show_a_name_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("policy", title=f"title {NAME}")
    table.add_row(f"cell {NAME}")
    console = new_console(width=80)
    console.print(f"line {NAME}")
    console.print(table)

    printed = capsys.readouterr().out
    for place in ("line", "title", "cell"):
        assert f"{place} {NAME}" in printed


def test_a_run_names_its_folder_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = "[bold]:factory:"
    options = ["--suite", "mujoco", "--tasks", "pendulum", "--policy", "random"]

    assert main([*options, "--episodes", "1", "--workers", "1", "--output", output]) == 0

    assert f"figures are in {output}, a page of them is {output}/" in capsys.readouterr().out


@pytest.mark.parametrize("package", [gato_gym, policies, benchmarks], ids=lambda p: p.__name__)
def test_every_console_is_of_this_kind(package: object) -> None:
    folder = Path(str(package.__file__)).parent  # type: ignore[attr-defined]
    makers = [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*.py"))
        if " Console(" in path.read_text("utf-8") or "(Console(" in path.read_text("utf-8")
    ]

    assert makers == (["terminal.py"] if package is gato_gym else [])
