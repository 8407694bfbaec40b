"""What must hold of a store after the power was cut, given what the workload had been told until then.

In words: every acknowledged put is there, or was finished; what was acknowledged as finished does not come back; a result
is there exactly when its message is finished; what was handed out is on disk as leased, and counted; a put that was
acknowledged would be recognised if it were sent again; nothing is there that nobody put. And SQLite finds no damage.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from manyhands.engines.sqlite.store import Store
from manyhands.lifecycle.changes import Snapshot, StoredMessage
from manyhands.model import SettleKind
from powercut.tracing import MARKS, Record
from powercut.workload import body_of


class Known:
    """What the workload knew at one moment."""

    def __init__(self, *, may_fail: bool = False) -> None:
        self.may_fail = may_fail
        self.failed: list[str] = []
        """What the workload was refused; only a run whose disk fails may be refused anything."""
        self.puts: set[str] = set()
        self.seqs: dict[tuple[str, str], int] = {}
        self.got: dict[str, tuple[int, int]] = {}
        """Message id to the token and attempt of its last delivery."""
        self.tried: dict[str, tuple[int, SettleKind, bool]] = {}
        """Message id to the last settlement that was sent: token, kind, whether with a result."""
        self.settled: set[int] = set()

    def learn(self, record: Record) -> None:
        """One more record of the trace; only marks tell anything."""
        if record.name != MARKS:
            return
        mark = json.loads(record.data)
        match mark["what"]:
            case "put":
                self.puts.update(mark["ids"])
                self.seqs[mark["session"], mark["queue"]] = mark["seq"]
            case "got":
                self.got[mark["id"]] = (mark["token"], mark["attempt"])
            case "try":
                self.tried[mark["id"]] = (mark["token"], SettleKind(mark["kind"]), mark["has_result"])
            case "settled":
                self.settled.update(mark["tokens"])
            case "failed":
                assert self.may_fail, f"the workload was refused something: {mark}"
                self.failed.append(mark["text"])


def complaints(folder: Path, known: Known) -> Iterator[str]:
    """Open what the cut left, with the shipped store, and say what is wrong with it."""
    store = Store.open(folder / "jobs.db")
    try:
        snapshot = store.load(0.0, watermark_kept_s=3600.0)
    finally:
        store.close()
    with sqlite3.connect(folder / "jobs.db") as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    if found != [("ok",)]:
        yield f"integrity_check: {found}"
    messages = {stored.message.id: stored for stored in snapshot.messages}
    if len(messages) != len(snapshot.messages):
        yield "a message is there twice"
    results = {result.id for result in snapshot.results}
    yield from _invented(snapshot)
    yield from _lost_or_back(known, messages, results)
    yield from _not_leased(known, messages)
    marks = {(marked.session, marked.stream): marked for marked in snapshot.watermarks}
    for (session, stream), seq in known.seqs.items():
        marked = marks.get((session, stream))
        if marked is None or marked.seq < seq or seq in marked.holes:
            yield f"a resend of put {seq} of {session} to {stream} would be applied again"


def _invented(snapshot: Snapshot) -> Iterator[str]:
    for stored in snapshot.messages:
        if stored.message.body != body_of(stored.message.id) or not stored.message.id.startswith(stored.queue):
            yield f"{stored.message.id} is not what was put"
    for result in snapshot.results:
        if result.value != body_of(f"result of {result.id}"):
            yield f"the result of {result.id} is not what was sent"


def _lost_or_back(known: Known, messages: dict[str, StoredMessage], results: set[str]) -> Iterator[str]:
    for id_ in known.puts:
        token, kind, has_result = known.tried.get(id_, (0, SettleKind.RELEASE, False))
        is_answered = token in known.settled
        is_there = id_ in messages
        if is_there and is_answered and kind is SettleKind.ACK:
            yield f"{id_} was acknowledged as done and is back"
        if not is_there and kind is not SettleKind.ACK:
            yield f"{id_} was acknowledged and is lost"
        if is_there and id_ in results:
            yield f"{id_} has a result and is not finished"
        if not is_there and has_result and id_ not in results:
            yield f"{id_} is finished and its result is lost"
        if is_there and is_answered and kind is SettleKind.REJECT and not messages[id_].died_at:
            yield f"{id_} was rejected and is alive"


def _not_leased(known: Known, messages: dict[str, StoredMessage]) -> Iterator[str]:
    for id_, (token, attempt) in known.got.items():
        tried, _, _ = known.tried.get(id_, (0, None, None))
        stored = messages.get(id_)
        if stored is None or tried == token:
            continue  # lost ones were told of above; a settlement on its way may have been applied or not
        if stored.token < token or stored.deliveries < attempt:
            yield f"{id_} was handed out under token {token} (attempt {attempt}) and the disk does not know"


def told_in(marks: Path) -> Known:
    """What a workload that ran without a trace knew when it ended."""
    known = Known()
    for line in marks.read_bytes().splitlines():
        known.learn(Record("W", MARKS, 0, line))
    return known
