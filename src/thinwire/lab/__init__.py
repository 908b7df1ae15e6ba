"""The lab: any network on one machine, out of namespaces, for real processes and anybody's software."""

from thinwire.lab.environment import environment
from thinwire.lab.lab import Lab, popen, take_down
from thinwire.lab.library import load, shipped
from thinwire.lab.run import run_everywhere
from thinwire.lab.scenario import Scenario

__all__ = ["Lab", "Scenario", "environment", "load", "popen", "run_everywhere", "shipped", "take_down"]
