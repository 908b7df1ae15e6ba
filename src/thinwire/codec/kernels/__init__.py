"""The loops of the codecs, compiled by Numba, each beside a NumPy twin that gives the same bytes.

The compiled modules are imported when a codec first encodes or decodes: importing one compiles its loops (seconds, once
a machine) or loads them from Numba's cache.
"""
