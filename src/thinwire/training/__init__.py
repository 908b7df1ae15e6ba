"""Data-parallel training over a thinwire group: the autopilot under DistributedDataParallel and FSDP2, and a wrapper
whose transfers go on while the next step begins.

``attach`` and ``data_parallel`` are the fronts, and ``link`` is what runs. Decisions are ``planner``'s; collectives are
``runtime``'s.
"""
