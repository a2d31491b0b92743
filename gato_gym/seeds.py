"""Which seeds belong to what; no two uses share one.

Benchmarks play seeds below :data:`TRAINING_SEEDS_START`. Trainings and recordings play seeds from
there on, experts are evaluated and scored on those from :data:`EVALUATION_SEEDS_START`.
"""

from __future__ import annotations

TRAINING_SEEDS_START = 1_000_000
"""The first seed of trainings and of recorded episodes."""

EVALUATION_SEEDS_START = 2**31
"""The first seed of the episodes that choose among an expert's networks."""

SCORE_SEEDS_START = EVALUATION_SEEDS_START + 1_000_000
"""The first seed of the episodes that score an expert that evaluations have chosen."""
