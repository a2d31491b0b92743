"""JatPolicy: JAT's network behind Stable-Baselines3's ``predict``.

* :class:`JatPolicy` -- load, predict, save.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from policies.base import Policy, check_rows, spaces_of
from policies.chance import RowGenerator, begin_episodes, with_seeds
from policies.jat.checkpoint import BothSpaces, load_checkpoint, save_checkpoint
from policies.jat.config import JatConfig
from policies.jat.decoding import Decoder, JatState, Positions
from policies.jat.gpt2_text import Gpt2Tokenizer
from policies.jat.modalities import Modalities
from policies.jat.network import JatNetwork
from policies.jat.quantization import with_precision
from policies.model.quantization import choose_device, choose_precision


class JatPolicy(Policy):
    """JAT's network, acting in one pair of spaces.

    Make one with :meth:`load` (published or saved weights) or :meth:`create` (fresh weights).

    Discrete actions are drawn, unless ``deterministic``; continuous ones are what the network
    predicts, clipped to the space's bounds, and draw nothing. The network also reads rewards,
    which ``predict`` is not given: tell :meth:`observe_reward` after each step, as every rollout
    of this package does. A reward that is not told counts as 0.

    Args:
        network: The weights.
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.
        tokenizer: Of texts in observations.
        window, positions, stride: As in :meth:`load`.
        seed: Seed of the sampled actions.
        card: The description that a checkpoint came with; :meth:`save` writes it again.
        tasks: Spaces of the tasks that the weights were trained on, by id; likewise.

    Raises:
        policies.jat.modalities.JatSpaceError: The network has no modality for the spaces.
    """

    def __init__(
        self,
        network: JatNetwork,
        observation_space: Any,
        action_space: Any,
        *,
        tokenizer: Gpt2Tokenizer | None = None,
        window: int | None = None,
        positions: Positions = "exact",
        stride: int | None = None,
        seed: int = 0,
        card: str = "",
        tasks: Mapping[str, BothSpaces] | None = None,
    ) -> None:
        super().__init__(observation_space, action_space)
        self.network, self.tasks = network.eval().requires_grad_(False), dict(tasks or {})
        self.tokenizer, self.seed, self.card = tokenizer, seed, card
        modalities = Modalities.of(observation_space, action_space, network.config, tokenizer)
        self.decoder = Decoder(
            self.network, modalities, window=window, positions=positions, stride=stride
        )

    @classmethod
    def create(
        cls,
        env: Any,
        *,
        config: JatConfig | None = None,
        tokenizer: Gpt2Tokenizer | None = None,
        window: int | None = None,
        positions: Positions = "exact",
        stride: int | None = None,
        seed: int = 0,
    ) -> JatPolicy:
        """A policy with fresh weights for any environment that JAT has a modality for.

        Args:
            env: An environment, a vector environment, or SB3's VecEnv.
            config: The network's sizes; None takes the published ones.
            tokenizer: Of texts in observations; None takes each byte as a token.
            window, positions, stride: As in :meth:`load`.
            seed: Seed of the weights and of the sampled actions.
        """
        torch.manual_seed(seed)
        return cls(
            JatNetwork(config or JatConfig()),
            *spaces_of(env),
            tokenizer=tokenizer or Gpt2Tokenizer.of_bytes(),
            window=window,
            positions=positions,
            stride=stride,
            seed=seed,
        )

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        env: Any = None,
        task: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        window: int | None = None,
        positions: Positions = "exact",
        stride: int | None = None,
        seed: int = 0,
    ) -> JatPolicy:
        """Load the published weights, or a checkpoint of this class, for an environment.

        Args:
            name: A folder, or a hub id such as ``jat-project/jat``. ``config.json``,
                ``model.safetensors`` and the tokenizer's files are read, and no code.
            env: The environment to act in, a vector environment, or SB3's VecEnv. None takes the
                spaces of ``task``, or of the only task that the checkpoint was trained on.
            task: Id of one of its tasks, in the place of an environment.
            device: "cpu", "cuda", or "auto": a GPU if there is one.
            precision: "float32", "bfloat16", "int8" (weights of eight bits), or "auto": float32 on
                a CPU, bfloat16 on a GPU. Only float32 on a CPU gives a row the same numbers in any
                batch. Fewer bits are meant for a CPU with the extra ``cpu``, where attention is
                compiled, and where int8 also gives the blocks' inputs eight bits, with a scale for
                each token: fastest where the processor multiplies eight bits (AVX-512 VNNI).
            window: Most tokens of the context, an even number, two a timestep, 2 for the
                observation alone; None is the checkpoint's ``context_tokens``, or the published
                evaluation's, 32 where images are observed and 256 elsewhere.
            positions: What happens when the window is full. "exact": the oldest timesteps leave
                and the others are encoded again, so that the network computes what it computes of
                that sequence alone. "published": what the published loop computes; every new token
                is then at the same position, and the order of the tokens is lost.
            stride: Timesteps that leave a full window together; None is half of the window's. 1
                always keeps a full window, and encodes all of it at every step.
            seed: Seed of the sampled actions.

        Raises:
            policies.gato.tensor_files.CheckpointError: It does not exist, is damaged, or is no
                JAT checkpoint.
            policies.jat.modalities.JatSpaceError: The network has no modality for the spaces.
            ValueError: There is no such device, precision, task, window or stride.
        """
        target = choose_device(device)
        number_format = choose_precision(precision, target)
        checkpoint = load_checkpoint(name)
        return cls(
            with_precision(checkpoint.network, number_format).to(target),
            *(_spaces_of(checkpoint.spaces, task) if env is None else spaces_of(env)),
            tokenizer=checkpoint.tokenizer,
            window=window,
            positions=positions,
            stride=stride,
            seed=seed,
            card=checkpoint.card,
            tasks=checkpoint.spaces,
        )

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint folder of the published format, which :meth:`load` reads.

        Raises:
            FileExistsError: ``folder`` exists and is not a checkpoint.
            ValueError: The weights have eight bits.
        """
        if self.network.precision == "int8":
            raise ValueError(
                "this policy is in int8, and a checkpoint holds what was trained: load it with "
                "precision='float32' and save that"
            )
        save_checkpoint(
            Path(folder), self.network, self.tokenizer, card=self.card, spaces=self.tasks
        )

    def __repr__(self) -> str:
        """Its network's size and place, its window and its spaces."""
        decoder = self.decoder
        count = sum(parameter.numel() for parameter in self.network.parameters())
        return (
            f"{type(self).__name__}({count:,} parameters, {self.network.precision} on "
            f"{decoder.like.device}, window={decoder.window}, positions={decoder.positions!r}, "
            f"observation_space={self.observation_space}, action_space={self.action_space})"
        )

    def seed_episodes(self, seeds: Sequence[int | None], state: JatState | None = None) -> JatState:
        """As :meth:`policies.base.Policy.seed_episodes`."""
        state = self.new_state(len(seeds)) if state is None else state
        state.generators[:] = with_seeds(state.generators.tolist(), seeds)
        return state

    def observe_reward(self, state: JatState, row: int, reward: float) -> None:
        """As :meth:`policies.base.Policy.observe_reward`."""
        state.rewards[row] = reward

    def new_state(self, rows: int) -> JatState:
        """The state of rows that start afresh."""
        state = self.decoder.new_state(rows)
        state.generators[:] = RowGenerator()
        return state

    def _predict_batch(
        self,
        observation: Any,
        state: JatState | None,
        starts: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[Any, JatState]:
        rows = len(starts)
        state = self.new_state(rows) if state is None else state
        check_rows(state, JatState, rows)
        if not self.decoder.fits(state):
            raise ValueError(
                "state is of another network, window or action space: pass the state that predict "
                "returned for the same environments"
            )
        modalities = self.decoder.modalities
        with self.span("tokenising"):
            inputs = modalities.read(observation)
        state.begin(
            begin_episodes(
                state.generators,
                starts,
                seed=self.seed,
                space=self.observation_space,
                observation=observation,
            )
        )
        scores = self.decoder.scores(self.decoder.step(state, inputs))
        if modalities.action == "continuous" or deterministic:
            chosen = scores if modalities.action == "continuous" else scores.argmax(1)
        else:
            chosen = np.array(
                [
                    _sampled(logits, row.under_way)
                    for logits, row in zip(scores, state.generators, strict=True)
                ]
            )
        state.actions[:] = chosen
        return modalities.actions_of(chosen), state


def _spaces_of(tasks: Mapping[str, BothSpaces], task: str | None) -> BothSpaces:
    """The spaces of a checkpoint's task, None for its only one."""
    if task is None and len(tasks) == 1:
        (task,) = tasks
    if task is None or task not in tasks:
        raise ValueError(
            f"task is {task!r} and env None: expected an environment, or one of the checkpoint's "
            f"tasks, {', '.join(tasks) or 'of which it names none'}"
        )
    return tasks[task]


def _sampled(logits: NDArray[np.float32], generator: np.random.Generator) -> int:
    """A choice with the probabilities of float32 logits ``[n]``."""
    shares = np.exp(logits.astype(np.float64) - logits.max()).cumsum()
    return int(np.searchsorted(shares, generator.random() * shares[-1], side="right"))
