"""Taking calls out that nobody has begun, wherever they wait, and dropping those that nobody awaits any more.

A call that waits as a bare record in a lane is not searched for: its id is noted, and it is skipped when it comes up.
"""

from __future__ import annotations

from collections.abc import Iterable

from manyhands.clock import Now
from manyhands.events import Cancel, Cancelled
from manyhands.lifecycle import packs, parents, results, streams
from manyhands.lifecycle.finishing import drop, less_unfinished
from manyhands.lifecycle.queue import Entry, Queue, is_pack
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.state import State
from manyhands.lifecycle.streams import Stream
from manyhands.model import Message

_Held = dict[str, tuple[Session, int, Entry]]


def cancel(state: State, session: Session, request: Cancel, now: Now) -> None:
    """Take calls out of a queue; stop those that run, if that was asked for."""
    queue = state.queue(request.queue)
    held = _held(state, queue)
    wanted: dict[str, set[int]] = {}
    alone: dict[str, Message | Entry] = {}
    done: list[str] = []
    for call_id in request.ids:
        if call_id in alone:
            continue
        found = _find(state, session, queue, call_id)
        if found is not None:
            if call_id in held:
                if request.is_running_too:
                    _stop(state, held[call_id], call_id, -1)
            elif is_pack(_message(found)):
                wanted[call_id] = set(range(_message(found).options.calls))  # type: ignore[union-attr]
                done.append(call_id)
            else:
                _take_out(state, queue, found)
                alone[call_id] = found
                done.append(call_id)
            continue
        named = results.pack_of(call_id)
        pack = _find(state, session, queue, named[0]) if named is not None else None
        if named is None or pack is None:
            continue
        if named[0] in held:
            first, end = packs.left(held[named[0]][2])
            if request.is_running_too and first <= named[1] < end:
                _stop(state, held[named[0]], call_id, named[1])
        elif named[1] < _message(pack).options.calls:  # type: ignore[union-attr]
            wanted.setdefault(named[0], set()).add(named[1])
            done.append(call_id)
    if alone:
        drop(state, queue, list(alone.values()), "cancelled", now, "task_cancelled")
    for pack_id, parts in wanted.items():
        _from_pack(state, session, queue, pack_id, parts, now)
    state.reply(session, Cancelled(request.rid, done))


def _find(state: State, session: Session, queue: Queue, call_id: str) -> Message | Entry | None:
    """An unfinished call of this queue: in the streams of who asks first, which is nearly always right."""
    for name in session.streams:
        own = state.streams.get(name)
        item = own.calls.get(queue.name, {}).get(call_id) if own is not None else None
        if item is not None:
            return item
    for stream in state.streams.values():
        item = stream.calls.get(queue.name, {}).get(call_id)
        if item is not None:
            return item
    return None


def _held(state: State, queue: Queue) -> _Held:
    """What is leased of a queue: by id, who has it under which token."""
    if not queue.leased:
        return {}
    return {
        entry.message.id: (session, token, entry)
        for session in state.sessions.values()
        for token, entry in session.leases.items()
        if entry.queue == queue.name
    }


def _message(item: Message | Entry) -> Message:
    return item.message if isinstance(item, Entry) else item


def _take_out(state: State, queue: Queue, item: Message | Entry) -> None:
    """Out of the order, wherever it waits."""
    if isinstance(item, Entry):
        queue.drop(item)
    else:
        queue.cancelled.add(item.id)


def _from_pack(state: State, session: Session, queue: Queue, pack_id: str, parts: set[int], now: Now) -> None:
    pack = _find(state, session, queue, pack_id)
    assert pack is not None
    message = _message(pack)
    assert message.options is not None
    _take_out(state, queue, pack)
    if len(parts) == message.options.calls:
        drop(state, queue, [pack], "cancelled", now, "task_cancelled")
        return
    for first, n in _runs(parts):
        text = f"calls of message {pack_id} were cancelled"
        results.end_without(state, queue.name, message, "task_cancelled", text, streams.awaiting(state, message), first, n)
    less_unfinished(state, queue, len(parts))
    packs.cut_out(state, queue, message, pack if isinstance(pack, Entry) else None, parts, now)
    state.wake(queue)


def _runs(parts: Iterable[int]) -> list[tuple[int, int]]:
    """(first, n) of each run of numbers that follow each other."""
    runs: list[tuple[int, int]] = []
    for part in sorted(parts):
        if runs and runs[-1][0] + runs[-1][1] == part:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((part, 1))
    return runs


def _stop(state: State, held: tuple[Session, int, Entry], call_id: str, part: int) -> None:
    """If it comes back instead of ending, it ends then."""
    session, token, _ = held
    state.stopping.add(call_id)
    parents.stop(state, session, token, part)


# -- nobody awaits them --------------------------------------------------------------------------------------------


def watch_streams(state: State, session: Session, now: Now) -> None:
    """A session ended or its connection did: who awaited its calls may be gone."""
    for name in session.streams:
        stream = state.streams.get(name)
        if stream is not None:
            watch_stream(state, stream, now)


def watch_stream(state: State, stream: Stream, now: Now) -> None:
    """Drop what is not begun of a stream whose owner is not back within orphan_s."""
    stream.orphan_at = now.mono + state.limits.orphan_s
    state.timers.at_mono(stream.orphan_at, lambda over, at: _orphan(state, over, at), stream)


def _orphan(state: State, stream: Stream, now: Now) -> None:
    owner = state.sessions.get(stream.owner)
    if now.mono < stream.orphan_at or (owner is not None and owner.is_connected):
        return
    why = f"dropped: nobody awaited it for {state.limits.orphan_s:.0f} s"
    for name, calls in list(stream.calls.items()):
        queue = state.queues[name]
        held = _held(state, queue)
        dropped = [item for call_id, item in calls.items() if call_id not in held and not _is_kept(item)]
        for item in dropped:
            _take_out(state, queue, item)
        drop(state, queue, dropped, why, now)
    if owner is None and stream.owner:
        streams.drop_ended(state, stream)
    elif owner is None:  # nobody has collected it since the engine was opened
        state.timers.at_wall(now.wall + state.limits.watermark_kept_s, lambda over, at: _forget(state, over), stream)


def _is_kept(item: Message | Entry) -> bool:
    options = _message(item).options
    return options is None or options.keep_result_s > 0


def _forget(state: State, stream: Stream) -> None:
    if not stream.owner:
        streams.drop_ended(state, stream)
