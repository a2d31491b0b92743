"""Imitate, then reinforce: a checkpoint's task by PPO, resumable, in one folder.

* :func:`reinforce` -- from a checkpoint to a better one, and a report.

The folder holds ``checkpoint/``, which ``GatoPolicy.load`` finds by the folder's name,
``training/`` (what a run is resumed from, ``before.json`` with the scores that it began with),
``shards/`` (the imitated episodes as tokens) and, at the end, ``report.json``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import gato_gym
from gato_gym.files.atomic_io import write_json
from gato_gym.files.bounded_io import plain_json, read_json
from gato_gym.files.folder_lock import FolderLock
from gato_gym.seeds import TRAINING_SEEDS_START
from policies.collection.scores import Scores, play_scores
from policies.expert_training.sb3.algorithm_state import restore, tensors_of
from policies.expert_training.training_state import (
    STATE_FILE,
    TrainingState,
    load_state,
    save_state,
)
from policies.gato.checkpoint import (
    checkpoint_digest,
    load_checkpoint,
    read_sizes,
    read_tasks,
)
from policies.gato.checkpoint_folder import RUN_CHECKPOINT, RUN_STATE, locate_checkpoint
from policies.gato.policy import GatoPolicy
from policies.gato.task_specs import check_sizes, find_task
from policies.model.quantization import choose_device
from policies.rollout.faults import close_env
from policies.sb3.callbacks import SIGMA, CriticFirst, Imitation
from policies.sb3.history import history_env
from policies.sb3.policy import GatoActorCriticPolicy
from policies.sb3.settings import ReinforceSettings
from policies.training.config import check_same
from policies.training.data.packing import Mixture, Packer
from policies.training.families.gato import GatoFamily
from policies.training.loss import mean_losses
from policies.training.metrics import bars, tensorboard_missing
from policies.training.run import tasks_of
from policies.training.settings import TrainSettings
from policies.training.trainer import Interrupts

NOT_LEARNING = ("output", "steps", "check_tasks", "episodes", "save_every", "tensorboard", "device")
"""Settings that may change before a run resumes."""

IMITATION_LENGTH, MEASURED_FROM, MEASURED = 128, 2**40, 8
"""Tokens of an imitated sequence; the batches, never trained on, whose loss is reported."""

ROWS = 8
"""Environments that are scored at a time."""


def reinforce(settings: ReinforceSettings, *, console: Console) -> dict[str, Any]:
    """Improve one task of a checkpoint by PPO, or resume a run that was stopped.

    What an interrupted run forgets are the episodes under way: it resumes with fresh ones.

    Args:
        settings: What to do.
        console: Where it reports.

    Returns:
        The report, as ``report.json`` has it.

    Raises:
        KeyboardInterrupt: It was stopped and saved; the same settings resume it.
        FolderInUseError: Another process works in the folder.
        ValueError: The folder holds a run with other settings, or the checkpoint does not know a
            task.
    """
    with FolderLock(settings.output):
        return _Run(settings, console).run()


class _Run:
    """A run under way."""

    def __init__(self, settings: ReinforceSettings, console: Console) -> None:
        self.settings, self.console = settings, console
        self.source = locate_checkpoint(settings.source)
        self.checkpoint = settings.output / RUN_CHECKPOINT
        self.training = settings.output / RUN_STATE
        for task in (settings.task, *settings.check_tasks):
            find_task(read_tasks(self.source), None, task)
        names = {field.name for field in dataclasses.fields(ReinforceSettings)}
        learning = {name: getattr(settings, name) for name in names.difference(NOT_LEARNING)}
        self.setting = plain_json({**learning, "source": checkpoint_digest(self.source)})
        self.state, self.tensors = TrainingState(), dict[str, torch.Tensor]()
        if (path := self.training / STATE_FILE).exists():
            self.state, self.tensors, setting = load_state(path)
            check_same(setting, self.setting, settings.output)
        self.packer = self._packer() if settings.datasets and settings.imitation else None

    def run(self) -> dict[str, Any]:
        before = self._before()
        algorithm = self._algorithm()
        try:
            self._learn(algorithm)
            loss = self._imitation_loss(algorithm.policy.network)
        finally:
            if (envs := algorithm.get_env()) is not None:
                envs.close()
        after = {task: self._score(self.checkpoint, task) for task in before["tasks"]}
        report = {
            "task": self.settings.task,
            "steps": self.state.steps,
            "minutes": self.state.seconds / 60,
            "imitation_loss": {"before": before["imitation_loss"], "after": loss},
            "curve": self.state.curve,
            "tasks": {
                task: {"before": before["tasks"][task], "after": scores.to_json()}
                for task, scores in after.items()
            },
        }
        write_json(self.settings.output / "report.json", report)
        for task, scores in after.items():
            self._say(task, Scores.from_json(before["tasks"][task]), scores)
        return report

    def _say(self, task: str, before: Scores, after: Scores) -> None:
        words = f"{task}: return {before.mean:.3f} before, {after.mean:.3f} after"
        if before.success is not None and after.success is not None:
            words += f"; success {before.success:.0%} before, {after.success:.0%} after"
        words += f"; {self.settings.episodes} episodes"
        self.console.print(words, highlight=False, markup=False)

    def _before(self) -> dict[str, Any]:
        """Scores and loss of the checkpoint that the run begins with, measured once."""
        path, tasks = (
            self.training / "before.json",
            (self.settings.task, *self.settings.check_tasks),
        )
        kept: dict[str, Any] = read_json(path) if path.exists() else {"tasks": {}}
        episodes = self.settings.episodes
        played = {t: s for t, s in kept["tasks"].items() if len(s["returns"]) == episodes}
        for task in tasks:
            if task not in played:
                played[task] = self._score(self.source, task).to_json()
        loss = kept.get("imitation_loss")
        if loss is None and self.packer is not None:
            loss = self._imitation_loss(load_checkpoint(self.source).network)
        before = {"tasks": {task: played[task] for task in tasks}, "imitation_loss": loss}
        self.training.mkdir(parents=True, exist_ok=True)
        write_json(path, before)
        return before

    def _score(self, checkpoint: Path, task: str) -> Scores:
        """Of the checkpoint's own way to choose actions, on the benchmark's first seeds."""
        episodes = self.settings.episodes
        envs = [gato_gym.make(task) for _ in range(min(ROWS, episodes))]
        try:
            policy = GatoPolicy.load(checkpoint, env=envs[0], task=task)
            return play_scores(envs, policy, episodes)
        finally:
            for env in envs:
                close_env(env)

    def _packer(self) -> Packer:
        """Batches of the episodes that are imitated, as the checkpoint reads them."""
        asked = self.settings
        settings = TrainSettings(asked.datasets, asked.output, start=str(self.source))
        family, sizes = GatoFamily(), read_sizes(self.source)
        tasks = family.take_up(tasks_of(settings), settings.start)
        for task in tasks:
            check_sizes(sizes, task.plan(), length=IMITATION_LENGTH, task=task.id)
        shards, _ = family.encode(tasks, (), settings, sizes)
        mixture = Mixture({task.group: 1.0 for task in tasks})
        return Packer(
            shards, mixture, sizes, rows=asked.imitation_rows, length=IMITATION_LENGTH,
            seed=asked.seed,
        )  # fmt: skip

    def _imitation_loss(self, network: Any) -> float | None:
        """Mean loss of batches that are not trained on; None where nothing is imitated."""
        if self.packer is None:
            return None
        batches = [
            self.packer.batch(MEASURED_FROM + number).to(network.head.weight.device)
            for number in range(MEASURED)
        ]
        return mean_losses(network, batches, sigma=SIGMA)["loss"]

    def _algorithm(self) -> PPO:
        """PPO, where the run was."""
        asked, steps = self.settings, self.state.steps
        if asked.tensorboard and (missing := tensorboard_missing()):
            self.console.print(missing, highlight=False, markup=False)
        make: Callable[[], gym.Env[Any, Any]] = partial(self._environment, asked.task)
        envs = VecNormalize(DummyVecEnv([make] * asked.num_envs), norm_obs=False, gamma=asked.gamma)
        logs = asked.tensorboard and not tensorboard_missing()
        algorithm = PPO(
            GatoActorCriticPolicy,
            envs,
            learning_rate=asked.rate,
            n_steps=asked.rollout,
            batch_size=asked.batch_size,
            n_epochs=asked.epochs,
            gamma=asked.gamma,
            clip_range=asked.clip,
            ent_coef=asked.entropy,
            target_kl=asked.target_kl,
            policy_kwargs={
                "checkpoint": self.source,
                "deviation": asked.deviation,
                "value_rate": asked.value_rate,
                "precision": asked.precision,
            },
            tensorboard_log=str(self.training / "tensorboard") if logs else None,
            seed=asked.seed + steps,
            device=choose_device(asked.device),
        )
        envs.seed(TRAINING_SEEDS_START + (asked.seed * 1_009 + steps * 31) % 2**30)
        algorithm.num_timesteps, algorithm._n_updates = steps, self.state.updates
        if self.tensors:
            restore(algorithm, self.tensors)
            self.console.print(f"resuming at step {steps}", highlight=False)
        return algorithm

    def _environment(self, task: str) -> gym.Env[Any, Any]:
        env = gato_gym.make(task)
        return Monitor(history_env(env, self.source, task=task, timesteps=self.settings.timesteps))

    def _learn(self, algorithm: PPO) -> None:
        asked, begun = self.settings, time.monotonic() - self.state.seconds
        alone = asked.steps // 10 if asked.critic_steps is None else asked.critic_steps
        more: list[BaseCallback] = [CriticFirst(alone)]
        if self.packer is not None:
            more.append(Imitation(self.packer.batch, weight=asked.imitation))
        with bars(shown=self.console.is_terminal) as progress, Interrupts() as interrupts:
            bar = progress.add_task(
                "reinforce", total=asked.steps, completed=self.state.steps, state="first rollout"
            )

            def after_update(rollouts: int) -> bool:
                """Between updates: report and save; False once the run is to stop."""
                self._note(algorithm, time.monotonic() - begun)
                line = self._line()
                progress.update(bar, completed=self.state.steps, state=line)
                if interrupts.asked or not rollouts % asked.save_every:
                    self.console.print(f"step {self.state.steps}: {line}", highlight=False)
                    self._save(algorithm)
                return not interrupts.asked

            if self.state.steps < asked.steps:
                algorithm.learn(
                    asked.steps - self.state.steps,
                    callback=[_AfterUpdate(after_update), *more],
                    reset_num_timesteps=False,
                )
            if interrupts.asked:
                raise KeyboardInterrupt(
                    f"stopped at step {self.state.steps}: run the same command again to resume"
                )
        self._note(algorithm, time.monotonic() - begun)
        self._save(algorithm)

    def _note(self, algorithm: PPO, seconds: float) -> None:
        state = self.state
        state.steps, state.updates = algorithm.num_timesteps, algorithm._n_updates
        state.seconds = seconds
        returns = [info["r"] for info in algorithm.ep_info_buffer or ()]
        if returns and (not state.curve or state.curve[-1][0] < state.steps):
            spread = float(np.std(returns))
            state.curve.append((state.steps, float(np.mean(returns)), spread, seconds))

    def _line(self) -> str:
        if not self.state.curve:
            return "no episode has ended"
        return f"return {self.state.curve[-1][1]:.3f} in the last episodes"

    def _save(self, algorithm: PPO) -> None:
        policy = algorithm.policy
        assert isinstance(policy, GatoActorCriticPolicy)
        asked = self.settings
        card = (
            f"# {asked.output.name}\n\nThe checkpoint {asked.source}, whose task {asked.task} was "
            f"reinforced by PPO for {self.state.steps:,} steps.\n"
        )
        policy.save_checkpoint(self.checkpoint, card=card)
        save_state(self.training / STATE_FILE, self.state, tensors_of(algorithm), self.setting)


class _AfterUpdate(BaseCallback):
    """Asks between updates whether to continue."""

    def __init__(self, after_update: Callable[[int], bool]) -> None:
        super().__init__()
        self.after_update, self.rollouts, self.goes_on = after_update, 0, True

    def _on_rollout_start(self) -> None:
        if self.rollouts:
            self.goes_on = self.after_update(self.rollouts)
        self.rollouts += 1

    def _on_step(self) -> bool:
        return self.goes_on
