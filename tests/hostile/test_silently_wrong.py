"""Files and values that look right and are not: each is refused, none is scored or trained on."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from gymnasium import spaces
from recorded import demonstration
from small import SMALL, STATE, random_shard, state_plan

from gato_gym import Episode, get_task, write_minari
from gato_gym.commands.main import main
from gato_gym.episodes.jat import episode_of_row, import_rows
from gato_gym.episodes.minari_datasets import episodes_of, find_minari
from policies import GatoPolicy, MultiTaskPolicy
from policies.collection.scores import play_scores
from policies.experts.mlp import ExpertError
from policies.experts.store import load_expert, shipped_folder
from policies.gato.checkpoint import load_checkpoint, save_checkpoint
from policies.gato.prompts import prompt_from_episode
from policies.gato.sampling import Sampler
from policies.gato.task_specs import TaskRecord
from policies.gato.tensor_files import CheckpointError
from policies.model.network import GatoNetwork
from policies.training.config import TrainConfig, check_same, without_contents
from policies.training.data.datasets import DatasetTask, find_tasks
from policies.training.data.encoding import shard_task, shard_tasks
from policies.training.data.packing import Mixture, Packer
from policies.training.optimizer import OptimiserConfig


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two tasks that look alike, one with a demonstration."""
    torch.manual_seed(0)
    prompt = prompt_from_episode(state_plan(), demonstration(5), capacity=16, cut="end")
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


TASK = "mujoco-pendulum"


def swing(number: int, steps: int = 6) -> Episode:
    """Invented numbers, all of return 6."""
    generator = np.random.default_rng(number)
    return Episode(
        task=TASK,
        observations=generator.uniform(-1, 1, (steps + 1, 4)),
        actions=generator.uniform(-1, 1, (steps, 1)).astype(np.float32),
        rewards=np.ones(steps, np.float32),
        terminations=np.zeros(steps, bool),
        truncations=np.array([False] * (steps - 1) + [True]),
        seed=number,
    )


def record(root: Path, numbers: tuple[int, ...]) -> Path:
    env = get_task(TASK).make()
    write_minari(f"gato/{TASK}-v0", map(swing, numbers), env=env, root=root, replace=True)
    env.close()
    return root / f"gato/{TASK}-v0"


class TestDatasets:
    """Of equal returns and lengths, or with arrays that do not belong together."""

    def tasks(self, dataset: Path) -> list[DatasetTask]:
        return find_tasks([dataset], share=0.0, group_by="suite")

    def actions(self, *numbers: int) -> list[list[int]]:
        (task,) = self.tasks(self.dataset)
        plan = task.plan()
        return np.concatenate([plan.encode_actions(swing(n).actions) for n in numbers]).tolist()

    @pytest.fixture(autouse=True)
    def _recorded(self, tmp_path: Path) -> None:
        self.dataset = record(tmp_path, (0, 1))

    def test_other_contents_make_another_shard(self, tmp_path: Path) -> None:
        def shards() -> list[list[list[int]]]:
            (task,) = tasks = self.tasks(self.dataset)
            both = (
                shard_tasks(tasks, tmp_path / "shards")[TASK],
                shard_task(task, tmp_path / "part", [(0, 0), (0, 1)]),
            )
            return [np.asarray(shard.arrays["actions"]).tolist() for shard in both]

        assert shards() == [self.actions(0, 1)] * 2
        record(tmp_path, (0, 2))
        assert shards() == [self.actions(0, 2)] * 2

    def test_a_copy_is_the_same_dataset(self, tmp_path: Path) -> None:
        shard_tasks(self.tasks(self.dataset), tmp_path / "shards")
        meta = tmp_path / "shards" / TASK / "meta.json"
        before = meta.stat().st_mtime_ns
        copied = shutil.copytree(self.dataset, tmp_path / "elsewhere")
        shard_tasks(self.tasks(Path(copied)), tmp_path / "shards")
        assert meta.stat().st_mtime_ns == before

    def test_a_shard_of_an_older_version_is_kept(self, tmp_path: Path) -> None:
        """Known by its returns alone, which it was made by; its statistics may be older, too."""
        tasks = self.tasks(self.dataset)
        shard_tasks(tasks, tmp_path / "shards")
        path = tmp_path / "shards" / TASK / "meta.json"
        meta = json.loads(path.read_text())
        # by hand what format 1 had: no contents, and a group of identities without them
        group = {task.id: task.identity(contents=False) for task in tasks}
        assert "contents" not in json.dumps(group)
        digest = hashlib.blake2b(json.dumps(group, sort_keys=True).encode(), digest_size=8)
        meta["made_of"] = {**group[TASK], "group": digest.hexdigest()}
        path.write_text(json.dumps(meta))
        before = path.stat().st_mtime_ns
        shard_tasks(tasks, tmp_path / "shards")
        assert path.stat().st_mtime_ns == before

    def test_a_run_is_not_resumed_on_other_contents(self, tmp_path: Path) -> None:
        (task,) = self.tasks(self.dataset)
        begun = {TASK: task.identity()}
        check_same(begun, {TASK: task.identity()}, tmp_path)
        record(tmp_path, (0, 2))
        (task,) = self.tasks(self.dataset)
        with pytest.raises(ValueError, match="holds a run with another configuration"):
            check_same(begun, {TASK: task.identity()}, tmp_path)
        check_same(without_contents(begun), {TASK: task.identity()}, tmp_path)

    @pytest.mark.parametrize(
        ("name", "length", "said"),
        [
            ("actions", 5, r"6 rewards, actions of length \[5\]"),
            ("actions", 7, r"6 rewards, actions of length \[7\]"),
            ("observations", 6, r"6 rewards, observations of length \[6\]"),
            ("rewards", 3, r"3 rewards, observations of length \[7\], actions of length \[6\]"),
            ("terminations", 5, r"6 rewards, terminations of length \[5\]"),
            ("rewards", 0, r"0 rewards"),
        ],
    )
    def test_episodes_whose_arrays_differ_in_length(
        self, tmp_path: Path, name: str, length: int, said: str
    ) -> None:
        with h5py.File(self.dataset / "data" / "main_data.hdf5", "r+") as file:
            array = file["episode_1"][name][()]
            del file["episode_1"][name]
            file["episode_1"][name] = np.resize(array, (length, *array.shape[1:]))
        episodes = episodes_of(find_minari(self.dataset))
        assert next(episodes).seed == 0
        match = rf"episode 1 of dataset 'gato/{TASK}-v0' has {said}.*: expected 1 or more"
        with pytest.raises(ValueError, match=match):
            next(episodes)
        with pytest.raises(ValueError, match=match):
            shard_tasks(self.tasks(self.dataset), tmp_path / "shards")


GRID = {
    "discrete_observations": [[3] + [1] * 147] * 2,
    "text_observations": ["go", "go"],
    "discrete_actions": [2, 1],
    "rewards": [0.0, 0.9],
}
ARM = {
    "continuous_observations": [[0.0, 1.0], [2.0, 3.0]],
    "continuous_actions": [[0.5], [0.25]],
    "rewards": [1.0, 2.0],
}
FRAMES = {
    "image_observations": np.full((2, 4, 4, 4), 255),
    "discrete_actions": [0, 1],
    "rewards": [0.0, 1.0],
}


class TestRows:
    """Of JAT's schema, with values that a cast would change."""

    @pytest.mark.parametrize(
        ("row", "column", "wrong", "said"),
        [
            (GRID, "discrete_observations", [[3] + [300] * 147] * 2, "from 3 to 300"),
            (GRID, "discrete_observations", [[3] + [-1] * 147] * 2, "from -1 to 3"),
            (GRID, "discrete_observations", [[3] + [0.7] * 147] * 2, "fractions"),
            (GRID, "discrete_observations", [[3] + [None] * 147] * 2, "dtype object"),
            (GRID, "discrete_observations", [[4] + [1] * 147] * 2, "directions are from 4 to 4"),
            (GRID, "discrete_actions", [0.7, 1], "fractions"),
            (GRID, "discrete_actions", [-1, 1], "from -1 to 1"),
            (GRID, "discrete_actions", [10**9, 1], "from 1 to 1000000000"),
            (GRID, "discrete_actions", [None, 1], "dtype object"),
            (GRID, "discrete_actions", [float("nan"), 1.0], "from nan to nan"),
            (GRID, "discrete_actions", ["2", "1"], "dtype <U1"),
            (GRID, "text_observations", ["go", None], "have None: expected texts"),
            (GRID, "rewards", [None, 0.9], r"rewards have nan at \(0,\)"),
            (ARM, "rewards", [1.0, 1e39], r"rewards have inf at \(1,\), expected finite"),
            (ARM, "continuous_observations", [[0.0, None], [2.0, 3.0]], r"nan at \(0, 1\)"),
            (ARM, "continuous_observations", [[0.0], [2.0, 3.0]], "no array of numbers"),
            (ARM, "continuous_actions", [[0.5], [None]], r"nan at \(1, 0\)"),
            (ARM, "continuous_actions", [[0.5], [float("-inf")]], r"-inf at \(1, 0\)"),
            (FRAMES, "image_observations", np.full((2, 4, 4, 4), 300), "from 300 to 300"),
            (FRAMES, "image_observations", np.full((2, 4, 4, 4), 0.7), "fractions"),
        ],
    )
    def test_what_is_no_value_of_its_column(
        self, row: dict[str, Any], column: str, wrong: Any, said: str
    ) -> None:
        episode_of_row(row)
        with pytest.raises(ValueError, match=said):
            episode_of_row({**row, column: wrong})

    def test_whole_numbers_may_be_written_as_floats(self) -> None:
        episode = episode_of_row({**GRID, "discrete_actions": [2.0, 1.0]})
        assert episode.actions.tolist() == [2, 1]
        assert episode.actions.dtype == np.int64

    def test_an_action_that_the_environment_does_not_have(self, tmp_path: Path) -> None:
        env = get_task("babyai-go-to-obj").make()
        row = {**GRID, "discrete_actions": [2, 7]}
        with pytest.raises(ValueError, match=r"row 0 has actions from 2 to 7: .* Discrete\(7\)"):
            import_rows([row], "jat/go-v0", env=env, root=tmp_path)
        env.close()


TRAIN = "--dataset my/cart-v0 --output run"


class TestSettings:
    """Numbers that mean something else than was typed, from a command line or from Python."""

    @pytest.mark.parametrize(
        "line",
        [
            *(f"train {TRAIN} --{flag} 0" for flag in (
                "rows", "length", "accumulate", "steps", "minutes", "threads", "workers", "until",
                "keep-every", "score-episodes",
            )),
            *(f"train {TRAIN} --{flag} nan" for flag in (
                "sigma", "minutes", "keep", "balance", "observation-noise", "depth-drop",
                "prompt-share", "held-out", "action-drop",
            )),
            *(f"train {TRAIN} --{flag} -1" for flag in (
                "rows", "threads", "sigma", "balance", "seed", "augment", "observation-weight",
            )),
            f"train {TRAIN} --sigma inf",
            f"train {TRAIN} --threads 10000000",
            f'train {TRAIN} --weights {{"a":-1}}',
            f'train {TRAIN} --weights {{"a":NaN}}',
            f'train {TRAIN} --emphasis {{"a":-0.5}}',
            f'train {TRAIN} --prompt-shares {{"a":1.5}}',
            "score CartPole-v1 --policy random --episodes 0",
            "record CartPole-v1 --policy random --dataset my/cart-v0 --episodes 0",
            "record CartPole-v1 --policy random --dataset my/cart-v0 --noise nan",
            "record CartPole-v1 --policy random --dataset my/cart-v0 --seed -1",
            "collect --episodes 0",
            "collect --steps 0",
            "collect --workers 0",
            "collect --noise nan",
            "collect --keep nan",
            "collect --time-limit inf",
            "expert train mujoco-pendulum --steps 0",
            "expert train mujoco-pendulum --steps nan",
            "expert train mujoco-pendulum --jobs 0",
            "expert train mujoco-pendulum --threads 0",
            "expert train mujoco-pendulum --minutes 0",
            "expert score mujoco-pendulum --episodes 0",
            "finetune --from gato-mini --dataset my/cart-v0 --output run --threads 0",
            "finetune --from gato-mini --dataset my/cart-v0 --output run --rate nan",
            "finetune --from gato-mini --dataset my/cart-v0 --output run --episodes 0,3",
            "scaling --dataset my/cart-v0 --output run --tokens nan",
            "scaling --dataset my/cart-v0 --output run --keep -0.5",
            "scaling --dataset my/cart-v0 --output run --threads 0",
            "bench --suite babyai --policy random --episodes 0",
            "bench --suite babyai --policy random --num-envs 0",
            "bench --suite babyai --policy random --episode-timeout nan",
            "bench --suite babyai --policy random --episode-timeout inf",
            "watch --task babyai-go-to-obj --episodes 0",
            "inspect CartPole-v1 --window 0",
            "speed tokenise --seconds 0",
            "speed tokenise --threads 0",
        ],
    )  # fmt: skip
    def test_a_command_line(
        self, line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        assert main(line.split()) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.match(r"error: (\w+: )?(--)?[\w-]+ is .*expected .*\d", error)
        assert not any(tmp_path.iterdir())

    def test_of_python(self) -> None:
        for make, said in (
            (lambda: TrainConfig(SMALL, Mixture({}), sigma=np.nan), "sigma is nan"),
            (lambda: TrainConfig(SMALL, Mixture({}), balance=np.inf), "balance is inf"),
            (lambda: Mixture({"a": "1"}), r"weights is \{'a': '1'\}: expected 0 or more"),  # type: ignore[dict-item]
            (lambda: Mixture({"a": -1.0}), r"weights is \{'a': -1.0\}: expected 0 or more"),
            (lambda: Mixture({}, observation_noise=np.nan), "observation_noise is nan"),
            (lambda: OptimiserConfig(rate=np.nan), "rate is nan: expected more than 0"),
            (lambda: OptimiserConfig(betas=(0.9, 1.5)), r"betas is \(0.9, 1.5\)"),
            (lambda: play_scores([], Any, 0), "episodes is 0: expected 1 or more"),
        ):
            with pytest.raises(ValueError, match=said):
                make()

    def test_weights_of_which_none_is_above_zero(self) -> None:
        shards = {"act": random_shard(state_plan(), "act")}
        with pytest.raises(ValueError, match="expected more than 0 for something to train on"):
            Packer(shards, Mixture({"act": 0.0}), SMALL, rows=1, length=64, seed=0)
