"""The settings of studies, which the flags of their commands are too.

* :class:`FinetuneSettings` -- of ``gato-gym finetune``.
* :class:`ScalingSettings` -- of ``gato-gym scaling``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from gato_gym.commands.flags import Flag, Json, Names, Numbers, flag


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What all studies share.

    Attributes:
        datasets: Ids or paths of Minari datasets.
        output: Folder of the study.
        environments: Environments that are played at a time.
        keep: Share of the expert's windowed return that an episode must reach; 0 keeps all.
        rows: Packed sequences in a batch.
        length: Tokens in a sequence.
        device: auto, cpu or cuda.
    """

    datasets: Annotated[tuple[str, ...], flag(name="dataset", metavar="ID …")]
    output: Path
    environments: int = 10
    keep: float = 0.8
    rows: int = 8
    length: int = 256
    device: str = "auto"

    def __post_init__(self) -> None:
        self.check_counts("environments", "rows", "length")
        if not 0 <= self.keep <= 1:
            raise ValueError(f"keep is {self.keep}: expected 0 to 1")

    def check_counts(self, *names: str) -> None:
        """Refuse counts below 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(StudySettings):
    """A checkpoint, and how it is fine-tuned on few episodes of one environment.

    Attributes:
        source: The checkpoint: a folder, a shipped name such as gato-mini, or a hub id.
        episodes: Numbers of episodes, each a point of the curve.
        seeds: Repetitions of each, with seeds from 0.
        steps: Updates of each.
        lora: Rank of low-rank updates; by default every weight is trained.
        from_scratch: Train fresh weights on the same batches as well.
        score_episodes: Episodes that each plays.
        env: Environment, where the dataset does not tell: module:ENV_ID.
        rate: Peak learning rate of AdamW; by default a quarter of training's. Muon's is twice that.
        optimiser: By default muon; adamw with low-rank updates.
        layout: Layout of the tokens; by default the checkpoint's.
        memory: What later timesteps see of earlier ones; by default the checkpoint's.
        options: Other fields of PlanOptions.
    """

    source: Annotated[str, flag(name="from")]
    episodes: Annotated[tuple[int, ...], Numbers] = (1, 3, 5, 10, 100)
    seeds: int = 3
    steps: int = 500
    lora: Annotated[int | None, flag(metavar="RANK")] = None
    from_scratch: Flag = False
    score_episodes: int = 20
    env: Annotated[str | None, flag(metavar="ENV_ID")] = None
    rate: float | None = None
    optimiser: Literal["muon", "adamw"] | None = None
    layout: Literal["lean", "paper"] | None = None
    memory: Literal["all", "observations", "none"] | None = None
    options: Annotated[Mapping[str, Any], Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("seeds", "steps", "score_episodes")
        if not self.episodes or min(self.episodes) < 1:
            raise ValueError(
                f"episodes is {list(self.episodes)}: expected numbers of 1 or more, such as 1,3,10"
            )
        if self.optimiser not in (None, "muon", "adamw"):
            raise ValueError(f"optimiser is {self.optimiser!r}: expected muon or adamw")
        if self.rate is not None and not self.rate > 0:
            raise ValueError(f"rate is {self.rate}: expected more than 0")
        if self.lora is not None and self.lora < 1:
            raise ValueError(f"lora is {self.lora}: expected a rank of 1 or more, such as 8")
        object.__setattr__(self, "episodes", tuple(sorted(set(self.episodes))))


@dataclass(frozen=True, kw_only=True)
class ScalingSettings(StudySettings):
    """Sizes of one shape, and what they are trained and measured on.

    Attributes:
        sizes: Presets; there is 5.8m too.
        tokens: Tokens of each training; rounded so that every measurement falls on a step.
        points: Measurements along a training, the last at its end.
        score_episodes: Episodes of each task and measurement; 0 measures the loss alone.
        held_out: Share of each task's episodes that none is trained on, at least two.
        seed: Of weights and batches.
    """

    sizes: Annotated[tuple[str, ...], Names] = ("0.4m", "0.7m", "1.4m", "2.8m")
    tokens: float = 2e6
    points: int = 5
    score_episodes: int = 10
    held_out: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("points")
        if self.score_episodes < 0:
            raise ValueError(f"score_episodes is {self.score_episodes}: expected 0 or more")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}: expected more than 0, less than 1")
        if self.tokens < (least := self.points * self.rows * self.length):
            raise ValueError(
                f"tokens is {self.tokens:g}: expected at least {least:,}, a batch of {self.rows} x "
                f"{self.length} for each of {self.points} points"
            )

    @property
    def stride(self) -> int:
        """Steps between two measurements."""
        return round(self.tokens / (self.rows * self.length * self.points))
