"""Collectives as data: schedules, the generators that write them, and the checker that proves them.

``generate`` writes a schedule, ``prove`` proves it, ``choose`` says which one to take, ``as_text`` shows it.
"""

from thinwire.collective.algorithms import algorithms, algorithms_for, find_algorithm, generate, register
from thinwire.collective.algorithms.base import Algorithm
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.check import Proof, prove
from thinwire.collective.render import as_mermaid, as_steps, as_text
from thinwire.collective.schedule import (
    Buffer,
    Collective,
    CollectiveKind,
    Op,
    OpKind,
    Program,
    Ref,
    Schedule,
    chunk_bounds,
)
from thinwire.collective.selection import Choice, choose, parse_override

__all__ = [
    "Algorithm",
    "Buffer",
    "Choice",
    "Collective",
    "CollectiveKind",
    "Op",
    "OpKind",
    "Program",
    "ProgramBuilder",
    "Proof",
    "Ref",
    "Schedule",
    "algorithms",
    "algorithms_for",
    "as_mermaid",
    "as_steps",
    "as_text",
    "choose",
    "chunk_bounds",
    "find_algorithm",
    "generate",
    "parse_override",
    "prove",
    "register",
    "write_schedule",
]
