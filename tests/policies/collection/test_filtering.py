"""Which episodes are good enough, by numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from small import SMALL, random_shard, state_plan, talking_plan

from gato_gym import Episode, get_task, write_minari
from gato_gym.__main__ import main
from policies.collection.collect import Progress, _line
from policies.collection.filtering import least_return, windowed_return
from policies.collection.jobs import CollectSettings, UnitReport
from policies.training.data.datasets import find_tasks
from policies.training.data.encoding import shard_tasks
from policies.training.data.mixture_report import measure_mixture, mixture_table
from policies.training.data.packing import Mixture, Packer


def test_the_window_is_a_tenth_of_the_episodes() -> None:
    returns = [0.0] * 20
    returns[4], returns[5], returns[12] = 6.0, 8.0, 13.0
    assert windowed_return(returns) == 7.0, "of two: (6 + 8) / 2, and not (0 + 13) / 2"
    assert windowed_return(returns[:19]) == 13.0, "19 episodes: a window of one"
    assert windowed_return([-3.0]) == -3.0


def test_the_window_is_a_thousand_at_most() -> None:
    returns = np.zeros(20_000)
    returns[5_000:6_000] = 2.0
    assert windowed_return(returns) == 2.0, "a tenth would be 2000, and a mean of 1"


def test_the_least_return_where_it_is_negative() -> None:
    assert least_return(50.0, 0.8) == 40.0
    assert least_return(-50.0, 0.8) == -60.0
    assert least_return(0.0, 0.8) == 0.0
    with pytest.raises(ValueError, match="share is 80"):
        least_return(50.0, 80)
    with pytest.raises(ValueError, match="expected at least one"):
        windowed_return([])
    with pytest.raises(ValueError, match="all finite"):
        windowed_return([1.0, float("nan")])


def cart_episode(total: float) -> Episode:
    steps = np.arange(4, dtype=np.float32)
    rewards = np.full(3, total / 3, np.float32)
    end = np.array([False, False, True])
    return Episode("cart", np.stack([steps] * 4), np.array([0, 1, 0]), rewards, end, ~end & False)


def test_a_datasets_poor_episodes_are_left_out(tmp_path: Path) -> None:
    returns = (9.0, 12.0, 30.0, 24.0, 23.7, 15.0)  # six episodes: W is 1, the expert's is 30
    with gym.make("CartPole-v1") as env:
        write_minari("my/cart-v0", map(cart_episode, returns), env=env, root=tmp_path)
    folder = tmp_path / "my" / "cart-v0"
    (task,) = find_tasks([folder])
    assert task.sources[0].expert_return == 30.0
    assert task.counts == (2, 6)
    assert [episode.total_return for episode in task.episodes()] == [30.0, 24.0]
    assert task.demonstration().total_return == 30.0
    assert len(shard_tasks([task], tmp_path / "shards")["CartPole-v1"].ends) == 2
    (whole,) = find_tasks([folder], share=0.0)
    assert whole.counts == (6, 6)
    assert len(shard_tasks([whole], tmp_path / "shards")["CartPole-v1"].ends) == 6
    (twice,) = find_tasks([folder, folder])
    assert twice.counts == (4, 12), "datasets of one environment are one task"


def test_what_this_package_recorded_of_one_policy_is_not_filtered_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six episodes by an expert of 20: at 0.8 of the best, 30, two of them would be left."""
    monkeypatch.chdir(tmp_path)
    with gym.make("CartPole-v1") as env:
        write_minari(
            "my/cart-v0",
            map(cart_episode, (9.0, 12.0, 30.0, 24.0, 23.7, 15.0)),
            env=env,
            root=tmp_path,
            expert_return=20.0,
        )
    folder = tmp_path / "my" / "cart-v0"
    (task,) = find_tasks([folder])
    assert task.counts == (6, 6)
    assert task.filter_warning() is None
    train = ["train", "--dataset", str(folder), "--output", "run", "--preset", "tiny", "--dry-run"]
    assert main([*train, "--rows", "2", "--length", "32"]) == 0
    said = capsys.readouterr().out
    assert "all episodes are kept" in said
    assert "left out:" not in said
    assert main([*train, "--rows", "2", "--length", "32", "--keep", "0.8"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "4 of 6 episodes of 'CartPole-v1' are left out: they return less than 80% of" in said
    assert "return, 30.00; --keep 0 trains on all" in said


def test_a_filter_warns_of_more_than_a_third(tmp_path: Path) -> None:
    def warned(*returns: float) -> bool:
        with gym.make("CartPole-v1") as env:
            episodes = map(cart_episode, returns)
            write_minari("my/cart-v0", episodes, env=env, root=tmp_path, replace=True)
        (task,) = find_tasks([tmp_path / "my" / "cart-v0"])
        return task.filter_warning() is not None

    assert not warned(30.0, 27.0, 9.0)
    assert warned(30.0, 27.0, 9.0, 9.0)


def test_collecting_warns_of_more_than_a_third_below_the_expert() -> None:
    settings = CollectSettings(Path("data"), episodes=6)
    progress = Progress(get_task("mujoco-hopper"), settings, expert_return=10.0)
    progress.reports[0] = UnitReport([5] * 6, {"below the expert": 3}, 1.0)
    assert "keep" not in _line(progress, (6, 30))
    progress.reports[1] = UnitReport([], {"below the expert": 1}, 1.0)
    said = "4 of 10 episodes return less than 80% of the expert: --keep 0 keeps them"
    assert said in _line(progress, (6, 30))


def test_a_mixture_is_counted_as_it_is_drawn() -> None:
    shards = {
        "talk": random_shard(talking_plan(), "talk"),
        "act": random_shard(state_plan(), "act"),
    }
    mixture = Mixture({"talk": 3.0, "act": 1.0}, {"talk": 0.25, "act": 0.25}, memoryless_steps=8)
    packer = Packer(shards, mixture, SMALL, rows=8, length=128, seed=0)
    counts = measure_mixture(packer, batches=12)
    act, talk = counts.lines
    assert (act.task, talk.task) == ("act", "talk")
    assert act.share + talk.share == pytest.approx(1.0)
    assert talk.share == pytest.approx(0.75, abs=0.08)
    assert counts.prompted == pytest.approx(0.25, abs=0.06)
    batches = [packer.batch(index) for index in range(12)]
    empty = sum(int((batch.roles.documents < 0).sum()) for batch in batches)
    assert counts.padding == pytest.approx(empty / (12 * 8 * 128))
    assert act.tokens == packer.num_tokens("act") == 2 * shards["act"].num_steps, (
        "a vector, and the first of two actions"
    )
    table = mixture_table(counts, tokens=1000, all_episodes={"act": 9, "talk": 6})
    assert table.row_count == 2
    assert list(table.columns[2].cells) == ["3", "0"]


def test_prompts_can_be_none_or_all_and_are_ends_as_often_as_asked() -> None:
    shards = {"act": random_shard(state_plan(), "act")}

    def drawn(share: float, end: float = 0.5) -> float:
        mixture = Mixture({"act": 1.0}, {"act": share}, prompt_end=end, memoryless_steps=8)
        packer = Packer(shards, mixture, SMALL, rows=4, length=128, seed=0)
        return measure_mixture(packer, batches=4).prompted

    assert drawn(0.0) == 0.0
    assert drawn(1.0) == 1.0
