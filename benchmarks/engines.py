"""The engines that others run: the same jobs at one Valkey by us and by the queues that people put there, and what the store
itself can do."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from benchmarks.measure import PROGRAMS, Row, answer, median, start
from benchmarks.peers import broker
from benchmarks.peers.catalog import BY_NAME, OURS_REDIS, Entry
from benchmarks.peers.environments import NotInstalled
from benchmarks.peers.running import PeerFailed, plan_for, run

Note = Callable[[str], None]
PEERS = ("celery", "dramatiq", "rq", "huey", "taskiq", "saq")
SUBMIT = "submit → result, one Valkey"
WAKE = "wake-up of a parked worker, Valkey, p50"
NAMES = frozenset({SUBMIT, WAKE})
WAKES = 400


def at_stores(runs: int, note: Note, scale: float = 1.0) -> list[Row]:
    """All rows of this page; a store that is not to be had here is said and left out."""
    try:
        return at_valkey(runs, note, scale)
    except NotInstalled as error:
        print(f"no Valkey in this run: {error}", file=sys.stderr)
        return []


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
    detail = {"found": found, "absent": absent, "wakes": wakes}
    mine = rate.pop(OURS_REDIS.title, 0.0)
    return [
        Row(SUBMIT, "tasks/s", mine, rate, "≥ 15,000/s, 5 × the best", detail=detail),
        Row(WAKE, "ms", trip["ours"], {"redis-py, PUBLISH to a subscriber": trip["bare"]}, "≤ 1 ms", is_less_better=True),
    ]


def _only_submit(entry: Entry, scale: float) -> dict[str, Any]:
    plan = plan_for(entry, workers=2, scale=scale)
    return {"workers": plan["workers"], "submit": plan["submit"]}
