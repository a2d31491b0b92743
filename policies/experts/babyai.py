"""BabyAI's bot behind ``predict``.

* :class:`BabyAIBotPolicy` -- one bot for each environment of a batch; :func:`make_bot` makes it.
* :class:`GuardedBot` -- a bot that cannot replan for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gato_gym.tasks import Task
from policies.base import DistributionPolicy, spaces_of
from policies.distributions import Categorical, Decision
from policies.experts.babyai_bot import quick_bot

DONE = 6
"""MiniGrid's action that does nothing."""

CHOICES = 7
"""MiniGrid's actions."""

MAX_PLANS = 300
"""Subgoals a bot may look at for one decision. Where it succeeds it looks at fewer than a dozen."""

MAX_VISITS = 1_000_000
"""Cells a bot may visit in its searches in one episode: seconds of work, ten times the most that a
successful episode took."""


class BotError(RuntimeError):
    """The bot cannot say what to do next."""


class GuardedBot:
    """MiniGrid's ``BabyAIBot`` with limits counted in work, not in seconds.

    The bot may push and pop the same subgoals for ever within one decision. Counting its work stops
    it at the same point on any machine and in any thread.

    Args:
        level: A BabyAI level, ``env.unwrapped``, just reset.
    """

    def __init__(self, level: Any) -> None:
        kind = quick_bot()
        try:
            self._bot: Any = kind(level)
        except Exception as error:
            raise BotError(f"the bot cannot read the instruction: {error!r}") from error
        self._bot.stack = self._stack = _CountedStack(self._bot.stack)

    def choose(self, executed: int | None) -> int:
        """The bot's next action.

        Args:
            executed: The action executed since the last call; None at the first.

        Raises:
            BotError: The bot failed, or did more work than its limits allow.
        """
        self._stack.reads = 0
        try:
            action = int(self._bot.replan(executed))
        except BotError:
            raise
        except Exception as error:  # its plans fail in many ways, by assertion and by None
            raise BotError(f"the bot lost its plan: {error!r}") from error
        if self._bot.bfs_step_counter > MAX_VISITS:
            raise BotError(f"the bot visited more than {MAX_VISITS} cells in one episode")
        return action


class _CountedStack(list[Any]):
    """The bot's subgoals; every turn of its planning loop reads the last one."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        if self.reads > MAX_PLANS:
            raise BotError(f"the bot looked at more than {MAX_PLANS} subgoals for one decision")
        return super().__getitem__(index)


@dataclass
class BotRow:
    """The bot of one environment.

    Attributes:
        bot: None once it has failed.
        executed: The action executed last: its own choice unless
            :meth:`BabyAIBotPolicy.execute` replaced it.
        failure: Why it failed, or None. A failed bot chooses ``done``.
    """

    bot: GuardedBot | None
    executed: int | None = None
    failure: str | None = None


class BabyAIBotPolicy(DistributionPolicy):
    """BabyAI's bot, which reads the level itself rather than the observation.

    Each episode gets a new bot, made from the environment of its row. If a bot fails or plans
    without end, the policy plays ``done`` for the rest of the episode, and :attr:`BotRow.failure`
    in the state holds the reason. :meth:`predict` advances the bots of the state in place.

    Args:
        env: An environment, or a vector environment with ``envs`` (``SyncVectorEnv``,
            ``DummyVecEnv``).
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.

    Raises:
        MissingPackageError: MiniGrid is not installed.
        ValueError: The environments run in other processes or are not BabyAI levels.
    """

    def __init__(
        self, env: Any, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        from gato_gym.tasks.task import need

        need("minigrid", "babyai")
        super().__init__(observation_space, action_space)
        self._envs = environments_of(env)
        level = self._envs[0].unwrapped
        if not hasattr(level, "validate_instrs") or getattr(action_space, "n", None) != CHOICES:
            raise ValueError(
                f"environment is {type(level).__name__} with actions {action_space}, expected a "
                "BabyAI level with Discrete(7): make the expert for the environment of the task "
                "itself, without GatoTokenize"
            )

    def _decide_batch(
        self,
        observation: Any,
        state: list[BotRow] | None,
        starts: NDArray[np.bool_],
        deterministic: bool,
    ) -> Decision:
        if len(starts) != len(self._envs) or (state is not None and len(state) != len(starts)):
            raise ValueError(
                f"{len(starts)} observations for {len(self._envs)} environments: the bot plays in "
                "the environments it was made for, all of them at once"
            )
        rows = [BotRow(None) for _ in starts] if state is None else state
        for index in np.flatnonzero(starts):
            rows[index] = _start(self._envs[int(index)].unwrapped)
        actions = np.asarray([_choose(row) for row in rows], np.int64)
        return Decision(actions, rows, Categorical.certain(actions, CHOICES))

    def execute(self, state: list[BotRow], row: int, action: Any) -> None:
        """As :meth:`policies.base.Policy.execute`: the row's bot plans from there."""
        state[row].executed = int(action)

    def failure_of(self, state: list[BotRow], row: int) -> str | None:
        """As :meth:`policies.base.Policy.failure_of`."""
        return state[row].failure


def make_bot(task: Task, env: Any) -> BabyAIBotPolicy:
    """The expert of suite ``babyai``."""
    return BabyAIBotPolicy(env, *spaces_of(env))


def _start(level: Any) -> BotRow:
    try:
        return BotRow(GuardedBot(level))
    except BotError as error:
        return BotRow(None, failure=str(error))


def _choose(row: BotRow) -> int:
    if row.bot is None:
        return DONE
    try:
        row.executed = row.bot.choose(row.executed)
    except BotError as error:
        row.bot, row.failure = None, str(error)
        return DONE
    return row.executed


def environments_of(env: Any) -> Sequence[Any]:
    """The environments whose levels an expert can read, in this process.

    Raises:
        ValueError: They are in other processes.
    """
    envs = getattr(env, "envs", None)
    if envs is not None:
        return list(envs)
    if isinstance(env, gym.Env):
        return [env]
    raise ValueError(
        f"{type(env).__name__} keeps its environments in other processes, where an expert "
        "cannot read their levels: use gymnasium.vector.SyncVectorEnv or DummyVecEnv"
    )
