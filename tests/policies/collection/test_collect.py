"""Collecting: what is recorded, what is kept, and that stopping loses nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from gato_gym import Episode, get_suite, get_task, read_minari
from gato_gym.commands.main import main
from gato_gym.episodes.minari_datasets import minari_metadata
from gato_gym.tasks import registry
from policies import GatoPolicy
from policies.collection.collect import Progress, _next_job
from policies.collection.jobs import (
    CollectSettings,
    Job,
    JobRunner,
    UnitReport,
    dataset_id,
    is_complete,
    unit_path,
)
from policies.collection.noise import HeldNoise, NavigationNoise
from policies.collection.recorder import Recorder, RecordSettings, episode_seed
from policies.experts import make_expert
from policies.processes import WorkerError
from policies.random_policy import RandomPolicy
from policies.rollout.faults import EnvironmentFault

pytest.importorskip("minigrid")

TASK = "babyai-go-to-obj"
ARGUMENTS = (
    "--suite",
    "babyai",
    "--tasks",
    "go-to-obj",
    "--noise",
    "0.3",
    "--expert-episodes",
    "5",
)


def settings(root: Path, **goal: int) -> CollectSettings:
    return CollectSettings(
        root=root, record=RecordSettings(noise=0.3), expert_episodes=5, **(goal or {"episodes": 70})
    )


def collect_here(wanted: CollectSettings) -> None:
    """Collect one task in this process, one job after another."""
    runner, progress = JobRunner(wanted), Progress(get_task(TASK), wanted)
    progress.load()
    while progress.stage != "done":
        job = progress.next_job(1)
        assert job is not None
        progress.finish(job, runner.run(job))


def episodes_in(root: Path) -> list[Episode]:
    return list(read_minari(dataset_id(get_task(TASK)), root=root))


def assert_equal(left: list[Episode], right: list[Episode]) -> None:
    assert [e.seed for e in left] == [e.seed for e in right]
    for one, other in zip(left, right, strict=True):
        assert one.info == other.info
        assert one.observations["mission"] == other.observations["mission"]
        for name in ("image", "direction"):
            np.testing.assert_array_equal(one.observations[name], other.observations[name])
        for field in (
            "actions",
            "executed",
            "distribution",
            "rewards",
            "terminations",
            "truncations",
        ):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_stopped_and_resumed_by_other_workers_is_the_same_dataset(tmp_path: Path) -> None:
    """Interrupted with two workers, finished with one: as if made in one go in one process."""
    whole = settings(tmp_path / "whole", episodes=400)
    collect_here(whole)
    parts = settings(tmp_path / "parts", episodes=400)
    arguments = (*ARGUMENTS, "--episodes", "400", "--root", str(parts.root))
    process = subprocess.Popen(
        [sys.executable, "-m", "gato_gym", "collect", *arguments, "--workers", "2"],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    first = unit_path(parts, get_task(TASK), 0)
    deadline = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: the workers get it too
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "run the same command again" in output
    assert not (parts.root / "gato" / f"{TASK}-v0").exists()
    assert not list(first.parent.glob("*.partial"))
    kept = first.stat().st_mtime_ns
    assert main(["collect", *arguments, "--workers", "1"]) == 0
    assert first.stat().st_mtime_ns == kept
    assert_equal(episodes_in(whole.root), episodes_in(parts.root))
    expert_returns = [
        minari_metadata(dataset_id(get_task(TASK)), root=each.root)["expert_return"]
        for each in (parts, whole)
    ]
    assert expert_returns[0] == expert_returns[1]


def test_a_leftover_of_a_killed_worker_is_no_unit(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    runner = JobRunner(wanted)
    runner.run(Job("expert", TASK))
    path = unit_path(wanted, get_task(TASK), 0)
    path.with_name(path.name + ".1.partial").write_bytes(b"half a file")
    progress = Progress(get_task(TASK), wanted)
    progress.load()
    assert progress.reports == {}
    collect_here(wanted)
    assert len(episodes_in(tmp_path)) == 70


def test_a_larger_goal_extends_a_smaller_one(tmp_path: Path) -> None:
    collect_here(settings(tmp_path, episodes=10))
    few = episodes_in(tmp_path)
    assert is_complete(settings(tmp_path, episodes=10), get_task(TASK))
    assert not is_complete(settings(tmp_path, episodes=70), get_task(TASK))
    collect_here(settings(tmp_path, episodes=70))
    assert_equal(few, episodes_in(tmp_path)[:10])


def test_steps_are_a_goal_reached_and_not_overshot(tmp_path: Path) -> None:
    collect_here(settings(tmp_path, steps=300))
    lengths = [episode.length for episode in episodes_in(tmp_path)]
    assert sum(lengths) >= 300 > sum(lengths[:-1])


def test_other_settings_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collect_here(settings(tmp_path, episodes=10))
    arguments = [*ARGUMENTS, "--episodes", "10", "--root", str(tmp_path)]
    assert main(["collect", *arguments, "--seed", "1"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["collect", *arguments]) == 0
    assert "1 of 1 datasets are complete" in capsys.readouterr().out


def test_a_wrong_task_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--tasks", "go-to-loca", "--root", str(tmp_path)]) == 2
    assert "go-to-local" in capsys.readouterr().err


def test_labels_are_the_bots_own_in_the_states_that_noise_leads_to() -> None:
    """Replayed in MiniGrid's level, with MiniGrid's own bot advising."""
    from minigrid.utils.baby_ai_bot import BabyAIBot

    task = get_task("babyai-pickup-dist")
    recorder = Recorder(task, RecordSettings(noise=0.5))
    episodes = [recorder.record(index, 0.0) for index in range(16)]
    noisy = [e for e in episodes if isinstance(e, Episode) and e.executed is not None]
    assert len(noisy) > 3
    env = task.make()
    for episode in noisy:
        observation, _ = env.reset(seed=episode.seed)
        bot, executed = BabyAIBot(env.unwrapped), None
        for step in range(episode.length):
            np.testing.assert_array_equal(observation["image"], episode.observations["image"][step])
            assert observation["mission"] == episode.observations["mission"][step]
            assert int(bot.replan(executed)) == episode.actions[step]
            executed = int(episode.executed[step])
            observation, reward, terminated, truncated, _ = env.step(executed)
            assert float(np.float32(reward)) == episode.rewards[step]
        assert (terminated, truncated) == (episode.terminations[-1], episode.truncations[-1])
        np.testing.assert_array_equal(observation["image"], episode.observations["image"][-1])
    assert any((e.executed != e.actions).any() for e in noisy)


def test_clean_episodes_have_no_executed_actions() -> None:
    recorder = Recorder(get_task(TASK), RecordSettings(noise=0.3))
    episodes = [e for e in (recorder.record(i, 0.0) for i in range(20)) if not isinstance(e, str)]
    levels = {e.info["noise"] for e in episodes}
    assert levels == {0.0, 0.3}
    assert all((e.executed is None) == (e.info["noise"] == 0.0) for e in episodes)
    assert all(
        e.info["success"] and e.terminations[-1] and not e.terminations[:-1].any() for e in episodes
    )


def test_an_expert_that_fails_is_not_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(get_task(TASK), RecordSettings())
    monkeypatch.setattr(recorder.expert, "failure_of", lambda state, row: "lost")
    assert recorder.record(0, 0.0) == "expert failed"


def fabricated(rewards: list[float], *, success: bool, terminated: bool) -> Episode:
    ends = np.zeros(len(rewards), np.bool_)
    ends[-1] = True
    return Episode(
        task=TASK,
        observations={},
        actions=np.zeros(len(rewards), np.int64),
        rewards=np.asarray(rewards, np.float32),
        terminations=ends if terminated else ~ends & False,
        truncations=~ends & False if terminated else ends,
        info={"success": success},
    )


@pytest.mark.parametrize(
    ("rewards", "expert_return", "kept"),
    [
        ([0.0, 8.0], 10.0, True),
        ([0.0, 7.9], 10.0, False),
        ([-12.0], -10.0, True),
        ([-12.1], -10.0, False),
    ],
)
def test_four_fifths_of_the_expert_are_kept(
    rewards: list[float], expert_return: float, kept: bool
) -> None:
    recorder = Recorder(get_task(TASK), RecordSettings())
    for terminated in (True, False):
        episode = fabricated(rewards, success=True, terminated=terminated)
        reason = recorder._shortcoming(episode, expert_return)
        assert reason == (None if kept else "below the expert")


def test_shortened_episodes_are_kept_by_success() -> None:
    recorder = Recorder(get_task(TASK), RecordSettings(steps_after_success=3))
    short = fabricated([1.0], success=True, terminated=False)
    assert recorder._shortcoming(short, 1000.0) is None
    failed = dataclasses.replace(short, info={"success": False})
    assert recorder._shortcoming(failed, 0.0) == "without success"
    ended = fabricated([1.0], success=True, terminated=True)  # nothing was cut off
    assert recorder._shortcoming(ended, 1000.0) == "below the expert"


@pytest.mark.parametrize("spare", [0, 7])
def test_recording_stops_after_success(spare: int) -> None:
    pytest.importorskip("metaworld")
    task = get_task("metaworld-drawer-close")
    whole = Recorder(task, RecordSettings(noise=0.5)).record(3, 0.0)
    cut = Recorder(task, RecordSettings(noise=0.5, steps_after_success=spare)).record(3, 0.0)
    assert isinstance(whole, Episode)
    assert isinstance(cut, Episode)
    assert whole.length == 500
    env = task.make()
    env.reset(seed=whole.seed)
    first = 0
    executed = whole.actions if whole.executed is None else whole.executed
    while not env.step(executed[first])[4]["success"]:
        first += 1
    assert cut.length == first + 1 + spare
    assert cut.truncations[-1]
    assert not cut.terminations.any()
    np.testing.assert_array_equal(cut.observations, whole.observations[: cut.length + 1])
    np.testing.assert_array_equal(cut.actions, whole.actions[: cut.length])


def test_seeds_keep_clear_of_evaluation() -> None:
    seeds = {
        (task, seed): [episode_seed(task, index, seed=seed) for index in (0, 1, 999)]
        for task in (TASK, "babyai-go-to")
        for seed in (0, 1)
    }
    for first, second, last in seeds.values():
        assert 1_000_000 <= first < second < last < 2**31
        assert (second - first, last - first) == (1, 999)
    assert len({first for first, *_ in seeds.values()}) == 4
    assert episode_seed(TASK, 0, seed=0, purpose="expert return") != episode_seed(TASK, 0, seed=0)


def test_navigation_noise_has_the_rate_asked_for() -> None:
    label = np.int64(5)
    noises = [NavigationNoise(0.2, np.random.default_rng(n)) for n in range(400)]
    assert 150 < sum(noise.level > 0 for noise in noises) < 250
    noisy = next(noise for noise in noises if noise.level)
    executed = np.array([noisy.execute(label) for _ in range(20_000)])
    # One in 20 of the random actions is any of seven, of which one is the label again.
    assert np.mean(executed != label) == pytest.approx(0.2 * (1 - 0.05 / 7), abs=0.01)
    assert np.mean(executed[executed != label] <= 2) > 0.95
    clean = next(noise for noise in noises if not noise.level)
    assert all(clean.execute(label) is label for _ in range(100))


def test_held_noise_stays_in_the_box_and_is_held() -> None:
    box = spaces.Box(np.array([-1, -2], np.float32), np.array([1, 6], np.float32))
    levels = {HeldNoise(0.8, box, np.random.default_rng(n)).level for n in range(60)}
    assert sorted(levels) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    label = np.array([0.9, 5.5], np.float32)
    noise = HeldNoise(0.8, box, np.random.default_rng(1))
    noise.level = 0.5
    executed = np.array([noise.execute(label) for _ in range(4000)])
    assert executed.dtype == np.float32
    assert (executed >= box.low).all()
    assert (executed <= box.high).all()
    wide = spaces.Box(-100, 100, (1,))
    noise = HeldNoise(0.8, wide, np.random.default_rng(1))
    noise.level = 0.5
    drawn = np.array([noise.execute(np.zeros(1, np.float32))[0] for _ in range(40_000)]) / 100
    # White (0.15) plus, three times in five, held (0.5).
    assert np.std(drawn) == pytest.approx(np.hypot(0.15, 0.5 * np.sqrt(0.6)), rel=0.05)
    correlation = np.corrcoef(drawn[:-1], drawn[1:])[0, 1]
    assert 0.6 < correlation < 0.85  # held for 6 steps on average


def progress_of(reports: dict[int, UnitReport], **goal: int) -> Progress:
    progress = Progress(get_task(TASK), settings(Path("unused"), **goal), 0.9, dict(reports))
    progress.stage = "unit"
    return progress


def test_units_count_from_the_first_without_a_gap() -> None:
    reports = {0: UnitReport([5] * 60, {}, 1.0), 2: UnitReport([5] * 60, {}, 1.0)}
    assert progress_of(reports, episodes=60).units_needed() == 1
    assert progress_of(reports, episodes=61).units_needed() is None
    reports[1] = UnitReport([5], {}, 1.0)
    assert progress_of(reports, episodes=61).units_needed() == 2
    assert progress_of(reports, steps=306).units_needed() == 3
    assert progress_of(reports, steps=20, episodes=61).units_needed() == 2
    assert progress_of(reports, steps=306, episodes=20).units_needed() == 3
    assert progress_of({0: reports[0]}, steps=600, episodes=60).share() == 0.5


def test_no_more_units_are_started_than_the_goal_takes() -> None:
    progress = progress_of({0: UnitReport([5] * 64, {}, 1.0)}, episodes=190)
    jobs = [progress.next_job(8) for _ in range(3)]
    assert [job and job.unit for job in jobs] == [1, 2, None]
    for job in jobs[:2]:
        assert job is not None
        progress.finish(job, UnitReport([5] * 64, {}, 1.0))
    last = progress.next_job(8)
    assert last is not None
    assert (last.kind, last.unit) == ("dataset", 3)
    assert progress.next_job(8) is None


def test_many_tasks_share_the_workers() -> None:
    """Two units of one task at a time where one may be enough would be played for nothing."""
    several = [progress_of({}, episodes=60) for _ in range(3)]
    jobs = [_next_job(several, 3) for _ in range(4)]
    assert [job and job.unit for job in jobs] == [0, 0, 0, None]
    assert [len(progress.running) for progress in several] == [1, 1, 1]
    for progress in several[:2]:
        progress.stage = "done"
    more = [_next_job(several, 3) for _ in range(3)]
    assert [job and job.unit for job in more] == [1, 2, None]


def test_a_hopeless_task_gives_up() -> None:
    empty = {unit: UnitReport([], {"below the expert": 64}, 1.0) for unit in range(4)}
    with pytest.raises(WorkerError, match=f"only 0 of 256 episodes of {TASK}"):
        progress_of(empty).units_needed()


def test_metadata_says_how_it_was_made(tmp_path: Path) -> None:
    collect_here(settings(tmp_path, episodes=5))
    path = tmp_path / "gato" / f"{TASK}-v0" / "data" / "metadata.json"
    metadata: dict[str, Any] = json.loads(path.read_text())
    assert metadata["collect"]["settings"]["noise"] == 0.3
    assert metadata["collect"]["goal"] == {"episodes": 5}
    assert metadata["total_episodes"] == 5
    assert 0.5 < metadata["expert_return"] < 1.0
    assert metadata["jpeg_encoding"] is False


def test_both_goals_are_reached(tmp_path: Path) -> None:
    goals = ({"episodes": 5}, {"episodes": 5, "steps": 60}, {"episodes": 5, "steps": 5})
    sizes = []
    for number, goal in enumerate(goals):
        collect_here(settings(tmp_path / str(number), **goal))
        lengths = [len(episode.rewards) for episode in episodes_in(tmp_path / str(number))]
        sizes.append((len(lengths), sum(lengths)))
    assert sizes[0] == sizes[2]
    assert sizes[0][0] == 5
    assert sizes[0][1] < 60 <= sizes[1][1]


@pytest.mark.parametrize("goal", [{}, {"episodes": 0}, {"episodes": 5, "steps": 0}])
def test_a_goal_is_given(goal: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"give episodes|is 0: expected 1 or more"):
        CollectSettings(root=tmp_path, **goal)  # type: ignore[arg-type]


def test_negative_noise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise is -0\.1"):
        RecordSettings(noise=-0.1)


def test_another_player_comes_to_states_that_the_expert_labels() -> None:
    task = get_task(TASK)
    recorder = Recorder(task, RecordSettings(player="random", most_steps=20))
    episode = recorder.record(3, None)
    assert isinstance(episode, Episode)
    seed = episode_seed(TASK, 3, seed=0)
    env = task.make()
    player, bot = RandomPolicy(env.observation_space, env.action_space), make_expert(TASK, env)
    observation, _ = env.reset(seed=seed)
    played, state, starts = player.seed_episodes([seed]), None, np.array([True])
    for step in range(episode.length):
        action, played = player.predict(observation, played, starts)
        label, state = bot.predict(observation, state, starts)
        assert (episode.executed[step], episode.actions[step]) == (action, label)
        bot.execute(state, 0, action)
        observation, *_ = env.step(action)
        starts = np.array([False])
    assert 1 < episode.length <= 20
    assert (episode.executed != episode.actions).any()
    env.close()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint with fresh weights, which plays badly."""
    folder = tmp_path_factory.mktemp("player") / "checkpoint"
    env = get_task(TASK).make()
    GatoPolicy.create(env, config="tiny").save(folder)
    env.close()
    return str(folder)


def test_a_network_plays_a_unit_at_a_time_and_each_episode_as_alone(network: str) -> None:
    together, alone = (
        Recorder(get_task(TASK), RecordSettings(player=network, most_steps=12)) for _ in range(2)
    )
    episodes = together.record_labelled(range(5, 9))
    assert list(episodes) == [5, 6, 7, 8]
    singles = [alone.record(index, None) for index in episodes]
    assert_equal(list(episodes.values()), singles)  # type: ignore[arg-type]
    for one, other in zip(episodes.values(), singles, strict=True):
        assert isinstance(one, Episode)
        assert isinstance(other, Episode)
        np.testing.assert_array_equal(one.executed, other.executed)
        assert one.info == other.info
    for recorder in (together, alone):
        recorder.close()


def test_a_fault_costs_its_own_episode_alone(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit in which one environment raises has all other episodes as without the fault."""
    four = dataclasses.replace(get_suite("babyai"), unit_episodes=4)
    monkeypatch.setitem(registry._suites, "babyai", four)
    record = RecordSettings(player=network, most_steps=12)
    lengths = []
    for name in ("faulty", "sound"):
        wanted = CollectSettings(root=tmp_path / name, record=record, episodes=4)
        faulty = episode_seed(TASK, 2, seed=0) if name == "faulty" else None

        def beat(seed: int, step: int, faulty: int | None = faulty) -> None:
            if (seed, step) == (faulty, 3):
                raise EnvironmentFault("a broken joint")

        report = JobRunner(wanted, beat=beat).run(Job("unit", TASK, 0))
        lengths.append(report.lengths)
        assert report.faults == (["a broken joint"] if faulty else [])
        assert report.dropped == ({"faults": 1} if faulty else {})
    assert lengths[0] == [lengths[1][0], lengths[1][1], lengths[1][3]]


def test_keep_0_keeps_what_is_far_below_the_expert() -> None:
    recorder = Recorder(get_task(TASK), RecordSettings(player="random"))
    played = recorder.record(0, None)
    assert isinstance(played, Episode)
    bad = dataclasses.replace(played, rewards=np.full(3, -9.0, np.float32))
    for settings, kept in ((RecordSettings(keep=0.0), True), (RecordSettings(), False)):
        judged = Recorder(get_task(TASK), settings)._shortcoming(bad, -1.0)
        assert (judged is None) == kept
