"""What studies are asked for; nothing here imports torch.

* :class:`FinetuneSettings` -- of a curve of fine-tunings on few episodes.
* :class:`ScalingSettings` -- of sizes trained on the same tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from gato_gym.commands.flags import Names, Numbers, flag
from gato_gym.ranges import check_range


@dataclass(frozen=True)
class FinetuneSettings:
    """What a curve of fine-tunings is asked for.

    Attributes:
        source: The checkpoint: a folder, a shipped name, or a hub id.
        datasets: Ids or paths of Minari datasets of one environment.
        output: The run's folder.
        episodes: Numbers of episodes, each a point of the curve.
        seeds: Seeds of subsets and batches: 0 to ``seeds - 1``.
        steps: Updates of each unit.
        lora: Rank of low-rank updates; None trains every weight.
        from_scratch: Whether fresh weights of the same sizes are trained on the same batches too.
        score_episodes: Episodes that each unit plays.
        environments: How many it plays at a time.
        env: Id of the environment, where the dataset names none that is registered.
        rate: Peak learning rate of AdamW; None for the usual one. Muon's is twice that.
        optimiser: "muon" or "adamw"; None for the usual one.
        layout: Layout of the tokens, "lean" or "paper"; None is the checkpoint's for such spaces.
        memory: What later timesteps see, "all", "observations" or "none"; None as for ``layout``.
        options: Other fields of PlanOptions than those that the checkpoint has for such spaces.
        keep: Share of the expert's windowed return that an episode must reach; 0 keeps all, None
            is as in training.
        rows: Packed sequences of a batch.
        length: Tokens of a packed sequence.
        device: "auto", "cpu", "cuda".
    """

    source: Annotated[str, flag(name="from")]
    datasets: Annotated[tuple[str, ...], flag(name="dataset")]
    output: Path
    episodes: Annotated[tuple[int, ...], Numbers] = (1, 3, 5, 10, 100)
    seeds: int = 3
    steps: int = 500
    lora: int | None = None
    from_scratch: bool = False
    score_episodes: int = 20
    environments: int = 10
    env: str | None = None
    rate: float | None = None
    optimiser: str | None = None
    layout: str | None = None
    memory: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    keep: float | None = None
    rows: int = 8
    length: int = 256
    device: str = "auto"

    def __post_init__(self) -> None:
        check_range(
            self,
            "seeds",
            "steps",
            "lora",
            "score_episodes",
            "environments",
            "rows",
            "length",
            low=1,
        )
        if not self.episodes or min(self.episodes) < 1:
            raise ValueError(
                f"episodes is {list(self.episodes)}: expected numbers of 1 or more, such as 1,3,10"
            )
        check_range(self, "keep", high=1)
        check_range(self, "rate", above=True)
        if self.optimiser not in (None, "muon", "adamw"):
            raise ValueError(f"optimiser is {self.optimiser!r}: expected muon or adamw")
        object.__setattr__(self, "episodes", tuple(sorted(set(self.episodes))))


@dataclass(frozen=True)
class ScalingSettings:
    """What a study of sizes is asked for.

    Attributes:
        datasets: Ids or paths of Minari datasets.
        output: The study's folder.
        sizes: Presets.
        tokens: Tokens of each training; rounded so that every measurement falls on a step.
        points: Measurements along a training, the last at its end.
        score_episodes: Episodes of each task and measurement; 0 measures the loss alone.
        environments: How many are played at a time.
        env: Ids of the datasets' environments that are not registered, such as module:Mine-v0.
        held_out: Share of each task's episodes that none is trained on, at least two.
        seed: Seed of weights and batches.
        keep: As for fine-tuning.
        rows: Packed sequences of a batch.
        length: Tokens of a packed sequence.
        device: "auto", "cpu", "cuda".
    """

    datasets: Annotated[tuple[str, ...], flag(name="dataset")]
    output: Path
    sizes: Annotated[tuple[str, ...], Names] = ("0.4m", "0.7m", "1.4m", "2.8m")
    tokens: float = 2e6
    points: int = 5
    score_episodes: int = 10
    environments: int = 10
    env: Annotated[tuple[str, ...], Names] = ()
    held_out: float = 0.05
    seed: int = 0
    keep: float | None = None
    rows: int = 8
    length: int = 256
    device: str = "auto"

    def __post_init__(self) -> None:
        check_range(self, "points", "environments", "rows", "length", low=1)
        check_range(self, "score_episodes", "seed", "tokens")
        check_range(self, "keep", high=1)
        check_range(self, "held_out", high=1, above=True, below=True)
        if self.tokens < (least := self.points * self.rows * self.length):
            raise ValueError(
                f"tokens is {self.tokens:g}: expected at least {least:,}, a batch of {self.rows} x "
                f"{self.length} for each of {self.points} points"
            )

    @property
    def stride(self) -> int:
        """Steps between two measurements."""
        return round(self.tokens / (self.rows * self.length * self.points))
