"""A core from what a store kept."""

from __future__ import annotations

from manyhands.clock import Now
from manyhands.lifecycle.attaching import watch_ended
from manyhands.lifecycle.cancelling import watch_stream
from manyhands.lifecycle.changes import ResultKept, Snapshot, StoredMessage
from manyhands.lifecycle.finishing import death_code, forget_old
from manyhands.lifecycle.marks import Mark
from manyhands.lifecycle.placing import enqueue, watch_expiry
from manyhands.lifecycle.queue import DEAD, LEASED, Entry, Past, Queue, is_pack
from manyhands.lifecycle.results import watch_result
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.silence import watch_away
from manyhands.lifecycle.state import State
from manyhands.lifecycle.streams import Stream, append, know


def load(state: State, snapshot: Snapshot, now: Now) -> None:
    """Take over a store's content; sessions have lease_s to come back, their leases stand until then."""
    state.numbers.next = snapshot.next_n
    for kept in snapshot.queues:
        state.queues[kept.queue] = Queue(kept.queue, kept.maxsize)
    for counted in snapshot.counters:
        queue = _queue(state, counted.queue)
        queue.unfinished = counted.unfinished
        queue.put_total = counted.put_total
        queue.done_total = counted.done_total
        queue.redelivered_total = counted.redelivered_total
        queue.dead_total = counted.dead_total
    for seen in snapshot.sessions:
        session = state.sessions[seen.session] = Session(seen.session, seen.name)
        # One that was connected when the engine ended is away since now.
        watch_ended(state, session, seen.ended_at or now.wall)
    for marked in snapshot.watermarks:
        _session(state, marked.session, now).marks[marked.stream] = Mark(marked.seq, set(marked.holes) or None)
    for result in snapshot.results:
        _keep(state, result)
    for remembered in sorted(snapshot.remembered, key=lambda one: one.until):
        state.known[remembered.id] = remembered.until
        state.remembered.append((remembered.until, remembered.id))
    if state.remembered:
        state.timers.at_wall(state.remembered[0][0], lambda _, at: forget_old(state, at), None)
    for stored in snapshot.messages:
        _place(state, stored, now)
    for session in state.sessions.values():
        watch_away(state, session, now, state.limits.lease_s)
    for stream in state.streams.values():
        if stream.id:
            stream.is_lost = False  # its owner may come back
            watch_stream(state, stream, now)


def _queue(state: State, name: str) -> Queue:
    queue = state.queues.get(name)
    if queue is None:
        queue = state.queues[name] = Queue(name)
    return queue


def _session(state: State, session_id: str, now: Now) -> Session:
    session = state.sessions.get(session_id)
    if session is None:
        session = state.sessions[session_id] = Session(session_id, "")
        watch_ended(state, session, now.wall)
    return session


def _place(state: State, stored: StoredMessage, now: Now) -> None:
    message = stored.message
    queue = _queue(state, stored.queue)
    entry = Entry(stored.n, queue.name, message, stored.deliveries, is_suspect=stored.is_suspect)
    if stored.produced or stored.history or stored.died_at:
        entry.past = Past(list(stored.history), set(stored.produced), stored.died_at, stored.reason)
    if stored.end:
        past = entry.the_past()
        past.first, past.end = stored.first, stored.end
    if is_pack(message):
        queue.has_packs = True
    if message.options is not None and message.options.dedupe:
        state.known[message.id] = 0.0
    if stored.died_at:
        entry.place = DEAD
        queue.dead[entry.n] = entry
        if message.kind:
            state.buried[message.id] = death_code(stored.history), stored.reason
        return
    if message.kind:
        know(state, queue, message, entry)
    if stored.token:
        entry.place = LEASED
        entry.leased_at = now.wall
        _session(state, stored.session, now).leases[stored.token] = entry
        queue.leased += 1
        if message.due_at > now.wall:
            entry.the_past().due_at = message.due_at
        if message.options is not None and message.options.expires_at:
            watch_expiry(state, entry, message.options.expires_at)
        return
    if stored.need:
        queue.park(entry, stored.need)
        if message.options is not None and message.options.expires_at:
            watch_expiry(state, entry, message.options.expires_at)
        return
    due_at = stored.due_at or message.due_at
    if message.options is not None and message.options.part >= 0 and due_at <= now.wall:
        queue.push_head(entry)  # a call of a pack that was taken apart was given back
        if message.options.expires_at:
            watch_expiry(state, entry, message.options.expires_at)
        return
    enqueue(state, queue, entry, now, due_at)


def _keep(state: State, result: ResultKept) -> None:
    if result.value is not None:
        if result.n:
            state.pieces.setdefault(result.id, []).append(result)
        else:
            state.results[result.id] = result
        if result.until:
            watch_result(state, result)
    if result.stream:
        stream = state.streams.get(result.stream)
        if stream is None:
            stream = state.streams[result.stream] = Stream(result.stream)
        append(state, stream, result)
