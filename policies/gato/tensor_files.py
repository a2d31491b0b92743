"""The tensors of a checkpoint's files: read, and compared with what a network has.

* :func:`read_tensors`, :func:`stored_shapes` -- what is in a file.
* :func:`check_shapes`, :func:`check_weights` -- refuse what is no such network's.
* :class:`CheckpointError` -- a checkpoint that cannot be used, with the reason and the fix.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gato_gym.files.bounded_io import check_file

WEIGHT_TYPES = (torch.float32, torch.bfloat16, torch.float16)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used."""


def read_tensors(path: Path, reader: Any) -> dict[str, Any]:
    """What ``reader`` gives of a file of tensors.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    try:
        check_file(path, error=CheckpointError)
        return dict(reader(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: take a fresh copy of the checkpoint") from error
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut short ({error}): take a fresh copy of the checkpoint"
        ) from error


def stored_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a file, from its header alone."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


def check_shapes(
    expected: Mapping[str, list[int]], stored: Mapping[str, list[int]], path: Path
) -> None:
    """Refuse tensors of other names or shapes than a network's, both by name.

    Raises:
        CheckpointError: Names the first of them.
    """
    missing = sorted(expected.keys() - stored.keys())
    unknown = sorted(stored.keys() - expected.keys())
    shapes = [
        f"{name} {stored[name]} instead of {expected[name]}"
        for name in sorted(expected.keys() & stored.keys())
        if stored[name] != expected[name]
    ]
    if missing or unknown or shapes:
        problems = (
            ([f"missing {', '.join(missing[:3])}"] if missing else [])
            + ([f"unknown {', '.join(unknown[:3])}"] if unknown else [])
            + shapes[:3]
        )
        raise CheckpointError(
            f"{path} does not fit config.json ({'; '.join(problems)}): "
            "they are of different checkpoints"
        )


def check_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are no numbers: of another type than a network's, NaN or infinite.

    Raises:
        CheckpointError: Names the first.
    """
    for name, tensor in weights.items():
        if tensor.dtype not in WEIGHT_TYPES:
            problem = f"of type {tensor.dtype}"
        elif not tensor.isfinite().all():
            problem = "not finite"
        else:
            continue
        raise CheckpointError(
            f"{path} has {name} {problem}, expected finite numbers of float32, bfloat16 or "
            "float16: the training diverged or the file is damaged, take a fresh copy"
        )
