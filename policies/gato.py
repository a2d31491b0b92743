"""GatoPolicy: one transformer behind Stable-Baselines3's ``predict``.

* :class:`GatoPolicy` -- load, predict, save.

:mod:`policies.streaming` has what happens inside an action.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gato_gym.episodes import Episode
from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan, compile_plan
from gato_gym.tasks import get_task, task_id_of
from policies.backbone import RingCache
from policies.base import Policy, episode_generators
from policies.configuration import NetworkConfig, preset
from policies.matching import TaskRecord, find_task, spaces_of
from policies.network import GatoNetwork, count_parameters, inference
from policies.prompts import Prompt, encode_prompt, prompt_from_episode
from policies.sampling import Sampler
from policies.streaming import Acting, GatoState, Streamer, run


class GatoPolicy(Policy):
    """A network that acts in one pair of spaces.

    Make one with :meth:`load` (shipped or saved weights) or :meth:`create` (fresh weights).

    Args:
        network: The weights, shared by all views of it.
        plan: How the spaces become tokens.
        tasks: What the weights were trained on, by task id.
        task: Id of the task that is played, if it is one of them.
        prompt: The demonstration that the policy acts after, or None.
        sampler: How action tokens are chosen.
        seed: Of sampling.
    """

    def __init__(
        self,
        network: GatoNetwork,
        plan: Plan,
        *,
        tasks: Mapping[str, TaskRecord] | None = None,
        task: str | None = None,
        prompt: Prompt | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(plan.observation_space, plan.action_space)
        self.network, self.plan = inference(network), plan
        self.tasks, self.task, self.prompt = dict(tasks or {}), task, prompt
        self.sampler, self.seed = sampler or Sampler(), seed
        self._check_sizes()
        pinned = None if prompt is None else encode_prompt(network, plan, prompt)
        self._streamer = Streamer(network, plan, self.sampler, pinned)

    def _check_sizes(self) -> None:
        config, options = self.network.config, self.plan.options
        for name, got, limit in (
            ("vector_size", options.vector_size, config.vector_size),
            ("grid height", self.plan.grid_size[0], config.grid_size),
            ("grid width", self.plan.grid_size[1], config.grid_size),
            ("grid planes", self.plan.grid_size[2], config.grid_planes),
            ("image channels", self.plan.image_shape[2], 4),
        ):
            if got > limit:
                raise ValueError(
                    f"{name} is {got} and the network takes at most {limit}: "
                    "change the plan's options or use a network made for it"
                )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @classmethod
    def create(
        cls,
        env: Any,
        *,
        config: NetworkConfig | str = "mini",
        options: PlanOptions | None = None,
        seed: int = 0,
    ) -> GatoPolicy:
        """A policy with fresh weights for any environment.

        Args:
            env: An environment, a vector environment, or SB3's VecEnv.
            config: The network's sizes, or a preset's name.
            options: How its spaces become tokens; None takes those of the environment's task, and
                the defaults where it is none of this package's.
            seed: Of the weights and of sampling.
        """
        task = task_id_of(env)
        if options is None and task is not None:
            options = get_task(task).options
        torch.manual_seed(seed)
        network = GatoNetwork(preset(config) if isinstance(config, str) else config)
        plan = compile_plan(*spaces_of(env), options)
        return cls(network, plan, seed=seed)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        env: Any = None,
        task: str | None = None,
        prompt: str | Episode | None = "shipped",
        device: str = "auto",
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> GatoPolicy:
        """Load a checkpoint for an environment.

        Args:
            name: A shipped name such as ``gato-mini``, a folder, or a hub id ``owner/name``.
            env: The environment to act in (or a vector environment, or SB3's VecEnv): its task id,
                or else its spaces, choose the task among those of the checkpoint. None is enough
                for a checkpoint of one task, or with ``task``.
            task: The task's id, where the environment does not tell.
            prompt: "shipped" for the checkpoint's own demonstration of the task, an Episode, or
                None for no prompt.
            device: "cpu", "cuda", or "auto".
            sampler: How action tokens are chosen; None takes the checkpoint's.
            seed: Of sampling.

        Raises:
            policies.checkpoint.CheckpointError: The checkpoint is damaged or of a newer version.
            policies.matching.SpaceMismatchError: It was not trained for these spaces, or for
                several tasks with these spaces.
        """
        from policies.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(name)
        network = inference(checkpoint.network).to(_device(device))
        first = _View(network, checkpoint.tasks, sampler or checkpoint.sampler, seed)
        return first.bind(env, task=task, prompt=prompt)

    def with_env(
        self, env: Any, *, task: str | None = None, prompt: str | Episode | None = "shipped"
    ) -> GatoPolicy:
        """A view of the same weights for another environment; arguments as in :meth:`load`."""
        view = _View(self.network, self.tasks, self.sampler, self.seed)
        return view.bind(env, task=task, prompt=prompt)

    def with_prompt(self, prompt: Episode | None, *, cut: str | None = "end") -> GatoPolicy:
        """A view of the same weights after another demonstration.

        Args:
            prompt: The demonstration, or None.
            cut: As in :func:`policies.prompts.prompt_from_episode`.
        """
        made = None
        if prompt is not None:
            capacity = self.network.config.prompt_tokens
            made = prompt_from_episode(self.plan, prompt, capacity=capacity, cut=cut)
        return GatoPolicy(
            self.network,
            self.plan,
            tasks=self.tasks,
            task=self.task,
            prompt=made,
            sampler=self.sampler,
            seed=self.seed,
        )

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint folder that :meth:`load` reads; see :mod:`policies.checkpoint`."""
        from policies.checkpoint import save_checkpoint

        tasks = dict(self.tasks)
        if not tasks:
            record = TaskRecord.of(self.plan, self.prompt)
            tasks[self.task or "custom"] = record
        save_checkpoint(Path(folder), self.network, tasks, self.sampler)

    def describe(self) -> str:
        """A few lines: sizes, tokens of a timestep, memory of a row."""
        config, plan = self.network.config, self.plan
        cache = RingCache.empty(config, rows=1, ring=self._streamer.ring, like=torch.zeros(0))
        return "\n".join(
            (
                f"{count_parameters(self.network):,} parameters, {config.layers} layers, "
                f"width {config.width}",
                f"task {self.task or 'none'}, prompt {'yes' if self.prompt else 'none'}",
                f"{plan.num_tokens} body and {plan.num_actions} action tokens a timestep, "
                f"layout {plan.options.layout}, memory {plan.options.memory}",
                f"window {config.window} tokens, cache {cache.nbytes / 2**20:.1f} MiB a row",
            )
        )

    def _predict_batch(
        self,
        observation: Any,
        state: GatoState | None,
        starts: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[Any, GatoState]:
        rows = len(starts)
        state = self._streamer.new_state(rows) if state is None else state
        acting = self.begin(observation, state, starts, deterministic=deterministic)
        (ids,) = run(self.network, state.cache, [acting], [rows])
        return self.plan.decode_batch(ids), state

    def new_state(self, rows: int, cache: RingCache | None = None) -> GatoState:
        """The state of rows that start afresh; see :meth:`Streamer.new_state`."""
        return self._streamer.new_state(rows, cache)

    @property
    def ring(self) -> int:
        """Cache slots that a row needs beside the prompt's."""
        return self._streamer.ring

    def begin(
        self, observation: Any, state: GatoState, starts: NDArray[np.bool_], *, deterministic: bool
    ) -> Acting:
        """Begin a timestep of a batch; :func:`policies.streaming.run` goes on with it.

        Args:
            observation: A batch.
            state: Of its rows; written.
            starts: bool ``[B]``; rows that start an episode.
            deterministic: As in ``predict``.

        Raises:
            ValueError: The state is of another number of rows, or no state at all.
        """
        rows = len(starts)
        if not isinstance(state, GatoState) or state.rows != rows:
            got = (
                f"{state.rows} rows"
                if isinstance(state, GatoState)
                else f"a {type(state).__name__}"
            )
            raise ValueError(
                f"state is {got} and the observation has {rows} rows: "
                "pass the state that predict returned for the same environments"
            )
        encoded = self.plan.encode_batch(observation)
        self._streamer.restart(state, starts)
        fresh = episode_generators(self.observation_space, observation, starts, seed=self.seed)
        for row, generator in fresh.items():
            state.generators[row] = generator
        uniforms = np.zeros((rows, self.plan.num_actions), np.float32)
        if not deterministic:
            for row, own in enumerate(state.generators):
                assert own is not None, "every row starts with an episode"
                uniforms[row] = own.random(self.plan.num_actions, np.float32)
        return self._streamer.act(state, encoded, uniforms, deterministic=deterministic)


class _View:
    """Weights and tasks before they meet an environment."""

    def __init__(
        self,
        network: GatoNetwork,
        tasks: Mapping[str, TaskRecord],
        sampler: Sampler,
        seed: int,
    ) -> None:
        self.network, self.tasks, self.sampler, self.seed = network, tasks, sampler, seed

    def bind(self, env: Any, *, task: str | None, prompt: str | Episode | None) -> GatoPolicy:
        """The policy that acts in ``env``."""
        if isinstance(prompt, str) and prompt not in ("shipped", "none"):
            raise ValueError(
                f"prompt is {prompt!r}: expected 'shipped', 'none', an Episode or None"
            )
        task_id, record = find_task(self.tasks, env, task)
        spaces = record.read_spaces() if env is None else spaces_of(env)
        plan = compile_plan(*spaces, record.options)
        policy = GatoPolicy(
            self.network,
            plan,
            tasks=self.tasks,
            task=task_id,
            prompt=record.prompt if prompt == "shipped" and record.prompted else None,
            sampler=self.sampler,
            seed=self.seed,
        )
        return policy.with_prompt(prompt) if isinstance(prompt, Episode) else policy


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
