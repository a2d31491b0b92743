"""GatoPolicy: one transformer behind Stable-Baselines3's ``predict``.

* :class:`GatoPolicy` -- load, predict, save.

:mod:`policies.gato.decoding` has what happens inside an action.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan, compile_plan
from gato_gym.tasks import get_task, task_id_of
from gato_gym.vocabulary import Vocabulary
from policies.base import Policy, spaces_of
from policies.chance import with_seeds
from policies.gato.decoder import Decoder
from policies.gato.decoding import act
from policies.gato.prompts import Prompt, demonstration, encode_prompt, prompt_from_episode
from policies.gato.sampling import Sampler
from policies.gato.state import GatoState, check_state
from policies.gato.task_specs import TaskRecord, check_sizes, find_task
from policies.gato.text_generation import write
from policies.model.config import NetworkConfig, fitted, preset
from policies.model.kv_cache import RingCache
from policies.model.network import GatoNetwork, count_parameters, inference
from policies.model.quantization import choose_device, choose_precision, with_precision
from policies.retrieval.retriever import Demonstrations, Retriever
from policies.returns import ReturnScale


class GatoPolicy(Policy):
    """A network that acts in one pair of spaces.

    Make one with :meth:`load` (shipped or saved weights) or :meth:`create` (fresh weights).

    Args:
        network: The weights, shared by all views of it.
        plan: How the spaces become tokens.
        tasks: Records of the tasks that the weights were trained on, by task id.
        task: Id of the task that the policy plays, if it is one of them.
        prompt: The demonstration that the policy acts after, or None.
        target_return: The return that it plays for, of networks that read returns to go: a number,
            a share of the expert's such as "90%", or None for the best that was seen in training.
        sampler: How action tokens are chosen.
        seed: Seed of the sampled actions.
        card: The description that a checkpoint came with; :meth:`save` writes it again.
        demonstrations: As :meth:`with_demonstrations` gives them.
    """

    def __init__(
        self,
        network: GatoNetwork,
        plan: Plan,
        *,
        tasks: Mapping[str, TaskRecord] | None = None,
        task: str | None = None,
        prompt: Prompt | None = None,
        target_return: float | str | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        card: str = "",
        demonstrations: Demonstrations | None = None,
    ) -> None:
        super().__init__(plan.observation_space, plan.action_space)
        self.network, self.plan = inference(network), plan
        self.tasks, self.task, self.prompt = dict(tasks or {}), task, prompt
        self.sampler, self.seed, self.card = sampler or Sampler(), seed, card
        self.accepts_nan = plan.options.on_nan == "replace"
        self.demonstrations = demonstrations
        check_sizes(network.config, plan)
        record = self.tasks.get(task or "")
        self.returns = (None if record is None else record.returns) or ReturnScale()
        if target_return is not None and not network.config.return_conditioned:
            raise ValueError(
                f"target_return is {target_return!r} and the network reads no returns to go: "
                "train one with return_conditioned (gato-gym train --return-conditioned)"
            )
        self.target_return = self.returns.read(target_return)
        self.decoder = self._make_decoder(network)

    def _make_decoder(self, network: GatoNetwork) -> Decoder:
        pinned = None if self.prompt is None else encode_prompt(network, self.plan, self.prompt)
        target = self.target_return / self.returns.scale
        return Decoder(
            network,
            self.plan,
            self.sampler,
            pinned,
            self.seed,
            task=self.task,
            target=target,
            demonstrations=self.demonstrations,
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
            options: How its spaces become tokens; None takes those of the environment's task, or
                the defaults if it is not a task of this package.
            seed: Seed of the weights and of the sampled actions.
        """
        task = task_id_of(env)
        if options is None and task is not None:
            options = get_task(task).options
        torch.manual_seed(seed)
        sizes = preset(config) if isinstance(config, str) else config
        plan = compile_plan(*spaces_of(env), options, vocabulary=sizes.vocabulary)
        network = GatoNetwork(fitted(sizes, [plan]))
        return cls(network, plan, seed=seed)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        env: Any = None,
        task: str | None = None,
        prompt: Any = "shipped",
        cut: str | None = None,
        target_return: float | str | None = None,
        demonstrations: Any = None,
        interpolate: bool = True,
        device: str = "auto",
        precision: str = "auto",
        compiled: bool = False,
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> GatoPolicy:
        """Load a checkpoint for an environment.

        Args:
            name: A shipped name such as ``gato-mini``, a folder, or a hub id ``owner/name``.
            env: The environment to act in (or a vector environment, or SB3's VecEnv). Its task id
                chooses the checkpoint's task, and its spaces do if it has none. None is enough for
                a checkpoint of one task, or with ``task``.
            task: The task's id, if the environment does not provide it.
            prompt: "shipped" for the checkpoint's own demonstration of the task; an Episode, a
                Minari dataset, or its id or path, see :func:`policies.gato.prompts.demonstration`;
                None for no prompt; "retrieved" for the demonstrated steps nearest to what is seen.
            demonstrations: Episodes to retrieve from, see :meth:`with_demonstrations`; None
                retrieves nothing.
            interpolate: As in :meth:`with_demonstrations`.
            cut: Which part of a demonstration longer than the network's prompt region is kept,
                "end" or "start"; None rejects it.
            target_return: As in the class; see also :meth:`with_return`.
            device: "cpu", "cuda", or "auto": a GPU if there is one.
            precision: "float32", "bfloat16", "int8" (weights of eight bits), or "auto": float32 on
                a CPU, bfloat16 on a GPU. Only float32 on a CPU gives a row the same numbers in any
                batch.
            compiled: Whether PyTorch compiles repeated steps. The first ones then take half a
                minute. This is for GPUs, which record repeated steps as CUDA graphs in any case,
                see :mod:`policies.model.cuda_graphs`: a CPU's bfloat16 and int8 are always
                compiled, and its float32 gains little with one environment and loses with many.
            sampler: How action tokens are chosen; None takes the checkpoint's.
            seed: Seed of the sampled actions.

        Raises:
            policies.gato.checkpoint.CheckpointError: The checkpoint is damaged or of a newer
                version.
            policies.gato.task_specs.SpaceMismatchError: No task, or several tasks, of the
                checkpoint have these spaces.
        """
        from policies.gato.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(name)
        target = choose_device(device)
        network = inference(checkpoint.network)
        network = with_precision(network, choose_precision(precision, target)).to(target)
        network.backbone.compiled = compiled
        make = functools.partial(
            cls,
            network,
            tasks=checkpoint.tasks,
            target_return=target_return,
            sampler=sampler or checkpoint.sampler,
            seed=seed,
            card=checkpoint.card,
        )
        ids = network.config.vocabulary
        show = isinstance(prompt, str) and prompt == "retrieved"
        policy = _bind(
            make,
            checkpoint.tasks,
            ids,
            env,
            task=task,
            prompt=None if show else prompt,
            cut=cut,
            alike=demonstrations is not None,
        )
        if demonstrations is None:
            if show:
                raise ValueError("prompt is 'retrieved': pass demonstrations= to retrieve from")
            return policy
        return policy.with_demonstrations(demonstrations, interpolate=interpolate, show=show)

    from_pretrained = load
    """:meth:`load`, by the name that hub libraries have for it."""

    def push_to_hub(
        self,
        name: str,
        *,
        evaluations: Sequence[Mapping[str, Any]] = (),
        video: Path | None = None,
        private: bool = False,
    ) -> str:
        """Upload the checkpoint that :meth:`save` would write, with a model card; returns its URL.

        Arguments and errors as in :func:`policies.gato.publishing.hub_files` and
        :func:`policies.gato.publishing.push_files`.
        """
        from policies.gato.publishing import hub_files, push_files

        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / "checkpoint")
            files = hub_files(
                name, Path(folder) / "checkpoint", evaluations=evaluations, video=video
            )
            return push_files(name, files, private=private)

    def with_env(
        self,
        env: Any,
        *,
        task: str | None = None,
        prompt: Any = "shipped",
        cut: str | None = None,
    ) -> GatoPolicy:
        """A view of the same weights for another environment; arguments as in :meth:`load`."""
        ids = self.network.config.vocabulary
        return _bind(self._view, self.tasks, ids, env, task=task, prompt=prompt, cut=cut)

    def _view(
        self,
        plan: Plan,
        *,
        task: str | None,
        prompt: Prompt | None,
        target_return: float | None = None,
    ) -> GatoPolicy:
        kept = self.demonstrations if plan is self.plan else None
        kept = None if kept is None else dataclasses.replace(kept, show=False)
        return GatoPolicy(
            self.network,
            plan,
            tasks=self.tasks,
            task=task,
            prompt=prompt,
            target_return=target_return,
            sampler=self.sampler,
            seed=self.seed,
            card=self.card,
            demonstrations=kept,
        )

    def with_demonstrations(
        self, demonstrations: Any, *, interpolate: bool = True, show: bool = False
    ) -> GatoPolicy:
        """A view of the same weights that retrieves from demonstrations.

        Args:
            demonstrations: Episodes of the policy's environment, or what names them, see
                :func:`policies.retrieval.policy.demonstrations_of`.
            interpolate: Whether they share the say, as :mod:`policies.retrieval.retriever` defines.
            show: Whether the network sees the nearest steps as its prompt, likewise.

        Raises:
            ValueError: There is no demonstration, or one does not fit; the network's prompt
                region has no room for a step.
            FileNotFoundError: There is no such dataset.
        """
        view = copy.copy(self)
        view.prompt = None if show else self.prompt
        view.demonstrations = Demonstrations(
            Retriever(self.plan, demonstrations), interpolate=interpolate, show=show
        )
        view.decoder = view._make_decoder(self.network)
        return view

    def with_prompt(self, prompt: Any, *, cut: str | None = None) -> GatoPolicy:
        """A view of the same weights with another demonstration.

        Args:
            prompt: An Episode, a Minari dataset, or its id or path, see
                :func:`policies.gato.prompts.demonstration`; or None.
            cut: As in :meth:`load`.

        Raises:
            FileNotFoundError: There is no such dataset.
            ValueError: It is not a demonstration, or is too long and ``cut`` is None.
        """
        chosen = None
        if prompt is not None:
            capacity = self.network.config.prompt_tokens
            chosen = prompt_from_episode(
                self.plan, demonstration(prompt), capacity=capacity, cut=cut
            )
        kept = self.target_return if self.network.config.return_conditioned else None
        return self._view(self.plan, task=self.task, prompt=chosen, target_return=kept)

    def with_return(self, share: float | None = None, *, total: float | None = None) -> GatoPolicy:
        """A view of the same weights that plays for another return.

        Args:
            share: Share of the expert's return, such as 0.9.
            total: The return itself. With neither, the best that was seen in training.

        Raises:
            ValueError: Both are given, or the network reads no returns to go.
        """
        target = self.returns.target(share, total)
        view = self._view(self.plan, task=self.task, prompt=self.prompt, target_return=target)
        view.demonstrations = self.demonstrations  # shown ones too, which another prompt replaces
        view.decoder = view._make_decoder(self.network)
        return view

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint folder that :meth:`load` reads; see :mod:`policies.gato.checkpoint`.

        The card is the loaded checkpoint's. The weights are written in bfloat16 if that keeps
        their values, as it does for a shipped checkpoint's, and in float32 otherwise.

        Raises:
            ValueError: The weights have fewer bits than in training.
        """
        from policies.gato.checkpoint import save_checkpoint

        if self.network.precision != "float32":
            raise ValueError(
                f"this policy is in {self.network.precision}, and a checkpoint holds what was "
                "trained: load it with precision='float32' and save that"
            )
        tasks = dict(self.tasks)
        if not tasks:
            record = TaskRecord.of(self.plan, self.prompt)
            tasks[self.task or "custom"] = record
        save_checkpoint(Path(folder), self.network, tasks, self.sampler, card=self.card)

    def generate_text(
        self,
        prompt: str = "",
        image: NDArray[np.uint8] | None = None,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> str:
        """The network's continuation of a prompt; it must have been trained on text.

        Arguments as in :func:`policies.gato.text_generation.write`.
        """
        parts = self.stream_text(
            prompt, image, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
        )
        return "".join(parts)

    def stream_text(
        self,
        prompt: str = "",
        image: NDArray[np.uint8] | None = None,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """The parts of :meth:`generate_text`, each as soon as it is chosen."""
        return write(
            self.network,
            prompt,
            image=image,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )

    def to(self, device: str | torch.device) -> GatoPolicy:
        """This policy if it is on the device already, else a copy there.

        States stay on the device of the policy that made them.
        """
        target = choose_device(str(device))
        if target == self.device:
            return self
        moved = copy.deepcopy(self)
        moved.network.to(target)
        moved.decoder = self._make_decoder(moved.network)
        return moved

    def __repr__(self) -> str:
        """Its network's size and place, its task and its spaces."""
        return (
            f"{type(self).__name__}({count_parameters(self.network):,} parameters, "
            f"{self.network.precision} on {self.device}, task={self.task!r}, "
            f"prompt={'yes' if self.prompt else 'none'}, "
            f"observation_space={self.observation_space}, action_space={self.action_space})"
        )

    def describe(self) -> str:
        """A few lines about sizes, tokens of a timestep and memory of a row."""
        config, plan = self.network.config, self.plan
        cache = self.decoder.empty_cache(1)
        return "\n".join(
            (
                f"{count_parameters(self.network):,} parameters, {config.layers} layers, "
                f"width {config.width}, in {self.network.precision} on {self.device}",
                f"task {self.task or 'none'}, prompt {'yes' if self.prompt else 'none'}",
                f"{plan.num_tokens} body and {plan.num_actions} action tokens a timestep, "
                f"layout {plan.options.layout}, memory {plan.options.memory}",
                f"window {config.window} tokens, cache {cache.nbytes / 2**20:.1f} MiB a row",
            )
        )

    def seed_episodes(
        self, seeds: Sequence[int | None], state: GatoState | None = None
    ) -> GatoState:
        """As :meth:`policies.base.Policy.seed_episodes`."""
        state = self.new_state(len(seeds)) if state is None else state
        state.generators[:] = with_seeds(state.generators.tolist(), seeds)
        return state

    @property
    def observes_rewards(self) -> bool:
        """Whether :meth:`observe_reward` changes what it does."""
        return self.network.config.return_conditioned

    def observe_reward(self, state: GatoState, row: int, reward: float) -> None:
        """As :meth:`policies.base.Policy.observe_reward`: less is then left to collect."""
        if self.observes_rewards:
            state.returns[row] -= reward / self.returns.scale

    def _predict_batch(
        self,
        observation: Any,
        state: GatoState | None,
        starts: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[Any, GatoState]:
        rows = len(starts)
        state = self.new_state(rows) if state is None else state
        check_state(state, rows, self.decoder.owner)
        (actions,) = act(
            [self.decoder],
            [observation],
            [starts],
            state,
            deterministic=deterministic,
            span=self.span,
        )
        return actions, state

    def new_state(self, rows: int, cache: RingCache | None = None) -> GatoState:
        """The state of rows that start afresh; see :meth:`Decoder.new_state`."""
        return self.decoder.new_state(rows, cache)

    @property
    def ring(self) -> int:
        """Cache slots that a row needs beside the prompt's."""
        return self.decoder.ring

    @property
    def prompt_slots(self) -> int:
        """Cache slots of the prompt."""
        return self.decoder.prompt_slots

    def acts_like(self, other: GatoPolicy) -> bool:
        """Whether rows of this policy and of another can be decoded as one batch."""
        return self.decoder.acts_like(other.decoder)


def _bind(
    make: Callable[..., GatoPolicy],
    tasks: Mapping[str, TaskRecord],
    vocabulary: Vocabulary,
    env: Any,
    *,
    task: str | None,
    prompt: Any,
    cut: str | None,
    alike: bool = False,
) -> GatoPolicy:
    """The policy for ``env``; ``make`` takes its plan, its task and its prompt."""
    shipped = isinstance(prompt, str) and prompt == "shipped"
    if isinstance(prompt, str) and prompt == "none":
        prompt = None
    task_id, record = find_task(tasks, env, task, alike=alike)
    spaces = record.read_spaces() if env is None else spaces_of(env)
    plan = compile_plan(*spaces, record.options, vocabulary=vocabulary)
    policy = make(plan, task=task_id, prompt=record.prompt if shipped and record.prompted else None)
    return policy if shipped or prompt is None else policy.with_prompt(prompt, cut=cut)
