"""What is known of a network, as measured facts: hosts, directed links, what links share, and what is missing.

``Topology`` is the value, ``load`` and ``save`` its file, ``diff`` what changed between two. Not here: measuring
(``probe``) and deciding anything from it (``planner``).
"""

from thinwire.topology.difference import Difference, diff
from thinwire.topology.model import Bottleneck, Gap, Host, Link, Topology
from thinwire.topology.text import dumps, load, loads, save

__all__ = [
    "Bottleneck",
    "Difference",
    "Gap",
    "Host",
    "Link",
    "Topology",
    "diff",
    "dumps",
    "load",
    "loads",
    "save",
]
