"""The engines that others run: at one Valkey the same job by us and by the queues that people put there; at NATS packs of
calls and single messages; and beside both what the store's own driver does."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from benchmarks.measure import PROGRAMS, Row, answer, median, start
from benchmarks.peers import broker, jetstream
from benchmarks.peers.catalog import BY_NAME, OURS_NATS, OURS_REDIS, Entry
from benchmarks.peers.environments import NotInstalled
from benchmarks.peers.running import PeerFailed, plan_for, run

Note = Callable[[str], None]
PEERS = ("celery", "dramatiq", "rq", "huey", "taskiq", "saq")
SUBMIT = "submit → result, one Valkey"
WAKE = "wake-up of a parked worker, Valkey, p50"
PACKED = {1: "packed calls, NATS, one replica", 3: "packed calls, NATS, three replicas"}
SINGLES = "single messages, NATS, one replica"
WAKE_NATS = "wake-up of a parked worker, NATS, p50"
NAMES = frozenset({SUBMIT, WAKE, SINGLES, WAKE_NATS, *PACKED.values()})
WAKES = 400


def at_stores(runs: int, note: Note, scale: float = 1.0) -> list[Row]:
    """All rows of this page; a store that is not to be had here is said and left out."""
    rows: list[Row] = []
    runs = max(1, runs // 2)  # the peers are slow, and a turn takes one to two minutes
    for name, measure in (("Valkey", at_valkey), ("NATS", at_nats)):
        try:
            rows += measure(runs, note, scale)
        except (NotInstalled, PeerFailed) as error:
            print(f"{name} is not in this run: {error}", file=sys.stderr)
    return rows


def at_valkey(runs: int, note: Note, scale: float) -> list[Row]:
    entries = [OURS_REDIS, *(BY_NAME[name] for name in PEERS)]
    found: dict[str, list[dict[str, Any]]] = {entry.title: [] for entry in entries}
    absent: dict[str, str] = {}
    wakes: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
    with broker.valkey() as environ:
        url = environ["REDIS_URL"]
        port, n = urlsplit(url).port, max(50, int(WAKES * scale))
        for turn in range(runs):
            for entry in (each for each in entries if each.title not in absent):
                note(f"{entry.title} at one Valkey, {turn + 1} of {runs}")
                try:
                    found[entry.title].append(run(entry, _only_submit(entry, scale), broker_at=environ)["submit"])
                except (NotInstalled, PeerFailed) as error:
                    absent[entry.title] = str(error)
                    print(f"{entry.title} is not in this run: {error}", file=sys.stderr)
            note(f"waking a worker at Valkey, {turn + 1} of {runs}")
            key = secrets.token_urlsafe()
            wakes["ours"].append(answer(start(PROGRAMS / "sleeper.py", f"{url}?space=wake{turn}", key, n)))
            wakes["bare"].append(answer(start(PROGRAMS / "published.py", port, n)))
    rate = {title: median([each["per_s"] for each in got if "per_s" in each]) for title, got in found.items() if got}
    trip = {who: median([each["p50"] for each in got]) * 1e3 for who, got in wakes.items()}
    detail = {"found": found, "absent": absent, "wakes": wakes, "store": broker.CONFIGURATION}
    mine = rate.pop(OURS_REDIS.title, 0.0)
    return [
        Row(SUBMIT, "tasks/s", mine, rate, "≥ 15,000/s, 5 × the best", detail=detail),
        Row(WAKE, "ms", trip["ours"], {"redis-py, PUBLISH to a subscriber": trip["bare"]}, "≤ 1 ms", is_less_better=True),
    ]


def at_nats(runs: int, note: Note, scale: float) -> list[Row]:
    packed: dict[int, list[float]] = {1: [], 3: []}
    singles: dict[str, list[float]] = {"ours": [], "bare": []}
    wakes: list[float] = []
    n = max(100, int(2_000 * scale))
    for nodes, aim in ((1, 10_000), (3, 5_000)):
        with jetstream.servers(nodes) as url:
            for turn in range(runs):
                note(f"packed calls at {nodes} NATS, {turn + 1} of {runs}")
                at = f"{url}?replicas={nodes}&space=calls{turn}"
                plan = {"workers": 2, "submit": 100, "many": max(2 * aim, int(OURS_NATS.plan["many"] * scale))}
                packed[nodes].append(run(OURS_NATS, plan, broker_at={"NATS_URL": at})["many"]["per_s"])
                if nodes == 1:
                    note(f"single messages at NATS, {turn + 1} of {runs}")
                    one, key = f"{url}?replicas=1&space=one{turn}", secrets.token_hex()
                    singles["ours"].append(answer(start(PROGRAMS / "singles.py", one, key, n))["per_s"])
                    singles["bare"].append(answer(start(PROGRAMS / "singles.py", url, "bare", n))["per_s"])
                    awake = answer(start(PROGRAMS / "sleeper.py", one, key, max(50, int(WAKES * scale))))
                    wakes.append(awake["p50"] * 1e3)
    bare = {"nats-py: publish, fetch, ack": median(singles["bare"])}
    return [
        Row(
            PACKED[1],
            "calls/s",
            median(packed[1]),
            {},
            "≥ 10,000/s",
            detail={"found": packed, "store": jetstream.CONFIGURATION},
        ),
        Row(PACKED[3], "calls/s", median(packed[3]), {}, "≥ 5,000/s"),
        Row(SINGLES, "messages/s", median(singles["ours"]), bare, "≥ 50 % of the bare loop"),
        Row(WAKE_NATS, "ms", median(wakes), {}, "≤ 1 ms", is_less_better=True),
    ]


def _only_submit(entry: Entry, scale: float) -> dict[str, Any]:
    plan = plan_for(entry, workers=2, scale=scale)
    return {"workers": plan["workers"], "submit": plan["submit"]}
