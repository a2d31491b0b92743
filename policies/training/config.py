"""Everything that a run's result depends on, and whether two runs depend on the same.

* :class:`TrainConfig` -- what a run's result depends on; JSON out.
* :class:`Usual` -- amounts that nobody asked for otherwise.
* :func:`train_config` -- from the settings of a run; of Gato's :func:`network_config`,
  :func:`row_length` and :func:`usual_of_gato`.
* :func:`as_begun` -- settings that a run is resumed with whatever this version would choose.
* :func:`check_same_config`, :func:`check_same` -- refuse to resume under other settings.
* :func:`record_identity` -- the same, of what is in a file of the run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from gato_gym.files.atomic_io import write_whole
from gato_gym.files.bounded_io import as_type, plain_json, read_json
from gato_gym.ranges import check_range
from gato_gym.spaces import Plan
from policies.model.config import PAPER_SIZES, NetworkConfig, fitted, preset
from policies.training.data.adaptive import Adaptive
from policies.training.data.packing import Mixture
from policies.training.optimizer import OptimiserConfig, published

if TYPE_CHECKING:
    from policies.training.settings import TrainSettings

PRECISIONS = ("float32", "bfloat16")
SMALL_STEPS, PAPER_STEPS = 2_000, 1_000_000
GRID_WORDS = 4
"""Heads that attend to words in a fresh network whose tasks have grids with instructions."""


class NetworkSizes(Protocol):
    """Sizes of a network of any family."""

    @property
    def observation_heads(self) -> bool:
        """Whether the network predicts next observations."""

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""


@dataclass(frozen=True)
class Usual:
    """Amounts of a run where the settings have None.

    Attributes:
        rows, length, accumulate, steps: As :class:`TrainConfig` has them.
        optimiser: "muon" or "adamw", of the defaults of :class:`OptimiserConfig`, or "paper".
        published: What "paper" is.
        shortest: Tokens of the shortest row that a document is begun in, unless the mixture's
            ``smallest`` is fewer.
    """

    rows: int
    length: int
    accumulate: int
    steps: int
    optimiser: str
    published: OptimiserConfig
    shortest: int = Mixture.smallest


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a run's result depends on.

    What has a name of :class:`~policies.training.settings.TrainSettings` means the same.

    Attributes:
        network: The network's sizes, of its family.
        mixture: How documents are drawn.
        optimiser: Optimiser and schedule.
        balance: Weight of continuous action tokens against discrete ones.
        observation_weight: Share of the loss that is the next observation's, the rest being the
            actions', in [0, 1): JAT's kappa (arXiv 2402.09844). Above 0 the network needs
            ``observation_heads``.
        accumulate: Parts that a batch is worked through in, at most ``rows``.
        family: What is trained, see :mod:`policies.training.families`.
        adaptive: What the shares of tasks follow; None for nothing.

    Raises:
        ValueError: A count is below 1, or a choice is unknown.
    """

    network: NetworkSizes
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
    family: str = "gato"
    adaptive: Adaptive | None = None

    def __post_init__(self) -> None:
        check_range(self, "steps", "rows", "accumulate", low=1)
        least = self.mixture.smallest
        if self.length < least:
            raise ValueError(f"length is {self.length}: expected at least {least} tokens of a row")
        if self.accumulate > self.rows:
            raise ValueError(
                f"accumulate is {self.accumulate} for {self.rows} rows: expected at most one part "
                "for each row"
            )
        check_range(self, "observation_weight", "depth_drop", high=1, below=True)
        check_range(self, "sigma", "balance", "seed")
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
            "adaptive": None if self.adaptive is None else dataclasses.asdict(self.adaptive),
        }
        return dict(plain_json(values))


def gato_sizes(config: TrainConfig) -> NetworkConfig:
    """The sizes of a run of the family gato."""
    assert isinstance(config.network, NetworkConfig)
    return config.network


def network_config(
    settings: TrainSettings,
    plans: Mapping[str, Plan] | None = None,
    start: NetworkConfig | None = None,
) -> NetworkConfig:
    """The network that is asked for, with what the plans of its tasks, by id, need.

    Args:
        settings: What is asked for.
        plans: Plans of the tasks, by id.
        start: The network that the run starts from, instead of the preset.

    Raises:
        ValueError: No preset has this name, or no field.
    """
    base = preset(settings.preset) if start is None else start
    values = {**base.to_json(), **settings.network}
    if start is None:
        values["numeric_features"] = settings.numeric_features
    if start is None or settings.return_conditioned:
        values["return_conditioned"] = settings.return_conditioned
    if start is None or settings.observation_weight:
        values["observation_heads"] = bool(settings.observation_weight)
    plans = plans or {}
    instructed = any(plan.grid_size[2] and plan.has_text for plan in plans.values())
    if start is None and instructed and "grid_words" not in settings.network:
        values["grid_words"] = GRID_WORDS
    if settings.task_embeddings:
        values["tasks"] = list(dict.fromkeys([*values["tasks"], *plans]))
    return fitted(NetworkConfig.from_json(values), plans.values())


def row_length(settings: TrainSettings) -> int:
    """Tokens of a packed sequence, as asked for or the preset's."""
    return settings.length or usual_of_gato(settings).length


def usual_of_gato(settings: TrainSettings) -> Usual:
    """Amounts of Gato's runs: as published for the paper's sizes."""
    if settings.preset in PAPER_SIZES:
        return Usual(512, 1024, 128, PAPER_STEPS, "paper", published())
    return Usual(8, 256, 1, SMALL_STEPS, "muon", published())


def train_config(
    settings: TrainSettings,
    groups: Sequence[str],
    texts: Sequence[str],
    steps: int,
    *,
    network: NetworkSizes | None = None,
    usual: Usual | None = None,
) -> TrainConfig:
    """The configuration that is asked for.

    Args:
        settings: What is asked for.
        groups: Names of the groups of tasks.
        texts: Names of the texts.
        steps: Updates.
        network: The sizes of the family's network; None is Gato's, without tasks.
        usual: The family's; None is Gato's.
    """
    sizes = network_config(settings) if network is None else network
    usual = usual_of_gato(settings) if usual is None else usual
    share, length = settings.prompt_share, settings.length or usual.length
    return TrainConfig(
        network=sizes,
        mixture=Mixture(
            weights={name: float(settings.weights.get(name, 1.0)) for name in (*groups, *texts)},
            prompt_share={group: settings.prompt_shares.get(group, share) for group in groups},
            prompt_end=settings.prompt_end,
            prompt_retrieved=settings.prompt_retrieved,
            balance=settings.balance,
            emphasis=settings.emphasis,
            action_drop=settings.action_drop,
            observation_noise=settings.observation_noise,
            soft_labels=settings.soft_labels,
            smallest=min(Mixture.smallest, max(length, usual.shortest)),
        ),
        optimiser=_optimiser(settings, steps, usual),
        steps=steps,
        rows=settings.rows or usual.rows,
        length=length,
        accumulate=settings.accumulate or usual.accumulate,
        sigma=settings.sigma,
        observation_weight=settings.observation_weight or 0.0,
        depth_drop=settings.depth_drop,
        recompute=settings.recompute,
        precision=usual_precision() if settings.precision == "auto" else settings.precision,
        seed=settings.seed,
        family=settings.family,
        adaptive=_adaptive(settings, steps),
    )


def _adaptive(settings: TrainSettings, steps: int) -> Adaptive | None:
    """Shares that follow scores change where these are measured; others twenty times."""
    if settings.adaptive in (None, "none"):
        return None
    if settings.adaptive == "loss":
        return Adaptive("loss", every=max(1, steps // 20))
    every = settings.score_every or max(1, steps // 10)
    return Adaptive("scores", every=every, episodes=settings.score_episodes)


def usual_precision() -> str:
    """The faster of the precisions here: bfloat16 on GPUs and CPUs that multiply it, else float32.

    A run keeps the precision that it began with, wherever it is resumed.
    """
    units = ("amx_bf16", "avx512_bf16")
    fast = any(torch.cpu.get_capabilities().get(unit) for unit in units)
    return "bfloat16" if fast or torch.cuda.is_available() else "float32"


def _optimiser(settings: TrainSettings, steps: int, usual: Usual) -> OptimiserConfig:
    name = settings.optimiser or usual.optimiser
    config = usual.published if name == "paper" else OptimiserConfig(name=name)
    warmup = min(config.warmup, max(1, steps // 10))
    values = {**dataclasses.asdict(config), "warmup": warmup, **settings.optimiser_options}
    chosen: OptimiserConfig = as_type(OptimiserConfig, values, "optimiser_options")
    return chosen


def as_begun(config: TrainConfig, output: Path) -> TrainConfig:
    """The configuration with the packing that the run in ``output`` was begun with, if one was.

    How full rows become has been another in older versions, and is not asked of anyone.
    """
    path = output / "config.json"
    if not path.exists():
        return config
    begun = as_type(dict[str, Any], read_json(path), str(path))
    mixture = as_type(dict[str, Any], begun.get("mixture", {}), f"{path}: mixture")
    smallest = mixture.get("smallest", config.mixture.smallest)
    smallest = as_type(int, smallest, f"{path}: mixture.smallest")
    return dataclasses.replace(
        config, mixture=dataclasses.replace(config.mixture, smallest=smallest)
    )


def check_same_config(recorded: dict[str, Any], requested: dict[str, Any], output: Path) -> None:
    """Refuse to resume a run under another configuration, naming each difference.

    A setting that the run's version did not know yet is taken to have had its default.

    Raises:
        ValueError: Any value differs.
    """
    defaults = _flatten(TrainConfig(NetworkConfig(), Mixture({})).to_json())
    known = {key: value for key, value in defaults.items() if key in _flatten(requested)}
    check_same({**known, **_flatten(recorded)}, requested, output)


def record_identity(path: Path, identity: dict[str, Any], output: Path) -> None:
    """Write down what the run in ``output`` depends on; refuse to resume it under something else.

    Raises:
        ValueError: The file is there and any value differs.
    """
    if path.exists():
        check_same(read_json(path), plain_json(identity), output)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(identity, indent=1))


def check_same(recorded: dict[str, Any], requested: dict[str, Any], output: Path) -> None:
    """Refuse to resume where nested values differ, naming each difference.

    The hashes of datasets' files are not asked of what an older version recorded without them.

    Raises:
        ValueError: Any value differs.
    """
    if recorded == without_contents(recorded):
        requested = without_contents(requested)
    before, now = _flatten(recorded), _flatten(requested)
    differences = [
        f"{key}: {before.get(key)!r} there, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differences:
        raise ValueError(
            f"{output} holds a run with another configuration ({'; '.join(differences)}): "
            "use its settings to resume it, or another --output"
        )


def without_contents(values: Any) -> Any:
    """JSON values without the entries ``contents`` of its objects."""
    if isinstance(values, list):
        return [without_contents(part) for part in values]
    if not isinstance(values, dict):
        return values
    return {key: without_contents(part) for key, part in values.items() if key != "contents"}


def _flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
