"""``gato-gym score`` and ``record`` with a policy that plays from demonstrations."""

from __future__ import annotations

import re
from pathlib import Path

import gymnasium as gym
import minari
import pytest
from environments import Balance

from gato_gym.commands.main import main
from policies import record_episodes


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two episodes of CartPole, balanced to the end."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = gym.make("CartPole-v1")
    assert record_episodes(env, Balance(), 2, "my/cart-v0") == [500.0, 500.0]
    return "my/cart-v0"


def test_score_has_a_line_for_each_number_of_demonstrations(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["score", "CartPole-v1", "--policy", "retrieve", "--episodes", "2"]
    assert main([*command, "--demonstrations", dataset, "--demonstration-episodes", "1,2"]) == 0
    out = capsys.readouterr().out
    lines = re.findall(r"policy +([\d.]+) ± [\d.]+, from (\d) demonstrations", out)
    assert [number for _, number in lines] == ["1", "2"]
    chance = float(re.search(r"random +([\d.]+)", out)[1])  # type: ignore[index]
    assert all(float(mean) > 3 * chance for mean, _ in lines)


def test_what_retrieval_plays_can_be_recorded(dataset: str) -> None:
    command = ["record", "CartPole-v1", "--policy", "retrieve", "--demonstrations", dataset]
    assert main([*command, "--dataset", "my/again-v0", "--episodes", "1"]) == 0
    assert minari.load_dataset("my/again-v0").total_episodes == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--policy", "random", "--demonstrations", "my/cart-v0"], "plays without"),
        (["--policy", "retrieve"], "pass --demonstrations"),
        (["--policy", "retrieve", "--demonstration-episodes", "1,2"], "expected one number"),
    ],
)
def test_flags_that_do_not_go_together_are_told(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "CartPole-v1", "--dataset", "my/more-v0", *flags]) == 2
    assert said in capsys.readouterr().err
