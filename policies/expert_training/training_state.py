"""A training's state in one file: what a run needs to resume, and its best network so far.

* :class:`TrainingState` -- counters, curve, best network.
* :func:`save_state`, :func:`load_state` -- one safetensors file with JSON in its header, written
  to a temporary name and renamed: a run that is killed leaves the last one whole.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gato_gym.files.atomic_io import appearing_file
from gato_gym.files.bounded_io import as_type, check_file, parse_json

STATE_FILE = "state.safetensors"
FORMAT = 2


class TrainingStateError(ValueError):
    """A state that cannot be taken up again."""


@dataclass
class TrainingState:
    """Where a training is.

    Attributes:
        steps: Environment steps done.
        updates: Updates that the algorithm counts.
        seconds: Seconds of training and evaluating, over all runs.
        curve: An entry for each evaluation: steps, mean and std of returns, seconds.
        best: Mean return of the best evaluation; None before the first.
        best_steps: Steps of the best network.
        best_config: What its tensors do not contain.
        finished: Why the training has ended; None while it can continue.
    """

    steps: int = 0
    updates: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float, float, float]] = field(default_factory=list)
    best: float | None = None
    best_steps: int = 0
    best_config: dict[str, Any] = field(default_factory=dict)
    finished: str | None = None


def save_state(
    path: Path, state: TrainingState, tensors: Mapping[str, Tensor], setting: Mapping[str, Any]
) -> None:
    """Write the state; ``setting`` is what must be the same when it is taken up again."""
    header = {"format": FORMAT, "state": dataclasses.asdict(state), "setting": dict(setting)}
    copies = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    with appearing_file(path) as partial:
        save_file(copies, partial, metadata={"training": json.dumps(header)})


def load_state(path: Path) -> tuple[TrainingState, dict[str, Tensor], dict[str, Any]]:
    """The inverse of :func:`save_state`.

    Raises:
        TrainingStateError: The file is damaged, or a version with another format wrote it.
    """
    try:
        check_file(path)
        with safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {})["training"], "its header")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        version = as_type(int, header["format"], "format")
        if version == FORMAT:
            state = as_type(TrainingState, header["state"], "state")
            return state, tensors, as_type(dict[str, Any], header["setting"], "setting")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingStateError(
            f"{path} is no training that can be resumed ({error!r}): remove it to start afresh"
        ) from error
    raise TrainingStateError(
        f"{path} has format {version} and this gato-gym reads {FORMAT}: resume with the version "
        "that wrote it, or remove the file to start afresh"
    )
