"""One training, from nothing or from where it stopped, to an expert's folder.

* :class:`TrainSettings` -- the arguments.
* :func:`train` -- trains; every evaluation writes the state, the curve and the best expert.

The output folder holds ``state.safetensors`` (see :mod:`policies.expert_training.training_state`),
``curve.csv`` and ``expert/``, the expert whose evaluation was best; and, until the training ends,
SAC's ``memory.safetensors`` (see :mod:`policies.expert_training.replay_buffer`).
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from rich.console import Console

from gato_gym.atomic_io import write_whole
from policies.expert_training.algorithms import make_algorithm
from policies.expert_training.convert import network_of
from policies.expert_training.evaluation import EVALUATION_SEEDS_START, Evaluation, evaluate
from policies.expert_training.recipe import Recipe
from policies.expert_training.recipes import recipe_for
from policies.expert_training.replay_buffer import restore_memory, save_memory
from policies.expert_training.training_state import (
    STATE_FILE,
    TrainingState,
    TrainingStateError,
    load_state,
    restore,
    save_state,
    tensors_of,
)
from policies.expert_training.warm_start import CRITIC_ALONE, start_from
from policies.expert_training.weight_averaging import Average
from policies.experts.cnn import ImageNetwork
from policies.experts.store import Network, network_from, play_with, read_config, save_expert
from policies.threads import one_thread

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

CURVE_FILE, EXPERT_FOLDER = "curve.csv", "expert"
MEMORY_FILE = "memory.safetensors"
SCORE_SEEDS_START = EVALUATION_SEEDS_START + 1_000_000
NOT_LEARNING = ("steps", "bar", "enough", "source", "evaluations", "evaluation_episodes")
"""What may change in a recipe before a training goes on: none of it is of the learning itself."""

ALL_STEPS, ENOUGH = "all steps done", "enough, and flat"
"""Why a training ends."""

DEFAULTS = {field.name: field.default for field in dataclasses.fields(Recipe)}
"""Of hyperparameters, for a training that began when recipes had fewer of them."""

LEARNING_TO_EVALUATION = 5
"""Steps of learning for each step of evaluation, at least."""

AVERAGED, SAMPLES = 0.25, 25
"""What is evaluated is the mean of so many policies, from so late a part of the steps since the
evaluation before."""

FLAT_EVALUATIONS, FLAT = 3, 0.02
"""A training that has enough is flat when so many evaluations better it by less than this part."""


@dataclass(frozen=True)
class TrainSettings:
    """The arguments of a training.

    Attributes:
        task: Task id.
        output: Folder; a training that is there goes on.
        recipe: Hyperparameters; None takes the table's.
        seed: Of weights, actions and episodes.
        score_episodes: Held-out episodes that score the finished expert.
        tensorboard: Whether to write TensorBoard's events as well.
        device: Where PPO's networks learn: "cpu", or "cuda", which is quicker for images alone.
    """

    task: str
    output: Path
    recipe: Recipe | None = None
    seed: int = 0
    score_episodes: int = 30
    tensorboard: bool = False
    device: str = "cpu"


def train(settings: TrainSettings, *, console: Console) -> TrainingState:
    """Train an expert, or go on with a training that was stopped.

    Args:
        settings: What to do.
        console: Where a line for each evaluation is shown.

    Returns:
        The state at the end; the expert is in ``output / "expert"``.

    Raises:
        ValueError: No recipe, or the folder holds a training with other hyperparameters.
        MissingPackageError: Stable-Baselines3, SBX or the simulator is not installed.
        KeyboardInterrupt: What was evaluated last is saved.
    """
    from gato_gym.tasks import get_task
    from gato_gym.tasks.task import need

    task = get_task(settings.task)
    recipe = settings.recipe or recipe_for(task.id)
    with one_thread():
        need("stable_baselines3", "sb3")
        if recipe.algorithm == "sac":
            need("sbx", "sbx")
        return _Training(task.make, task.id, recipe, settings, console).run()


class _Training:
    """A training under way."""

    def __init__(
        self,
        make_env: Callable[[], gym.Env[Any, Any]],
        task_id: str,
        recipe: Recipe,
        settings: TrainSettings,
        console: Console,
    ) -> None:
        self.task_id, self.recipe, self.settings, self.console = task_id, recipe, settings, console
        self.make_env, self.env = make_env, make_env()
        self.output = settings.output
        self.state, self.tensors = TrainingState(), dict[str, torch.Tensor]()
        self.best: Network | None = None
        self.average, self.sampled = Average(), 0
        limit = (self.env.spec and self.env.spec.max_episode_steps) or 1000
        self.steps_between_evaluations = max(
            recipe.steps // recipe.evaluations,
            LEARNING_TO_EVALUATION * recipe.evaluation_episodes * limit // recipe.action_repeat,
        )
        self.setting: dict[str, Any] = {
            "task": task_id,
            "seed": settings.seed,
            "recipe": recipe.to_json(),
        }
        if (self.output / STATE_FILE).exists():
            self._take_up()

    def _take_up(self) -> None:
        path = self.output / STATE_FILE
        self.state, self.tensors, setting = load_state(path)
        asked = self.setting["recipe"]
        if setting["recipe"].get("evaluation_episodes") != self.recipe.evaluation_episodes:
            self.state.best = None  # over other episodes: what is evaluated next is the best
        saved = {name: value for name, value in setting["recipe"].items() if name in DEFAULTS}
        setting["recipe"] = DEFAULTS | saved | {name: asked[name] for name in NOT_LEARNING}
        if setting != self.setting:
            was, now = _flat(setting), _flat(self.setting)
            changed = [
                f"{name} {was.get(name)} -> {now[name]}"
                for name in now
                if was.get(name) != now[name]
            ]
            raise TrainingStateError(
                f"{path} was trained with other settings ({'; '.join(changed)}): pass another "
                "--output, or remove the folder to start afresh"
            )
        more = self.state.steps < self.recipe.steps
        if more and (self.state.finished == ALL_STEPS or not self._has_enough()):
            self.state.finished = None
        best = {
            k.removeprefix("best/"): t.numpy()
            for k, t in self.tensors.items()
            if k.startswith("best/")
        }
        if best:
            self.best = network_from(best, self.state.best_config)

    def run(self) -> TrainingState:
        if self.state.finished is None:
            self._learn()
        if self.best is None or self._scored():
            return self.state
        if isinstance(self.best, ImageNetwork):
            self.best = self._at_its_best(self.best)
        score = self._played(self.best, self.settings.score_episodes, SCORE_SEEDS_START)
        self._save_expert(score)
        self.console.print(
            f"{self.task_id}: {self.state.finished}; {score.mean:.1f} ± {score.std:.1f} over "
            f"{score.episodes} held-out episodes (bar {self.recipe.bar:g}), "
            f"{self.state.seconds / 60:.1f} min",
            highlight=False,
            soft_wrap=True,
        )
        return self.state

    def _played(self, network: Network, episodes: int, first_seed: int) -> Evaluation:
        policy = play_with(network, self.env.observation_space, self.env.action_space)
        return Evaluation.of(evaluate(policy, self.env, episodes, first_seed=first_seed))

    def _at_its_best(self, network: ImageNetwork) -> ImageNetwork:
        """By likeliest or by sampled actions, whichever scores more; not where it is scored."""

        def mean(manner: ImageNetwork) -> float:
            episodes = self.recipe.evaluation_episodes
            return self._played(manner, episodes, EVALUATION_SEEDS_START).mean

        manners = [dataclasses.replace(network, samples=samples) for samples in (False, True)]
        return max(manners, key=mean)

    def _scored(self) -> bool:
        """Whether the folder holds the best network already, with its score."""
        folder = self.output / EXPERT_FOLDER
        if not (folder / "config.json").exists():
            return False
        config = read_config(folder)
        return config["score"] is not None and config["best_steps"] == self.state.best_steps

    def _learn(self) -> None:
        from stable_baselines3.common.callbacks import BaseCallback

        recipe = self.recipe
        training, started = self, time.monotonic() - self.state.seconds
        algorithm = make_algorithm(
            self.recipe,
            self.make_env,
            seed=self.settings.seed,
            offset=self.state.steps,
            device=self.settings.device,
            tensorboard=self._tensorboard(),
        )
        if self.tensors:
            restore(algorithm, self.tensors)
            algorithm.num_timesteps = self.state.steps
            algorithm._n_updates = self.state.updates
            if recipe.start == self.task_id:
                algorithm.critic_alone = CRITIC_ALONE  # type: ignore[attr-defined]
            if (self.output / MEMORY_FILE).exists():
                restore_memory(self.output / MEMORY_FILE, algorithm.replay_buffer)  # type: ignore[attr-defined]
        elif recipe.start is not None:
            others = None if recipe.start == self.task_id else self.output.parent
            begun = start_from(algorithm, recipe.start, others)
            self.console.print(f"{self.task_id}: {begun}", highlight=False, soft_wrap=True)

        class Watch(BaseCallback):
            """Evaluates between rollouts, at even distances."""

            def _on_rollout_end(self) -> None:
                every = training.steps_between_evaluations
                if self.num_timesteps // every > training.state.steps // every:
                    training.evaluate(algorithm, time.monotonic() - started)
                elif self.num_timesteps % every >= (1 - AVERAGED) * every:
                    training.sample(algorithm)

            def _on_step(self) -> bool:
                return training.state.finished is None

        left = self.recipe.steps - self.state.steps
        algorithm.learn(left, callback=Watch(), log_interval=1, reset_num_timesteps=False)
        if self.state.finished is None:
            self.state.finished = ALL_STEPS
            if self.state.steps < algorithm.num_timesteps:
                self.evaluate(algorithm, time.monotonic() - started)
            else:
                self._save(algorithm)
        algorithm.get_env().close()  # type: ignore[union-attr]

    def sample(self, algorithm: BaseAlgorithm) -> None:
        """Count the policy as it is into the mean that is evaluated next, if it is time to."""
        distance = AVERAGED * self.steps_between_evaluations / SAMPLES
        if algorithm.num_timesteps >= self.sampled + distance:
            self.average.add(self._network_of(algorithm))
            self.sampled = algorithm.num_timesteps

    def _network_of(self, algorithm: BaseAlgorithm) -> Network:
        shape = self.env.observation_space.shape
        return network_of(algorithm, size=shape[0] if shape and self.recipe.inputs else None)

    def evaluate(self, algorithm: BaseAlgorithm, seconds: float) -> None:
        """Play held-out episodes, keep the network if it is the best, and save everything."""
        state, recipe = self.state, self.recipe
        self.average.add(self._network_of(algorithm))
        network = self.average.take()
        speed = (algorithm.num_timesteps - state.steps) / max(seconds - state.seconds, 1e-9)
        found = self._played(network, recipe.evaluation_episodes, EVALUATION_SEEDS_START)
        state.steps, state.updates = algorithm.num_timesteps, int(algorithm._n_updates)
        state.seconds = seconds
        state.curve.append((state.steps, found.mean, found.std, round(seconds, 1)))
        better = state.best is None or found.mean > state.best
        if better:
            state.best, state.best_steps, self.best = found.mean, state.steps, network
            state.best_config = network.config()
        if state.finished is None and self._is_flat():
            state.finished = ENOUGH
        self._save(algorithm)
        if better:
            self._save_expert(None)
        left = max(recipe.steps - state.steps, 0) / max(speed, 1e-9)
        self.console.print(
            f"{self.task_id}: {state.steps:,} of {recipe.steps:,} actions, "
            f"return {found.mean:.1f} ± {found.std:.1f}, best {state.best:.1f} "
            f"(bar {recipe.bar:g}), {speed:,.0f} actions/s, {left / 60:.1f} min left",
            highlight=False,
            soft_wrap=True,
        )

    def _save(self, algorithm: BaseAlgorithm) -> None:
        assert self.best is not None
        tensors = tensors_of(algorithm)
        tensors |= {f"best/{k}": torch.from_numpy(v) for k, v in self.best.tensors().items()}
        self.output.mkdir(parents=True, exist_ok=True)
        if self.state.finished is not None:
            (self.output / MEMORY_FILE).unlink(missing_ok=True)
        elif (memory := getattr(algorithm, "replay_buffer", None)) is not None:
            save_memory(self.output / MEMORY_FILE, memory)
        save_state(self.output / STATE_FILE, self.state, tensors, self.setting)
        _write_curve(self.output / CURVE_FILE, self.state)

    def _has_enough(self) -> bool:
        return self.state.best is not None and self.state.best >= self.recipe.enough

    def _is_flat(self) -> bool:
        means = [mean for _, mean, _, _ in self.state.curve]
        before, latest = means[:-FLAT_EVALUATIONS], means[-FLAT_EVALUATIONS:]
        if not before or not self._has_enough():
            return False
        return max(latest) - max(before) < FLAT * abs(max(before))

    def _save_expert(self, score: Evaluation | None) -> None:
        assert self.best is not None
        record = {
            "task": self.task_id,
            "algorithm": self.recipe.algorithm,
            "steps": self.state.steps,
            "best_steps": self.state.best_steps,
            "minutes": round(self.state.seconds / 60, 1),
            "seed": self.settings.seed,
            "score": None if score is None else dataclasses.asdict(score),
            "recipe": self.recipe.to_json(),
            "versions": {name: metadata.version(name) for name in self._packages()},
        }
        save_expert(self.output / EXPERT_FOLDER, self.best, record)

    def _packages(self) -> tuple[str, ...]:
        """What the result depends on."""
        learner = ("torch",) if self.recipe.algorithm == "ppo" else ("sbx-rl", "jax")
        simulator = "ale-py" if self.task_id.startswith("atari-") else "mujoco"
        return ("gymnasium", simulator, "stable-baselines3", *learner)

    def _tensorboard(self) -> Path | None:
        if not self.settings.tensorboard:
            return None
        if importlib.util.find_spec("tensorboard") is None:
            self.console.print(
                'TensorBoard is not installed: run pip install "gato-gym[tensorboard]"'
            )
            return None
        return self.output / "tensorboard"


def _flat(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {**setting, **setting["recipe"], "recipe": None}


def _write_curve(path: Path, state: TrainingState) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["steps", "return", "std", "seconds"])
    writer.writerows((s, f"{mean:.2f}", f"{std:.2f}", secs) for s, mean, std, secs in state.curve)
    write_whole(path, text.getvalue())
