"""How much of an engine a load takes: a calculation to check and to repeat with figures of your own.

python -c "from benchmarks.sizing import *; print(size(Load(messages_a_day=3e7, workers=200, body_bytes=2000)))"
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DAY_S = 86_400.0
SPACE_PER_S = {"redis": 10_000, "nats": 2_500}
"""Messages a second that one space (a hash slot; a stream with three replicas and its owner) is given: well below what
`python -m benchmarks engines` measures for calls, because one by one costs more than together. Measure yours."""
EXTRA_BYTES = 200
"""What Valkey 9.1 keeps beside a body for a plain message, rounded up: 167 for 100 bytes, 182 for 1,000 (over 100,000)."""
CONNECTIONS_OF_A_PROGRAM = {"redis": 2, "nats": 1}
"""Redis: one for steps, one for news (ADR 0088). The children of a worker go through their parent."""
REPLICAS = 3
MAX_CLIENTS = {"redis": 10_000, "nats": 65_536}
"""Their defaults: https://redis.io/docs/latest/develop/reference/clients/,
https://docs.nats.io/running-a-nats-service/configuration"""


@dataclass(frozen=True)
class Load:
    """What is asked for."""

    messages_a_day: float
    workers: int
    """Calls at a time."""
    body_bytes: int = 500
    peak: float = 3.0
    """How many times the mean the busiest minutes are."""
    children: int = 8
    """Workers in one program (`--concurrency`)."""
    backlog_s: float = 3600.0
    """How long producers go on while nothing is taken: what must fit."""


@dataclass(frozen=True)
class Size:
    """What it takes at one kind of engine."""

    mean_per_s: float
    peak_per_s: float
    spaces: int
    """Name spaces, so that the peak is within each one's share; in a Redis Cluster each is a hash slot on some node."""
    programs: int
    connections: int
    """In all, each program in one space."""
    backlog_bytes: float
    """Redis: memory of all nodes, of one copy. NATS: file store, of all replicas."""
    is_within_connections: bool
    """Whether one server's default limit of connections is enough for all."""


def size(load: Load, engine: str = "redis") -> Size:
    """Size a load.

    Args:
        engine: "redis" or "nats".
    """
    mean = load.messages_a_day / DAY_S
    programs = math.ceil(load.workers / load.children)
    connections = programs * CONNECTIONS_OF_A_PROGRAM[engine]
    copies = REPLICAS if engine == "nats" else 1
    return Size(
        mean,
        mean * load.peak,
        max(1, math.ceil(mean * load.peak / SPACE_PER_S[engine])),
        programs,
        connections,
        mean * load.backlog_s * (load.body_bytes + EXTRA_BYTES) * copies,
        connections <= MAX_CLIENTS[engine],
    )
