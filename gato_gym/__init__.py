"""Gymnasium environments as tokens."""

from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan, TokenizedBatch, TokenizedStep, compile_plan
from gato_gym.vocabulary import Vocabulary

__all__ = [
    "Plan",
    "PlanOptions",
    "TokenizedBatch",
    "TokenizedStep",
    "Vocabulary",
    "compile_plan",
]
