"""Experiments that turn a network into a ``Topology``.

``probe`` measures a network, ``bench_link`` one link in every way. Every rank of a job calls ``probe``; the store is
that of the job, or one made for it::

    topology = probe(store, rank, world_size, form="quick")

Not here: what keeps a topology up to date for free while a job runs (``thinwire.forecast`` and ``Communicator.links``).
"""

from thinwire.probe.session import Form, bench_link, probe

__all__ = ["Form", "bench_link", "probe"]
