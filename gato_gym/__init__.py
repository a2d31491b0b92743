"""Gymnasium environments as tokens.

* :class:`GatoTokenize`, :class:`GatoTokenizeVector`, :func:`make` -- environments in token space.
* :func:`compile_plan`, :class:`Plan`, :class:`PlanOptions`, :class:`Vocabulary` -- the token space.
* :class:`TokenizedStep`, :class:`TokenizedBatch` -- encoded observations.
* :class:`TextTokenizer` -- text to ids.
"""

from gato_gym import vectorization
from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan, TokenizedBatch, TokenizedStep, compile_plan
from gato_gym.text import TextTokenizer
from gato_gym.vocabulary import Vocabulary
from gato_gym.wrappers import GatoTokenize, GatoTokenizeVector, make

__all__ = [
    "GatoTokenize",
    "GatoTokenizeVector",
    "Plan",
    "PlanOptions",
    "TextTokenizer",
    "TokenizedBatch",
    "TokenizedStep",
    "Vocabulary",
    "compile_plan",
    "make",
]

vectorization.install()
