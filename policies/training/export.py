"""From a run's folder to a checkpoint folder.

* :func:`averaged_network` -- a network with the averaged weights of a run, at its end or at a step
  that was kept.
* :func:`saved_step` -- how far it is.

A family's writer makes a checkpoint of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from gato_gym.files.atomic_io import surviving
from gato_gym.files.bounded_io import read_json
from policies.gato.tensor_files import check_weights
from policies.training.families.registry import find_family
from policies.training.trainer import kept_weights


def averaged_network(
    run: Path, *, step: int | None = None, prepare: Callable[[Any], None] | None = None
) -> Any:
    """A network of a run's family, with its averaged weights.

    Args:
        run: The run's folder.
        step: One of the steps kept in ``kept/``; None takes the run's last checkpoint.
        prepare: Called with the fresh network, as in training.

    Raises:
        FileNotFoundError: The run has no such checkpoint.
        CheckpointError: Its weights are no finite numbers.
    """
    settings = read_json(run / "config.json")
    family = find_family(settings.get("family", "gato"))
    network = family.build(family.read_sizes(settings["network"]))
    if prepare is not None:
        prepare(network)
    weights = _averaged_weights(run, step)
    network.load_state_dict({**network.state_dict(), **weights}, strict=True)
    return network


def _averaged_weights(run: Path, step: int | None) -> dict[str, Tensor]:
    if step is None:
        prefix, path = "average.", surviving(run / "last") / "optimiser.safetensors"
    else:
        prefix, path = "", kept_weights(run, step)
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in load_file(path).items()
        if name.startswith(prefix)
    }
    check_weights(weights, path)
    return {name: tensor.float() for name, tensor in weights.items()}


def saved_step(run: Path) -> int:
    """Steps that the run's last checkpoint has seen."""
    return int(read_json(surviving(run / "last") / "progress.json")["step"])
