"""Gato's tokens and JAT's embeddings on the same episodes, in networks of as many parameters.

    python -m benchmarks.studies.families --minutes 30
    python -m benchmarks.studies.families --suites babyai metaworld --minutes 5 --episodes 10
    python -m benchmarks.studies.families --study recipe --variants gato-lean autoregressive

The second study changes one thing of gato-mini's recipe at a time. Each variant is trained for as
many minutes, by the code of ``gato-gym train``, and plays by that of ``gato-gym bench``. The
episodes are those of :mod:`benchmarks.studies.gato_mini`. The width of the feed-forward makes the
numbers of parameters equal. A variant that is finished is kept, so that the command can be stopped
and run again; the table is drawn from all that are there.

* :data:`VARIANTS`, :data:`RECIPE_VARIANTS` -- what is compared.
* :func:`matched` -- the network of a variant with as many parameters as asked for.
* :func:`run_variant` -- trains one and plays with it.
* :func:`main` -- the command.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.studies import gato_mini, jat_mini, recipe_episodes
from benchmarks.studies.plots import fill_page, write_csv
from benchmarks.studies.recipe_episodes import SUITES
from benchmarks.studies.scoring import bench, shown, suite_means
from gato_gym import get_task
from gato_gym.commands.common import exit_status
from gato_gym.files.atomic_io import surviving, write_json
from gato_gym.files.bounded_io import read_json
from gato_gym.files.folder_lock import FolderLock
from policies.base import batch_of_one
from policies.model.network import count_parameters
from policies.registry import make_policy
from policies.training.families.registry import find_family
from policies.training.run import TrainRun, check_known, tasks_of
from policies.training.settings import TrainSettings

BATCHES = (1, 64)
FEW = 4
"""Variants that are columns of a table; more are rows."""

WEAKEST = 3
"""Tasks that a table names as those in which a variant is worst."""

TIMED, WARMING = "mujoco-halfcheetah", 64
"""The task whose steps are timed, and steps before, after which a context is full."""


@dataclass(frozen=True)
class Variant:
    """One network.

    Attributes:
        name: Name of its folder and its line.
        what: In words.
        width: The field of its sizes that is the feed-forward's width.
        changes: Fields of :class:`~policies.training.settings.TrainSettings`.
        rounds: Rounds of gato-mini's recipe whose labelled episodes it learns from too.
        suites: Its suites alone, of which each has its share of the time; empty for all.
        parameters: Where they are not the study's.
        shards: The variant whose encoded episodes it uses; empty for its own.
    """

    name: str
    what: str
    width: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 0
    suites: tuple[str, ...] = ()
    parameters: int | None = None
    shards: str = ""


_SIZES = {key: gato_mini.NETWORK[key] for key in ("width", "heads", "vector_hidden")}
RECIPE: Mapping[str, Any] = {
    "options": {"actions": "parallel"}, "rows": gato_mini.USUAL_ROWS, "length": 128,
    "attention": "dense",
    "network": gato_mini.NETWORK,
    "prompt_shares": gato_mini.PROMPT_SHARES, "task_embeddings": True,
}  # fmt: skip
"""What gato-mini's recipe trains, and :data:`RECIPE_VARIANTS` change in one thing each."""

_LEAN = Variant("gato-lean", "Gato, a timestep as few tokens", "feed_forward", RECIPE)
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
    _LEAN,
    Variant(
        "jat", "JAT, an embedding for an observation and for an action", "intermediate_size",
        {"family": "jat", "rows": 24, "length": 256},
    ),
    Variant(
        "jat-short", "JAT of two timesteps, acting by the observation alone", "intermediate_size",
        {
            "family": "jat", "rows": 24 * 64, "length": 4,
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
    shards = "" if rounds or "options" in changes else _LEAN.name
    return Variant(
        name, what, _LEAN.width, {**RECIPE, **changes}, rounds, suites, parameters, shards
    )


_NETWORK, _SHARES = gato_mini.NETWORK, gato_mini.PROMPT_SHARES
_SMALLER = {"width": 64, "heads": 1, "vector_hidden": 128, "patch_channels": 16, "text_rank": 8}
_LARGER = {"width": 384, "heads": 6, "layers": 6, "vector_hidden": 768}
RECIPE_VARIANTS = (
    _LEAN,
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
    *(_changed(f"{s}-alone", f"{s} alone, its share of the time", suites=(s,)) for s in SUITES),
)  # fmt: skip
"""Where the score of gato-mini comes from, each beside ``gato-lean``."""

STUDIES = {
    "families": (VARIANTS, Path("docs/families.md")),
    "recipe": (RECIPE_VARIANTS, Path("docs/training.md")),
}
"""What is compared, and the page with the table, by the table's mark."""


def settings_of(
    variant: Variant,
    root: Path,
    work: Path,
    *,
    suites: tuple[str, ...],
    minutes: float,
    most_tasks: int | None = None,
    rows: int = gato_mini.USUAL_ROWS,
    device: str = "auto",
) -> TrainSettings:
    """What a variant is trained with, before its size is matched.

    Args:
        variant: What is trained.
        root: Folder of the datasets.
        work: Folder of the study.
        suites: Whose tasks are trained on, or those of them that the variant has.
        minutes: Time for updates of all suites.
        most_tasks: Tasks of each suite, at equal distances in their order; None for all.
        rows: Packed sequences of a batch of ``gato-lean``; others' in proportion.
        device: Where it is trained.
    """
    trained = tuple(suite for suite in suites if suite in (variant.suites or suites))
    weights = {suite: gato_mini.WEIGHTS[suite] for suite in suites}
    share = sum(weights[suite] for suite in trained) / sum(weights.values())
    base = TrainSettings(
        datasets=recipe_episodes.datasets(root, variant.rounds, trained, most_tasks=most_tasks),
        output=work / variant.name,
        shards=work / "shards" / (variant.shards or variant.name),
        minutes=minutes * share,
        group_by="suite",
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


def run_variant(variant: Variant, settings: TrainSettings, *, episodes: int) -> dict[str, Any]:
    """Train one network, and play with it.

    Args:
        variant: What is trained.
        settings: Its run, which is resumed where it has begun.
        episodes: Episodes of each task to play.

    Returns:
        Everything that the table is made of, as JSON values.
    """
    run = TrainRun(settings)
    checkpoint = run.train()
    config, tasks = run.config, [task.id for task in run.tasks]
    minutes = read_json(surviving(run.state / "last") / "progress.json")["minutes"]
    return {
        "variant": variant.name,
        "what": variant.what,
        "parameters": count_parameters(run.export(checkpoint)),
        "steps": config.steps,
        "tokens": config.steps * config.rows * config.length,
        "minutes": minutes,
        **{
            f"steps_a_second_{rows}": steps_a_second(checkpoint, tasks, rows, settings.device)
            for rows in BATCHES
        },
        **play(checkpoint, tasks, episodes, device=settings.device),
    }


def steps_a_second(
    checkpoint: Path, tasks: Sequence[str], rows: int, device: str, *, seconds: float = 5.0
) -> float:
    """Environment steps that ``predict`` chooses actions for in a second, in a full context.

    Args:
        checkpoint: Who acts.
        tasks: What it plays; :data:`TIMED` if that is among them, else the first is timed.
        rows: Environments of a batch.
        device: Where it computes.
        seconds: How long.
    """
    with closing(get_task(TIMED if TIMED in tasks else tasks[0]).make()) as env:
        observation, _ = env.reset(seed=0)
        policy = make_policy(checkpoint, env=env, device=device)
        batch = _repeated(batch_of_one(env.observation_space, observation), rows)
    state: Any = None
    for _ in range(WARMING):
        _, state = policy.predict(batch, state, deterministic=True)
    begun, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds or not count:
        _, state = policy.predict(batch, state, deterministic=True)
        count += rows
    return count / spent


def _repeated(part: Any, rows: int) -> Any:
    """The first row of a batch of observations, so often."""
    if isinstance(part, dict):
        return {key: _repeated(each, rows) for key, each in part.items()}
    return part * rows if isinstance(part, tuple) else np.repeat(part, rows, 0)


def play(
    checkpoint: Path, tasks: Sequence[str], episodes: int, *, device: str = "auto"
) -> dict[str, Any]:
    """The summary of a benchmark's run of the checkpoint, which is resumed where it has begun."""
    summary = bench(
        checkpoint.parent / "scores",
        *("--suite", "all", "--tasks", ",".join(tasks), "--policy", str(checkpoint)),
        *("--episodes", str(episodes), "--device", device),
    )
    return {name: summary[name] for name in ("suites", "tasks")}


def line(result: Mapping[str, Any]) -> dict[str, Any]:
    """A variant's figures by column: of each suite the mean score with its 95 % interval."""
    names = ("variant", "what", "parameters", "steps", "tokens", "minutes")
    values = {name: result[name] for name in names}
    values |= {f"steps_a_second_{rows}": result[f"steps_a_second_{rows}"] for rows in BATCHES}
    values |= suite_means(result, SUITES)
    return {**values, "weakest": ", ".join(weakest(result["tasks"]))}


def weakest(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The tasks of the lowest scores, from the lowest on."""
    scores = {name: task["normalised"] for name, task in tasks.items()}
    scored = [name for name, score in scores.items() if score is not None]
    return sorted(scored, key=lambda name: (scores[name], name))[:WEAKEST]


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as a table, a variant a column, or a row where there are more than a few."""
    columns: dict[str, list[str]] = {
        "parameters": [f"{v['parameters']:,}" for v in lines],
        "minutes of training": [f"{v['minutes']:.1f}" for v in lines],
        "tokens": [f"{v['tokens'] / 1e6:.1f}M" for v in lines],
        "updates": [f"{v['steps']:,}" for v in lines],
    }
    for suite in SUITES:
        if any(v[suite] is not None for v in lines):
            columns[suite] = [shown(v, suite) for v in lines]
    for batch in BATCHES:
        rates = [f"{v[f'steps_a_second_{batch}']:,.0f}" for v in lines]
        columns[f"steps a second, batch {batch}"] = rates
    columns["weakest tasks"] = [str(v["weakest"]) for v in lines]
    table = [["", *(str(v["what"]) for v in lines)]]
    table += [[name, *cells] for name, cells in columns.items()]
    if len(lines) > FEW:
        table = [list(row) for row in zip(*table, strict=True)]
    table.insert(1, ["---"] * len(table[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def write_table(
    results: Sequence[Mapping[str, Any]], table: Path, page: Path, mark: str = "families"
) -> None:
    """Write the table as CSV, and into a page where its comments say.

    Raises:
        ValueError: The page has no such place.
    """
    lines = [line(result) for result in results]
    write_csv(table, lines)
    fill_page(page, mark, markdown(lines))


def main(
    *,
    study: Literal["families", "recipe"] = "families",
    variants: tuple[str, ...] = (),
    suites: tuple[str, ...] = SUITES,
    most_tasks: int | None = None,
    minutes: float = 30.0,
    rows: int = gato_mini.USUAL_ROWS,
    parameters: int = 5_500_000,
    episodes: int = 20,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    root: Path = Path("data"),
    work: Path = Path("runs/families"),
    csv: Path | None = None,
    page: Path | None = None,
) -> None:
    """Compare the families of networks, or what gato-mini's recipe is made of.

    Args:
        study: What is compared.
        variants: Names of the variants to train; by default all of the study.
        suites: Suites to train on and to play.
        most_tasks: Tasks of each suite, at equal distances in their order; by default all.
        minutes: Time for the updates of each.
        rows: Packed sequences of a batch of gato-lean, others' in proportion; a GPU takes more.
        parameters: Of each network whose size is not what it is named for.
        episodes: Episodes of each task to play.
        device: Where networks are trained and play.
        root: Folder of the datasets, see benchmarks.studies.gato_mini.
        work: Folder of the study.
        csv: File of the table; by default docs/STUDY.csv.
        page: File that shows the table; by default docs/families.md or docs/training.md.
    """
    known, usual_page = STUDIES[study]
    by_name = {each.name: each for each in known if set(each.suites) <= set(suites)}
    check_known("variants", variants, list(by_name))
    check_known("suites", suites, SUITES)
    with FolderLock(work):
        for name in variants or by_name:
            path, variant = work / name / "result.json", by_name[name]
            if not path.exists():
                settings = settings_of(
                    variant,
                    root,
                    work,
                    suites=suites,
                    minutes=minutes,
                    most_tasks=most_tasks,
                    rows=rows,
                    device=device,
                )
                settings = matched(variant, settings, variant.parameters or parameters)
                write_json(path, run_variant(variant, settings, episodes=episodes))
    paths = [work / variant.name / "result.json" for variant in known]
    results = [read_json(path) for path in paths if path.exists()]
    write_table(results, csv or Path(f"docs/{study}.csv"), page or usual_page, study)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(main)))
