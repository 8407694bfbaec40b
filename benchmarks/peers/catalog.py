"""Which peers there are, what each needs, and how much work it gets: slow ones get few tasks, so that a run stays short."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """One peer."""

    name: str
    """Its module in benchmarks/peers."""
    title: str
    plan: dict[str, int]
    """How much of each measure at full size (driver.py): submit, map, calls, megabytes."""
    requirements: tuple[str, ...] = ()
    """What is installed for it, with the versions that the results were made with; none: the interpreter that runs us."""
    needs_broker: bool = False
    crosses_machines: bool = True
    """Whether its workers could be on other machines."""
    extras: dict[str, list[float]] = field(default_factory=dict)


REDIS = "redis==8.1.0"

OURS, OURS_LOCAL = "manyhands", "manyhands_local"
SLEEPS = [0.01] * 400
MIXED = ([0.001] * 99 + [1.0]) * 4
"""Of calls that take 1 ms and 1 s: nothing short may wait behind something long."""
SLOW_CALLS = {"sleeps": SLEEPS, "mixed": MIXED}

CATALOG = [
    Entry(
        OURS,
        "manyhands",
        {"submit": 100_000, "many": 2_000_000, "calls": 3_000, "megabytes": 300, "arrays": 40},
        extras=SLOW_CALLS,
    ),
    Entry(
        OURS_LOCAL,
        "manyhands, on one machine",
        {"submit": 100_000, "many": 2_000_000, "calls": 3_000, "megabytes": 300, "arrays": 40},
        crosses_machines=False,
        extras=SLOW_CALLS,
    ),
    Entry("stdlib_managers", "stdlib managers", {"submit": 10_000, "calls": 2_000, "megabytes": 200}),
    Entry("mp_queue", "mp.Queue pair", {"submit": 50_000, "calls": 2_000, "megabytes": 200}, crosses_machines=False),
    Entry(
        "mp_pool",
        "Pool",
        {"submit": 50_000, "many": 500_000, "calls": 2_000, "megabytes": 100, "arrays": 20},
        crosses_machines=False,
        extras=SLOW_CALLS,
    ),
    Entry(
        "process_pool",
        "ProcessPoolExecutor",
        {"submit": 10_000, "many": 200_000, "calls": 2_000, "megabytes": 200, "arrays": 40},
        crosses_machines=False,
        extras=SLOW_CALLS,
    ),
    Entry(
        "joblib",
        "joblib / loky",
        {"submit": 10_000, "many": 200_000, "calls": 1_000, "megabytes": 100},
        ("joblib==1.6.0", "loky==3.7.0"),
        crosses_machines=False,
        extras=SLOW_CALLS,
    ),
    Entry(
        "dask",
        "Dask",
        {"submit": 1_000, "many": 2_000, "calls": 100, "megabytes": 40},
        ("dask[distributed]==2026.8.0",),
    ),
    Entry("ray", "Ray", {"submit": 5_000, "calls": 500, "megabytes": 100}, ("ray==2.60.0",)),
    Entry(
        "celery",
        "Celery",
        {"submit": 1_000, "calls": 200, "megabytes": 20},
        ("celery[redis]==5.7.0",),
        needs_broker=True,
    ),
    Entry(
        "dramatiq",
        "Dramatiq",
        {"submit": 2_000, "calls": 200, "megabytes": 20},
        ("dramatiq[redis]==2.2.1", REDIS),
        needs_broker=True,
    ),
    Entry("huey", "Huey", {"submit": 3_000, "calls": 300, "megabytes": 40}, ("huey==3.5.4", REDIS), needs_broker=True),
    Entry(
        "taskiq",
        "taskiq",
        {"submit": 1_000, "calls": 20, "megabytes": 10},
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", REDIS),
        needs_broker=True,
    ),
    Entry(
        "saq",
        "SAQ",
        {"submit": 2_000, "calls": 200, "megabytes": 20},
        # It imports typing_extensions without asking for it.
        ("saq[redis]==0.26.4", "typing_extensions==4.16.0"),
        needs_broker=True,
    ),
    Entry("rq", "RQ", {"submit": 300, "calls": 50, "megabytes": 10}, ("rq==3.0.0", REDIS), needs_broker=True),
    Entry("flexiq", "FlexiQ", {"submit": 1_000, "calls": 50, "megabytes": 10}, ("flexiq==2.1.0",)),
]
BY_NAME = {entry.name: entry for entry in CATALOG}
OURS_REDIS = Entry("manyhands_redis", "manyhands at a Redis", {"submit": 30_000}, needs_broker=True)
"""Beside those who need one, at one and the same (engines.py)."""
OURS_NATS = Entry("manyhands_nats", "manyhands at a NATS", {"submit": 2_000, "many": 50_000})
