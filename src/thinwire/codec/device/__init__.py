"""Codecs for tensors that lie on a CUDA device: the same payloads as on the host, made where the values are.

So only the payload crosses the bus. ``base`` says what a device form is and which codecs have one; without Triton none
has, and everything else works.

Not here: streams, and the way of a payload to the host and back (``runtime``).
"""
