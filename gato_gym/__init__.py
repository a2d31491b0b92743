"""Gymnasium environments as tokens.

* :class:`GatoTokenize`, :class:`GatoTokenizeVector`, :func:`make` -- environments in token space.
* :func:`compile_plan`, :class:`Plan`, :class:`PlanOptions`, :class:`Vocabulary` -- the token space.
* :class:`TokenizedStep`, :class:`TokenizedBatch` -- encoded observations.
* :class:`TextTokenizer` -- text to ids.
* :func:`get_task`, :func:`list_tasks`, :class:`Task` -- tasks, also Gymnasium ids ``Gato/<id>``.
* :class:`Suite`, :func:`register_suite`, :func:`get_suite`, :func:`list_suites` -- suites of tasks.
* :class:`Episode`, :func:`read_minari`, :func:`write_minari` -- recorded episodes.
"""

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.minari_datasets import read_minari
from gato_gym.episodes.minari_writing import write_minari
from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan, TokenizedBatch, TokenizedStep, compile_plan
from gato_gym.tasks import (
    Suite,
    Task,
    get_suite,
    get_task,
    list_suites,
    list_tasks,
    register,
    register_suite,
)
from gato_gym.text import TextTokenizer
from gato_gym.vocabulary import Vocabulary
from gato_gym.wrappers import GatoTokenize, GatoTokenizeVector, install_make_vec, make

__version__ = "0.1.0"

__all__ = [
    "Episode",
    "GatoTokenize",
    "GatoTokenizeVector",
    "Plan",
    "PlanOptions",
    "Suite",
    "Task",
    "TextTokenizer",
    "TokenizedBatch",
    "TokenizedStep",
    "Vocabulary",
    "compile_plan",
    "get_suite",
    "get_task",
    "list_suites",
    "list_tasks",
    "make",
    "read_minari",
    "register_suite",
    "write_minari",
]

install_make_vec()
register()
