"""Episodes of three qualities: of an expert, of a policy on its way there, of all of that way.

* :class:`Plan` -- how much of everything a study is asked for.
* :func:`make_datasets` -- the datasets of an environment; :func:`dataset_score` -- their quality.
* :func:`train_stages` -- the training that is stopped at a third of the expert's return.
* :func:`references_of` -- what scores are normalised by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import gato_gym
from benchmarks.references import TaskReferences, measured
from gato_gym.episodes.minari_datasets import find_minari, folder_of, returns_of
from gato_gym.files.atomic_io import write_json
from gato_gym.files.bounded_io import read_json
from gato_gym.ranges import check_range
from gato_gym.terminal import new_console
from policies.collection.record import likeliest, record_episodes
from policies.expert_training import trainer
from policies.expert_training.recipes import recipe_for
from policies.experts.store import load_expert, play_with, read_config, save_expert
from policies.registry import make_policy

ENVIRONMENTS = {
    "halfcheetah": "mujoco-halfcheetah", "hopper": "mujoco-hopper", "walker2d": "mujoco-walker",
    "pong": "atari-pong",
}  # fmt: skip
"""Tasks by the name of the environment in the table."""

DATASETS = ("expert", "medium", "mixed")

SEEDS_BETWEEN = 10_000
"""Seeds between the first episodes of two stages, so that no two begin alike."""


@dataclass(frozen=True)
class Plan:
    """What the study is asked for.

    Attributes:
        work: Folder of the study.
        minutes: Time for the updates of each network; None where ``steps`` is given.
        steps: Updates of each, instead.
        preset: Size of the networks.
        record_episodes: Episodes of a dataset; of *mixed* as many of all stages together.
        score_episodes: Episodes that each network plays.
        third: Share of the way from random to the expert at which the training is stopped.
        stages: Parts of the training's recipe; it is stopped at the end of one.

    Raises:
        ValueError: A number is out of range.
    """

    work: Path
    minutes: float | None = 10.0
    steps: int | None = None
    preset: str = "tiny"
    record_episodes: int = 200
    score_episodes: int = 20
    third: float = 1 / 3
    stages: int = 48

    def __post_init__(self) -> None:
        check_range(self, "steps", "record_episodes", "score_episodes", "stages", low=1)
        check_range(self, "minutes", above=True)


def references_of(task: str) -> TaskReferences:
    """The task's random and expert return, measured by this harness.

    Raises:
        ValueError: They are not known.
    """
    references = measured("all").get(task)
    if references is None or references.random is None or references.expert is None:
        raise ValueError(f"{task} has no measured references: python -m benchmarks.experts first")
    return references


def make_datasets(environment: str, names: Sequence[str], plan: Plan) -> dict[str, list[Path]]:
    """The folders of an environment's datasets by name; those that are there are kept.

    Args:
        environment: One of :data:`ENVIRONMENTS`.
        names: Some of :data:`DATASETS`.
        plan: How much.
    """
    folders: dict[str, list[Path]] = {}
    with made_env(ENVIRONMENTS[environment]) as env:
        if "expert" in names:
            expert = make_policy("expert", env=env)
            folders["expert"] = [_recorded(env, expert, environment, "expert", plan)]
        if "medium" in names or "mixed" in names:
            training, stages = plan.work / environment / "training", train_stages(environment, plan)
            share = max(1, plan.record_episodes // len(stages))
            both: dict[str, list[Path]] = {"medium": [], "mixed": []}
            for number, _ in enumerate(stages, 1):
                stage = training / f"stage-{number}"
                for name, last in (("mixed", False), ("medium", True)):
                    if name in names and (not last or number == len(stages)):
                        policy = _policy_of(stage, env)
                        part = name if last else f"{name}-{number}"
                        count = None if last else share
                        folder = _recorded(
                            env, policy, environment, part, plan, episodes=count, seed=number
                        )
                        both[name].append(folder)
            folders |= {name: both[name] for name in both if name in names}
    return folders


def train_stages(environment: str, plan: Plan) -> list[float]:
    """Trains up to a third of the expert's return; the best return after each stage.

    What each stage's policy is lies in its folder.
    """
    task = ENVIRONMENTS[environment]
    folder = plan.work / environment / "training"
    finished = folder / "stages.json"
    if finished.exists():
        return list(read_json(finished))
    recipe, references = recipe_for(task), references_of(task)
    assert references.random is not None
    assert references.expert is not None
    random, expert = references.random.mean, references.expert.mean
    wanted, best = random + plan.third * (expert - random), []
    console = new_console(soft_wrap=True)
    for number in range(1, plan.stages + 1):
        settings = trainer.TrainSettings(
            task,
            folder / "run",
            recipe=recipe,
            until=max(1, recipe.steps * number // plan.stages),
            score_episodes=recipe.evaluation_episodes,
        )
        state = trainer.train(settings, console=console)
        assert state.best is not None, "a training evaluates its policy when it stops"
        best.append(state.best)
        copy_expert(folder / "run" / "expert", folder / f"stage-{number}")
        if state.best >= wanted:
            write_json(finished, best)
            return best
    raise ValueError(
        f"{task} returns {best[-1]:.1f} after all of its training: expected {wanted:.1f}, a third "
        "of the way from random to the expert; use a smaller --third"
    )


def copy_expert(source: Path, folder: Path) -> None:
    """A copy of an expert's folder, which stays while the training goes on."""
    config = read_config(source)
    kept = ("task", "algorithm", "best_steps", "score")
    save_expert(folder, load_expert(source), {key: config[key] for key in kept})


def _policy_of(stage: Path, env: gym.Env[Any, Any]) -> Any:
    return play_with(load_expert(stage), env.observation_space, env.action_space)


def _recorded(
    env: gym.Env[Any, Any],
    policy: Any,
    environment: str,
    name: str,
    plan: Plan,
    *,
    episodes: int | None = None,
    seed: int = 0,
) -> Path:
    """The folder of a dataset of a policy: the expert as it plays, others by sampled actions."""
    dataset, root = f"offline/{environment}-{name}-v0", plan.work / "data"
    folder = folder_of(dataset, root)
    if not folder.exists():
        record_episodes(
            env,
            policy,
            episodes or plan.record_episodes,
            dataset,
            root=root,
            seed=SEEDS_BETWEEN * seed,
            deterministic=likeliest(policy, stochastic=name != "expert"),
        )
    return folder


@contextmanager
def made_env(task: str) -> Iterator[gym.Env[Any, Any]]:
    """The environment of a task, which is closed in the end."""
    with closing(gato_gym.make(f"Gato/{task}")) as env:
        yield env


def dataset_score(folders: Sequence[Path], task: str) -> float:
    """The mean normalised score of the episodes of some datasets, times 100."""
    returns = np.concatenate([returns_of(find_minari(folder)) for folder in folders])
    scores = references_of(task).normalise(returns)
    assert scores is not None, "the references were measured of an expert that beats random"
    return float(100 * scores.mean())
