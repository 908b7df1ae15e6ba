"""thinwire: trains, federates and serves PyTorch models over the network you have."""

__version__ = "0.1.0"
