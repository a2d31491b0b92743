"""Collecting from suites of trained experts, and from Atari."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
from gymnasium import spaces

from gato_gym import Episode, get_suite, get_task, read_minari
from gato_gym.commands.main import main
from gato_gym.episodes.minari_datasets import (
    minari_metadata,
    minari_root,
)
from gato_gym.tasks import registry
from policies.chance import seed_episodes
from policies.collection.collect import Progress
from policies.collection.jobs import (
    CollectSettings,
    JobRunner,
    dataset_id,
    is_complete,
)
from policies.collection.noise import UniformNoise
from policies.collection.record import record_episodes
from policies.collection.recorder import Recorder, RecordSettings
from policies.distributions import Gaussian
from policies.experts import has_expert, make_expert
from policies.training.data.datasets import find_tasks
from policies.training.data.encoding import shard_tasks


def in_units_of_two(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = get_suite(get_task(task).suite)
    monkeypatch.setitem(registry._suites, suite.name, dataclasses.replace(suite, unit_episodes=2))


def collect_here(task: str, settings: CollectSettings) -> list[Episode]:
    """Collect one task in this process, one job after another."""
    runner, progress = JobRunner(settings), Progress(get_task(task), settings)
    progress.load()
    while progress.stage != "done":
        job = progress.next_job(1)
        assert job is not None
        progress.finish(job, runner.run(job))
    name = dataset_id(get_task(task), settings.record)
    return list(read_minari(name, root=settings.root))


@pytest.mark.parametrize(
    ("task", "package", "noise", "count"),
    [("mujoco-reacher", "mujoco", 0.05, 12), ("dm_control-cartpole-balance", "shimmy", 0.2, 2)],
)
def test_trained_experts_under_noise(
    task: str,
    package: str,
    noise: float,
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Replayed in the task itself: labels are the expert's in the states that noise led to."""
    pytest.importorskip(package)
    in_units_of_two(task, monkeypatch)
    record = RecordSettings(noise=noise)
    settings = CollectSettings(tmp_path, record, episodes=count, expert_episodes=1)
    episodes = collect_here(task, settings)
    assert len(episodes) == count
    name = dataset_id(get_task(task))
    expert_return = minari_metadata(name, root=tmp_path)["expert_return"]
    env = get_task(task).make()
    expert = make_expert(task, env)
    with minari_root(tmp_path):
        dataset = minari.load_dataset(name)
    assert dataset.observation_space == env.observation_space
    assert dataset.action_space == env.action_space
    assert isinstance(env.action_space, spaces.Box)
    for episode, theirs in zip(episodes, dataset.iterate_episodes(), strict=True):
        assert episode.total_return >= expert_return - 0.2 * abs(expert_return)
        observation, _ = env.reset(seed=episode.seed)
        executed = episode.actions if episode.executed is None else episode.executed
        for step in range(40):
            np.testing.assert_array_equal(observation, episode.observations[step])
            label, _ = expert.predict(observation, deterministic=True)
            np.testing.assert_array_equal(label, episode.actions[step])
            observation, reward, *_ = env.step(executed[step])
            assert np.float32(reward) == episode.rewards[step]
        np.testing.assert_array_equal(theirs.observations, episode.observations)
        assert (executed >= env.action_space.low).all()
        assert (executed <= env.action_space.high).all()
    assert len({episode.info["noise"] for episode in episodes}) > 1
    assert all((e.executed is None) == (e.info["noise"] == 0.0) for e in episodes)


@pytest.mark.parametrize(
    ("task", "package", "noise"),
    [
        ("babyai-go-to-obj", "minigrid", 0.3),
        ("metaworld-reach", "metaworld", 0.2),
        ("mujoco-reacher", "mujoco", 0.05),
        ("atari-pong", "ale_py", 0.0),
        ("atari-kangaroo", "ale_py", 0.2),
    ],
)
def test_what_the_expert_chose_from_is_kept(
    task: str, package: str, noise: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside each label, under noise too: probabilities of choices, deviations of a Box."""
    pytest.importorskip(package)
    monkeypatch.setattr("gato_gym.tasks.atari.FRAMES", 400)
    in_units_of_two(task, monkeypatch)
    record = RecordSettings(noise=noise, keep=0.0)
    episodes = collect_here(task, CollectSettings(tmp_path, record, episodes=3, expert_episodes=1))
    env = get_task(task).make()
    expert, space = make_expert(task, env), env.action_space
    for episode in episodes:
        kept, steps = episode.distribution, episode.length
        assert kept is not None
        assert kept.dtype == np.float16
        if isinstance(space, spaces.Box):
            assert kept.shape == (steps, *(space.shape or ()))
            assert (kept >= 0).all()
        else:
            assert isinstance(space, spaces.Discrete)
            assert kept.shape == (steps, space.n)
            np.testing.assert_allclose(kept.sum(1, dtype=np.float64), 1, atol=0.01)
            if not expert.samples:
                np.testing.assert_array_equal(kept.argmax(1), episode.actions)
        if task.startswith("babyai"):
            continue  # the bot sees the level, not what it is shown
        for step in (0, 1, steps // 2, steps - 1):
            chosen_from = expert.distribution(episode.observations[step])
            np.testing.assert_array_equal(kept[step], chosen_from.recorded_row())
            if isinstance(chosen_from, Gaussian):
                np.testing.assert_allclose(chosen_from.mean, episode.actions[step], rtol=1e-6)
    with minari_root(tmp_path):
        infos = next(minari.load_dataset(dataset_id(get_task(task))).iterate_episodes()).infos
    np.testing.assert_array_equal(infos["action_distribution"], episodes[0].distribution)
    env.close()


def test_a_sample_of_a_box_and_who_says_nothing_keep_none(tmp_path: Path) -> None:
    """The mean is the label, which a sample is not; SB3's policies have a ``predict`` alone."""
    pytest.importorskip("mujoco")

    class Constant:
        def predict(self, *_: Any, **__: Any) -> tuple[Any, Any]:
            return np.zeros(1, np.float64), None

    env = get_task("mujoco-pendulum").make()
    expert = make_expert("mujoco-pendulum", env)
    recorded = {}
    for name, policy, deterministic in (
        ("mean", expert, True),
        ("sample", expert, False),
        ("other", Constant(), True),
    ):
        record_episodes(env, policy, 1, f"my/{name}-v0", root=tmp_path, deterministic=deterministic)
        (episode,) = read_minari(f"my/{name}-v0", root=tmp_path)
        recorded[name] = episode.distribution
    assert recorded["mean"] is not None
    assert recorded["mean"].shape[1] == 1
    assert recorded["sample"] is None
    assert recorded["other"] is None
    env.close()


def test_shards_of_a_trained_suite(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    settings = CollectSettings(tmp_path, episodes=3, expert_episodes=2)
    episodes = collect_here("mujoco-reacher", settings)
    tasks = find_tasks([tmp_path / "gato/mujoco-reacher-v0"], share=0.0, group_by="suite")
    shard = shard_tasks(tasks, tmp_path / "shards")["mujoco-reacher"]
    assert shard.num_steps == sum(episode.length for episode in episodes)
    decoded = np.stack([shard.plan.decode(row) for row in shard.arrays["actions"]])
    labels = np.concatenate([episode.actions for episode in episodes])
    assert np.abs(decoded - labels).max() <= 1 / 1024 + 1e-6  # half a bin of [-1, 1]


def test_another_expert_makes_another_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mujoco")
    settings = CollectSettings(tmp_path, episodes=1, expert_episodes=1)
    collect_here("mujoco-reacher", settings)
    task = get_task("mujoco-reacher")
    assert is_complete(settings, task)
    monkeypatch.setattr("policies.collection.jobs.weights_of", lambda task: "of another training")
    with pytest.raises(ValueError, match="other settings"):
        is_complete(settings, task)


def test_random_pong_bit_by_bit_in_little_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ale_py")
    monkeypatch.setattr("gato_gym.tasks.atari.FRAMES", 1200)
    settings = CollectSettings(tmp_path, RecordSettings(policy="random"), episodes=2)
    episodes = collect_here("atari-pong", settings)
    with minari_root(tmp_path):
        dataset = minari.load_dataset("gato-random/atari-pong-v0")
    env = get_task("atari-pong").make()
    steps = 0
    for episode, theirs in zip(episodes, dataset.iterate_episodes(), strict=True):
        assert (episode.task, episode.executed) == ("atari-pong", None)
        assert episode.observations.shape == (episode.length + 1, 4, 84, 84)
        observation, _ = env.reset(seed=episode.seed)
        np.testing.assert_array_equal(observation, episode.observations[0])
        for step, action in enumerate(episode.actions):
            observation, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_array_equal(observation, episode.observations[step + 1])
            assert np.float32(reward) == episode.rewards[step]
        assert terminated == bool(episode.terminations[-1])
        assert truncated == bool(episode.truncations[-1])
        np.testing.assert_array_equal(theirs.observations, episode.observations)
        steps += episode.length
    assert not np.array_equal(episodes[0].actions, episodes[1].actions)
    (path,) = (tmp_path / "gato-random").glob("**/*.hdf5")
    assert path.stat().st_size / steps < 12_000  # 1.2 GB for 100,000 steps
    assert path.stat().st_size / steps < 1_000  # what Pong is known to take, and more
    metadata = minari_metadata("gato-random/atari-pong-v0", root=tmp_path)
    assert metadata["algorithm_name"] == "random"
    assert "expert_return" not in metadata


def test_tasks_without_an_expert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = next(t for t in ("mujoco-humanoid", "dm_control-humanoid-run") if not has_expert(t))
    suite = missing.partition("-")[0]
    arguments = ["--suite", suite, "--tasks", missing, "--root", str(tmp_path)]
    assert main(["collect", *arguments]) == 2
    assert f"gato-gym expert train {missing}" in capsys.readouterr().err
    assert main(["collect", "--tasks", "atari-montezumarevenge", "--root", str(tmp_path)]) == 2
    assert "--policy random" in capsys.readouterr().err
    assert main(["collect", *arguments, "--policy", "random", "--noise", "0.1"]) == 2
    assert "with the random policy: expected 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_noise_of_choices_has_the_rate_asked_for() -> None:
    actions = spaces.Discrete(6, start=2)
    noises = [UniformNoise(0.4, actions, np.random.default_rng(n)) for n in range(400)]
    assert 150 < sum(noise.level > 0 for noise in noises) < 250
    noisy = next(noise for noise in noises if noise.level)
    executed = np.array([noisy.execute(np.int64(3)) for _ in range(20_000)])
    assert np.mean(executed != 3) == pytest.approx(0.4 * 5 / 6, abs=0.015)
    assert set(executed.tolist()) == set(range(2, 8))


def test_an_expert_that_samples_plays_what_its_seed_decides() -> None:
    """Its returns and its episodes are the same whatever it has played before."""
    pytest.importorskip("ale_py")
    recorder = Recorder(get_task("atari-kangaroo"), RecordSettings())
    assert recorder.expert.samples
    expected = recorder.expert_returns(1)
    blank = np.zeros((4, 84, 84), np.uint8)
    recorder.expert.predict(blank, seed_episodes(recorder.expert, [12345]))  # an episode between
    assert recorder.expert_returns(1) == expected
    episodes = [recorder.record(0, None) for _ in range(2)]
    recorder.close()
    first, again = episodes
    assert isinstance(first, Episode)
    assert isinstance(again, Episode)
    np.testing.assert_array_equal(first.actions, again.actions)
