"""What a store holds after a run of changes: the plain reading of `changes.py`.

A durable engine says the same in its own tables; the simulation, and tests of such engines, compare with this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from manyhands.lifecycle import changes as c
from manyhands.lifecycle.changes import Change, Snapshot, StoredMessage


class Replay:
    """A store in a dictionary: `apply` the changes of each step, `snapshot` what a core would be opened with."""

    def __init__(self) -> None:
        self._queues: dict[str, c.QueueSet] = {}
        self._counters: dict[str, c.Counted] = {}
        self._messages: dict[int, StoredMessage] = {}
        self._watermarks: dict[tuple[str, str], c.Marked] = {}
        self._sessions: dict[str, c.SessionSeen] = {}
        self._results: dict[tuple[str, int], c.ResultKept] = {}
        self._remembered: dict[str, c.Remembered] = {}
        self._next_n = 1

    def apply(self, changes: Iterable[Change]) -> None:
        """Take over the changes of one step, in order."""
        for change in changes:
            _RULES[type(change)](self, change)

    def snapshot(self) -> Snapshot:
        """The store as it stands."""
        return Snapshot(
            queues=list(self._queues.values()),
            counters=list(self._counters.values()),
            messages=[self._messages[n] for n in sorted(self._messages)],
            watermarks=list(self._watermarks.values()),
            sessions=list(self._sessions.values()),
            results=list(self._results.values()),
            remembered=list(self._remembered.values()),
            next_n=self._next_n,
        )

    def _stored(self, change: c.Stored) -> None:
        self._messages[change.n] = StoredMessage(change.n, change.queue, change.message, due_at=change.message.due_at)
        self._next_n = max(self._next_n, change.n + 1)

    def _leased(self, change: c.Leased) -> None:
        self._edit(change.n, token=change.token, session=change.session, deliveries=change.deliveries, need="")

    def _freed(self, change: c.Freed) -> None:
        self._edit(
            change.n,
            token=0,
            session="",
            deliveries=change.deliveries,
            is_suspect=change.is_suspect,
            due_at=change.due_at,
            history=change.history,
            need=change.need,
        )

    def _cut(self, change: c.Cut) -> None:
        self._edit(change.n, first=change.first, end=change.end)

    def _buried(self, change: c.Buried) -> None:
        self._edit(change.n, token=0, session="", died_at=change.died_at, reason=change.reason, history=change.history)

    def _produced(self, change: c.Produced) -> None:
        self._edit(change.n, produced=(*self._messages[change.n].produced, change.put_id))

    def _edit(self, n: int, **fields: Any) -> None:
        self._messages[n] = msgspec.structs.replace(self._messages[n], **fields)

    def _removed(self, change: c.Removed) -> None:
        del self._messages[change.n]

    def _marked(self, change: c.Marked) -> None:
        self._watermarks[change.session, change.stream] = change

    def _session_seen(self, change: c.SessionSeen) -> None:
        self._sessions[change.session] = change

    def _result_kept(self, change: c.ResultKept) -> None:
        self._results.setdefault(("", change.number) if change.number else (change.id, 0), change)

    def _result_dropped(self, change: c.ResultDropped) -> None:
        del self._results[("", change.number) if change.number else (change.id, 0)]

    def _acked(self, change: c.Acked) -> None:
        for key, kept in list(self._results.items()):
            if kept.number and kept.stream == change.stream and kept.number <= change.number:
                if kept.until:
                    self._results[key] = msgspec.structs.replace(kept, stream="")
                else:
                    del self._results[key]

    def _remember(self, change: c.Remembered) -> None:
        self._remembered[change.id] = change

    def _forgotten(self, change: c.Forgotten) -> None:
        self._remembered.pop(change.id, None)

    def _queue_set(self, change: c.QueueSet) -> None:
        self._queues[change.queue] = change

    def _counted(self, change: c.Counted) -> None:
        self._counters[change.queue] = change


_RULES: dict[type, Callable[[Replay, Any], None]] = {
    c.Stored: Replay._stored,
    c.Leased: Replay._leased,
    c.Freed: Replay._freed,
    c.Buried: Replay._buried,
    c.Produced: Replay._produced,
    c.Removed: Replay._removed,
    c.Marked: Replay._marked,
    c.SessionSeen: Replay._session_seen,
    c.ResultKept: Replay._result_kept,
    c.ResultDropped: Replay._result_dropped,
    c.Acked: Replay._acked,
    c.Cut: Replay._cut,
    c.Remembered: Replay._remember,
    c.Forgotten: Replay._forgotten,
    c.QueueSet: Replay._queue_set,
    c.Counted: Replay._counted,
}


def replay(changes: Iterable[Change]) -> Snapshot:
    """What a store holds after these changes."""
    store = Replay()
    store.apply(changes)
    return store.snapshot()
