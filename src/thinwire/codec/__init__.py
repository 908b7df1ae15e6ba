"""Codecs: float32 tensors as fewer bytes, and back. One file, one codec, one paper.

Not here: who sends payloads to whom (``collective``), and which codec is worth its error (``planner``).
"""
