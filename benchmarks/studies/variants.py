"""Variants of networks that :mod:`benchmarks.studies.families` compares.

* :data:`VARIANTS` -- families of networks, of which :data:`LEAN` is the recipe's.
* :data:`RECIPE_VARIANTS` -- gato-mini's recipe, changed in one thing each.
* :func:`settings_of` -- what a variant is trained with.
* :func:`matched` -- the network of a variant with as many parameters as asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.studies import gato_mini, jat_mini, recipe_episodes
from benchmarks.studies.recipe_episodes import SUITES
from policies.model.network import count_parameters
from policies.training.families.registry import find_family
from policies.training.run import tasks_of
from policies.training.settings import TrainSettings

LABELLED = "labelled"
"""Folder of the episodes that a study's own networks play, below the study's."""


@dataclass(frozen=True)
class Variant:
    """One network.

    Attributes:
        name: Name of its folder and its line.
        what: In words.
        width: The field of its sizes that is the feed-forward's width.
        changes: Fields of :class:`~policies.training.settings.TrainSettings`.
        rounds: Rounds of labelled episodes that it learns from too. In each, the variant that has
            one round less plays.
        suites: Its suites alone, of which each has its share of the updates; empty for all.
        parameters: Where they are not the study's.
        shards: The variant whose encoded episodes it uses; empty for its own.
        timed: Whether it is trained for the study's minutes; otherwise it has as many updates as
            ``gato-lean``, which cost it as much.
    """

    name: str
    what: str
    width: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 0
    suites: tuple[str, ...] = ()
    parameters: int | None = None
    shards: str = ""
    timed: bool = True


_SIZES = {key: gato_mini.NETWORK[key] for key in ("width", "heads", "vector_hidden")}
RECIPE: Mapping[str, Any] = {
    "options": {"actions": "parallel"}, "rows": gato_mini.USUAL_ROWS, "length": 128,
    "attention": "dense",
    "network": gato_mini.NETWORK,
    "prompt_shares": gato_mini.PROMPT_SHARES, "task_embeddings": True,
}  # fmt: skip
"""What gato-mini's recipe trains, and :data:`RECIPE_VARIANTS` change in one thing each."""

LEAN = Variant("gato-lean", "Gato, a timestep as few tokens", "feed_forward", RECIPE)
VARIANTS = (
    Variant(
        "gato-paper", "Gato, a token for each number and patch", "feed_forward",
        {
            "layout": "paper", "memory": "all", "rows": 12, "length": 512,
            "options": {"image_size": 0, "actions": "autoregressive"},
            "network": {**_SIZES, "prompt_tokens": 256, "window": 512},
            "prompt_shares": gato_mini.PROMPT_SHARES, "task_embeddings": True,
        },
    ),
    LEAN,
    Variant(
        "jat", "JAT, an embedding for an observation and for an action", "intermediate_size",
        {"family": "jat", "rows": 24, "length": 256},
    ),
    Variant(
        "jat-short", "JAT of one timestep, acting by the observation alone", "intermediate_size",
        {
            "family": "jat", "rows": jat_mini.ROWS, "length": jat_mini.CONTEXT,
            "network": {"context_tokens": jat_mini.CONTEXT},
        },
        shards="jat",
    ),
)  # fmt: skip


def _changed(
    name: str,
    what: str,
    *,
    rounds: int = 0,
    suites: tuple[str, ...] = (),
    parameters: int | None = None,
    **changes: Any,
) -> Variant:
    shards = "" if rounds or "options" in changes else LEAN.name
    timed = parameters is not None or "options" in changes
    return Variant(
        name, what, LEAN.width, {**RECIPE, **changes}, rounds, suites, parameters, shards, timed
    )


_NETWORK, _SHARES = gato_mini.NETWORK, gato_mini.PROMPT_SHARES
_SMALLER = {"width": 64, "heads": 1, "vector_hidden": 128, "patch_channels": 16, "text_rank": 8}
_LARGER = {"width": 384, "heads": 6, "layers": 6, "vector_hidden": 768}
RECIPE_VARIANTS = (
    LEAN,
    _changed(
        "autoregressive", "actions one after another", options={"actions": "autoregressive"}
    ),
    _changed("hard-labels", "labels: the expert's action alone", soft_labels=False),
    _changed("round-1", "one round of the network's own states", rounds=1),
    _changed("round-2", "two rounds of the network's own states", rounds=2),
    _changed("no-prompts", "no prompts", prompt_shares=dict.fromkeys(_SHARES, 0.0)),
    _changed(
        "prompts-alone", "prompts in 75 % of documents, no task embeddings",
        prompt_shares=dict.fromkeys(_SHARES, 0.75), task_embeddings=False,
    ),
    _changed(
        "whole-instructions", "instructions as one vector, not word by word",
        network={**_NETWORK, "grid_words": 0},
    ),
    _changed("bins", "continuous actions as bins", network={**_NETWORK, "continuous_head": "bins"}),
    _changed("1m", "1M parameters", parameters=1_000_000, network={**_NETWORK, **_SMALLER}),
    _changed("20m", "20M parameters", parameters=20_000_000, network={**_NETWORK, **_LARGER}),
    *(_changed(f"{s}-alone", f"{s} alone, its share of the updates", suites=(s,)) for s in SUITES),
)  # fmt: skip
"""Where the score of gato-mini comes from, each beside ``gato-lean``."""


def settings_of(
    variant: Variant,
    root: Path,
    work: Path,
    *,
    suites: tuple[str, ...],
    minutes: float,
    steps: int | None = None,
    most_tasks: int | None = None,
    rows: int = gato_mini.USUAL_ROWS,
    device: str = "auto",
) -> TrainSettings:
    """What a variant is trained with, before its size is matched.

    Args:
        variant: What is trained.
        root: Folder of the experts' datasets.
        work: Folder of the study.
        suites: Whose tasks are trained on, or those of them that the variant has.
        minutes: Time for updates of all suites.
        steps: Updates of all suites, in place of the time.
        most_tasks: Tasks of each suite, at equal distances in their order; None for all.
        rows: Packed sequences of a batch of ``gato-lean``; others' in proportion.
        device: Where it is trained.
    """
    trained = tuple(suite for suite in suites if suite in (variant.suites or suites))
    weights = {suite: gato_mini.WEIGHTS[suite] for suite in suites}
    share = sum(weights[suite] for suite in trained) / sum(weights.values())
    base = TrainSettings(
        datasets=recipe_episodes.datasets(
            root, variant.rounds, trained, most_tasks=most_tasks, labelled_root=work / LABELLED
        ),
        output=work / variant.name,
        shards=work / "shards" / (variant.shards or variant.name),
        steps=None if steps is None else max(1, round(steps * share)),
        minutes=minutes * share if steps is None else None,
        group_by="suite",
        adaptive="none",
        augment=gato_mini.COPIES,
        keep=0.0,
        weights={suite: weights[suite] for suite in trained},
        precision="auto",
        device=device,
        score_every=0,
    )
    changes = dict(variant.changes)
    if "prompt_shares" in changes:
        changes["prompt_shares"] = {suite: changes["prompt_shares"][suite] for suite in trained}
    changes["rows"] = max(1, changes["rows"] * rows // gato_mini.USUAL_ROWS)
    return replace(base, **changes)


def matched(variant: Variant, settings: TrainSettings, parameters: int) -> TrainSettings:
    """The settings with a feed-forward that gives the network as many parameters, nearly.

    Raises:
        ValueError: The rest of the network has more.
    """
    family, tasks = find_family(settings.family), tasks_of(settings)

    def with_width(width: int) -> TrainSettings:
        network = {**settings.network, variant.width: width}
        return replace(settings, network=network)

    def count(width: int) -> int:
        return count_parameters(family.build(family.sizes(with_width(width), tasks)))

    one = count(1)
    more = count(2) - one
    width = 1 + round((parameters - one) / more)
    if width < 1:
        raise ValueError(
            f"{variant.name} has {one:,} parameters with the narrowest feed-forward: expected at "
            f"most {parameters:,}; use a larger --parameters"
        )
    return with_width(width)
