"""The rules that every run follows, whatever its tasks, episodes and seed.

* :data:`VERSION`, :func:`rule_values` -- what a protocol's hash covers of them.
* :data:`RULES` -- the rules in words, by what they are about.
* :data:`WORDINGS` -- hashes of sentences, which protocols of version 1 hold.
* :func:`render_rules` -- ``docs/protocol.md``, which ``python -m benchmarks.rules`` prints.

Changing a value here changes the hash of every later run. A rule without a value, such as which
actions an expert plays, is covered by :data:`VERSION`: raise it when you change the rule's meaning.
Rewording a sentence changes neither.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from gato_gym.tasks import get_suite, list_suites

VERSION = 2
"""The protocol's version. Version 1 hashed the sentences themselves."""

_VALUES: Mapping[str, Any] = {
    "seed_stride": 618_033,
    "training_seeds_start": 1_000_000,
    "life_loss_ends_episode": False,
    "discount": 1.0,
    "clipping": False,
    "success": "any timestep",
    "interval": {"confidence": 0.95, "replicates": 2_000, "fewest_episodes": 5},
}


def rule_values(suites: Iterable[str] = ()) -> dict[str, Any]:
    """The values of the general rules, and under a suite's name those of its own.

    Example:
        >>> rule_values(["metaworld"])["metaworld"]["max_episode_steps"]
        500
    """
    own = {name: get_suite(name).rules for name in suites if name in list_suites()}
    return {**_VALUES, **{name: dict(values) for name, values in own.items() if values}}


WORDINGS: Mapping[str, str] = {
    "ebc6c0ac508a9812": "",
    "210673693253d701": "its random numbers or intervals followed other rules",
    "3f8078adc224723f": "its experts, random numbers or intervals followed other rules",
}
"""How runs under the sentences of such a hash differ from today's; empty where they do not."""

RULES: Mapping[str, tuple[str, ...]] = {
    "Episodes": (
        "A task's episodes are chosen before the first is played. The seed that resets episode k "
        "depends only on the run's seed, the task's id and k: an offset hashed from the first two, "
        "plus k times 618,033, modulo 1,000,000. No two episodes of a task share a seed.",
        "Evaluation uses seeds below 1,000,000. Training and collecting use seeds from 1,000,000 "
        "on.",
        "Each of these episodes is played once, to its end, and no other. The number of parallel "
        "environments, the number of processes and interruptions do not change them, so short "
        "episodes count neither more nor less often than long ones.",
        "An environment is reset with its episode's seed and never stepped after the episode's "
        "end. A policy's random draws depend only on the policy's seed and the episode's.",
        "Under the protocol `delayed-actions` every action takes effect one timestep late, and an "
        "episode begins with an idle one. Under `noisy-observations` every number that is observed "
        "has normal noise, drawn anew at every timestep, whose standard deviation is 1 % of the "
        "number's range; whole numbers are rounded. The range is that of the space's bounds, 255 "
        "for pixels; for numbers without bounds, what 10 episodes of 50 random steps from training "
        "seeds show. Symbols, choices and texts have no noise, so BabyAI has none. The references "
        "are those of the standard protocol.",
    ),
    "Ends": (
        "An episode ends when its environment terminates it, or when a time limit truncates it. "
        "The record says which: `terminated` is true after a termination, also where both fall on "
        "the same timestep, and false after a truncation alone.",
        "Losing a life ends no episode. An Atari game is played until it is over or truncated.",
    ),
    "Scores": (
        "A return is the undiscounted, unclipped sum of the rewards that the environment gives in "
        "an episode.",
        'An episode is a success if `info["success"]` is true at any of its timesteps. If the '
        "environment reports no success, the episode has none to score.",
        "A task's normalised score is (return − random) / (expert − random), with the mean "
        "returns of random actions and of the expert as measured by this benchmark. It is never "
        "clipped. A run with other simulator versions than the references says so.",
        "A task without an expert, or with one that does not beat random, is listed and left out "
        "of normalised averages. So is a task that the policy cannot play: it counts neither as "
        "zero nor as a failure.",
        "An episode that its environment cannot finish is listed and counts in no figure.",
        "Intervals are 95 % percentiles of 2,000 bootstrap replicates, which resample episodes "
        "within their task. A task with fewer than five episodes has no interval.",
        "Two episodes of a task are distinct if their first observations, actions or rewards "
        "differ. The report gives the number of distinct episodes if it is below the number "
        "played.",
    ),
    "Suites": (
        "Atari: 57 games of the Arcade Learning Environment. An action lasts 4 frames, and the "
        "observation takes the maximum of the last 2. Observations are 84 x 84, grey, the newest 4 "
        "stacked. A game has its own action set, up to 30 idle frames at the start, and at most "
        "108,000 frames a game. Actions are not sticky; under the protocol `atari-sticky`, each "
        "frame repeats the previous action with probability 0.25.",
        "BabyAI: JAT's 39 levels. Each level sets its own limit of steps.",
        "dm_control: the 28 tasks of the suite's benchmarking set, 1,000 steps, rewards in [0, 1] "
        "for each step.",
        "Meta-World: the 50 tasks of MT50 v3, the goal visible, 500 steps; an episode continues "
        "after success.",
        "MiniGrid: 28 worlds beyond BabyAI, whose goal is a green square. Each world sets its own "
        "limit of steps.",
        "MuJoCo: Gymnasium's 11 `-v5` tasks with their own rewards and limits.",
        "Procgen: the 16 games at their hard setting, with levels without end. Each game sets its "
        "own limit of steps.",
        "Gymnasium-Robotics: the four Fetch tasks, -1 for each step away from the goal, 50 steps; "
        "an episode continues after success.",
        "Sokoban: the 1,000 test levels of Boxoban's unfiltered set, 120 steps.",
    ),
    "Players": (
        "A policy acts on observations. An expert that is a program may read the environment "
        "itself. A network may be prompted with a demonstration, which the record names.",
        "Experts play their most likely actions, except on the Atari games where sampled actions "
        "score more: there their config asks for sampling. Other policies sample. A run can choose "
        "otherwise, and records its choice.",
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
        f"Version {VERSION}. Every report has a `protocol_hash`. It covers this version number, "
        "the values in these rules\n"
        "(`protocol.rules` in `run.json` and `summary.json`), the tasks, the number of episodes, "
        "the seed and the simulators'\n"
        "versions, but not the sentences. Runs under different protocols are compared only if you "
        "force it. Version 1 hashed\n"
        "the sentences. It is still read, and its runs are compared with new ones where the rules "
        "meant the same.\n\n"
        "`python -m benchmarks.rules > docs/protocol.md` writes this page."
    )
    return "\n\n".join([head, *sections]) + "\n"


def _item(number: int, rule: str) -> str:
    return textwrap.fill(f"{number}. {rule}", 115, subsequent_indent="   ", break_on_hyphens=False)


if __name__ == "__main__":
    sys.stdout.write(render_rules())
