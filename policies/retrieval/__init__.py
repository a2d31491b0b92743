"""Acting by retrieval: the action of the demonstrated step that looks most like this one.

* :mod:`policies.retrieval.policy` -- the policy.
* :mod:`policies.retrieval.retriever` -- demonstrations for a network.
* :mod:`policies.retrieval.keys` -- encoded steps as points whose distances compare them.
* :mod:`policies.retrieval.index` -- the nearest of many points.
"""
