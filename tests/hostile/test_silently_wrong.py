"""Files and values that look right and are not: each is refused, none is scored or trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from gymnasium import spaces
from small import SMALL, STATE, state_plan

from gato_gym import Episode
from policies import GatoPolicy, MultiTaskPolicy
from policies.experts.mlp import ExpertError
from policies.experts.store import load_expert, shipped_folder
from policies.gato.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from policies.gato.prompts import prompt_from_episode
from policies.gato.sampling import Sampler
from policies.gato.task_specs import TaskRecord
from policies.model.network import GatoNetwork


def demonstration(length: int = 5) -> Episode:
    generator = np.random.default_rng(0)
    return Episode(
        task="act",
        observations=generator.uniform(-1, 1, (length + 1, 3)).astype(np.float32),
        actions=generator.uniform(-1, 1, (length, 2)).astype(np.float32),
        rewards=np.zeros(length, np.float32),
        terminations=np.zeros(length, bool),
        truncations=np.zeros(length, bool),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two tasks that look alike, one with a demonstration."""
    torch.manual_seed(0)
    prompt = prompt_from_episode(state_plan(), demonstration(), capacity=16, cut="end")
    tasks = {"act": TaskRecord.of(state_plan(), prompt), "act-too": TaskRecord.of(state_plan())}
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    save_checkpoint(folder, GatoNetwork(SMALL), tasks, Sampler())
    return folder


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def with_value(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return change


class TestCheckpoints:
    """What a folder from elsewhere may hold."""

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (with_value(float("nan")), "head.weight not finite"),
            (with_value(float("inf")), "head.weight not finite"),
            (with_value(float("-inf")), "head.weight not finite"),
            (torch.Tensor.char, r"head.weight of type torch.int8"),
            (torch.Tensor.bool, r"head.weight of type torch.bool"),
            (torch.Tensor.long, r"head.weight of type torch.int64"),
            (torch.Tensor.double, r"head.weight of type torch.float64"),
            (lambda t: t.to(torch.float8_e4m3fn), r"head.weight of type torch.float8_e4m3fn"),
        ],
    )
    def test_weights_that_are_no_numbers(
        self, checkpoint: Path, change: Callable[[torch.Tensor], torch.Tensor], said: str
    ) -> None:
        path = checkpoint / "model.safetensors"
        weights = safetensors.torch.load_file(path)
        safetensors.torch.save_file(
            {**weights, "head.weight": change(weights["head.weight"])}, path
        )
        with pytest.raises(CheckpointError, match=f"{said}, expected finite numbers of float32"):
            load_checkpoint(checkpoint)

    @pytest.mark.parametrize("kept", [[], ["ids", "vectors", "text"], ["ids"]])
    def test_a_demonstration_that_is_missing_or_incomplete(
        self, checkpoint: Path, kept: list[str]
    ) -> None:
        path = checkpoint / "prompts.safetensors"
        tensors = safetensors.numpy.load_file(path)
        tensors = {name: part for name, part in tensors.items() if name.split("/")[1] in kept}
        safetensors.numpy.save_file(tensors, path)
        with pytest.raises(CheckpointError, match=r"does not describe a checkpoint .*(prompt|act)"):
            load_checkpoint(checkpoint)

    def test_the_demonstration_of_another_task(self, checkpoint: Path) -> None:
        path = checkpoint / "prompts.safetensors"
        tensors = safetensors.numpy.load_file(path)
        tensors = {name.replace("act/", "act-too/"): part for name, part in tensors.items()}
        safetensors.numpy.save_file(tensors, path)
        with pytest.raises(CheckpointError, match="expected the files of one checkpoint"):
            load_checkpoint(checkpoint)

    def test_files_that_do_not_say_who_has_a_demonstration_load(self, checkpoint: Path) -> None:
        """Those of older versions."""
        path = checkpoint / "config.json"
        config = json.loads(path.read_text())
        for entry in config["tasks"].values():
            del entry["prompt"]
        path.write_text(json.dumps(config))
        tasks = load_checkpoint(checkpoint).tasks
        assert tasks["act"].prompt is not None
        assert tasks["act-too"].prompt is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda part: part.astype(np.int8), "of type int8"),
        (lambda part: part.astype(bool), "of type bool"),
        (lambda part: np.full_like(part, np.nan), "not finite"),
        (lambda part: np.full_like(part, np.inf), "not finite"),
    ],
)
@pytest.mark.parametrize("task", ["mujoco-pendulum", "atari-pong"])
def test_an_expert_whose_weights_are_no_numbers(
    tmp_path: Path, change: Callable[[Any], Any], said: str, task: str
) -> None:
    folder = Path(shutil.copytree(shipped_folder(task), tmp_path / "expert"))
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["action.bias"] = change(tensors["action.bias"])
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ExpertError, match=said):
        load_expert(folder)


class TestStates:
    """What ``predict`` returned in another task whose spaces are the same."""

    @pytest.fixture
    def both(self, saved: Path) -> tuple[GatoPolicy, GatoPolicy]:
        act = GatoPolicy.load(saved, task="act")
        return act, act.with_env(None, task="act-too")

    def test_a_state_of_another_task(self, both: tuple[GatoPolicy, GatoPolicy]) -> None:
        observation = np.zeros((2, 3), np.float32)
        states = [policy.predict(observation)[1] for policy in both]
        for policy, state in zip(both, reversed(states), strict=True):
            with pytest.raises(ValueError, match="state is of another task"):
                policy.predict(observation, state)
        for policy, state in zip(both, states, strict=True):
            assert policy.with_prompt(None).predict(observation, state)[1] is state

    def test_of_several_tasks_in_another_order(self, both: tuple[GatoPolicy, GatoPolicy]) -> None:
        observations = [np.zeros(3, np.float32)] * 2
        _, state = MultiTaskPolicy(both).predict(observations)
        with pytest.raises(ValueError, match="state is of another task"):
            MultiTaskPolicy(both[::-1]).predict(observations, state)
        assert MultiTaskPolicy(both).predict(observations, state)[1] is state

    def test_of_other_token_options(self) -> None:
        class Env:
            observation_space, action_space = STATE, spaces.Discrete(3)

        policies = [
            GatoPolicy.create(Env(), config=SMALL, options=state_plan(memory).options)
            for memory in ("none", "all")
        ]
        states = [policy.predict(np.zeros(3, np.float32))[1] for policy in policies]
        with pytest.raises(ValueError, match="of other token options"):
            policies[0].predict(np.zeros(3, np.float32), states[1])
