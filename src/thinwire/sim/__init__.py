"""Virtual time, simulated links and faults: a clock and a transport that never wait.

Start at ``SimulatedNetwork`` for endpoints, at ``cluster.SimulatedCluster`` for ranks that run collectives; faults are
values in ``faults``.
"""

from thinwire.sim.clock import Timer, VirtualClock
from thinwire.sim.network import LinkProfile, SimulatedNetwork

__all__ = ["LinkProfile", "SimulatedNetwork", "Timer", "VirtualClock"]
