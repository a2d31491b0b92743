"""A network of one's own: episodes of any policy, one command, a policy that plays."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from environments import Balance, Pair
from gymnasium import spaces

from gato_gym.__main__ import main
from gato_gym.episodes.minari_datasets import find_minari, read_minari, returns_of
from gato_gym.episodes.minari_writing import write_minari
from policies import GatoPolicy
from policies.collection.record import play_returns, record_episodes
from policies.random_policy import RandomPolicy
from policies.registry import make_policy

DATASET = "my/cartpole-v0"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(episodes: int = 5) -> list[float]:
    with gym.make("CartPole-v1") as env:
        return record_episodes(env, Balance(), episodes, DATASET)


def test_recorded_episodes_are_what_was_played(root: Path) -> None:
    seen = []
    with gym.make("CartPole-v1") as env:
        returns = record_episodes(env, Balance(), 2, DATASET, seed=7, on_episode=seen.append)
        assert returns == [500.0, 500.0]
        episodes = list(read_minari(DATASET))
        observation, _ = env.reset(seed=1_000_007)
        for step in range(3):
            assert np.array_equal(episodes[0].observations[step], observation)
            observation, *_ = env.step(episodes[0].actions[step])
    assert [episode.seed for episode in episodes] == [1_000_007, 1_000_008]
    assert episodes[0].observations.shape == (501, 4)
    assert episodes[0].truncations[-1]
    assert not episodes[0].terminations.any()
    assert find_minari(DATASET).storage.metadata["expert_return"] == 500.0
    assert returns_of(find_minari(DATASET)).tolist() == returns
    assert len(seen) == 2


def test_episodes_that_begin_alike_are_drawn_by_their_own_seeds() -> None:
    class Alike(gym.Env[Any, Any]):
        observation_space, action_space = spaces.Box(0, 1, (2,)), spaces.Discrete(1000)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            return np.zeros(2, np.float32), float(action), True, False, {}

    policy = RandomPolicy(Alike.observation_space, Alike.action_space)
    drawn = play_returns(Alike(), policy, 4)
    assert len(set(drawn)) > 1
    assert play_returns(Alike(), policy, 2, seed=2) == drawn[2:]


def test_noise_is_executed_and_the_choice_recorded(root: Path) -> None:
    with gym.make("CartPole-v1") as env:
        record_episodes(env, Balance(), 6, DATASET, noise=0.3)
    episodes = list(read_minari(DATASET))
    assert [bool(episode.info.get("noise")) for episode in episodes] == [False, *[True] * 4, False]
    assert episodes[0].executed is None
    for step in range(episodes[1].length):
        choice, _ = Balance().predict(episodes[1].observations[step])
        assert choice == episodes[1].actions[step]
    assert 0.05 < np.mean(episodes[1].executed != episodes[1].actions) < 0.3, (
        "half of 0.3 is another"
    )
    assert find_minari(DATASET).storage.metadata["expert_return"] == 500.0, "of the clean ones"


def test_an_action_that_is_none_is_refused(root: Path) -> None:
    class Wild:
        def predict(self, *_: Any, **__: Any) -> tuple[Any, Any]:
            return 7, None

    with (
        gym.make("CartPole-v1") as env,
        pytest.raises(ValueError, match=r"gave 7, which is no member of Discrete\(2\)"),
    ):
        record_episodes(env, Wild(), 1, DATASET)


def test_an_archive_is_not_read_unless_its_author_is_trusted(root: Path) -> None:
    (root / "model.zip").write_bytes(b"anything")
    with gym.make("CartPole-v1") as env:
        with pytest.raises(ValueError, match="--trust-zip"):
            make_policy("model.zip", env=env, algorithm="ppo")
        with pytest.raises(ValueError, match="--algorithm"):
            make_policy("model.zip", env=env, trust_zip=True)
        with pytest.raises(ValueError, match="no archive"):
            make_policy("other.zip", env=env, algorithm="ppo", trust_zip=True)


def test_from_episodes_to_a_policy_that_balances(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The road of the README, with a scripted expert."""
    (root / "balancing.py").write_text(
        "from test_own import Balance\n\ndef expert(env):\n    return Balance()\n"
    )
    record()
    train = ["train", "--dataset", DATASET, "--output", "runs/mine", "--preset", "tiny"]
    small = ["--rows", "4", "--length", "128", "--steps", "100"]
    assert main([*train, *small, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "CartPole-v1" in said
    assert "5 │        0 │     2,500 │  2,500 │ 100.0%" in said
    assert not (root / "runs/mine/training").exists()
    assert main([*train, *small]) == 0
    assert "gato-gym score CartPole-v1 --policy runs/mine" in capsys.readouterr().out

    with gym.make("CartPole-v1") as env:
        policy = GatoPolicy.load("runs/mine", env=env)
        assert policy.task == "CartPole-v1"
        assert policy.prompt is None, "its observations say what it plays"
        assert np.mean(play_returns(env, policy, 2)) > 150, "random: about 20"

    assert main(["score", "CartPole-v1", "--policy", "random", "--dataset", DATASET]) == 0
    assert "expert      500.00" in capsys.readouterr().out

    assert main([*train, "--steps", "100", "--rows", "5", "--length", "128"]) == 2
    assert "rows: 4 there, 5 now" in capsys.readouterr().err
    with gym.make("CartPole-v1") as env:
        record_episodes(env, Balance(), 6, DATASET, replace=True)
    assert main([*train, *small]) == 2
    assert "episodes" in (said := capsys.readouterr().err)
    assert "holds a run with another configuration" in said


def test_a_score_without_an_experts_return_fails_before_anything_is_played(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with gym.make("CartPole-v1") as env:
        record_episodes(env, Balance(), 1, DATASET)
        (episode,) = read_minari(DATASET)
        write_minari("my/other-v0", [episode], env=env)
    played: list[object] = []
    monkeypatch.setattr("policies.collection.record.play_one", lambda *a, **_: played.append(a))

    score = ["score", "CartPole-v1", "--policy", "random", "--dataset"]
    assert main([*score, "my/other-v0"]) == 2
    said = capsys.readouterr().err
    assert "dataset 'my/other-v0' holds no expert_return: record it with gato-gym record" in said
    assert main([*score, "my/none-v0"]) == 2
    assert "my/none-v0" in capsys.readouterr().err
    assert not played


def test_a_dataset_that_exists_is_replaced_only_with_overwrite(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["record", "CartPole-v1", "--policy", "random", "--dataset", DATASET]
    assert main([*command, "--episodes", "2"]) == 0
    assert main([*command, "--episodes", "1"]) == 2
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert len(returns_of(find_minari(DATASET))) == 2
    assert main([*command, "--episodes", "1", "--overwrite"]) == 0
    assert len(returns_of(find_minari(DATASET))) == 1


def test_images_are_recorded_without_pillow(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    env = Pair()
    record_episodes(env, make_policy("random", env=env), 1, "my/pair-v0")
    (episode,) = read_minari("my/pair-v0")
    assert episode.observations["picture"].shape[1:] == (32, 32, 3)


def test_any_spaces_without_an_id(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = Pair()
    record_episodes(env, make_policy("random", env=env), 4, "my/pair-v0")
    episodes = list(read_minari("my/pair-v0"))
    assert episodes[0].observations["picture"].shape == (3, 32, 32, 3)
    assert episodes[0].info == {"success": True}
    options = json.dumps({"image_fit": "resize"})
    train = ["train", "--dataset", "data/my/pair-v0", "--output", "runs/pair", "--preset", "tiny"]
    train += ["--rows", "2", "--length", "64", "--steps", "2", "--options", options]
    train += ["--sigma", "0", "--observation-weight", "0.1", "--depth-drop", "0.1"]
    train += ["--observation-noise", "0.2", "--no-numeric-features", "--attention", "dense"]
    train += ["--no-soft-labels"]
    assert main(train) == 0, capsys.readouterr().err
    config = json.loads((root / "runs/pair/training/config.json").read_text())
    assert (config["sigma"], config["observation_weight"], config["depth_drop"]) == (0, 0.1, 0.1)
    assert config["mixture"]["observation_noise"] == 0.2
    assert not config["mixture"]["soft_labels"]
    assert not config["network"]["numeric_features"]
    assert "attention" not in config, "how it is computed is not part of the run"
    policy = GatoPolicy.load("runs/pair", env=env)
    assert policy.task == "my/pair-v0"
    assert policy.plan.options.memory == "none", "too short a run to try others"
    assert policy.plan.options.image_fit == "resize"
    action, _ = policy.predict(env.reset(seed=0)[0])
    assert env.action_space.contains(action)


def test_two_tasks_with_the_same_spaces_are_told_apart(root: Path) -> None:
    kind = "gymnasium.envs.classic_control:CartPoleEnv"
    gym.register("ShortCart-v0", entry_point=kind, max_episode_steps=50)
    try:
        for name, dataset in (("ShortCart-v0", "my/short-v0"), ("CartPole-v1", DATASET)):
            with gym.make(name) as env:
                record_episodes(env, Balance(), 2, dataset)
    finally:
        del gym.registry["ShortCart-v0"]
    train = ["train", "--dataset", "my/short-v0", DATASET, "--output", "runs/both"]
    assert main([*train, "--preset", "tiny", "--rows", "2", "--length", "64", "--steps", "1"]) == 0
    with gym.make("CartPole-v1") as env:
        policy = GatoPolicy.load("runs/both", env=env)
        assert policy.task == "CartPole-v1"
        assert policy.prompt is not None, "the demonstration says which of the two is played"


def test_what_cannot_be_used_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "--output", "runs/mine", "--dataset"]
    assert main([*train, "my/none-v0"]) == 2
    assert "no Minari dataset 'my/none-v0'" in capsys.readouterr().err
    record(1)
    assert main([*train, DATASET, "--weights", '{"Other-v0": 1}']) == 2
    assert "weights names ['Other-v0']" in capsys.readouterr().err
    assert main([*train, DATASET, "--options", '{"layuot": 1}']) == 2
    assert "no field 'layuot'" in capsys.readouterr().err
    assert main([*train, DATASET, "--preset", "huge"]) == 2
    assert "'huge' is unknown" in capsys.readouterr().err
    assert main([*train, DATASET, "--action-drop", "0.5"]) == 2
    assert "no task remembers its actions: ask for memory 'all'" in capsys.readouterr().err


def test_a_timestep_longer_than_a_row_is_refused_before_anything_is_encoded(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four patches, two numbers, a separator and two of three actions: 9 tokens."""
    env = Pair()
    record_episodes(env, make_policy("random", env=env), 2, "my/pair-v0")
    record(2)
    train = ["train", "--preset", "tiny", "--rows", "2", "--steps", "1", "--layout", "paper"]
    said = "a timestep of 'my/pair-v0' has 9 tokens (4 of images) and a row of a batch has 8: scale"
    for datasets in (["my/pair-v0"], [DATASET, "my/pair-v0"]):
        refused = [*train, "--output", "runs/pair", "--dataset", *datasets]
        assert main([*refused, "--length", "8"]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "(--length 9)" in error
        assert main([*refused, "--network", '{"window": 8}']) == 2
        assert "and the network's window has 8" in capsys.readouterr().err
        assert not (root / "runs").exists()
    fitting = ["--network", '{"window": 9}', "--length", "9", "--dataset", "my/pair-v0"]
    assert main([*train, "--output", "runs/pair", *fitting]) == 0
