"""Everything that a store's file holds, as a snapshot for a new core."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from manyhands._faults import is_planted
from manyhands.lifecycle.changes import (
    Counted,
    Marked,
    QueueSet,
    Remembered,
    ResultKept,
    SessionSeen,
    Snapshot,
    StoredMessage,
)
from manyhands.model import Attempt, Message

_decode_message = msgspec.msgpack.Decoder(Message).decode
_decode_history = msgspec.msgpack.Decoder(list[Attempt]).decode
_decode_holes = msgspec.msgpack.Decoder(tuple[int, ...]).decode


_ENDED = "SELECT id, queue, value, until, number, stream, first, n, code, text FROM ended ORDER BY number"


class Content(NamedTuple):
    """What was read, with what the writing side must know of it."""

    snapshot: Snapshot
    queue_ids: dict[str, int]
    producers: set[int]
    """Messages under whose lease something was put."""


def read(db: sqlite3.Connection, next_n: int) -> Content:
    """Read all tables; the caller holds a transaction.

    Raises:
        KeyError, ValueError, TypeError, msgspec.MsgspecError: a row makes no sense.
    """
    queues, counters, names = [], [], {}
    for id_, name, maxsize, *counts in db.execute("SELECT * FROM queue ORDER BY id"):
        names[id_] = name
        queues.append(QueueSet(name, maxsize))
        counters.append(Counted(name, *counts))
    produced: dict[int, list[str]] = {}
    for n, put_id in db.execute("SELECT n, put_id FROM produced"):
        produced.setdefault(n, []).append(put_id)
    messages = _read_messages(db, names, produced)
    if messages and messages[-1].n >= next_n:
        raise ValueError("a message is numbered beyond the store's own counter")
    watermarks, remembered = [], []
    if not is_planted("dedupe_lost_at_restart"):
        watermarks = [
            Marked(session, stream, seq, _decode_holes(holes) if holes else ())
            for session, stream, seq, holes in db.execute("SELECT * FROM watermark")
        ]
        remembered = [Remembered(*row) for row in db.execute("SELECT * FROM remembered")]
    snapshot = Snapshot(
        queues=queues,
        counters=counters,
        messages=messages,
        watermarks=watermarks,
        sessions=[SessionSeen(*row) for row in db.execute("SELECT * FROM session")],
        results=[
            *(ResultKept(*row) for row in db.execute("SELECT * FROM result")),
            *(ResultKept(*row) for row in db.execute(_ENDED)),
        ],
        remembered=remembered,
        next_n=next_n,
    )
    return Content(snapshot, {name: id_ for id_, name in names.items()}, set(produced))


def _read_messages(db: sqlite3.Connection, names: dict[int, str], produced: dict[int, list[str]]) -> list[StoredMessage]:
    states = {row[0]: row for row in db.execute("SELECT * FROM state")}
    rows = db.execute("SELECT n, queue, data FROM message ORDER BY n")
    if not states:  # a backlog that nobody has touched, perhaps a large one
        return [StoredMessage(n, names[queue], _decode_message(data)) for n, queue, data in rows]
    untouched = (0, 0, 0, 0.0, 0, "", None, 0.0, "", "", 0, 0)
    messages = []
    for n, queue, data in rows:
        _, deliveries, is_suspect, due_at, token, session, history, died_at, reason, need, first, end = states.get(
            n, untouched
        )
        messages.append(
            StoredMessage(
                n=n,
                queue=names[queue],
                message=_decode_message(data),
                deliveries=deliveries,
                is_suspect=bool(is_suspect),
                due_at=due_at,
                token=token,
                session=session,
                produced=tuple(produced.get(n, ())),
                history=_decode_history(history) if history else [],
                died_at=died_at,
                reason=reason,
                need=need,
                first=first,
                end=end,
            )
        )
    return messages
