"""Which task of a checkpoint an environment plays: by its id, or by its spaces.

* :class:`TaskRecord` -- what a checkpoint knows about a task.
* :func:`find_task` -- the task of an environment.
* :func:`signature` -- what must agree between training and use; :func:`task_number`, the same
  and the task's name as a number.
* :func:`check_sizes` -- whether a plan's parts and ids fit a network.
* :func:`check_row` -- whether a timestep fits a row of a batch.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from gato_gym.options import PlanOptions
from gato_gym.space_json import read_space, write_space
from gato_gym.spaces import Plan
from gato_gym.tasks import task_id_of
from gato_gym.text import is_text_space
from policies.base import spaces_of
from policies.gato.prompts import Prompt
from policies.model.config import NetworkConfig
from policies.model.inputs.sequence import fed_actions
from policies.returns import ReturnScale


class SpaceMismatchError(ValueError):
    """An environment's spaces are not those that a checkpoint was trained for."""


@dataclass(frozen=True)
class TaskRecord:
    """What a checkpoint knows about a task.

    Attributes:
        options: How its spaces become tokens.
        signature: The signature of its spaces, see :func:`signature`.
        prompt: A demonstration, or None.
        prompted: Whether the policy acts after it by default.
        spaces: Its observation and action space as :mod:`gato_gym.space_json` writes
            them, or None if it cannot.
        returns: Of its episodes in training, where the network reads returns to go; else None.
    """

    options: PlanOptions
    signature: str
    prompt: Prompt | None = None
    prompted: bool = True
    spaces: tuple[str, str] | None = None
    returns: ReturnScale | None = None

    @classmethod
    def of(
        cls,
        plan: Plan,
        prompt: Prompt | None = None,
        *,
        prompted: bool = True,
        returns: ReturnScale | None = None,
    ) -> TaskRecord:
        """The record of a plan's task."""
        both_spaces = plan.observation_space, plan.action_space
        written = _written(*both_spaces)
        return cls(plan.options, signature(*both_spaces), prompt, prompted, written, returns)

    def read_spaces(self) -> tuple[gym.Space[Any], gym.Space[Any]]:
        """Its observation and action space.

        Raises:
            SpaceMismatchError: They were not kept.
            ValueError: They are damaged.
        """
        if self.spaces is None:
            raise SpaceMismatchError(
                f"the checkpoint does not hold the spaces of {self.signature}: pass env="
            )
        observation, action = (read_space(text, "the checkpoint's space") for text in self.spaces)
        return observation, action


def _written(observation: gym.Space[Any], action: gym.Space[Any]) -> tuple[str, str] | None:
    try:
        return write_space(observation), write_space(action)
    except ValueError:
        return None


def describe_space(space: gym.Space[Any]) -> Any:
    """What must agree between training and use: kinds, shapes and sizes, but no bounds."""
    if isinstance(space, spaces.Dict):
        return {
            str(key): describe_space(space.spaces[key]) for key in sorted(space.spaces, key=str)
        }
    if isinstance(space, spaces.Tuple):
        return [describe_space(part) for part in space.spaces]
    if isinstance(space, spaces.Sequence):
        return {f"Sequence, stack={space.stack}": describe_space(space.feature_space)}
    if isinstance(space, spaces.OneOf):
        return {"OneOf": [describe_space(branch) for branch in space.spaces]}
    if isinstance(space, spaces.Graph):
        edges = None if space.edge_space is None else describe_space(space.edge_space)
        return {"Graph": [describe_space(space.node_space), edges]}
    if is_text_space(space):
        return "text"
    if isinstance(space, spaces.Discrete):
        return f"Discrete({int(space.n)})"
    if isinstance(space, spaces.MultiDiscrete):
        return f"MultiDiscrete({space.nvec.tolist()})"
    if isinstance(space, spaces.MultiBinary):
        return f"MultiBinary({space.n})"
    if not isinstance(space, spaces.Box):
        return type(space).__name__
    kind = "integers" if space.dtype is not None and space.dtype.kind in "iub" else "floats"
    return f"Box{list(space.shape)} {kind}"


def signature(observation: gym.Space[Any], action: gym.Space[Any]) -> str:
    """A text that is equal for spaces that one task record serves."""
    described = {"observation": describe_space(observation), "action": describe_space(action)}
    return json.dumps(described, sort_keys=True)


def task_number(task: str | None, plan: Plan) -> int:
    """A number that two tasks share only if their name, spaces and token options agree; int64."""
    spaces = signature(plan.observation_space, plan.action_space)
    text = json.dumps([task, spaces, plan.options.to_json()])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


def find_task(
    tasks: Mapping[str, TaskRecord], env: Any, task: str | None, *, alike: bool = False
) -> tuple[str, TaskRecord]:
    """The task of ``env`` among a checkpoint's.

    Args:
        tasks: Records by task id.
        env: Provides its task id and spaces; None uses ``task``, or the only task.
        task: A task id that overrides the environment's.
        alike: Whether a new task is read as those of the same spaces are, if these are all read
            alike: it has demonstrations, which say what is played.

    Raises:
        SpaceMismatchError: The task is unknown, its spaces differ, or several tasks fit.
    """
    if task is not None and task not in tasks:
        near = difflib.get_close_matches(task, tasks, 3)
        hint = f"did you mean {', '.join(near)}?" if near else f"it knows {_listed(tasks)}"
        raise SpaceMismatchError(f"the checkpoint has no task {task!r}: {hint}")
    if env is None:
        if task is None and len(tasks) != 1:
            raise SpaceMismatchError(
                f"the checkpoint knows {len(tasks)} tasks: pass env=, or task=, one of "
                f"{_listed(tasks)}"
            )
        only = task or next(iter(tasks))
        return only, tasks[only]
    spaces = signature(*spaces_of(env))
    named = task or task_id_of(env) or _environment_id(env)
    if named is not None and named in tasks:
        record = tasks[named]
        if record.signature != spaces:
            raise SpaceMismatchError(
                f"task {named!r} was trained with spaces {record.signature} and this environment "
                f"has {spaces}: pass an environment as it was in training, or task="
            )
        return named, record
    fitting = [name for name, record in tasks.items() if record.signature == spaces]
    if alike and fitting:
        first = tasks[fitting[0]]
        if all(tasks[name].options == first.options for name in fitting):
            return named or "new", replace(first, prompt=None, prompted=False)
    if len(fitting) == 1:
        return fitting[0], tasks[fitting[0]]
    if not fitting:
        raise SpaceMismatchError(
            f"no task of the checkpoint has these spaces: got {spaces}; it knows {_listed(tasks)}. "
            "Train a checkpoint on episodes of this environment, or use GatoPolicy.create(env) "
            "for fresh weights"
        )
    raise SpaceMismatchError(
        f"{len(fitting)} tasks of the checkpoint have this environment's spaces: pass task=, one "
        f"of {_listed(fitting)}"
    )


def check_sizes(
    config: NetworkConfig, plan: Plan, *, length: int | None = None, task: str | None = None
) -> None:
    """Refuse a plan with parts or timesteps larger than the network's, or with other ids.

    Args:
        config: The network's sizes.
        plan: How spaces become tokens.
        length: Tokens of a packed row, for training.
        task: What the message calls the task.

    Raises:
        ValueError: Names the part.
    """
    if plan.vocabulary != config.vocabulary:
        raise ValueError(
            f"the plan has {plan.vocabulary} and the network {config.vocabulary}: "
            "compile the plan with vocabulary=network.config.vocabulary"
        )
    if plan.image_shape[2] and plan.options.image_size != config.image_size:
        raise ValueError(
            f"image_size is {plan.options.image_size} and the network's {config.image_size}: "
            "change the plan's options or use a network made for it"
        )
    for path, channels in plan.image_channels.items():
        if channels > config.image_channels:
            raise ValueError(
                f"observation {path!r} is an image of {channels} channels: the network takes at "
                f"most {config.image_channels}. If its first axis is frames, "
                f"PlanOptions(stacks=({path!r},)) reads the newest; a wrapper that gives it as "
                f"float32 has it read as numbers; PlanOptions(skip=({path!r},)) leaves it out"
            )
    room = (config.grid_size, config.grid_size, config.grid_planes)
    if any(got > limit for got, limit in zip(plan.grid_size, room, strict=True)):
        raise ValueError(
            f"PlanOptions.grids names {list(plan.options.grids)} of size {plan.grid_size}: the "
            f"network takes at most {room}. Out of grids it is read as numbers; "
            "PlanOptions(skip=...) leaves it out"
        )
    for name, got, limit in (
        ("vector_size", plan.options.vector_size * (plan.vector_length > 0), config.vector_size),
        ("parallel actions", plan.num_actions * plan.has_parallel_actions, config.action_places),
    ):
        if got > limit:
            raise ValueError(
                f"{name} is {got} and the network takes at most {limit}: "
                "change the plan's options or use a network made for it"
            )
    last = plan.num_tokens  # all of which an action is predicted from, with the actions before it
    if not plan.has_parallel_actions:
        last += plan.num_actions - 1
    larger = f"NetworkConfig(window={last}), train's --network '{{\"window\": {last}}}'"
    _check_timestep(plan, last, config.window, "the network's window", larger, task)
    if length is not None:
        check_row(plan, length, task=task)


def check_row(plan: Plan, length: int, *, text: int = 0, task: str | None = None) -> None:
    """Refuse a plan whose timesteps, with a text of so many tokens, fit no row of a batch.

    Raises:
        ValueError: Names the numbers.
    """
    tokens = text + plan.num_tokens + fed_actions(plan)
    larger = f"--length {tokens}"
    _check_timestep(plan, tokens, length, "a row of a batch", larger, task)


def _check_timestep(
    plan: Plan, tokens: int, limit: int, room: str, larger: str, task: str | None
) -> None:
    if tokens > limit:
        of = "" if task is None else f" of {task!r}"
        images = f" ({len(plan.image_slots)} of images)" if len(plan.image_slots) else ""
        raise ValueError(
            f"a timestep{of} has {tokens} tokens{images} and {room} has {limit}: scale images down "
            "(gymnasium.wrappers.ResizeObservation), leave parts out (PlanOptions.skip, train's "
            f"--options '{{\"skip\": […]}}'), or ask for more ({larger})"
        )


def _environment_id(env: Any) -> str | None:
    """Gymnasium's id of an environment, or of the first of a vector environment."""
    first = env.envs[0] if getattr(env, "envs", None) else env
    return getattr(getattr(first, "spec", None), "id", None)


def _listed(names: Any, most: int = 8) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
