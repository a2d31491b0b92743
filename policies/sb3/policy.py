"""A checkpoint as a policy class of Stable-Baselines3.

* :class:`GatoActorCriticPolicy` -- a Gato network that acts, with a value head.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from policies.gato.checkpoint import load_checkpoint, save_checkpoint
from policies.gato.decoder import alike_places
from policies.gato.task_specs import check_sizes
from policies.model.network import PackedBatch, Targets
from policies.sb3.choices import Choice, TokenChoices
from policies.sb3.history import HistorySpace
from policies.sb3.sequences import HistoryBatch, pack_histories
from policies.sb3.settings import PRECISIONS


class GatoActorCriticPolicy(ActorCriticPolicy):
    """A Gato network for PPO or A2C, in environments of :func:`policies.sb3.history.history_env`.

    It acts as :class:`policies.gato.policy.GatoPolicy` does on the same checkpoint: its actions are
    those tokens, sampled from the same distribution over the legal ids. Where the network regresses
    a continuous action, which then has no distribution, the bins are chosen by a Gaussian around
    the number, whose deviation is learned. ``top_p`` is left out of the sampling, for actions that
    it excludes could not be learned. The value is read from the newest timestep's hidden vector,
    and its loss trains the value head alone: a new head's errors do not reach the network.

    Args:
        observation_space: Of :class:`policies.sb3.history.TokenHistory`.
        action_space: Offsets of action tokens.
        lr_schedule: Learning rate.
        use_sde: Has to be False.
        checkpoint: As :meth:`policies.gato.policy.GatoPolicy.load` takes it.
        deviation: First standard deviation around regressed actions, in units of [-1, 1].
        value_rate: Learning rate of the value head and of that deviation, which begin from nothing;
            ``lr_schedule`` is that of the network, for which it would be too large.
        precision: Of the network's products in updates, "float32" or "bfloat16". Actions are always
            chosen in float32.
        optimizer_class: The optimiser; any of torch.
        optimizer_kwargs: Its arguments beside the learning rate.

    Attributes:
        network: The weights; :meth:`save_checkpoint` writes them.

    Raises:
        ValueError: The environment is not wrapped, or a setting cannot be used.

    Example:
        >>> from stable_baselines3 import PPO
        >>> from gato_gym import get_task
        >>> from policies.sb3 import GatoActorCriticPolicy, history_env
        >>> env = history_env(get_task("mujoco-pendulum").make(), "gato-mini")
        >>> more = dict(checkpoint="gato-mini")
        >>> agent = PPO(GatoActorCriticPolicy, env, n_steps=8, batch_size=8, policy_kwargs=more)
        >>> action, _ = agent.predict(env.reset(seed=0)[0])
        >>> env.action_space.contains(action)
        True
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        lr_schedule: Schedule,
        use_sde: bool = False,
        *,
        checkpoint: str | Path,
        deviation: float = 0.1,
        value_rate: float = 1e-3,
        precision: str = "float32",
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(observation_space, HistorySpace):
            raise ValueError(
                f"the observation space is a {type(observation_space).__name__}: expected that of "
                "history_env(env, checkpoint), which holds what the network remembers"
            )
        if use_sde:
            raise ValueError("use_sde is True: expected False, a token's choice has no such noise")
        for name, number in (("deviation", deviation), ("value_rate", value_rate)):
            if not number > 0:
                raise ValueError(f"{name} is {number}: expected more than 0")
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}: expected {' or '.join(PRECISIONS)}")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        loaded = load_checkpoint(checkpoint)
        self.plan, self.task = observation_space.plan, observation_space.task
        self.network, self.tasks, self.sampler = loaded.network, loaded.tasks, loaded.sampler
        check_sizes(self.network.config, self.plan)
        record = self.tasks.get(self.task or "")
        self.prompt = record.prompt if record is not None and record.prompted else None
        named = self.network.config.tasks
        self.task_row = named.index(self.task) if self.task in named else -1
        width, count = self.network.config.width, self.plan.num_actions
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.value_head = nn.Sequential(nn.Linear(width, width), nn.Tanh(), last)
        if self._regresses:
            self.log_std = nn.Parameter(torch.full((count,), float(np.log(deviation))))
        self.value_rate, self.precision = value_rate, precision
        new = [p for name, p in self.named_parameters() if not name.startswith("network.")]
        self.optimizer = optimizer_class(
            [{"params": list(self.network.parameters())}, {"params": new}],
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )
        self.optimizer.register_step_pre_hook(self._set_value_rate)

    def _set_value_rate(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Before a step: Stable-Baselines3 gives all groups one rate."""
        optimizer.param_groups[-1]["lr"] = self.value_rate

    def _build(self, lr_schedule: Schedule) -> None:
        """Make nothing: the network is the checkpoint's."""

    @property
    def _regresses(self) -> bool:
        regression = self.network.config.continuous_head == "regression"
        return regression and bool(self.plan.action_is_continuous.any())

    def train_actor(self, trained: bool) -> None:
        """Whether updates change the network, or the value head alone."""
        for name, parameter in self.named_parameters():
            if not name.startswith("value_head."):
                parameter.requires_grad_(trained)

    def forward(
        self, obs: PyTorchObs, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Actions int64 ``[B, A]``, values ``[B, 1]`` and log-probabilities ``[B]``."""
        offsets, choices, values = self._act(obs, deterministic)
        return offsets, values, choices.log_prob(offsets)

    def _act(self, obs: PyTorchObs, deterministic: bool) -> tuple[Tensor, TokenChoices, Tensor]:
        """Actions, what they were chosen from, and values.

        One pass for all action tokens, or for each where one is chosen after another.
        """
        count = self.plan.num_actions
        rows = len(next(iter(_parts(obs).values())))
        offsets = torch.zeros(rows, count, dtype=torch.int64, device=self.device)
        passes = 1 if self.plan.has_parallel_actions else count
        for number in range(passes):
            choices, values = self._choices(obs, offsets)
            chosen = choices.mode() if deterministic else choices.sample()
            first, stop = (0, count) if passes == 1 else (number, number + 1)
            offsets[:, first:stop] = chosen[:, first:stop]
        return offsets, choices, values

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return self._act(observation, deterministic)[0]

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values ``[B, 1]``, log-probabilities of ``[B, A]`` and entropy over legal actions."""
        offsets = actions.long()
        choices, values = self._choices(obs, offsets)
        return values, choices.log_prob(offsets), choices.entropy()

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Values ``[B, 1]``."""
        rows = len(next(iter(_parts(obs).values())))
        offsets = torch.zeros(rows, self.plan.num_actions, dtype=torch.int64, device=self.device)
        return self._choices(obs, offsets)[1]

    def get_distribution(self, obs: PyTorchObs) -> NoReturn:
        """Refused: :meth:`evaluate_actions` has log-probabilities and entropy.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "action tokens have no distribution of Stable-Baselines3: use evaluate_actions"
        )

    def _choices(self, obs: PyTorchObs, offsets: Tensor) -> tuple[TokenChoices, Tensor]:
        """What each action token is chosen from after those of ``offsets`` before it; values."""
        histories = {name: part.cpu().numpy() for name, part in _parts(obs).items()}
        first = self.plan.action_ranges[:, 0]
        packed = pack_histories(
            self.plan,
            histories,
            offsets.cpu().numpy() + first,
            first_position=self.network.config.prompt_tokens,
            task_row=self.task_row,
            prompt=self.prompt,
        )
        half = self.precision == "bfloat16" and torch.is_grad_enabled()  # in updates alone
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            hidden_HD = self.network(self._batch(packed)).flatten(0, 1)
        hidden_HD = hidden_HD.float()
        predictors_BA = packed.predictors.to(self.device)
        runs = alike_places(self.plan, range(self.plan.num_actions))
        choices = [self._choice(hidden_HD, predictors_BA, run) for run in runs]
        bodies_BD = hidden_HD[packed.bodies.to(self.device)]
        return TokenChoices(choices), self.value_head(bodies_BD.detach())

    def _batch(self, packed: HistoryBatch) -> PackedBatch:
        """The histories as the network takes them; nothing is a target of its loss."""
        none = torch.zeros(0, dtype=torch.int64)
        targets = Targets(*[none] * len(dataclasses.fields(Targets)))
        return PackedBatch(packed.tokens, packed.texts, packed.roles, targets).to(self.device)

    def _choice(self, hidden_HD: Tensor, predictors_BA: Tensor, places: range) -> Choice:
        """The choice of positions with the same legal ids."""
        heads, (rows, count) = self.network.action_heads, (len(predictors_BA), len(places))
        owners = predictors_BA[:, places.start : places.stop].flatten()
        numbers = torch.arange(places.start, places.stop, device=self.device).repeat(rows)
        if not self.plan.has_parallel_actions:
            numbers = torch.full_like(numbers, -1)
        start, stop = self.plan.action_ranges[places.start].tolist()
        continuous = bool(self.plan.action_is_continuous[places.start])
        if continuous and self._regresses:
            values = heads.numbers(hidden_HD, owners, numbers).view(rows, count)
            deviations = self.log_std[places.start : places.stop].exp()
            return Choice.around(places, values, deviations, stop - start)
        vectors = heads.at_places(hidden_HD, owners, numbers)
        scores = self.network.symbol_logits(vectors, start, stop).view(rows, count, -1)
        return Choice.of_scores(places, scores, self.sampler, continuous=continuous)

    def save_checkpoint(self, folder: str | Path, *, card: str = "") -> None:
        """Write the network as a checkpoint that ``GatoPolicy.load`` reads, without a pickle.

        It has the tasks, demonstrations and sampler of the one that it began with. The value head
        and the deviation around regressed actions are not part of it.

        Args:
            folder: The folder to write.
            card: Text of ``card.md``.

        Raises:
            FileExistsError: ``folder`` exists and is not a checkpoint.
        """
        save_checkpoint(Path(folder), self.network, self.tasks, self.sampler, card=card)

    def save(self, path: str) -> NoReturn:
        """Refused: Stable-Baselines3's file is a pickle.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"{path} would be a pickle: write a checkpoint with policy.save_checkpoint(folder)"
        )


def _parts(obs: PyTorchObs) -> dict[str, Tensor]:
    """The tensors of a batch of histories."""
    assert isinstance(obs, dict), "a history's space is a Dict"
    return dict(obs)
