"""One training, from nothing or from where it stopped, to an expert's folder.

* :class:`TrainSettings` -- the arguments.
* :func:`train` -- trains; every evaluation writes the state, the curve and the best expert.

The output folder holds ``state.safetensors`` (see :mod:`policies.expert_training.training_state`),
``curve.csv`` and ``expert/``, the expert whose evaluation was best; and, until the training ends,
SAC's ``memory.safetensors`` (see :mod:`policies.expert_training.sb3.replay_buffer`).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gato_gym.files.atomic_io import write_whole
from gato_gym.files.folder_lock import FolderLock
from gato_gym.seeds import EVALUATION_SEEDS_START
from gato_gym.simulators import installed_versions
from gato_gym.tasks import get_suite, get_task
from policies.expert_training.evaluation import EVALUATION_ROWS, Evaluation, evaluate
from policies.expert_training.learner import Learner, make_learner
from policies.expert_training.recipe import Recipe
from policies.expert_training.recipes import recipe_for
from policies.expert_training.shipping import EXPERT_FOLDER, SCORE_EPISODES, score_expert
from policies.expert_training.training_state import (
    STATE_FILE,
    TrainingState,
    TrainingStateError,
    load_state,
    save_state,
)
from policies.expert_training.weight_averaging import Average
from policies.experts.store import (
    CURVE_FILE,
    Network,
    network_from,
    play_with,
    read_config,
    save_expert,
)
from policies.threads import one_thread

NOT_LEARNING = ("steps", "bar", "enough", "source", "evaluations", "evaluation_episodes")
"""What may change in a recipe before a training resumes: none of it affects the learning."""

ALL_STEPS, ENOUGH = "all steps done", "enough, and flat"
"""Why a training ends."""

DEFAULTS = {field.name: field.default for field in dataclasses.fields(Recipe)}
"""Hyperparameters of a training that began when recipes had fewer of them."""

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
        output: Folder; a training that is there is resumed.
        recipe: Hyperparameters; None takes the table's.
        seed: Decides weights, actions and episodes.
        until: Actions after which to stop for now, though the recipe has more; None: the recipe's.
        seconds: Wall-clock seconds after which to stop for now; None: no limit.
        score_episodes: Held-out episodes that score the expert when the training stops.
        tensorboard: Whether to write TensorBoard's events as well.
        callback: ``module:function`` that returns a Stable-Baselines3 callback; None for none.
        device: Where a game's network learns: "cpu", or "cuda".
        threads: Threads that play games.
    """

    task: str
    output: Path
    recipe: Recipe | None = None
    seed: int = 0
    until: int | None = None
    seconds: float | None = None
    score_episodes: int = SCORE_EPISODES
    tensorboard: bool = False
    callback: str | None = None
    device: str = "cpu"
    threads: int = 1


def train(settings: TrainSettings, *, console: Console) -> TrainingState:
    """Train an expert, or resume a training that was stopped.

    Args:
        settings: What to do.
        console: Where a line for each evaluation is shown.

    Returns:
        The state at the end; the expert is in ``output / "expert"``.

    Raises:
        FolderInUseError: Another process trains in the folder.
        ValueError: No recipe, or the folder holds a training with other hyperparameters.
        MissingPackageError: Stable-Baselines3, SBX or the simulator is not installed.
        KeyboardInterrupt: What was evaluated last is saved.
    """
    with one_thread(), FolderLock(settings.output):
        return _Training(settings, console).run()


class _Training:
    """A training under way."""

    def __init__(self, settings: TrainSettings, console: Console) -> None:
        task = get_task(settings.task)
        self.task_id, self.settings, self.console = task.id, settings, console
        self.recipe = settings.recipe or recipe_for(task.id)
        self.make_env, self.envs = task.make, [task.make() for _ in range(EVALUATION_ROWS)]
        self.env = self.envs[0]
        self.output = settings.output
        self.state, self.tensors = TrainingState(), dict[str, torch.Tensor]()
        self.best: Network | None = None
        self.average, self.sampled = Average(), 0
        self.deadline = (
            math.inf if settings.seconds is None else time.monotonic() + settings.seconds
        )
        self.setting: dict[str, Any] = {
            "task": task.id,
            "seed": settings.seed,
            "recipe": self.recipe.to_json(),
        }
        if (self.output / STATE_FILE).exists():
            self._take_up()

    def _steps_between_evaluations(self, learner: Learner) -> int:
        """At even distances; where evaluations have to play, they take a sixth of the steps."""
        recipe = self.recipe
        distance = recipe.steps // recipe.evaluations
        if learner.take_returns(0) is not None:
            return distance
        limit = (self.env.spec and self.env.spec.max_episode_steps) or 1000
        played = recipe.evaluation_episodes * limit // recipe.action_repeat
        return max(distance, LEARNING_TO_EVALUATION * played)

    def _take_up(self) -> None:
        path = self.output / STATE_FILE
        self.state, self.tensors, setting = load_state(path)
        # a resumed training began where it did, wherever others would begin now
        start = setting["recipe"].get("start")
        self.recipe = dataclasses.replace(self.recipe, start=start)
        recipe = self.setting["recipe"] = self.recipe.to_json()
        if setting["recipe"].get("evaluation_episodes") != self.recipe.evaluation_episodes:
            self.state.best = None  # over other episodes: what is evaluated next is the best
        saved = {name: value for name, value in setting["recipe"].items() if name in DEFAULTS}
        setting["recipe"] = DEFAULTS | saved | {name: recipe[name] for name in NOT_LEARNING}
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
        until = min(self.settings.until or self.recipe.steps, self.recipe.steps)
        if self.state.finished is None and self.state.steps < until:
            self._learn(until)
        if self.best is None or self._scored() or time.monotonic() >= self.deadline:
            return self.state
        self.best, score = score_expert(
            self.best,
            self.envs,
            episodes=self.settings.score_episodes,
            tried=self.recipe.evaluation_episodes,
        )
        self._save_expert(score)
        self.console.print(
            f"{self.task_id}: {self.state.finished or f'{self.state.steps:,} actions'}; "
            f"{score.mean:.1f} ± {score.std:.1f} over {score.episodes} held-out episodes "
            f"(bar {self.recipe.bar:g}), {self.state.seconds / 60:.1f} min",
            highlight=False,
            soft_wrap=True,
        )
        return self.state

    def _played(self, network: Network, episodes: int, first_seed: int) -> Evaluation:
        policy = play_with(network, self.env.observation_space, self.env.action_space)
        return Evaluation.of(evaluate(policy, self.envs, episodes, first_seed=first_seed))

    def _scored(self) -> bool:
        """Whether the folder holds the best network already, with its score."""
        folder = self.output / EXPERT_FOLDER
        if not (folder / "config.json").exists():
            return False
        config = read_config(folder)
        return config["score"] is not None and config["best_steps"] == self.state.best_steps

    def _learn(self, until: int) -> None:
        learner = make_learner(
            self.recipe,
            self.make_env,
            seed=self.settings.seed,
            steps=self.state.steps,
            updates=self.state.updates,
            device=self.settings.device,
            threads=self.settings.threads,
            tensorboard=self.output / "tensorboard" if self.settings.tensorboard else None,
            callback=self.settings.callback,
        )
        self._begin(learner)
        every = self._steps_between_evaluations(learner)
        started = _seconds(self.settings.device) - self.state.seconds

        def after_rollout() -> bool:
            """Evaluate at even distances; False once the training ends or has to stop."""
            late = time.monotonic() >= self.deadline
            if late or learner.steps // every > self.state.steps // every:
                self.evaluate(learner, _seconds(self.settings.device) - started)
            elif learner.steps % every >= (1 - AVERAGED) * every:
                self.sample(learner, every)
            return self.state.finished is None and not late

        learner.learn(until, after_rollout)
        if self.state.finished is None:
            if learner.steps >= self.recipe.steps:
                self.state.finished = ALL_STEPS
            if self.state.steps < learner.steps or self.best is None:
                self.evaluate(learner, _seconds(self.settings.device) - started, last=True)
            else:
                self._save(learner)
        learner.close()

    def _begin(self, learner: Learner) -> None:
        """Where the training was, or at what its recipe says."""
        start = self.recipe.start
        if self.tensors:
            learner.restore(self.tensors)
            learner.restore_memory(self.output)
        elif start is not None:
            others = None if start == self.task_id else self.output.parent
            begun = learner.start_from(start, others)
            self.console.print(f"{self.task_id}: {begun}", highlight=False, soft_wrap=True)

    def sample(self, learner: Learner, every: int) -> None:
        """Count the policy as it is into the mean that is evaluated next, if it is time to."""
        if learner.steps >= self.sampled + AVERAGED * every / SAMPLES:
            self.average.add(learner.network())
            self.sampled = learner.steps

    def evaluate(self, learner: Learner, seconds: float, *, last: bool = False) -> None:
        """Evaluate the mean policy, keep it if it is the best, and save everything."""
        state, recipe = self.state, self.recipe
        speed = (learner.steps - state.steps) / max(seconds - state.seconds, 1e-9)
        state.steps, state.updates, state.seconds = learner.steps, learner.updates, seconds
        returns = learner.take_returns(recipe.evaluation_episodes)
        if returns == []:  # too few games have ended
            if not last or self.best is not None:
                self._save(learner)
                return
            returns = None
        self.average.add(learner.network())
        network = self.average.take()
        if returns is None:
            score = self._played(network, recipe.evaluation_episodes, EVALUATION_SEEDS_START)
        else:
            score = Evaluation.of(returns)
        state.curve.append((state.steps, score.mean, score.std, round(seconds, 1)))
        better = state.best is None or score.mean > state.best
        if better:
            state.best, state.best_steps, self.best = score.mean, state.steps, network
            state.best_config = network.config()
        if state.finished is None and self._is_flat():
            state.finished = ENOUGH
        self._save(learner)
        if better:
            self._save_expert(None)
        left = max(recipe.steps - state.steps, 0) / max(speed, 1e-9)
        self.console.print(
            f"{self.task_id}: {state.steps:,} of {recipe.steps:,} actions, "
            f"return {score.mean:.1f} ± {score.std:.1f}, best {state.best:.1f} "
            f"(bar {recipe.bar:g}), {speed:,.0f} actions/s, {left / 60:.1f} min left",
            highlight=False,
            soft_wrap=True,
        )

    def _save(self, learner: Learner) -> None:
        tensors = learner.tensors()
        if self.best is not None:
            best = self.best.tensors().items()
            tensors |= {f"best/{name}": torch.from_numpy(part) for name, part in best}
        self.output.mkdir(parents=True, exist_ok=True)
        learner.save_memory(self.output, finished=self.state.finished is not None)
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
            "versions": installed_versions(self._packages()),
        }
        save_expert(self.output / EXPERT_FOLDER, self.best, record)

    def _packages(self) -> tuple[str, ...]:
        """What the result depends on."""
        suite = get_task(self.task_id).suite
        simulators = dict.fromkeys(("gymnasium", *get_suite(suite).simulators))
        if suite == "atari":
            return (*simulators, "torch")
        learner = ("torch",) if self.recipe.algorithm == "ppo" else ("sbx-rl", "jax")
        return (*simulators, "stable-baselines3", *learner)


def _seconds(device: str) -> float:
    """Processor time, where the processor learns: a busy machine makes no training longer."""
    return time.process_time() if device == "cpu" else time.monotonic()


def _flat(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {**setting, **setting["recipe"], "recipe": None}


def _write_curve(path: Path, state: TrainingState) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["steps", "return", "std", "seconds"])
    writer.writerows((s, f"{mean:.2f}", f"{std:.2f}", secs) for s, mean, std, secs in state.curve)
    write_whole(path, text.getvalue())
