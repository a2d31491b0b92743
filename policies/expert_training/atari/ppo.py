"""PPO for Atari in one process: ALE plays, a small network chooses and learns.

* :class:`AtariPPO` -- a :class:`policies.expert_training.learner.Learner` of one game.
* :func:`generalized_advantages` -- what a step was worth beyond what was expected.

Stable-Baselines3's PPO spends most of its time around the network; this one is the same algorithm
(Schulman et al., arXiv 1707.06347) and does nothing besides: rewards and frames stay in arrays that
are written by index, and a step of all games is one forward pass.

Shapes: T steps of a rollout, N games, C frames of a stack, A actions, B steps of a minibatch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gato_gym.seeds import TRAINING_SEEDS_START
from policies.expert_training.atari.games import TrainingGames, pixel_statistics
from policies.expert_training.atari.network import AtariNetwork
from policies.expert_training.recipe import Recipe
from policies.expert_training.training_state import TrainingStateError
from policies.experts.cnn import ImageNetwork
from policies.experts.store import load_expert, shipped_folder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

VALUE_WEIGHT, GRADIENT_NORM = 0.5, 0.5
"""As in Stable-Baselines3's PPO: the value's part of the loss, and the longest gradient."""

LAST_LEARNING_RATE = 0.1
"""What is left of the learning rate at the last step; it falls linearly."""

VALUE_ALONE = 20_000
"""Actions after which the policy learns, where it begins with an expert without a value."""


class AtariPPO:
    """PPO of one game.

    Args:
        game: ALE's name, such as ``BankHeist``.
        recipe: Hyperparameters; ``steps`` decides how fast the learning rate falls.
        seed: Decides weights, actions and episodes.
        steps: Actions done before, so that a run that is resumed meets other episodes.
        updates: Gradient steps done before.
        device: "cpu", where one thread learns, or "cuda".
        threads: ALE's threads.
        tensorboard: Folder of TensorBoard's events; None writes none.

    Attributes:
        steps: Actions so far, over all games.
        updates: Gradient steps so far.
    """

    def __init__(
        self,
        game: str,
        recipe: Recipe,
        *,
        seed: int,
        steps: int = 0,
        updates: int = 0,
        device: str = "cpu",
        threads: int = 1,
        tensorboard: Path | None = None,
    ) -> None:
        self.recipe, self.steps, self.updates = recipe, steps, updates
        self._device = torch.device(device)
        self._precision = _learning_precision(self._device)
        torch.set_num_threads(1)
        torch.manual_seed(seed + steps)
        self._random = np.random.default_rng([seed, steps])
        self._seed = TRAINING_SEEDS_START + (seed * 1_009 + steps * 31) % 2**30
        self._games = TrainingGames(
            game, recipe.num_envs, threads=threads, repeat=recipe.action_repeat
        )
        self._model = AtariNetwork(self._games.actions, width=recipe.width)
        mean, scale = pixel_statistics(self._games, self._seed)
        self._model.mean.copy_(mean)
        self._model.scale.copy_(scale)
        self._model.to(self._device)
        self._optimizer = torch.optim.Adam(
            self._model.parameters(), lr=recipe.learning_rate, eps=1e-5, fused=True
        )
        self._rollout = _Rollout(recipe.n_steps, recipe.num_envs)
        self._frames: NDArray[np.uint8] | None = None
        self._value_alone_until = 0
        self._writer: SummaryWriter | None = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard))

    def learn(self, until: int, after_rollout: Callable[[], bool]) -> None:
        """Play and learn up to ``until`` actions, or until ``after_rollout`` answers False."""
        if self._frames is None:
            self._frames = self._games.reset(self._seed)
        while self.steps < until:
            self._play()
            self._update()
            if not after_rollout():
                return

    def take_returns(self, least: int) -> list[float]:
        """Returns of the whole games that ended since the last ones that were taken."""
        if not 0 < least <= len(self._games.finished):
            return []
        returns = list(self._games.finished)
        self._games.finished.clear()
        return returns

    def network(self) -> ImageNetwork:
        """The expert as it is."""
        return self._model.to_expert()

    def start_from(self, task: str, trainings: Path | None) -> str:
        """Begin with the weights of the package's expert of this game.

        Raises:
            TrainingStateError: There is none, or it does not fit this recipe.
        """
        folder = shipped_folder(task)
        if not folder.is_dir():
            raise TrainingStateError(
                f"no expert of {task} comes with this gato-gym: train it without --from-expert"
            )
        expert = load_expert(folder)
        try:
            if not isinstance(expert, ImageNetwork):
                raise ValueError("it sees no images")
            self._model.load_expert(expert)
        except ValueError as error:
            raise TrainingStateError(
                f"the expert of {task} does not fit this recipe ({error}): train it without "
                "--from-expert"
            ) from error
        if expert.value is None:
            self._value_alone_until = self.steps + VALUE_ALONE
        return f"starts from the expert of {task}"

    def tensors(self) -> dict[str, Tensor]:
        """Weights and the optimiser's state, by names with "/" between parts."""
        saved = {f"model/{name}": part for name, part in self._model.state_dict().items()}
        for index, entry in self._optimizer.state_dict()["state"].items():
            saved |= {f"optimizer/{index}/{key}": part for key, part in entry.items()}
        return saved

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the tensors of :meth:`tensors` back.

        Raises:
            TrainingStateError: They are of another network.
        """
        model: dict[str, Tensor] = {}
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, key = name.partition("/")
            if part == "model":
                model[key] = tensor
            elif part == "optimizer":
                index, _, slot = key.partition("/")
                entries.setdefault(int(index), {})[slot] = tensor
        try:
            self._model.load_state_dict(model)
            groups = self._optimizer.state_dict()["param_groups"]
            self._optimizer.load_state_dict({"state": entries, "param_groups": groups})
        except (RuntimeError, ValueError) as error:
            raise TrainingStateError(
                f"the saved training does not fit this recipe ({error}): remove it to start afresh"
            ) from error

    def save_memory(self, folder: Path, *, finished: bool) -> None:
        """PPO remembers nothing beside its weights."""

    def restore_memory(self, folder: Path) -> None:
        """PPO remembers nothing beside its weights."""

    def close(self) -> None:
        """Finish TensorBoard's events; ALE's games hold memory alone."""
        if self._writer is not None:
            self._writer.close()

    def _play(self) -> None:
        """Fill the rollout."""
        rollout, frames = self._rollout, self._frames
        assert frames is not None
        rows = np.arange(self.recipe.num_envs)
        for t in range(self.recipe.n_steps):
            rollout.frames[t] = frames
            logits, rollout.values[t] = self._forward(frames)
            log_probabilities = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            # the largest of logits with Gumbel noise is a sample of their softmax
            actions = (logits + self._random.gumbel(size=logits.shape)).argmax(1)
            step = self._games.step(actions)
            rollout.actions[t] = actions
            rollout.log_probabilities[t] = log_probabilities[rows, actions]
            rollout.rewards[t], rollout.ended[t] = step.rewards, step.ended
            frames = step.frames
        _, rollout.values[-1] = self._forward(frames)
        self._frames = frames
        self.steps += rollout.actions.size

    def _forward(
        self, frames: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode(), self._autocast():
            logits, values = self._model(torch.from_numpy(frames).to(self._device))
        return logits.cpu().numpy(), values.cpu().numpy()

    def _autocast(self) -> torch.autocast:
        precision = self._precision
        return torch.autocast(self._device.type, precision, enabled=precision is not torch.float32)

    def _update(self) -> None:
        """Passes over the rollout in minibatches, each in another order."""
        recipe = self.recipe
        left = max(0.0, 1 - self.steps / recipe.steps)
        rate = recipe.learning_rate * (LAST_LEARNING_RATE + (1 - LAST_LEARNING_RATE) * left)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        batch = self._rollout.as_batch(recipe.gamma, recipe.gae_lambda, self._device)
        size = len(batch["actions"])
        for _ in range(recipe.n_epochs):
            order = torch.from_numpy(self._random.permutation(size)).to(self._device)
            for chosen in order.split(recipe.batch_size):
                loss = self._loss({name: part[chosen] for name, part in batch.items()})
                self._optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self._model.parameters(), GRADIENT_NORM)
                self._optimizer.step()
                self.updates += 1
        if self._writer is not None:
            self._writer.add_scalar("train/loss", loss.item(), self.steps)
            self._writer.add_scalar("train/learning_rate", rate, self.steps)

    def _loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Clipped policy loss, squared value error and entropy bonus of a minibatch."""
        recipe = self.recipe
        with self._autocast():
            logits_BA, values_B = self._model(batch["frames"])
        log_probabilities_BA = logits_BA.log_softmax(1)
        taken_B = log_probabilities_BA.gather(1, batch["actions"][:, None]).squeeze(1)
        advantages_B = batch["advantages"]
        advantages_B = (advantages_B - advantages_B.mean()) / (advantages_B.std() + 1e-8)
        ratio_B = (taken_B - batch["log_probabilities"]).exp()
        clipped_B = ratio_B.clamp(1 - recipe.clip_range, 1 + recipe.clip_range)
        policy_loss = -torch.min(advantages_B * ratio_B, advantages_B * clipped_B).mean()
        value_loss = (values_B - batch["returns"]).square().mean()
        entropy = -(log_probabilities_BA.exp() * log_probabilities_BA).sum(1).mean()
        if self.steps < self._value_alone_until:
            return VALUE_WEIGHT * value_loss
        return policy_loss + VALUE_WEIGHT * value_loss - recipe.ent_coef * entropy


class _Rollout:
    """Arrays of one rollout, written by index and used again."""

    def __init__(self, steps: int, games: int) -> None:
        shape = steps, games
        self.frames: NDArray[np.uint8] = np.zeros((*shape, 4, 42, 42), np.uint8)
        self.actions: NDArray[np.int64] = np.zeros(shape, np.int64)
        self.log_probabilities: NDArray[np.float32] = np.zeros(shape, np.float32)
        self.rewards: NDArray[np.float32] = np.zeros(shape, np.float32)
        self.ended: NDArray[np.bool_] = np.zeros(shape, np.bool_)
        self.values: NDArray[np.float32] = np.zeros((steps + 1, games), np.float32)

    def as_batch(self, gamma: float, gae_lambda: float, device: torch.device) -> dict[str, Tensor]:
        """Everything that a loss reads, each ``[T * N, ...]``."""
        advantages = generalized_advantages(
            self.rewards, self.values, self.ended, gamma=gamma, gae_lambda=gae_lambda
        )
        parts = {
            "frames": self.frames.reshape(-1, *self.frames.shape[2:]),
            "actions": self.actions.reshape(-1),
            "log_probabilities": self.log_probabilities.reshape(-1),
            "advantages": advantages.reshape(-1),
            "returns": (advantages + self.values[:-1]).reshape(-1),
        }
        return {name: torch.from_numpy(part).to(device) for name, part in parts.items()}


def generalized_advantages(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    ended: NDArray[np.bool_],
    *,
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float32]:
    """Advantages of a rollout (Schulman et al., arXiv 1506.02438, equations 11 and 16).

    Args:
        rewards: float32 ``[T, N]``.
        values: float32 ``[T + 1, N]``, the last of what follows the rollout.
        ended: bool ``[T, N]``, where a step was the last of what its return counts.
        gamma: Discount of a step.
        gae_lambda: Weight of later estimates, within [0, 1].

    Returns:
        float32 ``[T, N]``.

    Example:
        >>> ones, zeros = np.ones((2, 1), np.float32), np.zeros((3, 1), np.float32)
        >>> generalized_advantages(
        ...     ones, zeros, np.zeros((2, 1), bool), gamma=0.5, gae_lambda=1.0
        ... )[:, 0].tolist()
        [1.5, 1.0]
    """
    advantages = np.zeros_like(rewards)
    following = np.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        goes_on = 1.0 - ended[t].astype(np.float32)
        error = rewards[t] + gamma * values[t + 1] * goes_on - values[t]
        following = error + gamma * gae_lambda * goes_on * following
        advantages[t] = following
    return advantages


def _learning_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies matrices of it, else float32."""
    if device.type == "cuda":
        return torch.bfloat16
    return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else torch.float32
