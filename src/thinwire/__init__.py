"""thinwire: trains, federates and serves PyTorch models over the network you have."""
