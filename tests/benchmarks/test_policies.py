"""Whoever plays: hub ids, factories, demonstrations, and what a policy cannot play."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from benchmarks.playable import left_out
from benchmarks.policies import PolicyChoice, describe_policy, resolved
from benchmarks.protocol import BenchmarkError
from benchmarks.run import Bench, main, run_benchmark, select_tasks
from benchmarks.settings import RunSettings
from gato_gym.commands.common import parse
from gato_gym.tasks import get_task
from policies import GatoPolicy, make_policy
from policies.collection.record import record_episodes
from policies.gato.tensor_files import CheckpointError
from policies.jat.config import JatConfig
from policies.jat.policy import JatPolicy
from policies.model.config import NetworkConfig

TINY = NetworkConfig(width=32, layers=1, heads=2, head_size=16, feed_forward=32, prompt_tokens=32)


def lines(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in records:
        del line["seconds"]
    return sorted(records, key=lambda line: (line["task"], line["episode"]))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that knows one BabyAI level, by its id."""
    folder = tmp_path_factory.mktemp("made") / "tiny"
    with closing(get_task("babyai-go-to-obj").make()) as env:
        policy = GatoPolicy.create(env, config=TINY)
        policy.task = "babyai-go-to-obj"
        policy.save(folder)
    return folder


# --- the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Path) -> Path:
    """The hub's cache, as a download leaves it, with ``owner/tiny``; and no network."""
    cache = tmp_path / "hub"
    repository = cache / "models--owner--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **how: real(name, cache_dir=cache, **how),
    )
    return repository / "snapshots" / commit


def test_a_hub_id_plays_as_its_folder_does(hub: Path, tmp_path: Path, quiet) -> None:
    played = {}
    for name, policy in (("hub", "owner/tiny"), ("folder", str(hub))):
        settings = RunSettings(
            "babyai", tmp_path / "runs" / name, tasks="go-to-obj", episodes=1, workers=1,
            policy=PolicyChoice(policy),
        )  # fmt: skip
        summary = run_benchmark(settings, console=quiet)
        played[name] = lines(settings.output), summary.header.policy["weights"]
        assert summary.header.policy["name"] == policy
    assert played["hub"] == played["folder"]
    assert played["hub"][1] is not None
    assert resolved(PolicyChoice("owner/tiny")).name == str(hub)


def test_a_hub_checkpoint_is_its_weights(hub: Path) -> None:
    before = describe_policy(PolicyChoice("owner/tiny"))
    (hub / "prompts.safetensors").write_bytes(b"other")
    assert describe_policy(PolicyChoice("owner/tiny"))["weights"] != before["weights"]


def test_a_hub_that_is_out_of_reach_is_told_in_one_line(
    hub: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    command = ["--suite", "babyai", "--policy", "owner/absent", "--output", str(output)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no policy 'owner/absent': hub checkpoint 'owner/absent'")
    assert "check the name and the network" in error
    assert error.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize("error", [OSError("no route\nto host"), RuntimeError("")])
def test_whatever_the_hub_raises_is_told(
    hub: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(name: str, **how: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match=r"\((no route to host|RuntimeError)\): check"):
        GatoPolicy.load("owner/tiny")


def test_a_hub_repository_without_a_checkpoint_is_refused(hub: Path) -> None:
    (hub / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        GatoPolicy.load("owner/tiny")


def test_without_its_package_a_hub_id_names_the_extra(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BenchmarkError, match=r'pip install "gato-gym\[hub\]"'):
        describe_policy(PolicyChoice("owner/tiny"))


# --- factories

FACTORIES = '''
"""Policies of somebody's own."""

import gymnasium as gym
import numpy as np


def learner(env):
    from stable_baselines3 import PPO

    return PPO("MlpPolicy", env.envs[0], seed=0, device="cpu", n_steps=8, batch_size=8)


class Remembering:
    """Alternates, by its state, which begins anew with each episode."""

    def __init__(self, space):
        self.space = space

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        rows = len(observation)
        assert isinstance(observation, np.ndarray)
        assert episode_start.shape == (rows,) and episode_start.dtype == bool
        count = np.where(episode_start, 0, np.zeros(rows, int) if state is None else state)
        sign = np.where(count % 2, -1.0, 1.0).astype(np.float32)
        return np.repeat(sign[:, None], self.space.shape[0], 1), count + 1


def remembering(env):
    assert isinstance(env, gym.vector.VectorEnv)
    return Remembering(env.single_action_space)


def refusing(env):
    raise ValueError("this one plays chess")


def useless(env):
    return 3


number = 3
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module ``mine`` in the folder where the command is given."""
    path = tmp_path / "mine.py"
    path.write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    yield path
    sys.modules.pop("mine", None)


def test_a_stable_baselines3_learner_is_scored(module: Path, tmp_path: Path, quiet) -> None:
    """Its return is what the learner's own predict, in the bare environment, comes to."""
    output = tmp_path / "run"
    settings = RunSettings(
        "mujoco", output, tasks="pendulum", episodes=3, workers=1,
        policy=PolicyChoice("mine:learner", deterministic=True),
    )  # fmt: skip
    summary = run_benchmark(settings, console=quiet)
    assert summary.complete
    assert summary.header.policy["weights"] == describe_policy(settings.policy)["weights"]
    import mine  # type: ignore[import-not-found]

    from policies.rollout.env_batch import make_rows

    task = get_task("mujoco-pendulum")
    with closing(make_rows(task, 1)) as envs:
        learner = mine.learner(envs)
    for line in lines(output):
        with closing(task.make()) as env:
            observation, _ = env.reset(seed=line["seed"])
            total, over = 0.0, False
            while not over:
                action, _ = learner.predict(observation, deterministic=True)
                observation, reward, terminated, truncated, _ = env.step(action)
                total, over = total + float(reward), terminated or truncated
        assert line["return"] == pytest.approx(total)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_factory_s_state_and_episode_starts_are_each_row_s_own(
    module: Path, tmp_path: Path, quiet, workers: int
) -> None:
    def run(folder: str, num_envs: int) -> list[dict[str, Any]]:
        settings = RunSettings(
            "mujoco", tmp_path / folder, tasks="reacher", episodes=3, workers=workers,
            num_envs=num_envs, policy=PolicyChoice("mine:remembering"),
        )  # fmt: skip
        run_benchmark(settings, console=quiet)
        return lines(tmp_path / folder)

    assert run("alone", 1) == run("together", 3)


def test_another_source_is_another_policy(module: Path) -> None:
    choice = PolicyChoice("mine:learner")
    before = describe_policy(choice)["weights"]
    assert before is not None
    module.write_text(FACTORIES + "\n# changed\n")
    assert describe_policy(choice)["weights"] != before


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("mine:absent", "module 'mine' has no function 'absent'"),
        ("mine:number", "module 'mine' has no function 'number'"),
        ("absent_module:make", "cannot be imported (No module named 'absent_module')"),
        ("mine:refusing", "mujoco-reacher, policy mine:refusing: this one plays chess"),
        ("mine:useless", "returned a int without predict"),
    ],
)
def test_factories_that_make_no_policy_are_told_in_one_line(
    module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str, said: str
) -> None:
    command = ["--suite", "mujoco", "--tasks", "reacher", "--policy", policy, "--workers", "1"]
    assert main([*command, "--episodes", "1", "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


# --- demonstrations


@pytest.fixture(scope="module")
def reacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A network of mujoco-reacher, and a dataset of two random episodes of it."""
    folder = tmp_path_factory.mktemp("reacher")
    with closing(get_task("mujoco-reacher").make()) as env:
        policy = GatoPolicy.create(env, config=TINY)
        policy.task = "mujoco-reacher"
        policy.save(folder / "network")
        chance = make_policy("random", env=env)
        record_episodes(env, chance, 2, "mine/reacher-v0", root=folder / "minari")
    return str(folder / "network"), folder / "minari" / "mine" / "reacher-v0"


def test_a_demonstration_is_shown_and_recorded_by_what_is_in_it(
    reacher: tuple[str, Path], tmp_path: Path, quiet
) -> None:
    network, dataset = reacher

    def run(prompt: str, cut: str | None = None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        settings = RunSettings(
            "mujoco", folder, tasks="reacher", episodes=1, workers=1,
            policy=PolicyChoice(network, prompt=prompt, prompt_cut=cut),
        )  # fmt: skip
        run_benchmark(settings, console=quiet)
        return lines(folder), json.loads((folder / "run.json").read_text())["policy"]

    plain, without = run("none")
    first, shown = run(str(dataset), "end")
    other, second = run(f"{dataset}#1", "end")
    assert run(f"{dataset}#0", "end")[0] == first
    assert plain[0]["return"] != first[0]["return"] != other[0]["return"]
    assert "prompt_hash" not in without
    assert shown["prompt_hash"] != second["prompt_hash"]
    assert (shown["prompt"], shown["prompt_cut"]) == (str(dataset), "end")
    # The same episodes elsewhere are the same demonstration.
    elsewhere = shutil.copytree(dataset, tmp_path / "elsewhere")
    choice = PolicyChoice(network, prompt=str(elsewhere), prompt_cut="end")
    assert describe_policy(choice)["prompt_hash"] == shown["prompt_hash"]


def test_retrieval_is_scored_from_so_many_demonstrations(
    reacher: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, dataset = reacher
    output = tmp_path / "run"
    command = ["--suite", "mujoco", "--tasks", "reacher", "--episodes", "1", "--workers", "1"]
    command += ["--policy", "retrieve", "--demonstrations", str(dataset)]
    several = ["--demonstration-episodes", "1,2", "--output", str(output)]
    assert main([*command, *several]) == 0, capsys.readouterr().err
    runs = [json.loads((output / f"retrieve-{n}" / "run.json").read_text()) for n in (1, 2)]
    one, two = (run["policy"] for run in runs)
    assert (one["demonstration_episodes"], two["demonstration_episodes"]) == (1, 2)
    assert one["demonstrations"] == str(dataset)
    assert one["weights"] != two["weights"]
    with closing(get_task("mujoco-reacher").make()) as env:
        key = lines(output / "retrieve-2")[0]
        policy = make_policy("retrieve", env=env, demonstrations=str(dataset))
        observation, _ = env.reset(seed=key["seed"])
        total, ended = 0.0, False
        while not ended:
            action, _ = policy.predict(observation)
            observation, reward, stopped, cut, _ = env.step(action)
            total, ended = total + float(reward), stopped or cut
    assert key["return"] == pytest.approx(total)


@pytest.mark.parametrize(
    ("policy", "flags", "said"),
    [
        ("retrieve", [], "--policy retrieve --demonstrations None: expected"),
        ("expert", ["--demonstrations", "a/b-v0"], "others play without"),
        ("retrieve", ["--demonstrations", "no/{task}-v0"], "no Minari dataset 'no/mujoco-reach"),
        ("retrieve", ["--demonstrations", "a/b-v0", "--demonstration-episodes", "0"], "above 0"),
    ],
)
def test_retrieval_without_demonstrations_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str, flags: list[str], said: str
) -> None:
    command = ["--suite", "mujoco", "--tasks", "reacher", "--policy", policy, "--episodes", "1"]
    assert main([*command, *flags, "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_demonstrations_that_cannot_be_shown_are_told_in_one_line(
    reacher: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, dataset = reacher
    for policy, prompt, said in (
        (network, "no/such-v0", "--prompt no/such-v0 cannot be read"),
        (network, f"{dataset}#7", "has episodes 0 to 1"),
        (network, str(dataset), "cut='end'"),
        ("expert", str(dataset), "policy expert takes no demonstration"),
    ):
        command = ["--suite", "mujoco", "--tasks", "reacher", "--policy", policy, "--episodes", "1"]
        output = tmp_path / "run"
        assert main([*command, "--workers", "1", "--prompt", prompt, "--output", str(output)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert not output.exists()


def test_beside_a_network_with_a_demonstration_others_play_as_they_do() -> None:
    arguments = ["--suite", "mujoco", "--prompt", "some/data-v0", "--prompt-cut", "end"]
    arguments += ["--policy", "a/b", "--policy", "expert"]
    _, (network, expert) = parse(Bench, arguments, prog="bench").runs()
    assert (network.policy.prompt, network.policy.prompt_cut) == ("some/data-v0", "end")
    assert (expert.policy.prompt, expert.policy.prompt_cut) == ("shipped", None)


# --- what a policy cannot play


def test_an_expert_is_scored_where_there_is_one() -> None:
    tasks = select_tasks("dm_control", "cartpole-swingup,humanoid-run,humanoid-walk")
    reasons = left_out(PolicyChoice("expert"), tasks)
    assert reasons == dict.fromkeys(
        ("dm_control-humanoid-run", "dm_control-humanoid-walk"), "it has no expert"
    )
    assert left_out(PolicyChoice("random"), tasks) == {}


def test_a_network_is_scored_on_what_it_knows_by_id_or_by_spaces(checkpoint: Path) -> None:
    pattern = "go-to-obj,open-red-door,dm_control-humanoid-run,metaworld-reach"
    reasons = left_out(PolicyChoice(str(checkpoint)), select_tasks("all", pattern))
    # open-red-door has the spaces of the one task that it knows
    assert sorted(reasons) == ["dm_control-humanoid-run", "metaworld-reach"]
    reasons = left_out(PolicyChoice("gato-mini"), select_tasks("all", pattern))
    assert sorted(reasons) == ["dm_control-humanoid-run"]


@pytest.mark.parametrize(
    ("suite", "pattern", "policies", "said"),
    [
        (
            "dm_control",
            "humanoid-*",
            ["gato-mini"],
            "gato-mini plays none of what was asked for, 3 tasks, such as dm_control-humanoid-run "
            "(the network was not trained on it, and its spaces identify no task): it plays 36 "
            "tasks of atari, 39 tasks of babyai, 18 tasks of dm_control, 50 tasks of metaworld, 11 "
            "tasks of mujoco; choose these with --suite or --tasks, or pass --policy random, or a "
            "network trained on these tasks",
        ),
        (
            "dm_control",
            "humanoid-*",
            ["expert"],
            "3 tasks, such as dm_control-humanoid-run (it has no expert): it plays",
        ),
        (
            "dm_control",
            "humanoid-run",
            ["random", "gato-mini"],
            "gato-mini plays none of what was asked for, task dm_control-humanoid-run (the",
        ),
    ],
)
def test_a_policy_that_knows_nothing_of_a_suite_is_refused_before_any_process_starts(
    suite: str,
    pattern: str,
    policies: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[object] = []
    monkeypatch.setattr("benchmarks.run.play_episodes", lambda *a, **_: started.append(a))
    command = ["--suite", suite, "--tasks", pattern, "--output", str(tmp_path / "run")]
    assert main([*command, *(word for name in policies for word in ("--policy", name))]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not started
    assert not (tmp_path / "run").exists()


def test_of_all_suites_those_that_are_not_installed_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "minigrid", None)
    pattern = "babyai-open,mujoco-reacher"
    reasons = left_out(PolicyChoice("random"), select_tasks("all", pattern))
    assert list(reasons) == ["babyai-open"]
    assert 'pip install "gato-gym[babyai]"' in reasons["babyai-open"]
    assert left_out(PolicyChoice("random"), select_tasks("babyai", "open")) == {}


def test_what_is_not_played_is_told_and_counted_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--suite",
        "all",
        "--tasks",
        "mujoco-reacher,atari-montezumarevenge,babyai-go-to-obj",
    ]
    command += ["--policy", "expert", "--episodes", "2", "--workers", "1"]
    output = tmp_path / "run"
    assert main([*command, "--output", str(output)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "expert cannot play 1 of 3 tasks" in printed
    assert "not played, 1 of atari's tasks (it has no expert): atari-montezumarevenge" in printed
    summary = json.loads((output / "summary.json").read_text())
    assert summary["complete"]
    assert summary["left_out"] == {"atari-montezumarevenge": "it has no expert"}
    assert sorted(summary["tasks"]) == ["babyai-go-to-obj", "mujoco-reacher"]
    assert sorted(summary["suites"]) == ["babyai", "mujoco"]
    assert summary["aggregates"]["normalised mean"]["tasks"] == 2
    assert sorted(summary["protocol"]["tasks"]) == [
        *("atari-montezumarevenge", "babyai-go-to-obj", "mujoco-reacher")
    ]
    page = (output / "report.html").read_text()
    assert "atari-montezumarevenge" in page
    assert "it has no expert" in page
    before = lines(output)
    assert main([*command, "--output", str(output), "--resume"]) == 0
    assert lines(output) == before


# --- the other family


def test_jat_plays_what_it_has_a_modality_for(tmp_path: Path) -> None:
    """It knows no tasks: the spaces decide, and the same command scores it."""
    config = JatConfig(
        hidden_size=60, num_layers=2, num_heads=2, vocab_size=256, eos_token_id=255,
        max_continuous_size=12, image_size=16, max_position_embeddings=16,
    )  # fmt: skip
    with closing(get_task("mujoco-reacher").make()) as env:
        JatPolicy.create(env, config=config).save(tmp_path / "jat")
    choice = PolicyChoice(str(tmp_path / "jat"))
    tasks = [get_task(name) for name in ("mujoco-reacher", "mujoco-halfcheetah")]
    missing = left_out(choice, tasks)
    assert [*missing] == ["mujoco-halfcheetah"]
    assert "expected a Box of at most 11 numbers" in missing["mujoco-halfcheetah"]
    with pytest.raises(BenchmarkError, match="plays none of what was asked for"):
        left_out(choice, tasks[1:])
