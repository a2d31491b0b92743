"""The settings of ``gato-gym train``, which its flags are too.

* :class:`TrainSettings` -- what a network is trained on, and how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import create_mutex_group

from gato_gym.commands.flags import Flag, Json, flag

_AMOUNT = create_mutex_group(required=False, title="how long")


@dataclass(frozen=True)
class TrainSettings:
    """What a network is trained on, and how.

    Attributes:
        datasets: Ids or paths of Minari datasets.
        output: Folder of the run.
        texts: Files of texts to train on in the same batches: .jsonl, .txt.
        pairs: Files of images with texts, likewise: .jsonl.
        preset: Size of the network: tiny, mini, small, 79m, 364m, 1.18b.
        steps: Updates; by default those of the run that is resumed, or the preset's (2000).
        minutes: Time for updates; the machine is measured and the number of steps follows.
        layout: Layout of the tokens; by default lean.
        memory: What later timesteps see of earlier ones.
        options: Other fields of PlanOptions.
        keep: Share of the expert's windowed return that an episode must reach; 0 keeps all.
        weights: Share of the tokens by task id, or by the name of texts, such as
            {"CartPole-v1": 2}; 1 where none is given.
        prompt_share: Share of documents that carry a prompt.
        prompt_end: Share of prompts that are an episode's end; the others start uniformly.
        optimiser: The paper's is as published; by default the preset's.
        rows: Packed sequences in a batch; by default the preset's (8).
        length: Tokens in a sequence; by default the preset's (256).
        accumulate: Parts that a batch is worked through in, to save memory; by default the
            preset's (1).
        sigma: Bins that a label is spread over; 0 is one.
        observation_weight: Share of the loss for predicting the next observation (JAT: 0.005).
        depth_drop: Share of sub-layers that stochastic depth skips (paper: 0.1).
        action_drop: Share of past actions that are hidden, with memory all.
        observation_noise: Standard deviation of noise on the numbers of observations.
        numeric_features: Add features of continuous values to their embeddings.
        recompute: Compute activations again instead of keeping them, to save memory.
        precision: Of matrix products.
        seed: Of weights and batches.
        device: auto, cpu or cuda.
        attention: How attention is computed; flex needs a GPU.
        fsdp: Under torchrun, let each process hold a part of the network (FSDP2).
        tensorboard: Write TensorBoard's events as well.
        score_every: Steps between two scores; by default nothing is played.
        score_tasks: Ids of the tasks that are played; by default all.
        score_episodes: Episodes of each.
    """

    datasets: Annotated[tuple[str, ...], flag(name="dataset", metavar="ID …")]
    output: Path
    texts: Annotated[tuple[Path, ...], flag(name="text", metavar="FILE …")] = ()
    pairs: Annotated[tuple[Path, ...], flag(metavar="FILE …")] = ()
    preset: str = "mini"
    steps: Annotated[int | None, _AMOUNT] = None
    minutes: Annotated[float | None, _AMOUNT] = None
    layout: Literal["lean", "paper"] | None = None
    memory: Literal["all", "observations", "none"] | None = None
    options: Annotated[Mapping[str, Any], Json] = field(default_factory=dict)
    keep: float = 0.8
    weights: Annotated[Mapping[str, float], Json] = field(default_factory=dict)
    prompt_share: float = 0.25
    prompt_end: float = 0.5
    optimiser: Literal["muon", "adamw", "paper"] | None = None
    rows: int | None = None
    length: int | None = None
    accumulate: int | None = None
    sigma: float = 4.0
    observation_weight: float = 0.0
    depth_drop: float = 0.0
    action_drop: float = 0.0
    observation_noise: float = 0.0
    numeric_features: bool = True
    recompute: Flag = False
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    device: str = "auto"
    attention: Literal["auto", "dense", "flex"] = "auto"
    fsdp: Flag = False
    tensorboard: Flag = False
    score_every: int | None = None
    score_tasks: Annotated[tuple[str, ...], flag(metavar="ID …")] = ()
    score_episodes: int = 5

    def __post_init__(self) -> None:
        if self.score_every is not None and self.score_every < 1:
            raise ValueError(f"score_every is {self.score_every}: expected 1 or more steps")
        for name in ("keep", "prompt_share", "prompt_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 0 to 1")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes is {self.minutes}: expected more than 0")
        if self.optimiser not in (None, "muon", "adamw", "paper"):
            raise ValueError(f"optimiser is {self.optimiser!r}: expected muon, adamw or paper")
