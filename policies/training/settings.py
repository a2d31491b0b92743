"""What a run is asked for; nothing here imports torch.

* :class:`TrainSettings` -- of one run, from datasets to a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from tyro.conf import create_mutex_group

from gato_gym.commands.flags import flag
from gato_gym.ranges import check_range

FamilyName = Literal["gato", "jat", "dt", "tt"]
FAMILIES = get_args(FamilyName)
"""What can be trained."""

_AMOUNT = create_mutex_group(required=False, title="how long")


@dataclass(frozen=True)
class TrainSettings:
    """What a run is asked for.

    Attributes:
        datasets: Ids or paths of Minari datasets, or jat:CONFIGURATION for that part of
            jat-project/jat-dataset, of which jat:CONFIGURATION:500 streams the first 500 episodes.
        output: Folder of the run.
        family: What is trained: gato; jat, which has other sizes (--network) and no token options;
            dt, a Decision Transformer, or tt, a Trajectory Transformer, of one task each.
        texts: Files or folders of texts, .jsonl or .txt, to train on in the same batches.
        pairs: Files of images with texts, .jsonl, to train on in the same batches.
        shards: Folder of the encoded episodes, which several runs can share; None is ``shards`` in
            the run's folder.
        start: Checkpoint whose network the run starts from: its weights and, of the tasks that it
            knows, its token options; None starts from fresh weights.
        preset: Size of the network: tiny, mini, small, 79m, 364m, 1.18b; of jat tiny, mini, small,
            published.
        network: Fields of NetworkConfig that differ from the preset's.
        steps: Updates; None leaves it to ``minutes``, to the run that is resumed, or to the preset.
        minutes: Time for updates; the machine is measured and the number of steps follows.
        tasks: Ids of the tasks to train on; empty for all that the datasets are of.
        group_by: What shares a weight, a share of prompts and the statistics of vectors: "task", or
            "suite" for registered tasks.
        augment: Copies of each episode under the exact symmetries of a registered task.
        layout: Layout of the tokens, "lean" or "paper"; None is the registered task's, or "lean".
        memory: What later timesteps see, "all", "observations" or "none"; None is the registered
            task's; of others what did best in a trial of each, "none" in runs too short for that.
        options: Other fields of PlanOptions.
        keep: Share of the expert's windowed return that an episode must reach; 0 keeps all. None
            keeps all that this package recorded from one policy, and is 0.8 for other datasets.
        held_out: Share of each task's episodes, its last ones, that are not trained on.
        weights: Share of the tokens by group, or by the name of texts; 1 where none is given.
        balance: How much larger the share of a group's longer tasks is: 0 for equal shares, 1 for
            shares in proportion to the length of episodes.
        emphasis: Factor of a task's share in its group, by task id; 1 where none is given.
        adaptive: What the shares of tasks in their groups follow: "scores", how far the network
            plays from the recorded policy, with every task that can be played here; "loss", how
            much is left of each task's; "none" for neither. None is "loss" where a group has
            several tasks (docs/training.md compares them).
        prompt_share: Share of documents that carry a prompt.
        prompt_shares: The same by group, where it differs.
        task_embeddings: Whether each task has a learned embedding, which says what is played where
            no prompt does.
        prompt_end: Share of the prompts that are an episode's end; the others start uniformly.
        prompt_retrieved: Share of the prompts that are, instead, the steps of other episodes that
            are nearest to the document's first, with their actions.
        optimiser: "muon", "adamw" (with the same schedule), "paper" (as published), or None for the
            preset's.
        optimiser_options: Fields of OptimiserConfig that differ.
        rows: Packed sequences of a batch; None for the preset's.
        length: Tokens of a packed sequence; None for the preset's.
        accumulate: Parts of a batch, for less memory; None for the preset's.
        sigma: Spread of continuous labels, in bins; 0 is one bin.
        soft_labels: Whether what the expert chose from is the label of its action, where the
            datasets hold it; otherwise the action alone.
        observation_weight: Share of the loss for predicting the next observation; None is 0 for
            gato and 0.005 for jat.
        return_conditioned: Whether each timestep of gato carries its return to go, so that the
            network plays for a return and learns from all episodes: --keep is then 0 unless asked.
        depth_drop: Share of the sub-layers that stochastic depth skips (paper: 0.1).
        action_drop: Share of past actions that are hidden, of tasks that remember all.
        observation_noise: Standard deviation of noise on the numbers of observations.
        numeric_features: Whether embeddings of continuous values have numeric features.
        recompute: Whether activations are computed again in the backward pass, for less memory.
        precision: "float32", "bfloat16" for products of matrices, or "auto": the faster one here.
        seed: Seed of weights and batches.
        device: "auto", "cpu" or "cuda".
        attention: How attention is computed: "auto", "dense", or "flex" on GPUs.
        fsdp: Whether each of several processes holds a part of the backbone (FSDP2).
        workers: Processes that read datasets and encode episodes.
        loaders: Processes that prepare batches; 0 prepares them in a thread. None does so on a CPU,
            and takes all cores but one for a GPU.
        tensorboard: Whether to write TensorBoard's events as well.
        wandb: Project of Weights & Biases to log to as well.
        keep_every: Steps between two sets of averaged weights that are kept; None keeps none.
        until: Step to stop at before the last, with the schedule of all steps.
        score_every: Steps between two scores; 0 plays nothing, None scores four times, the last
            time at the end, what can be made here, at most four tasks.
        score_tasks: Ids of the tasks that are played; empty for all.
        score_episodes: Episodes of each.

    Raises:
        ValueError: A setting is outside its range.
    """

    datasets: Annotated[tuple[str, ...], flag(name="dataset")]
    output: Path
    family: FamilyName = "gato"
    texts: Annotated[tuple[Path, ...], flag(name="text")] = ()
    pairs: tuple[Path, ...] = ()
    shards: Path | None = None
    start: str | None = None
    preset: str = "mini"
    network: Mapping[str, Any] = field(default_factory=dict)
    steps: Annotated[int | None, _AMOUNT] = None
    minutes: Annotated[float | None, _AMOUNT] = None
    tasks: tuple[str, ...] = ()
    group_by: str = "task"
    augment: int = 0
    layout: str | None = None
    memory: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    keep: float | None = None
    held_out: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)
    balance: float = 0.5
    emphasis: Mapping[str, float] = field(default_factory=dict)
    adaptive: Literal["scores", "loss", "none"] | None = None
    prompt_share: float = 0.25
    prompt_shares: Mapping[str, float] = field(default_factory=dict)
    task_embeddings: bool = False
    prompt_end: float = 0.5
    prompt_retrieved: float = 0.0
    optimiser: str | None = None
    optimiser_options: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None
    length: int | None = None
    accumulate: int | None = None
    sigma: float = 4.0
    soft_labels: bool = True
    observation_weight: float | None = None
    return_conditioned: bool = False
    depth_drop: float = 0.0
    action_drop: float = 0.0
    observation_noise: float = 0.0
    numeric_features: bool = True
    recompute: bool = False
    precision: str = "float32"
    seed: int = 0
    device: str = "auto"
    attention: str = "auto"
    fsdp: bool = False
    workers: int = 1
    loaders: int | None = None
    tensorboard: bool = False
    wandb: str | None = None
    keep_every: int | None = None
    until: int | None = None
    score_every: int | None = None
    score_tasks: tuple[str, ...] = ()
    score_episodes: int = 3

    @property
    def kept_share(self) -> float | None:
        """What ``keep`` is: all episodes where a network knows what each returned."""
        conditioned = self.return_conditioned or self.family in ("dt", "tt")
        return 0.0 if self.keep is None and conditioned else self.keep

    def __post_init__(self) -> None:
        check_range(
            self, "steps", "rows", "length", "accumulate", "workers", "keep_every", "until",
            "score_episodes", low=1,
        )  # fmt: skip
        check_range(
            self, "score_every", "augment", "loaders", "seed", "sigma", "balance",
            "observation_noise", "weights", "emphasis",
        )  # fmt: skip
        check_range(
            self, "keep", "prompt_share", "prompt_shares", "prompt_end", "prompt_retrieved",
            "action_drop", high=1,
        )  # fmt: skip
        check_range(self, "held_out", "observation_weight", "depth_drop", high=1, below=True)
        check_range(self, "minutes", above=True)
        if self.family not in FAMILIES:
            raise ValueError(f"family is {self.family!r}: expected one of {', '.join(FAMILIES)}")
        if self.optimiser not in (None, "muon", "adamw", "paper"):
            raise ValueError(f"optimiser is {self.optimiser!r}: expected muon, adamw or paper")
        if self.group_by not in ("task", "suite"):
            raise ValueError(f"group_by is {self.group_by!r}: expected task or suite")
