"""How the experts of the Atari games are trained: one set of hyperparameters, a bar for each game.

* :data:`GAMES` -- recipes by task id.
"""

from __future__ import annotations

from typing import Any

from policies.expert_training.recipe import Recipe

SOURCE = (
    "rl-baselines3-zoo, hyperparams/ppo.yml atari (rollouts of 1,024 steps, batches of 256, 4 "
    "epochs, clipping 0.1, entropy 0.01, 10 M steps); 16 environments of 64 steps for 8 of 128 and "
    "twice the learning rate are own choices"
)

BARS = {
    "pong": 10.5, "freeway": 16.9, "boxing": 12.1, "breakout": 30.5, "kangaroo": 287, "krull":
    2665.5, "crazyclimber": 35829.4, "roadrunner": 7845, "gopher": 2412.5, "atlantis":
    29028.1, "demonattack": 1971, "assault": 742, "tutankham": 145.6, "upndown": 11693.2,
    "jamesbond": 302.8, "robotank": 11.9, "spaceinvaders": 1668.7, "enduro": 860.5,
    "stargunner": 10250, "fishingderby": -38.7, "alien": 7127.7, "amidar": 1082.4, "asterix":
    1849.8, "asteroids": 47388.7, "bankheist": 661.2, "battlezone": 37187.5, "beamrider":
    14794.6, "berzerk": 2630.4, "bowling": 160.7, "centipede": 5812.1, "choppercommand":
    7387.8, "defender": 18688.9, "doubledunk": -16.4, "frostbite": 4334.7, "gravitar": 1993.3,
    "hero": 22338.7, "icehockey": 0.9, "kungfumaster": 16196.4, "montezumarevenge": 196.8,
    "mspacman": 3448, "namethisgame": 8049, "phoenix": 7242.6, "pitfall": -0.7, "privateeye":
    50, "qbert": 13455, "riverraid": 7400.4, "seaquest": 1298.7, "skiing": -5369.1, "solaris":
    12326.7, "surround": 4.7, "tennis": -8.3, "timepilot": 5229.2, "venture": 1187.5,
    "videopinball": 17667.9, "wizardofwor": 4756.5, "yarsrevenge": 54576.9, "zaxxon": 9173.3,
}  # fmt: skip
"""Return that each expert is meant to reach: a human's or half of JAT's expert's, whichever is
less, of those above chance (``benchmarks/references/published.json``). The first are the games that
PPO learns soonest."""

OTHERWISE: dict[str, dict[str, Any]] = {
    # who chooses at each step by chance never crosses the road: 0.0 after 50,000 steps
    "freeway": {"action_repeat": 8},
    # a tunnel gives hundreds: five episodes had 85 where those before and after had 25
    "breakout": {"evaluation_episodes": 20},
}
"""What differs for a game."""

GAMES = {
    f"atari-{game}": Recipe(
        "ppo",
        steps=10_000_000,
        bar=bar,
        enough=1e9,  # a return that is flat for a while is no sign of an end here
        source=SOURCE,
        num_envs=16,
        learning_rate=5e-4,
        batch_size=256,
        width=128,
        activation="relu",
        n_steps=64,
        n_epochs=4,
        ent_coef=0.01,
        clip_range=0.1,
        evaluations=12,
        **{"evaluation_episodes": 5, **OTHERWISE.get(game, {})},
    )
    for game, bar in BARS.items()
}
