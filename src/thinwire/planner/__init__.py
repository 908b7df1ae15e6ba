"""Which form each gradient bucket travels in: pure functions from what was measured to a decision and its reason.

``forms`` are the choices, ``workload`` what was measured, ``cost`` predicts, ``decision`` chooses, ``pilot`` holds a
choice against noise, ``guard`` takes bits back when training suffers, ``trial`` when steps became no shorter. No torch,
no clock, no threads, no network.
"""
