"""The study of Atari's hyperparameters trains every variant and prints a row of each."""

from __future__ import annotations

import pytest

pytest.importorskip("ale_py")

from benchmarks.studies import atari_training


def test_a_row_for_each_variant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"num_envs": 2, "n_steps": 16, "batch_size": 16, "n_epochs": 1, "width": 8}
    monkeypatch.setattr(atari_training, "VARIANTS", {"small": small})
    arguments = ["--games", "breakout,pong", "--seeds", "2", "--minutes", "0.01"]
    assert atari_training.main(arguments) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head == "| 0.01 minutes of a core, 2 seeds | breakout | pong |"
    name, breakout, pong = (cell.strip() for cell in row.strip("|").split("|"))
    assert name == "small"
    assert 0 <= float(breakout.partition(" ± ")[0]) < 10
    assert pong, "a game of Pong may not end in so short a time"
