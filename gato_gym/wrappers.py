"""Environments whose observations and actions are tokens.

* :class:`GatoTokenize` -- for one environment, and for ``wrappers=[...]`` of ``gym.make_vec``.
* :class:`GatoTokenizeVector` -- for a vector environment as a whole.
* :func:`make` -- ``gym.make`` with ``wrappers``.
* :func:`install_make_vec` -- makes ``gym.make_vec(id, wrappers=[GatoTokenize])`` work everywhere.
* :func:`token_space`, :func:`action_token_space` -- the spaces of such an environment.
* :func:`resolve_options` -- the options of an environment's plan.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from gato_gym.options import PlanOptions
from gato_gym.plans.scaling import VECTOR_LIMIT
from gato_gym.spaces import Plan, TokenizedBatch, compile_plan

__all__ = [
    "GatoTokenize",
    "GatoTokenizeVector",
    "action_token_space",
    "install_make_vec",
    "make",
    "resolve_options",
    "token_space",
]

Tokens = dict[str, Any]
"""An observation as tokens: see :func:`token_space`."""

NO_TOKEN = -1
"""What fills the text's row past its last token."""


class GatoTokenize(gym.Wrapper[Tokens, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """One environment in Gato's token space.

    Observations become the Dict of :func:`token_space`. Actions are tokens of
    :func:`action_token_space`, which ``env.plan.decode`` decodes. Every observation contains its
    whole text, whenever the options emit it to a policy.

    Args:
        env: Any environment whose spaces a plan can be compiled for.
        options: The plan's options, or their ``to_json()``. None takes the options of the task if
            ``env`` is one, and the defaults otherwise.
        text_length: Largest number of text tokens in an observation.
        action_offsets: Whether actions are offsets from the first legal id of each position, in a
            MultiDiscrete that starts at 0, as Stable-Baselines3's agents require.

    Raises:
        ValueError: The spaces have no plan, or a text needs more than ``text_length`` tokens.

    Example:
        >>> env = make("CartPole-v1", wrappers=[GatoTokenize])
        >>> observation, info = env.reset(seed=0)
        >>> observation["vectors"].shape, env.action_space
        ((1, 64), MultiDiscrete([2], start=[33024]))
        >>> observation, *_ = env.step([33025])
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        options: PlanOptions | Mapping[str, Any] | None = None,
        *,
        text_length: int = 128,
        action_offsets: bool = False,
    ) -> None:
        resolved = resolve_options(options, env)
        gym.utils.RecordConstructorArgs.__init__(
            self,
            options=resolved.to_json(),
            text_length=text_length,
            action_offsets=action_offsets,
        )
        gym.Wrapper.__init__(self, env)
        self.plan = compile_plan(env.observation_space, env.action_space, resolved)
        self.text_length = text_length
        self.observation_space = token_space(self.plan, text_length=text_length)
        self._kinds = tuple(self.observation_space)
        self.action_space = action_token_space(self.plan, offsets=action_offsets)
        self._first_ids = self.plan.action_ranges[:, 0] if action_offsets else 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tokens, dict[str, Any]]:
        """Reset the environment; returns its first observation as tokens."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._tokens(observation), info

    def step(self, action: Any) -> tuple[Tokens, Any, bool, bool, dict[str, Any]]:
        """Step the environment with the action of tokens ``[A]``.

        Raises:
            ValueError: A token is not legal at its position.
        """
        decoded = self.plan.decode(np.asarray(action) + self._first_ids)
        observation, reward, terminated, truncated, info = self.env.step(decoded)
        return self._tokens(observation), reward, terminated, truncated, info

    def _tokens(self, observation: Any) -> Tokens:
        return _one_as_tokens(self.plan, observation, self._kinds, self.text_length)


class GatoTokenizeVector(VectorWrapper[Tokens, Any, Any, Any, Any]):
    """A vector environment in Gato's token space, encoded and decoded as a batch.

    Use it for environments with their own vector implementation.

    Args:
        env: A vector environment, in any autoreset mode.
        options: As for :class:`GatoTokenize`.
        text_length: As for :class:`GatoTokenize`.
        action_offsets: As for :class:`GatoTokenize`.

    Raises:
        ValueError: If the spaces have no plan, or a text needs more than ``text_length`` tokens.

    Example:
        >>> envs = GatoTokenizeVector(gym.make_vec("CartPole-v1", num_envs=4))
        >>> observations, infos = envs.reset(seed=0)
        >>> observations["vectors"].shape
        (4, 1, 64)
        >>> observations, *_ = envs.step([[33024], [33025], [33025], [33024]])
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        options: PlanOptions | Mapping[str, Any] | None = None,
        *,
        text_length: int = 128,
        action_offsets: bool = False,
    ) -> None:
        super().__init__(env)
        resolved = resolve_options(options, env)
        self.plan = compile_plan(env.single_observation_space, env.single_action_space, resolved)
        self.text_length = text_length
        self.single_observation_space = token_space(self.plan, text_length=text_length)
        self._kinds = tuple(self.single_observation_space)
        self.single_action_space = action_token_space(self.plan, offsets=action_offsets)
        self._first_ids = self.plan.action_ranges[:, 0] if action_offsets else 0
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tokens, dict[str, Any]]:
        """Reset all environments; returns their first observations as tokens ``[B, ...]``."""
        with self._uncopied():
            observations, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        return self._tokens(observations), infos

    def step(self, actions: Any) -> tuple[Tokens, Any, Any, Any, dict[str, Any]]:
        """Step all environments with the actions of tokens ``[B, A]``.

        Final observations in ``infos`` (autoreset in the same step) are tokens, too.

        Raises:
            ValueError: A token is not legal at its position.
        """
        decoded = self.plan.decode_batch(np.asarray(actions) + self._first_ids)
        with self._uncopied():
            observations, rewards, terminations, truncations, infos = self.env.step(decoded)
        if "final_obs" in infos:
            finals = np.empty(self.num_envs, dtype=object)
            for row, final in enumerate(infos["final_obs"]):
                if final is not None:
                    finals[row] = _one_as_tokens(self.plan, final, self._kinds, self.text_length)
            infos = {**infos, "final_obs": finals}
        return self._tokens(observations), rewards, terminations, truncations, infos

    @contextmanager
    def _uncopied(self) -> Iterator[None]:
        """Leaves out the copy of observations, which are encoded at once and not handed on."""
        env = self.env
        if not isinstance(env, (SyncVectorEnv, AsyncVectorEnv)):
            yield
            return
        copies, env.copy = env.copy, False
        try:
            yield
        finally:
            env.copy = copies

    def _tokens(self, observations: Any) -> Tokens:
        return _as_tokens(self.plan.encode_batch(observations), self._kinds, self.text_length)


def token_space(plan: Plan, *, text_length: int = 128) -> spaces.Dict:
    """The space of an observation's tokens, without the parts the plan does not use.

    Args:
        plan: The plan.
        text_length: Room for text tokens.

    Returns:
        A Dict with some of ``text`` int32 ``[text_length]``, -1 past the text's end; ``ids`` int32
        ``[I]``; ``vectors`` float32 ``[V, vector_size]``; ``images`` uint8 ``[M, P, P, C]``;
        ``grids`` uint8 ``[G, H, W, planes]``.
    """
    words = plan.vocabulary.text
    shape = (len(plan.vector_slots), plan.options.vector_size)
    parts: dict[str, spaces.Space[Any]] = {
        "ids": spaces.Box(0, plan.vocabulary.size - 1, (len(plan.id_slots),), np.int32),
        "vectors": spaces.Box(-VECTOR_LIMIT, VECTOR_LIMIT, shape, np.float32),
        "images": spaces.Box(0, 255, (len(plan.image_slots), *plan.image_shape), np.uint8),
        "grids": spaces.Box(0, 255, (len(plan.grid_slots), *plan.grid_size), np.uint8),
    }
    used = {name: box for name, box in parts.items() if np.prod(box.shape or (0,))}
    if plan.has_text:
        used["text"] = spaces.Box(NO_TOKEN, words.stop - 1, (text_length,), np.int32)
    return spaces.Dict(used)


def action_token_space(plan: Plan, *, offsets: bool = False) -> spaces.MultiDiscrete:
    """The space of an action's tokens ``[A]``: at each position, the ids that are legal there.

    Ids are legal one by one; each combination of them decodes to a member of the action space.

    Args:
        plan: The plan.
        offsets: Whether ids count from the first legal one.
    """
    start, stop = plan.action_ranges.astype(np.int64).T
    return spaces.MultiDiscrete(stop - start, start=None if offsets else start)


def make(
    id: str | EnvSpec,
    *,
    wrappers: Sequence[Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]] = (),
    **kwargs: Any,
) -> gym.Env[Any, Any]:
    """``gym.make`` with ``wrappers`` around the environment, the first innermost.

    Args:
        id: An environment id or spec, or a task's id such as ``babyai-go-to-local``.
        wrappers: Functions from an environment to a wrapped one, such as :class:`GatoTokenize`.
        **kwargs: As ``gym.make`` takes them.

    Returns:
        The environment; ``gym.make(env.spec)`` builds it again.

    Raises:
        UnknownTaskError: The id of a task does not exist; names the nearest.
    """
    from gato_gym.tasks.registry import get_task, list_suites
    from gato_gym.tasks.task import NAMESPACE

    if isinstance(id, str) and id not in gym.registry and id.partition("-")[0] in list_suites():
        id = f"{NAMESPACE}/{get_task(id).id}"
    env: gym.Env[Any, Any] = gym.make(id, **kwargs)
    for wrapper in wrappers:
        env = wrapper(env)
    return env


def _as_tokens(batch: TokenizedBatch, kinds: Sequence[str], text_length: int) -> Tokens:
    tokens: Tokens = {kind: getattr(batch, kind) for kind in kinds}
    if "text" in kinds:
        lengths = np.fromiter(map(len, batch.text), np.int64, len(batch))
        if lengths.max(initial=0) > text_length:
            row = int(lengths.argmax())
            raise ValueError(
                f"text of row {row} has {lengths[row]} tokens: expected at most {text_length}; "
                f"give GatoTokenize room with text_length={lengths[row]} or more"
            )
        tokens["text"] = np.full((len(batch), text_length), NO_TOKEN, np.int32)
        tokens["text"][np.arange(text_length) < lengths[:, None]] = np.concatenate(batch.text)
    return tokens


def _one_as_tokens(plan: Plan, observation: Any, kinds: Sequence[str], text_length: int) -> Tokens:
    step = plan.encode(observation)
    batch = TokenizedBatch(
        (step.text,), step.ids[None], step.vectors[None], step.images[None], step.grids[None]
    )
    return {name: part[0] for name, part in _as_tokens(batch, kinds, text_length).items()}


def resolve_options(
    options: PlanOptions | Mapping[str, Any] | None,
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
) -> PlanOptions:
    """The given options, or those of the task ``env``, or the defaults.

    The task comes from the innermost environment: a wrapper would cache its unfinished spec if
    asked while ``gym.make`` is running.
    """
    if isinstance(options, PlanOptions):
        return options
    if options is not None:
        return PlanOptions.from_json(options)
    spec = env.unwrapped.spec
    if spec is not None and spec.id.startswith("Gato/"):
        from gato_gym.tasks import get_task

        return get_task(spec.id).options
    return PlanOptions()


def install_make_vec() -> None:
    """Let ``gym.make_vec`` vectorize environments one by one for wrappers with `GatoTokenize`.

    If an environment has its own vector implementation (as CartPole-v1 does), Gymnasium chooses it
    and then refuses ``wrappers``, unless ``vectorization_mode`` is set.
    """
    if not hasattr(gym.make_vec, "__wrapped__"):
        gym.make_vec = _accept_tokenize(gym.make_vec)


def _accept_tokenize(make_vec: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(make_vec)
    def make_vec_tokenized(
        id: Any,
        num_envs: int = 1,
        vectorization_mode: Any = None,
        vector_kwargs: dict[str, Any] | None = None,
        wrappers: Sequence[Callable[..., Any]] | None = None,
        **kwargs: Any,
    ) -> Any:
        if vectorization_mode is None and any(map(_tokenizes, wrappers or ())):
            vectorization_mode = "sync"
        return make_vec(id, num_envs, vectorization_mode, vector_kwargs, wrappers, **kwargs)

    return make_vec_tokenized


def _tokenizes(wrapper: Callable[..., Any]) -> bool:
    function = wrapper.func if isinstance(wrapper, functools.partial) else wrapper
    return isinstance(function, type) and issubclass(function, GatoTokenize)
