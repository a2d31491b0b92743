"""Workers that are killed: what they had is played by others, none of it lost, none of it twice."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.policies import PolicyChoice
from benchmarks.protocol import BenchmarkError
from benchmarks.run import RunSettings, main, run_benchmark
from benchmarks.workers import ray_cluster as cluster
from benchmarks.workers.common import check_loss
from benchmarks.workers.scheduler import EpisodeScheduler
from policies.processes import WorkerError
from policies.rollout.outcomes import EpisodeKey

DEADLY = """
import os, signal
from contextlib import suppress
from pathlib import Path
from policies.random_policy import RandomPolicy

class Deadly(RandomPolicy):
    calls = 0

    def predict(self, *arguments, **options):
        self.calls += 1
        for time in range({times} if self.calls == {call} else 0):
            with suppress(FileExistsError):  # another process took this turn
                Path({folder!r}, f"killed{{time}}").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(*arguments, **options)

def make(env):
    return Deadly(env.single_observation_space, env.single_action_space)
"""
"""A policy that acts as `random` does and kills its process so many times."""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that modules are imported from, by worker processes too."""
    folder = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", f"{folder}:{':'.join(path for path in sys.path if path)}")
        yield folder


@pytest.fixture(scope="module")
def local_cluster(modules: Path) -> Iterator[None]:
    """A Ray cluster of this machine, for all tests that ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr(cluster, "available_cores", lambda: 2)
        with cluster._connected():
            yield


def deadly(modules: Path, name: str, *, times: int, call: int = 70) -> PolicyChoice:
    (modules / f"{name}.py").write_text(
        DEADLY.format(folder=str(modules / name), times=times, call=call)
    )
    (modules / name).mkdir()
    return PolicyChoice(f"{name}:make")


def play(output: Path, policy: PolicyChoice, **how: Any) -> list[dict[str, Any]]:
    settings = RunSettings("babyai", output, tasks="go-to-obj", policy=policy, episodes=12, **how)
    assert run_benchmark(settings, console=Console(file=io.StringIO())).complete
    return recorded(output)


def recorded(output: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    for line in records:
        del line["seconds"]
    return sorted(records, key=lambda line: line["episode"])


def test_a_killed_process_is_replaced(modules: Path, tmp_path: Path) -> None:
    alone = play(tmp_path / "1", PolicyChoice("random"), workers=1)
    killed = play(tmp_path / "2", deadly(modules, "once", times=1, call=20), workers=2, num_envs=2)
    assert killed == alone
    assert len(list((modules / "once").iterdir())) == 1


@pytest.mark.usefixtures("local_cluster")
def test_a_killed_actor_is_replaced(modules: Path, tmp_path: Path) -> None:
    alone = play(tmp_path / "1", PolicyChoice("random"), workers=1)
    killed = play(
        tmp_path / "2", deadly(modules, "actor", times=1, call=20), workers="ray", num_envs=2
    )
    assert killed == alone
    assert len(list((modules / "actor").iterdir())) == 1


@pytest.mark.usefixtures("local_cluster")
def test_a_run_on_a_cluster_is_stopped_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import run

    appended = 0
    append = run.Record.append

    def interrupted(self: Any, outcome: Any) -> None:
        nonlocal appended
        append(self, outcome)
        appended += 1
        if appended == 5:
            raise KeyboardInterrupt

    command = "--suite babyai --tasks go-to-obj --policy random --episodes 12 --workers ray"
    arguments = [*command.split(), "--output", str(tmp_path / "run")]
    with monkeypatch.context() as context:
        context.setattr(run.Record, "append", interrupted)
        assert main(arguments) == 130
    assert "--resume" in capsys.readouterr().err
    kept = recorded(tmp_path / "run")
    assert len(kept) == 5
    assert main([*arguments, "--resume"]) == 0
    whole = recorded(tmp_path / "run")
    assert [line for line in whole if line in kept] == kept
    assert whole == play(tmp_path / "alone", PolicyChoice("random"), workers=1)


@pytest.mark.usefixtures("local_cluster")
def test_a_policy_that_no_actor_can_make_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--suite", "atari", "--tasks", "montezumarevenge", "--policy", "expert"]
    arguments = [*options, "--workers", "ray"]
    assert main([*arguments, "--episodes", "2", "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_run_is_given_up_when_workers_die_again_and_again(modules: Path, tmp_path: Path) -> None:
    always = deadly(modules, "always", times=99, call=5)
    with pytest.raises(WorkerError, match=r"babyai-go-to-obj, seed \d+ under way: exit code -9"):
        play(tmp_path / "run", always, workers=2, num_envs=2)


def test_a_worker_that_dies_before_it_plays_is_not_replaced() -> None:
    with pytest.raises(WorkerError, match="a worker ended before it played: exit code 1"):
        check_loss((), 0, "exit code 1")
    scheduler = EpisodeScheduler({"a": [EpisodeKey("a", 0, 7)]}, workers=1)
    for number in range(2):
        scheduler.take(number, 1)
        check_loss(scheduler.lost(number), scheduler.losses(), "exit code -9")
    scheduler.take(2, 1)
    with pytest.raises(WorkerError, match="a worker ended with a, seed 7 under way: exit code -9"):
        check_loss(scheduler.lost(2), scheduler.losses(), "exit code -9")


def test_missing_ray_is_told_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchmarkError, match=r'pip install "gato-gym\[ray\]"'):
        play(tmp_path / "run", PolicyChoice("random"), workers="ray")
