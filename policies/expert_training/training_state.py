"""A training's state in one file: what a run needs to go on, and its best network so far.

* :class:`TrainingState` -- counters, curve, best network.
* :func:`save_state`, :func:`load_state` -- one safetensors file with JSON in its header, written
  to a temporary name and renamed: a run that is killed leaves the last one whole.
* :func:`tensors_of`, :func:`restore` -- an algorithm with its optimisers and normalisation.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from policies.expert_training.sbx_state import is_jax, jax_tensors, restore_jax

STATE_FILE = "state.safetensors"
FORMAT = 2


class TrainingStateError(ValueError):
    """A state that cannot be taken up again."""


@dataclass
class TrainingState:
    """Where a training is.

    Attributes:
        steps: Environment steps done.
        updates: Of the algorithm's own counter.
        seconds: Of training and evaluating, over all runs.
        curve: An entry for each evaluation: steps, mean and std of returns, seconds.
        best: Mean return of the best evaluation; None before the first.
        best_steps: Steps of the best network.
        best_config: What its tensors do not tell.
        finished: Why the training has ended; None while it goes on.
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
    temporary = path.with_name(f".{path.name}.partial")
    save_file(
        {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()},
        temporary,
        metadata={"training": json.dumps(header)},
    )
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_state(path: Path) -> tuple[TrainingState, dict[str, Tensor], dict[str, Any]]:
    """The inverse of :func:`save_state`.

    Raises:
        TrainingStateError: The file is damaged, or a version with another format wrote it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["training"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        version = int(header["format"])
        if version == FORMAT:
            fields = dict(header["state"])
            fields["curve"] = [tuple(point) for point in fields["curve"]]
            return TrainingState(**fields), tensors, dict(header["setting"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingStateError(
            f"{path} is no training that can go on ({error!r}): remove it to start afresh"
        ) from error
    raise TrainingStateError(
        f"{path} has format {version} and this gato-gym reads {FORMAT}: go on with the version "
        "that wrote it, or remove the file to start afresh"
    )


def tensors_of(algorithm: Any) -> dict[str, Tensor]:
    """Weights, optimisers and normalisation of an algorithm, by names with "/" between parts."""
    found = jax_tensors(algorithm) if is_jax(algorithm) else _torch_tensors(algorithm)
    for name, statistics in _normalisations(algorithm):
        for key in ("mean", "var", "count"):
            number = np.asarray(getattr(statistics, key), np.float64)
            found[f"{name}/{key}"] = torch.from_numpy(number.copy())
    return found


def restore(algorithm: Any, tensors: Mapping[str, Tensor], *, optimisers: bool = True) -> None:
    """Put the tensors of :func:`tensors_of` back.

    Args:
        algorithm: Made by the same recipe.
        tensors: What was saved.
        optimisers: False leaves the optimisers, the returns' statistics and the exploration as
            they are: what another task's training knows of its own rewards.

    Raises:
        TrainingStateError: They are of another network.
    """
    put_back = restore_jax if is_jax(algorithm) else _restore_torch
    try:
        put_back(algorithm, tensors, optimisers=optimisers)
        for name, statistics in _normalisations(algorithm)[: 2 if optimisers else 1]:
            statistics.mean = tensors[f"{name}/mean"].numpy()
            statistics.var = tensors[f"{name}/var"].numpy()
            statistics.count = float(tensors[f"{name}/count"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise TrainingStateError(
            f"the saved training does not fit this recipe ({error!r}): remove it to start afresh"
        ) from error


def _normalisations(algorithm: Any) -> list[tuple[str, Any]]:
    """Running statistics by name; none where observations are images."""
    wrapper = algorithm.get_vec_normalize_env()
    if wrapper is None:
        return []
    return [("observation", wrapper.obs_rms), ("return", wrapper.ret_rms)]


def _torch_tensors(algorithm: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, part in algorithm.get_parameters().items():
        if "param_groups" in part:
            for index, entry in part["state"].items():
                found |= {f"{name}/{index}/{key}": value for key, value in entry.items()}
        else:
            found |= {f"{name}/{key}": value for key, value in part.items()}
    return found


def _restore_torch(algorithm: Any, tensors: Mapping[str, Tensor], *, optimisers: bool) -> None:
    parameters = {}
    for name, part in algorithm.get_parameters().items():
        if "param_groups" in part:
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in _under(name, tensors).items():
                index, _, slot = key.partition("/")
                entries.setdefault(int(index), {})[slot] = value
            if optimisers:
                part = {"state": entries, "param_groups": part["param_groups"]}
            parameters[name] = part
        else:
            parameters[name] = {key: tensors[f"{name}/{key}"] for key in part}
            if not optimisers and "log_std" in part:
                parameters[name]["log_std"] = part["log_std"]
    algorithm.set_parameters(parameters, exact_match=True)


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{name}/"
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
