"""How the experts of the Atari games are trained: one set of hyperparameters, a bar for each game.

* :data:`GAMES` -- recipes by task id, in the order in which they are trained.
"""

from __future__ import annotations

from typing import Any

from policies.expert_training.recipe import Recipe

SOURCE = (
    "rl-baselines3-zoo, hyperparams/ppo.yml atari (clipping 0.1, entropy 0.01); steps and "
    "gae_lambda from SLM-Lab's published curves; the rest own choices, docs/experts.md"
)

BARS: dict[str, tuple[float, float, float]] = {
    # learned soonest, first; steps until the bar are known from published curves of PPO
    "pong": (10.5, 1.5, 0.95), "freeway": (16.9, 0.5, 0.95), "boxing": (12.1, 1.5, 0.95),
    "kangaroo": (320, 1.5, 0.95), "krull": (2666, 1.5, 0.95), "crazyclimber": (35829, 1.5, 0.95),
    "breakout": (30.5, 2.5, 0.95), "assault": (742, 1.5, 0.95), "atlantis": (29028, 1.5, 0.95),
    "kungfumaster": (16440, 2, 0.95), "roadrunner": (7845, 2, 0.95), "upndown": (11693, 2, 0.95),
    "jamesbond": (302.8, 2, 0.95), "tutankham": (145.9, 2.5, 0.85),
    "demonattack": (1971, 3, 0.7), "asterix": (1962, 3, 0.85), "stargunner": (10250, 4, 0.7),
    "defender": (18689, 4, 0.7), "bankheist": (668.0, 5, 0.95), "seaquest": (1336, 5, 0.95),
    "gopher": (2412, 6, 0.95), "fishingderby": (-38.7, 6, 0.95), "riverraid": (8163, 7, 0.95),
    "phoenix": (7243, 7, 0.95), "robotank": (11.9, 9, 0.95), "qbert": (13455, 9, 0.95),
    "enduro": (860.5, 10, 0.95), "wizardofwor": (4757, 10, 0.95), "hero": (22507, 10, 0.95),
    # others, once and short: an expert that clearly beats chance is worth more than none
    "alien": (7128, 1.5, 0.95), "amidar": (1084, 1.5, 0.95), "asteroids": (47389, 1.5, 0.95),
    "battlezone": (37188, 1.5, 0.95), "beamrider": (14992, 1.5, 0.95),
    "berzerk": (2630, 1.5, 0.95), "bowling": (160.7, 1.5, 0.95), "centipede": (6681, 1.5, 0.95),
    "choppercommand": (7388, 1.5, 0.95), "doubledunk": (-16.4, 1.5, 0.95),
    "frostbite": (4335, 1.5, 0.95), "gravitar": (2078, 1.5, 0.95), "icehockey": (0.9, 1.5, 0.95),
    "mspacman": (3555, 1.5, 0.95), "namethisgame": (8049, 1.5, 0.95),
    "privateeye": (69571, 1.5, 0.95), "spaceinvaders": (1669, 1.5, 0.95),
    "surround": (4.7, 1.5, 0.95), "tennis": (-8.3, 1.5, 0.95), "timepilot": (5229, 1.5, 0.95),
    "videopinball": (236629, 1.5, 0.95), "yarsrevenge": (54577, 1.5, 0.95),
    "zaxxon": (9173, 1.5, 0.95), "skiing": (-5369, 1.5, 0.95), "solaris": (12327, 1.5, 0.95),
    "venture": (1188, 1.5, 0.95), "pitfall": (-0.7, 1.5, 0.95),
    "montezumarevenge": (196.8, 1.5, 0.95),
}  # fmt: skip
"""By game: the return that its expert is meant to reach, millions of actions, and ``gae_lambda``.

The bar is a human's return or half of JAT's expert's, whichever is less, of those above chance;
half of JAT's expert's is at least half of the way from chance to it (``benchmarks/references``)."""

OTHERWISE: dict[str, dict[str, Any]] = {
    # who chooses at each step by chance never crosses the road: 0.0 after 50,000 steps
    "freeway": {"action_repeat": 8},
    # a tunnel gives hundreds: five episodes had 85 where those before and after had 25
    "breakout": {"evaluation_episodes": 20},
}
"""What differs for a game."""

ACTIONS_BETWEEN_EVALUATIONS = 100_000


def _recipe(game: str, bar: float, millions: float, gae_lambda: float) -> Recipe:
    steps = int(millions * 1e6)
    return Recipe(
        "ppo",
        steps=steps,
        bar=bar,
        enough=bar,
        source=SOURCE,
        num_envs=32,
        learning_rate=5e-4,
        batch_size=256,
        width=128,
        activation="relu",
        n_steps=64,
        n_epochs=3,
        gae_lambda=gae_lambda,
        ent_coef=0.01,
        clip_range=0.1,
        evaluations=steps // ACTIONS_BETWEEN_EVALUATIONS,
        **OTHERWISE.get(game, {}),
    )


GAMES = {f"atari-{game}": _recipe(game, *numbers) for game, numbers in BARS.items()}
