"""Checkpoints: saved and loaded unchanged; damaged, newer and foreign ones refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from recorded import demonstration
from small import SMALL, STATE, Talker, state_plan, talking_plan

from gato_gym import PlanOptions
from policies import GatoPolicy
from policies.gato.checkpoint import load_checkpoint, save_checkpoint
from policies.gato.prompts import prompt_from_episode
from policies.gato.sampling import Sampler
from policies.gato.task_specs import SpaceMismatchError, TaskRecord
from policies.gato.tensor_files import CheckpointError
from policies.model.network import GatoNetwork


class Spaces(gym.Env[Any, Any]):
    """Any two spaces."""

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space


ACTING = Spaces(STATE, spaces.Box(-1, 1, (2,), np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = GatoNetwork(SMALL)
    prompt = prompt_from_episode(state_plan(), demonstration(20), capacity=16, cut="end")
    tasks = {
        "act": TaskRecord.of(state_plan(), prompt),
        "talk": TaskRecord.of(talking_plan()),
    }
    path = tmp_path / "made"
    save_checkpoint(path, network, tasks, Sampler(temperature=0.5))
    return path


def test_loaded_is_what_was_saved(folder: Path) -> None:
    policy = GatoPolicy.load(folder, env=ACTING)
    assert policy.task == "act"
    assert policy.sampler == Sampler(temperature=0.5)
    assert policy.prompt is not None
    torch.manual_seed(0)
    for name, tensor in GatoNetwork(SMALL).state_dict().items():
        assert torch.equal(tensor, policy.network.state_dict()[name])
    policy.save(folder.parent / "again")
    again = GatoPolicy.load(folder.parent / "again", env=ACTING)
    observation = np.array([0.1, -0.2, 0.3], np.float32)
    first, _ = policy.predict(observation)
    assert np.array_equal(first, again.predict(observation)[0])
    assert sorted(again.tasks) == ["act", "talk"]


def test_a_saved_policy_keeps_card_and_size(folder: Path, tmp_path: Path) -> None:
    loaded, card = load_checkpoint(folder), "# Mine\n\nScores 0.9 ± 0.1.\n"
    half = tmp_path / "half"
    save_checkpoint(
        half, loaded.network, loaded.tasks, loaded.sampler, dtype=torch.bfloat16, card=card
    )
    policy = GatoPolicy.load(half, env=ACTING)
    policy.with_prompt(None).save(tmp_path / "again")
    for name in ("card.md", "model.safetensors", "prompts.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (half / name).read_bytes()

    with torch.no_grad():  # a value that bfloat16 does not have
        policy.network.head.weight.view(-1)[0] = 1 + 2**-12
    policy.save(tmp_path / "changed")
    changed = load_checkpoint(tmp_path / "changed")
    assert changed.network.head.weight.view(-1)[0] == 1 + 2**-12
    assert changed.card == card


def test_the_prompt_changes_what_is_done(folder: Path) -> None:
    prompted = GatoPolicy.load(folder, env=ACTING)
    bare = GatoPolicy.load(folder, env=ACTING, prompt=None)
    observation = np.array([0.1, -0.2, 0.3], np.float32)
    logits = []
    for policy in (prompted, bare):
        _, state = policy.predict(observation, deterministic=True)
        logits.append(state.cache.keys[-1, 0, :, :, state.cache.pinned].clone())
    assert not torch.equal(logits[0], logits[1])


def test_other_spaces_are_refused(folder: Path) -> None:
    with pytest.raises(SpaceMismatchError, match=r"no task of the checkpoint has these spaces"):
        GatoPolicy.load(folder, env=Spaces(spaces.Box(-1, 1, (4,)), spaces.Discrete(2)))
    with pytest.raises(SpaceMismatchError, match=r"task 'talk' was trained with spaces"):
        GatoPolicy.load(folder, env=ACTING, task="talk")
    with pytest.raises(SpaceMismatchError, match=r"no task 'tlak': did you mean talk"):
        GatoPolicy.load(folder, env=Talker(), task="tlak")


def test_several_fitting_tasks_are_listed(folder: Path) -> None:
    loaded = load_checkpoint(folder)
    tasks = {**loaded.tasks, "act-too": loaded.tasks["act"]}
    save_checkpoint(folder, loaded.network, tasks, loaded.sampler)
    with pytest.raises(SpaceMismatchError, match=r"2 tasks .* act, act-too"):
        GatoPolicy.load(folder, env=ACTING)
    assert GatoPolicy.load(folder, env=ACTING, task="act-too").task == "act-too"


@pytest.mark.parametrize("name", ["model.safetensors", "prompts.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(folder: Path, name: str, share: float) -> None:
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"damaged or cut short .* take a fresh copy"):
        load_checkpoint(folder)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load_checkpoint(folder)
    with pytest.raises(CheckpointError, match="no checkpoint 'gato-mny'"):
        load_checkpoint("gato-mny")


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_newer_format_is_refused(folder: Path) -> None:
    change_config(folder, format=99)
    with pytest.raises(CheckpointError, match="format 99 and this gato-gym reads up to 1: upgrade"):
        load_checkpoint(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    network = json.loads((folder / "config.json").read_text())["network"]
    change_config(folder, network={**network, "layers": 3})
    with pytest.raises(CheckpointError, match=r"does not fit config\.json \(missing backbone"):
        load_checkpoint(folder)
    change_config(folder, network={**network, "gates": 3})
    with pytest.raises(CheckpointError, match=r"unknown fields \['gates'\]"):
        load_checkpoint(folder)
    (folder / "config.json").write_text("{" * 5000)
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_checkpoint(folder)


def test_another_text_model_is_refused(folder: Path) -> None:
    change_config(folder, text_model="0" * 64)
    with pytest.raises(CheckpointError, match="another text model"):
        load_checkpoint(folder)


def test_saving_replaces_checkpoints_only(folder: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(folder)
    save_checkpoint(folder, loaded.network, loaded.tasks, loaded.sampler)
    other = tmp_path / "notes"
    other.mkdir()
    (other / "precious.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match=r"holds precious\.txt, expected nothing but"):
        save_checkpoint(other, loaded.network, loaded.tasks, loaded.sampler)
    assert (other / "precious.txt").read_text() == "keep me"
    shutil.rmtree(other)


def test_a_policy_without_tasks_saves_its_own(tmp_path: Path) -> None:
    env = Talker()
    policy = GatoPolicy.create(env, config=SMALL, options=PlanOptions(vector_size=16))
    policy.save(tmp_path / "mine")
    loaded = GatoPolicy.load(tmp_path / "mine", env=env)
    observation, _ = env.reset(seed=1)
    assert loaded.predict(observation)[0] == policy.predict(observation)[0]
    assert loaded.plan.options == policy.plan.options


def test_a_checkpoint_of_one_task_needs_no_environment(folder: Path, tmp_path: Path) -> None:
    policy = GatoPolicy.create(ACTING, config=SMALL, options=PlanOptions(vector_size=16))
    policy.save(tmp_path / "mine")
    loaded = GatoPolicy.load(tmp_path / "mine")
    assert loaded.observation_space == ACTING.observation_space
    assert loaded.action_space == ACTING.action_space
    observation = np.array([0.1, -0.2, 0.3], np.float32)
    assert np.array_equal(loaded.predict(observation)[0], policy.predict(observation)[0])
    with pytest.raises(SpaceMismatchError, match="knows 2 tasks: pass env=, or task="):
        GatoPolicy.load(folder)
    talking = GatoPolicy.load(folder, task="talk")
    assert talking.plan.has_text
