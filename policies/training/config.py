"""Everything that a run's result depends on, and whether two runs depend on the same.

* :class:`TrainConfig` -- the settings of a run; JSON out.
* :func:`as_begun` -- settings that a run goes on with whatever this version would choose.
* :func:`check_same_config`, :func:`check_same` -- refuses to go on under other settings.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.model.config import NetworkConfig
from policies.training.data.packing import Mixture
from policies.training.optimizer import OptimiserConfig

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a run's result depends on.

    Attributes:
        network: The network's sizes.
        mixture: How documents are drawn.
        optimiser: Optimiser and schedule.
        steps: Updates of the whole run.
        rows: Packed sequences of a batch.
        length: Tokens of a packed sequence.
        sigma: Spread of continuous labels, in bins.
        balance: Weight of continuous action tokens against discrete ones.
        observation_weight: Share of the loss that is the next observation's, the rest being the
            actions', in [0, 1): JAT's kappa (arXiv 2402.09844). Above 0 the network needs
            ``observation_heads``.
        depth_drop: Share of the sub-layers that stochastic depth skips in training, drawn for each
            row, in [0, 1).
        seed: Of weights and batches.
        accumulate: Parts that a batch is worked through in: more parts, less memory. At most
            ``rows``.
        recompute: Whether the backward pass computes each block's activations again instead of
            keeping them: a third more work, much less memory.
        precision: "float32", or "bfloat16" for products of matrices; weights stay float32.

    Raises:
        ValueError: A count is below 1, or a choice is unknown.
    """

    network: NetworkConfig
    mixture: Mixture
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    steps: int = 10_000
    rows: int = 16
    length: int = 256
    sigma: float = 4.0
    balance: float = 1.0
    observation_weight: float = 0.0
    depth_drop: float = 0.0
    seed: int = 0
    accumulate: int = 1
    recompute: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("steps", "rows", "length", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if self.accumulate > self.rows:
            raise ValueError(
                f"accumulate is {self.accumulate} for {self.rows} rows: expected at most one part "
                "for each row"
            )
        for name in ("observation_weight", "depth_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 0 or more, below 1")
        if self.sigma < 0:
            raise ValueError(f"sigma is {self.sigma}: expected 0 (one bin) or more")
        if self.observation_weight and not self.network.observation_heads:
            raise ValueError(
                f"observation_weight is {self.observation_weight} and the network has no "
                "observation_heads: configure it with them"
            )
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision is {self.precision!r}: expected one of {', '.join(PRECISIONS)}"
            )

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {
            "network": self.network.to_json(),
            "mixture": dataclasses.asdict(self.mixture),
            "optimiser": dataclasses.asdict(self.optimiser),
        }
        return dict(json.loads(json.dumps(values)))


def as_begun(config: TrainConfig, output: Path) -> TrainConfig:
    """The configuration with the packing that the run in ``output`` was begun with, if one was.

    How full rows become has been another in older versions, and is not asked of anyone.
    """
    path = output / "config.json"
    if not path.exists():
        return config
    mixture = json.loads(path.read_text()).get("mixture", {})
    smallest = int(mixture.get("smallest", config.mixture.smallest))
    return dataclasses.replace(
        config, mixture=dataclasses.replace(config.mixture, smallest=smallest)
    )


def check_same_config(found: dict[str, Any], wanted: dict[str, Any], output: Path) -> None:
    """Refuse to go on with a run under another configuration, naming each difference.

    A setting that the run's version did not know yet is taken to have had its default.

    Raises:
        ValueError: Any value differs.
    """
    defaults = _flatten(TrainConfig(NetworkConfig(), Mixture({})).to_json())
    known = {key: value for key, value in defaults.items() if key in _flatten(wanted)}
    check_same({**known, **_flatten(found)}, wanted, output)


def check_same(found: dict[str, Any], wanted: dict[str, Any], output: Path) -> None:
    """Refuse to go on where nested values differ, naming each difference.

    Raises:
        ValueError: Any value differs.
    """
    there, here = _flatten(found), _flatten(wanted)
    differences = [
        f"{key}: {there.get(key)!r} there, {here.get(key)!r} now"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]
    if differences:
        raise ValueError(
            f"{output} holds a run with another configuration ({'; '.join(differences)}): "
            "use its settings to go on, or another --output"
        )


def _flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
