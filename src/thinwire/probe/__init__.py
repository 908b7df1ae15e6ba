"""Experiments that turn a network into a ``Topology``, and what keeps that up to date afterwards."""
