"""Finished experts into the package: where they are better than what is there.

* :func:`ship` -- copies a training's expert, if it beats chance and the expert that is shipped.
* :func:`score_expert` -- an expert's return over held-out episodes, in the manner it plays best.
* :func:`episodes_to_score` -- by how many episodes.
* :func:`share_of_bar` -- how much of what it is meant to reach an expert has.
* :func:`shipped_share` -- the same of the expert that comes with the package.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import TimeLimit

from gato_gym.files.atomic_io import appearing, inside, write_json
from gato_gym.seeds import EVALUATION_SEEDS_START, SCORE_SEEDS_START
from gato_gym.tasks import get_task
from policies.expert_training.evaluation import EVALUATION_ROWS, Evaluation, evaluate
from policies.expert_training.recipes import recipe_for
from policies.experts.cnn import ImageNetwork
from policies.experts.store import (
    CURVE_FILE,
    EXPERT_FILES,
    Network,
    load_expert,
    play_with,
    read_config,
    shipped_folder,
)
from policies.random_policy import RandomPolicy

Env = gym.Env[Any, Any]

EXPERT_FOLDER = "expert"

SCORE_EPISODES = 100
"""Episodes that compare experts: over thirty Breakout's had 56 ± 66, over a hundred 34 ± 9."""

FIRST_EPISODES = 30
"""Episodes that score the first expert of a task, which has chance alone to beat."""

TRIED_STEPS = 5_000
"""Steps of an episode that tries a manner of playing: a likeliest action that changes nothing may
stay the likeliest for the half hour after which a game is cut off."""

Z95 = 1.96
"""Standard errors to either side of a mean in a 95 % interval."""


def score_expert(
    network: Network, envs: Sequence[Env], *, episodes: int, tried: int
) -> tuple[Network, Evaluation]:
    """What a network returns on held-out episodes.

    A network that sees images first plays ``tried`` other episodes by its likeliest actions and as
    many by sampled ones, each of :data:`TRIED_STEPS` at most, and keeps what returned more.

    Args:
        network: The weights.
        envs: Environments of its task.
        episodes: How many score it.
        tried: How many choose its manner.

    Returns:
        The network in its manner, and its score.
    """

    def played(manner: Network, rows: Sequence[Env], count: int, first_seed: int) -> Evaluation:
        policy = play_with(manner, envs[0].observation_space, envs[0].action_space)
        return Evaluation.of(evaluate(policy, rows, count, first_seed=first_seed))

    if isinstance(network, ImageNetwork):
        short = [TimeLimit(env, TRIED_STEPS) for env in envs]
        manners = [dataclasses.replace(network, samples=samples) for samples in (False, True)]
        network = max(
            manners, key=lambda one: played(one, short, tried, EVALUATION_SEEDS_START).mean
        )
    return network, played(network, envs, episodes, SCORE_SEEDS_START)


def share_of_bar(mean: float, bar: float) -> float:
    """A mean return in parts of a bar; below zero, a smaller magnitude is the better return.

    Example:
        >>> share_of_bar(400, 800), share_of_bar(-10, -5)
        (0.5, 0.5)
    """
    if bar > 0:
        return mean / bar
    return bar / mean if mean < 0 else float("inf")


def shipped_share(task: str) -> float | None:
    """How much of its bar the package's expert of a task has; None where there is none."""
    folder = shipped_folder(task)
    if not (folder / "config.json").is_file():
        return None
    score = read_config(folder).get("score")
    return None if score is None else share_of_bar(score["mean"], recipe_for(task).bar)


def episodes_to_score(task: str) -> int:
    """How many episodes score a new expert of a task."""
    return SCORE_EPISODES if shipped_folder(task).is_dir() else FIRST_EPISODES


def ship(training: Path, task: str, *, episodes: int | None = None) -> str | None:
    """Copy an expert and its curve to where :func:`policies.experts.store.shipped_folder` says.

    It has to beat chance (the 95 % interval of its mean lies above that of random play), and the
    expert that is shipped already. All are compared over the same number of held-out episodes;
    what was scored over fewer plays them now.

    Args:
        training: Folder of the training.
        task: Its task.
        episodes: How many; None takes :func:`episodes_to_score`.

    Returns:
        What was done, in words; None where the training has no expert yet.
    """
    expert, target = training / EXPERT_FOLDER, shipped_folder(task)
    if not (expert / "config.json").is_file():
        return None
    episodes = episodes or episodes_to_score(task)
    new, chance = _scored(expert, task, episodes), _chance(task, episodes)
    if _interval(new)[0] <= _interval(chance)[1]:
        return f"left out, {_words(new)} does not beat chance, {_words(chance)}"
    old = _scored(target, task, episodes) if target.is_dir() else None
    if old is not None and old.mean >= new.mean:
        return f"kept, {_words(old)} is not below {_words(new)}"
    with appearing(target, own=EXPERT_FILES) as place:
        for name in EXPERT_FILES:
            source = training if name == CURVE_FILE else expert
            path = inside(source, name)
            if path is None:
                raise FileNotFoundError(f"{source} has no {name} of its own: train it again")
            shutil.copyfile(path, place / name)
    share = share_of_bar(new.mean, recipe_for(task).bar)
    after = "" if old is None else f" after {_words(old)}"
    return f"shipped, {_words(new)}{after}: {share:.2f} of its bar"


def _scored(folder: Path, task: str, episodes: int) -> Evaluation:
    """An expert's score; one of fewer episodes is measured again, and noted in its file."""
    config = read_config(folder)
    score = config.get("score")
    if score is not None and score["episodes"] >= episodes:
        return Evaluation(**score)
    envs, tried = _make_envs(task), recipe_for(task).evaluation_episodes
    network, evaluation = score_expert(load_expert(folder), envs, episodes=episodes, tried=tried)
    record = {**config, **network.config(), "score": dataclasses.asdict(evaluation)}
    write_json(folder / "config.json", record)  # the weights are the same, and so is the curve
    return evaluation


@cache
def _chance(task: str, episodes: int) -> Evaluation:
    envs = _make_envs(task)
    policy = RandomPolicy(envs[0].observation_space, envs[0].action_space)
    return Evaluation.of(evaluate(policy, envs, episodes, first_seed=SCORE_SEEDS_START))


def _make_envs(task: str) -> list[Env]:
    return [get_task(task).make() for _ in range(EVALUATION_ROWS)]


def _interval(score: Evaluation) -> tuple[float, float]:
    """The 95 % interval of a mean."""
    margin = Z95 * score.std / score.episodes**0.5
    return score.mean - margin, score.mean + margin


def _words(score: Evaluation) -> str:
    return f"{score.mean:.1f} ± {score.std:.1f}"
