"""Predicts how much communication of a backward pass is exposed: what the step is longer than without any.

Each bucket goes through three stations in turn: encoder, wire, decoder. A station works on one bucket at a time, in
order, and a bucket's parts overlap: the wire starts on the first of ``NUM_PARTS`` parts while the encoder is at the
second. The all-reduce is ``direct``: everybody encodes its contribution, sends a shard to each owner, decodes and
adds up the shards it owns, encodes the sum, sends that to everybody, and decodes the other owners' sums. Where no
core is free the codecs' time delays the backward pass itself.

The times of all buckets are maxima of sums, so the prediction never falls when anything gets slower.

Not here: what to do about it (``decision``).
"""

from __future__ import annotations

from collections.abc import Sequence

from thinwire.planner.forms import Form
from thinwire.planner.workload import Bucket, Wire, Workload

NUM_PARTS = 8


def exposed_s(workload: Workload, forms: Sequence[Form], wire: Wire) -> float:
    """Seconds that the step is longer than its compute, if bucket i travels as ``forms[i]``.

    >>> from thinwire.planner.forms import EXACT
    >>> from thinwire.planner.workload import Bucket
    >>> buckets = (Bucket(num_values=1_000_000, ready_s=0.5), Bucket(num_values=1_000_000, ready_s=1.0))
    >>> workload = Workload(buckets=buckets, backward_s=1.0, step_s=1.5, num_ranks=2)
    >>> exposed_s(workload, [EXACT, EXACT], Wire(rank_bytes_per_s=(4e6, 4e6)))  # a second each; the first half hidden
    1.5
    """
    num_ranks = workload.num_ranks
    if num_ranks == 1 or not workload.buckets:
        return 0.0
    stolen_s = encoder_s = wire_s = decoder_s = end_s = 0.0
    for bucket, form in zip(workload.buckets, forms, strict=True):
        ready_s = bucket.ready_s + stolen_s
        encode_s = form.encode_s_per_value * bucket.num_values * (1 + 1 / num_ranks)
        decode_s = form.decode_s_per_value * bucket.num_values * 2 * (num_ranks - 1) / num_ranks
        send_s = on_wire_s(bucket, form, wire, num_ranks)
        encoder_s, first_s = _station(encoder_s, ready_s, ready_s, encode_s)
        wire_s, first_s = _station(wire_s, first_s, encoder_s, send_s)
        decoder_s, _ = _station(decoder_s, first_s, wire_s, decode_s)
        end_s = max(end_s, decoder_s + wire.rtt_s)
        stolen_s += workload.codec_contention * (encode_s + decode_s)
    return max(0.0, stolen_s, end_s - workload.backward_s)


def on_wire_s(bucket: Bucket, form: Form, wire: Wire, num_ranks: int) -> float:
    """How long a bucket keeps the wire busy: a shard to each peer, and the sum of the own shard to each."""
    return wire.transfer_s(2 * form.shard_bytes(bucket.num_values, num_ranks, bucket.shapes))


def _station(free_s: float, first_in_s: float, last_in_s: float, work_s: float) -> tuple[float, float]:
    """When a station has done a bucket whose first part comes at ``first_in_s`` and whose last at ``last_in_s``.

    Returns:
        When it is done with all of it, and when with the first part.
    """
    begin_s = max(free_s, first_in_s)
    done_s = max(begin_s + work_s, last_in_s + work_s / NUM_PARTS)
    return done_s, begin_s + work_s / NUM_PARTS
