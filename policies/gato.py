"""GatoPolicy: one transformer behind Stable-Baselines3's ``predict``.

* :class:`GatoPolicy` -- load, predict, save.
* :class:`GatoState` -- what ``predict`` hands back; the caller owns it.

A timestep costs one pass of the backbone for each action token: the observation's tokens give the
first, each chosen token the next. Rows are computed in blocks of a fixed number, so that a row's
numbers do not depend on how many rows there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.episodes import Episode
from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan, TokenizedBatch, compile_plan
from gato_gym.tasks import get_task, task_id_of
from policies.backbone import RingCache
from policies.base import Policy, episode_generators
from policies.configuration import NetworkConfig, preset
from policies.embedding import ACTION_PLACE, TEXT_PLACES, TokenInputs
from policies.matching import TaskRecord, find_task, spaces_of
from policies.network import GatoNetwork, count_parameters, inference
from policies.prompts import Prompt, encode_prompt, prompt_from_episode
from policies.sampling import Sampler
from policies.timesteps import Layout, TimestepArrays, TokenCollector, cut_text, lay_out

BLOCK = 32
"""Rows of one forward; a batch is padded to a multiple of it."""


@dataclass
class GatoState:
    """Everything a batch of running episodes needs. ``predict`` writes into it.

    Attributes:
        cache: Keys and values.
        next_positions: int64 ``[R]``, position of the next token of each row.
        pending: int64 ``[R]``, last action token, when it is to enter with the next observation;
            else -1.
        conditions: float ``[R, D]``, the text that each row acts under.
        texts: The text each row saw last, as bytes of its ids.
        ages: Timesteps since it was emitted.
        generators: Random numbers of each row's episode.
        rows: Rows of the caller; R is the next multiple of the block.
    """

    cache: RingCache
    next_positions: NDArray[np.int64]
    pending: NDArray[np.int64]
    conditions: Tensor
    texts: list[bytes | None]
    ages: list[int]
    generators: list[np.random.Generator | None]
    rows: int


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
        self._pinned = None if prompt is None else encode_prompt(network, plan, prompt)

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
        env: Any,
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
                or else its spaces, choose the task among those of the checkpoint.
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
        cache = RingCache.empty(config, rows=1, ring=self._ring(), like=torch.zeros(0))
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

    def _ring(self) -> int:
        """Live slots of a row: the window and the longest chunk."""
        plan = self.plan
        chunk = plan.num_tokens + plan.num_actions + 1 + TEXT_PLACES * plan.has_text
        return chunk + (0 if plan.options.memory == "none" else self.network.config.window)

    @torch.no_grad()
    def _new_state(self, rows: int) -> GatoState:
        size = -(-rows // BLOCK) * BLOCK
        config = self.network.config
        like = next(self.network.parameters())
        cache = RingCache.empty(config, rows=size, ring=self._ring(), like=like)
        if self._pinned is not None:
            pinned = config.prompt_tokens
            cache.keys[..., :pinned, :] = self._pinned.keys[..., :pinned, :]
            cache.values[..., :pinned, :] = self._pinned.values[..., :pinned, :]
            cache.positions[:, :pinned] = self._pinned.positions[:, :pinned]
        return GatoState(
            cache=cache,
            next_positions=np.full(size, config.prompt_tokens, np.int64),
            pending=np.full(size, -1, np.int64),
            conditions=torch.zeros(size, config.width, device=like.device),
            texts=[None] * size,
            ages=[0] * size,
            generators=[None] * size,
            rows=rows,
        )

    @torch.inference_mode()
    def _predict_batch(
        self,
        observation: Any,
        state: GatoState | None,
        starts: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[Any, GatoState]:
        rows = len(starts)
        encoded = self.plan.encode_batch(observation)
        if state is None:
            state = self._new_state(rows)
        elif not isinstance(state, GatoState) or state.rows != rows:
            got = (
                f"{state.rows} rows"
                if isinstance(state, GatoState)
                else f"a {type(state).__name__}"
            )
            raise ValueError(
                f"state is {got} and the observation has {rows} rows: "
                "pass the state that predict returned for the same environments"
            )
        self._restart(state, observation, starts, deterministic)
        uniforms = np.zeros((len(state.pending), self.plan.num_actions), np.float32)
        if not deterministic:
            for row in range(rows):
                generator = state.generators[row]
                if generator is None:
                    raise ValueError(
                        f"row {row} was started deterministically: keep deterministic the same "
                        "through an episode, or pass episode_start"
                    )
                uniforms[row] = generator.random(self.plan.num_actions, np.float32)
        ids = np.concatenate(
            [
                self._act(state, encoded, slice(first, first + BLOCK), uniforms, deterministic)
                for first in range(0, len(state.pending), BLOCK)
            ]
        )
        return self.plan.decode_batch(ids[:rows]), state

    def _restart(
        self, state: GatoState, observation: Any, starts: NDArray[np.bool_], deterministic: bool
    ) -> None:
        """Forget the episodes of the rows that start one; the pinned prompt stays."""
        prompt = self.network.config.prompt_tokens
        for row in np.flatnonzero(starts).tolist():
            state.cache.positions[row, prompt:] = -1
            state.next_positions[row], state.pending[row] = prompt, -1
            state.texts[row], state.ages[row] = None, 0
        fresh = episode_generators(self.observation_space, observation, starts, seed=self.seed)
        for row, generator in fresh.items():
            state.generators[row] = generator

    def _emissions(
        self, state: GatoState, encoded: TokenizedBatch, block: slice
    ) -> dict[int, NDArray[np.int32]]:
        """The rows of a block that emit their text now, by row, and what they emit."""
        found: dict[int, NDArray[np.int32]] = {}
        options = self.plan.options
        always = options.text == "always" or options.memory == "none"
        for row in range(block.start, min(block.stop, state.rows) if self.plan.has_text else 0):
            text = cut_text(np.asarray(encoded.text[row], np.int32))
            key = text.tobytes()
            if always or state.texts[row] != key or state.ages[row] >= options.text_refresh:
                found[row] = text
                state.texts[row], state.ages[row] = key, 0
            state.ages[row] += 1
        return found

    def _act(
        self,
        state: GatoState,
        encoded: TokenizedBatch,
        block: slice,
        uniforms: NDArray[np.float32],
        deterministic: bool,
    ) -> NDArray[np.int64]:
        """Action ids of one block: int64 ``[block, A]``."""
        plan, network = self.plan, self.network
        hidden = self._observe(state, encoded, block)
        cache, positions = _block(state.cache, block), state.next_positions[block]
        chosen: list[Tensor] = []
        randoms = torch.from_numpy(uniforms[block]).to(self.device)
        for j, (start, stop) in enumerate(plan.action_ranges.tolist()):
            if j:
                tokens = _action_tokens(chosen[-1][:, None])
                at = torch.from_numpy(positions[:, None] + j - 1).to(self.device)
                hidden = network.step(tokens, state.conditions[block], at, cache)[:, 0]
            logits = network.symbol_logits(hidden, start, stop)
            choice = self.sampler.choose(
                logits,
                randoms[:, j],
                continuous=bool(plan.action_is_continuous[j]),
                deterministic=deterministic,
            )
            chosen.append(choice + start)
        ids = torch.stack(chosen, 1).cpu().numpy()
        memory = plan.options.memory
        if memory == "all":
            state.next_positions[block] += plan.num_actions - 1
            state.pending[block] = ids[:, -1]
        elif memory == "none":
            state.next_positions[block] = network.config.prompt_tokens
        return ids

    def _observe(self, state: GatoState, encoded: TokenizedBatch, block: slice) -> Tensor:
        """Feed a block's observations; the hidden vector that predicts its first action token.

        Rows that emit a text, or have no action pending where the others have, go one by one, since
        their lengths differ; the others go together.
        Afterwards ``next_positions`` is the position of the first action token.
        """
        texts = self._emissions(state, encoded, block)
        real = range(block.start, min(block.stop, state.rows))
        fresh = (
            [row for row in real if state.pending[row] < 0]
            if self.plan.options.memory == "all"
            else []
        )
        alone = sorted({*texts, *fresh})
        hidden = torch.zeros(BLOCK, self.network.config.width, device=self.device)
        if len(alone) < len(real):
            rows = range(block.start, block.stop)
            sources = [min(row, state.rows - 1) for row in rows]
            active = np.array([row not in alone for row in rows])
            hidden = self._feed(state, encoded, block, sources, None, active)
        for row in alone:
            text = texts.get(row)
            if text is not None and len(text):
                ids = torch.from_numpy(text[None].astype(np.int64)).to(self.device)
                state.conditions[row] = self.network.embedding.encode_texts(ids)[0]
            part = slice(row, row + 1)
            hidden[row - block.start] = self._feed(state, encoded, part, [row], text, None)[0]
        return hidden

    def _feed(
        self,
        state: GatoState,
        encoded: TokenizedBatch,
        part: slice,
        sources: list[int],
        text: NDArray[np.int32] | None,
        active: NDArray[np.bool_] | None,
    ) -> Tensor:
        """One forward of one timestep of rows whose tokens are equally many."""
        plan = self.plan
        n = len(sources)
        arrays = _timesteps(encoded, sources)
        layout = lay_out(plan, [text] * n, arrays.actions, first_position=0, fed=0)
        width = len(layout.ids) // n
        lead = int(plan.options.memory == "all" and (n > 1 or bool(state.pending[part][0] >= 0)))
        tokens = _rows_of_tokens(plan, layout, arrays, n, lead, state.pending[part])
        first = state.next_positions[part]
        at = first[:, None] + np.arange(width + lead)
        mask = None if active is None else torch.from_numpy(active).to(self.device)
        hidden = self.network.step(
            tokens.to(self.device),
            state.conditions[part],
            torch.from_numpy(at).to(self.device),
            _block(state.cache, part),
            mask,
        )
        moved = np.ones(n, np.bool_) if active is None else active
        state.next_positions[part] = np.where(moved, first + width + lead, first)
        return hidden[:, -1]


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
        plan = compile_plan(*spaces_of(env), record.options)
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


def _block(cache: RingCache, part: slice) -> RingCache:
    return RingCache(
        cache.keys[:, part], cache.values[:, part], cache.positions[part], cache.prompt
    )


def _timesteps(encoded: TokenizedBatch, rows: list[int]) -> TimestepArrays:
    return TimestepArrays(
        ids=encoded.ids[rows],
        vectors=encoded.vectors[rows],
        grids=encoded.grids[rows],
        images=encoded.images[rows],
        actions=np.zeros((len(rows), 0), np.int64),
    )


def _action_tokens(ids: Tensor) -> TokenInputs:
    return TokenInputs(
        ids=ids,
        places=torch.full_like(ids, ACTION_PLACE),
        conditions=torch.full_like(ids, -1),
    )


def _rows_of_tokens(
    plan: Plan,
    layout: Layout,
    arrays: TimestepArrays,
    n: int,
    lead: int,
    pending: NDArray[np.int64],
) -> TokenInputs:
    """n equally long timesteps as n rows, after ``lead`` pending action tokens each."""
    width = len(layout.ids) // n
    collector = TokenCollector(n, width + lead)
    if lead:
        collector.ids[:, 0], collector.places[:, 0] = pending, ACTION_PLACE
    collector.ids[:, lead:] = layout.ids.reshape(n, width)
    collector.places[:, lead:] = layout.places.reshape(n, width)
    bodies = layout.body_starts + lead * (1 + np.arange(n))
    collector.add_parts(plan, bodies, arrays)
    if plan.has_text:
        collector.conditions[:] = np.arange(n)[:, None]
    return collector.finish()
