"""The help of gato-gym train is in sections."""

from __future__ import annotations

import re

import pytest

from gato_gym.commands.common import run_command
from policies.commands.train import Train


def test_every_section_of_the_help_begins_with_its_flag(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(Train, ["--help"], prog="gato-gym train") == 0
    shown = capsys.readouterr().out
    positions = []
    for name, heading in Train.sections.items():
        section = re.search(rf" {heading}[ ─┤]*\n[│ ]*{name} ", shown)
        assert section is not None, f"no section {heading!r} that begins with {name}"
        positions.append(section.start())
    assert positions == sorted(positions)
