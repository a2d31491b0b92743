"""The rules that every run keeps to, whatever its tasks, episodes and seed.

* :data:`VERSION`, :func:`rule_values` -- what a protocol's hash covers of them.
* :data:`RULES` -- the rules in words, by what they are about.
* :data:`WORDINGS` -- hashes of sentences, which protocols of version 1 hold.
* :func:`render_rules` -- ``docs/protocol.md``, which ``python -m benchmarks.rules`` prints.

A number that changes here changes the hash of every later run. A rule without a number, such as
which actions an expert plays, has no value: whoever changes its meaning raises :data:`VERSION`.
Mending a sentence changes neither.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

VERSION = 2
"""Of the protocol. Version 1 hashed the sentences themselves."""

_VALUES: Mapping[str, Any] = {
    "seed_stride": 618_033,
    "training_seeds_start": 1_000_000,
    "life_loss_ends_episode": False,
    "discount": 1.0,
    "clipping": False,
    "success": "any timestep",
    "interval": {"confidence": 0.95, "replicates": 2_000, "fewest_episodes": 5},
}

_SUITE_VALUES: Mapping[str, Mapping[str, Any]] = {
    "atari": {
        "frames_per_action": 4,
        "frames_pooled": 2,
        "frame_size": 84,
        "frames_stacked": 4,
        "full_action_space": False,
        "most_idle_frames": 30,
        "most_frames": 108_000,
    },
    "dm_control": {"max_episode_steps": 1_000},
    "metaworld": {"max_episode_steps": 500, "goal_visible": True, "success_ends_episode": False},
}


def rule_values(suites: Iterable[str] = ()) -> dict[str, Any]:
    """The values of the general rules, and under a suite's name those of its own.

    Example:
        >>> rule_values(["metaworld"])["metaworld"]["max_episode_steps"]
        500
    """
    return {**_VALUES, **{s: dict(_SUITE_VALUES[s]) for s in suites if s in _SUITE_VALUES}}


WORDINGS: Mapping[str, str] = {
    "ebc6c0ac508a9812": "",
    "210673693253d701": "its random numbers or intervals followed other rules",
    "3f8078adc224723f": "its experts, random numbers or intervals followed other rules",
}
"""In what runs under the sentences of such a hash differ from today's; empty for in nothing."""

RULES: Mapping[str, tuple[str, ...]] = {
    "Episodes": (
        "A task's episodes are chosen before the first is played. Episode k of a task resets its "
        "environment with a seed that the run's seed, the task's id and k alone decide: an offset "
        "hashed from the first two, plus k times 618,033, modulo 1,000,000. Episodes of a task "
        "never share a seed.",
        "Seeds of evaluation are below 1,000,000. Training and collecting use seeds from 1,000,000 "
        "on.",
        "Exactly these episodes are played, each once and to its end. The number of environments "
        "played at a time, the number of processes and an interruption change none of them, so "
        "short episodes count neither more nor less often than long ones.",
        "An environment is reset with the seed of its episode, and is never stepped after the end "
        "of one. What a policy draws at random follows from its own seed and the episode's.",
    ),
    "Ends": (
        "An episode ends when its environment says that it is terminated, or when it is truncated "
        "by a time limit. Which of the two it was is recorded: `terminated` is true for the "
        "first and false for the second; where both fall on one timestep it is true.",
        "Losing a life ends no episode. A game of Atari is played until it is over or truncated.",
    ),
    "Scores": (
        "A return is the sum of an episode's rewards as its environment gives them, undiscounted, "
        "unclipped.",
        'An episode is a success when `info["success"]` is true at any of its timesteps, and '
        "has no success where its environment says nothing of it.",
        "A task's normalised score is (return − random) / (expert − random), with the mean "
        "returns of random actions and of the expert as measured by this benchmark; a run in "
        "other simulators than theirs says so. Nothing is clipped.",
        "A task whose expert does not beat random, or has none, is named and left out of "
        "normalised averages. So are tasks that the policy cannot play: they are named, are "
        "in no average, and count neither as zero nor as failures.",
        "An episode that its environment makes impossible to finish is named and in no figure.",
        "Intervals are 95 % percentiles of 2,000 bootstrap replicates in which episodes are "
        "redrawn within their task. There is none where a task has fewer than five episodes.",
        "Episodes of a task are distinct where their first observations, actions or rewards "
        "differ. How many are is told where it is fewer than were played.",
    ),
    "Suites": (
        "Atari: 57 games of the Arcade Learning Environment. An action lasts 4 frames, the last 2 "
        "of them pooled by their maximum; observations are 84 x 84, grey, the newest 4 stacked. "
        "No sticky actions, but under the protocol `atari-sticky` each frame repeats the action "
        "before it with probability 0.25; the game's own set of actions, up to 30 idle frames at "
        "the start, at most 108,000 frames a game.",
        "BabyAI: JAT's 39 levels. The level decides how many steps an episode may take.",
        "dm_control: the 28 tasks of the suite's benchmarking set, 1,000 steps, rewards in [0, 1] "
        "for each step.",
        "Meta-World: the 50 tasks of MT50 v3, the goal visible, 500 steps; an episode does not end "
        "with success.",
        "MuJoCo: Gymnasium's 11 `-v5` tasks with their own rewards and limits.",
    ),
    "Players": (
        "A policy acts on observations; experts that are programs may read the environment itself. "
        "Before an episode a network may be shown a demonstration, which is recorded.",
        "Experts play their most likely actions, or sampled ones where their config says so: those "
        "games of Atari in which they score more that way. Other policies sample. A run may say "
        "otherwise, which is recorded.",
    ),
}
"""Sentences, by what they are about."""


def render_rules() -> str:
    """The page ``docs/protocol.md``."""
    sections = [
        "\n".join([f"## {heading}", "", *map(_item, range(1, 1 + len(rules)), rules)])
        for heading, rules in RULES.items()
    ]
    head = (
        "# The protocol\n\n"
        f"Version {VERSION}. `protocol_hash`, which is in every report, covers this number, the "
        "values in these rules\n(`protocol.rules` in `run.json` and `summary.json`), the tasks, "
        "the number of episodes, the seed and the simulators'\nversions. The sentences are in no "
        "hash. Runs under different protocols are not compared unless forced. Version 1\nhashed "
        "the sentences: it is still read, and runs under today's sentences are compared with new "
        "ones.\n\n"
        "`python -m benchmarks.rules > docs/protocol.md` writes this page."
    )
    return "\n\n".join([head, *sections]) + "\n"


def _item(number: int, rule: str) -> str:
    return textwrap.fill(f"{number}. {rule}", 115, subsequent_indent="   ", break_on_hyphens=False)


if __name__ == "__main__":
    sys.stdout.write(render_rules())
