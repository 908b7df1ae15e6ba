"""Experiments that turn a network into a ``Topology``, and what keeps that up to date afterwards.

``probe`` measures a network, ``bench_link`` one link in every way; ``Forecaster`` predicts a link;
``PassiveLearner`` learns from traffic that flows anyway. Every rank of a job calls ``probe``; the store is that of the
job, or one made for it::

    topology = probe(store, rank, world_size, form="quick")
"""

from thinwire.probe.forecast import Forecast, Forecaster
from thinwire.probe.passive import PassiveLearner
from thinwire.probe.session import Form, bench_link, probe

__all__ = ["Forecast", "Forecaster", "Form", "PassiveLearner", "bench_link", "probe"]
