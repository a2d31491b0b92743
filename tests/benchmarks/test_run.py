"""The command: what it plays, what it leaves behind, and how it says no."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import run
from benchmarks.policies import PolicyChoice
from benchmarks.protocol import BenchmarkError, episode_seed
from benchmarks.run import Bench, RunSettings, main, run_benchmark, select_tasks
from benchmarks.workers.worker import EpisodeWorker
from gato_gym.commands.common import parse
from policies.rollout.env_batch import make_rows
from policies.threads import available_cores


@pytest.fixture
def stubbed(task, policy, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command plays the stub task with the policy that is always right; returns the task."""
    monkeypatch.setattr(run, "select_tasks", lambda suite, pattern: [task])

    def prepare(self: Any, task_id: str, rows: int) -> Any:
        return make_rows(task, rows), policy

    monkeypatch.setattr(EpisodeWorker, "_prepare", prepare)
    return task


def settings(output: Path, **changes: Any) -> RunSettings:
    arguments = {"policy": PolicyChoice("random"), "episodes": 9, "workers": 1, **changes}
    return RunSettings("babyai", output, **arguments)


def quiet() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def lines(folder: Path) -> dict[int, dict[str, Any]]:
    recorded = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    by_episode = {line["episode"]: line for line in recorded}
    assert len(by_episode) == len(recorded), "an episode was recorded twice"
    for line in recorded:
        del line["seconds"]
    return by_episode


def test_run_records_every_episode_and_the_summary(stubbed, right_return, tmp_path: Path) -> None:
    summary = run_benchmark(settings(tmp_path / "run"), console=quiet())
    recorded = lines(tmp_path / "run")
    assert sorted(recorded) == [*range(9)]
    for index, line in recorded.items():
        assert line["seed"] == episode_seed(0, "babyai-stub", index)
        assert line["return"] == right_return(line["seed"])
    assert summary.complete
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary.to_json()
    assert "</html>" in (tmp_path / "run" / "report.html").read_text()
    mean = sum(line["return"] for line in recorded.values()) / 9
    assert summary.tasks[0].mean == pytest.approx(mean)


@pytest.mark.parametrize("num_envs", [1, 4, 9])
def test_number_of_envs_changes_nothing(stubbed, tmp_path: Path, num_envs: int) -> None:
    run_benchmark(settings(tmp_path / "one", num_envs=2), console=quiet())
    run_benchmark(settings(tmp_path / "other", num_envs=num_envs), console=quiet())
    assert lines(tmp_path / "one") == lines(tmp_path / "other")


def test_ctrl_c_keeps_finished_episodes_and_resume_plays_only_the_rest(
    stubbed, policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_benchmark(settings(tmp_path / "whole"), console=quiet())
    predict, calls = policy.predict, 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return predict(*args, **kwargs)

    monkeypatch.setattr(policy, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(settings(tmp_path / "part", num_envs=2), console=quiet())
    kept = lines(tmp_path / "part")
    assert 0 < len(kept) < 9
    assert not json.loads((tmp_path / "part" / "summary.json").read_text())["complete"]

    stubbed.envs.clear()
    summary = run_benchmark(settings(tmp_path / "part", resume=True), console=quiet())
    assert summary.complete
    assert lines(tmp_path / "part") == lines(tmp_path / "whole")
    assert sum(env.resets for env in stubbed.envs) == 9 - len(kept)


def test_resuming_a_finished_run_plays_nothing(stubbed, tmp_path: Path) -> None:
    first = run_benchmark(settings(tmp_path / "run"), console=quiet())
    stubbed.envs.clear()
    again = run_benchmark(settings(tmp_path / "run", resume=True), console=quiet())
    assert stubbed.envs == []
    assert again.to_json() == first.to_json()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "1"], "protocol.seed: 0 -> 1"),
        (["--episodes", "3"], "protocol.episodes: 2 -> 3"),
        (["--deterministic"], "policy.deterministic: False -> True"),
    ],
)
def test_resuming_with_other_arguments_is_refused_in_one_line(
    stubbed, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    folder = str(tmp_path / "run")
    command = ["--suite", "babyai", "--policy", "random", "--episodes", "2", "--workers", "1"]
    assert main([*command, "--output", folder]) == 0
    capsys.readouterr()
    assert main([*command, "--output", folder, "--resume", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert main([*command, "--output", folder]) == 2
    assert "--resume" in capsys.readouterr().err


def test_ctrl_c_says_how_to_resume(
    stubbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a run"
    folder.mkdir()

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_benchmark", interrupted)
    assert main(["--suite", "babyai", "--output", str(folder)]) == 130
    error = capsys.readouterr().err
    assert f"--output '{folder}' --resume" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "babyia"], "expected one of atari, babyai"),
        (["--suite", "babyai", "--tasks", "go-to-locl"], "did you mean go-to-local"),
        (["--suite", "babyai", "--tasks", "open,babyai-opn-door"], "babyai-open-door"),
        (["--suite", "babyai", "--policy", "exprt"], "did you mean expert?"),
        (["--suite", "babyai", "--episodes", "0"], "--episodes is 0"),
        (["--suite", "babyai", "--seed", "-1"], "--seed is -1"),
        (["--suite", "babyai", "--workers", "0"], "--workers is 0"),
        (["--suite", "babyai", "--num-envs", "0"], "--num-envs is 0"),
        (["--suite", "babyai", "--resume"], "--resume without --output"),
    ],
)
def test_mistakes_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    policy = [] if "--policy" in arguments else ["--policy", "random"]
    assert main([*arguments, *policy]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert list(tmp_path.iterdir()) == []


def test_patterns_choose_tasks() -> None:
    whole = [task.id for task in select_tasks("babyai", None)]
    assert len(whole) == 39
    assert whole == sorted(whole)
    for pattern in ("open-door", "babyai-open-door", "Gato/babyai-open-door"):
        assert [task.id for task in select_tasks("babyai", pattern)] == ["babyai-open-door"]
    chosen = [task.id for task in select_tasks("babyai", "open-*, unlock")]
    assert "babyai-unlock" in chosen
    assert "babyai-open-two-doors" in chosen
    assert chosen == [task for task in whole if task in chosen]
    with pytest.raises(BenchmarkError, match="pattern of tasks is empty"):
        select_tasks("babyai", " , ")


def test_weights_are_part_of_what_a_run_is(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"one")
    first = run.describe_policy(PolicyChoice(str(folder)))
    (folder / "card.md").write_text("what it is, which decides no action")
    assert first == run.describe_policy(PolicyChoice(str(folder)))
    (folder / "model.safetensors").write_bytes(b"two")
    assert first["weights"] != run.describe_policy(PolicyChoice(str(folder)))["weights"]


def test_fewer_bits_are_played_beside_float32(
    stubbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        run, "describe_policy", lambda choice, tasks: {"precision": choice.precision}
    )
    monkeypatch.setattr(run, "left_out", lambda choice, tasks, name=None: {})
    monkeypatch.setattr(run, "render", lambda summary: "")
    arguments = ["--suite", "babyai", "--policy", "gato-mini", "--episodes", "3", "--workers", "1"]
    output = ["--output", str(tmp_path / "run")]
    assert main([*arguments, *output, "--precision", "int8"]) == 0
    printed = capsys.readouterr().out
    assert "what int8 costs" in printed
    assert "+0.000" in printed
    assert lines(tmp_path / "run") == lines(tmp_path / "run" / "float32")
    assert main([*arguments, *output, "--precision", "int8", "--resume"]) == 0
    assert main([*arguments, "--output", str(tmp_path / "exact")]) == 0
    assert not (tmp_path / "exact" / "float32").exists()


def test_trained_experts_are_part_of_what_a_run_is() -> None:
    scripted, trained, another = (
        run.describe_policy(PolicyChoice("expert"), [task])["weights"]
        for task in ("metaworld-reach", "mujoco-reacher", "mujoco-pendulum")
    )
    assert scripted is None
    assert len({trained, another, None}) == 3


@pytest.mark.parametrize(
    ("arguments", "deterministic"),
    [
        (["--policy", "expert"], None),
        (["--policy", "expert", "--deterministic"], True),
        (["--policy", "expert", "--sample"], False),
        (["--policy", "random"], False),
        (["--policy", "random", "--deterministic"], True),
    ],
)
def test_the_expert_plays_in_its_own_way(arguments: list[str], deterministic: bool | None) -> None:
    _, (asked,) = parse(Bench, ["--suite", "mujoco", *arguments], prog="bench").runs()
    assert asked.policy.deterministic is deterministic


def test_a_network_on_a_gpu_is_held_by_one_process() -> None:
    def workers(*arguments: str) -> object:
        asked = parse(Bench, ["--suite", "babyai", *arguments], prog="bench")
        return asked.runs()[1][0].workers

    assert workers("--device", "cuda") == 1
    assert workers("--device", "cuda", "--workers", "3") == 3
    assert workers("--device", "cpu") == available_cores()
    assert workers("--device", "cuda", "--policy", "expert") == available_cores()
