"""Putting messages into a queue: all or none, in order, never the same one twice."""

from __future__ import annotations

import math

from msgspec.structs import force_setattr

from manyhands._text import is_text
from manyhands.clock import Now
from manyhands.events import Declare, Done, Put, Settled
from manyhands.lifecycle.changes import Produced, QueueSet, Stored
from manyhands.lifecycle.marks import Mark
from manyhands.lifecycle.packs import give_back
from manyhands.lifecycle.placing import enqueue
from manyhands.lifecycle.queue import Entry, Queue
from manyhands.lifecycle.refusal import Refused, check_wait
from manyhands.lifecycle.results import end_without
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.state import State
from manyhands.lifecycle.streams import MAX_STREAM_CHARS, is_name, know, unknow
from manyhands.lifecycle.waiting import WaitingPut
from manyhands.model import MAX_PRIORITY, MIN_PRIORITY, Kind, Message, Options

MAX_MAXSIZE = 2**63 - 1
MAX_CALLS = 1_000_000
_KINDS = frozenset(int(kind) for kind in Kind)


def declare(state: State, session: Session, request: Declare, now: Now) -> None:
    """Make a queue known, and its bound."""
    maxsize = max(0, request.maxsize)
    if maxsize > MAX_MAXSIZE:
        raise Refused("usage", f"maxsize {maxsize} is more than a store can count; leave it out for no bound")
    queue = state.queue(request.queue)
    if maxsize and queue.maxsize and maxsize != queue.maxsize:
        raise Refused(
            "usage",
            f"queue {queue.name!r} already has maxsize {queue.maxsize}, so it cannot be opened with {maxsize}; "
            "use the same number, or 0 to keep what there is",
        )
    if maxsize and maxsize != queue.maxsize:
        queue.maxsize = maxsize
        state.note(QueueSet(queue.name, maxsize))
    if request.rid:
        state.reply(session, Done(request.rid))


def put(state: State, session: Session, request: Put, now: Now) -> None:
    """Add messages, now or when there is room."""
    seq = request.seq
    if seq > 0:
        if not (session.marks.get(request.queue) or Mark()).is_new(seq, request.floor):
            if request.rid:
                state.reply(session, Done(request.rid))
            return
        if session.puts and (first := session.puts.get((request.queue, seq))) is not None:
            first.also.append(request.rid)
            return
    messages = request.messages
    queue = state.queues.get(request.queue) or state.queue(request.queue)
    try:
        is_plain = _check(state, queue, messages)
        if request.causes:
            _check_causes(session, request)
        if queue.is_shut_down:
            raise Refused("shut_down", f"queue {queue.name!r} was shut down and takes nothing more")
        if queue.maxsize and (queue.putting or queue.size() + len(messages) > queue.maxsize):
            _wait_for_room(state, session, request, queue, now)
            return
    except Refused as refused:
        state.mark(session, request.queue, seq, request.floor, is_applied=False)
        _nack_causes(state, session, request, refused.text, now)
        raise
    lost = _add(state, session, queue, request, is_plain, now)
    state.mark(session, request.queue, seq, request.floor, is_applied=True)
    if request.rid:
        state.effects.append((session.id, Settled(request.rid, lost) if lost else Done(request.rid)))


def _check(state: State, queue: Queue, messages: list[Message]) -> bool:
    """Refuse what cannot be stored; whether all messages are plain (no header set)."""
    limit = state.limits.max_body_bytes
    is_plain = True
    for message in messages:
        if len(message.body) > limit:
            raise _too_large(message, limit)
        if (
            message.kind
            or message.priority
            or message.due_at
            or message.options is not None
            or message.max_deliveries < 1
            or message.__class__ is not Message
        ):
            is_plain = False
            _check_headers(state, message)
    if queue.maxsize and len(messages) > queue.maxsize:
        raise Refused(
            "usage",
            f"{len(messages)} messages at once can never fit into queue {queue.name!r} with maxsize {queue.maxsize}; "
            "put fewer at a time",
        )
    return is_plain


def _too_large(message: Message, limit: int) -> Refused:
    return Refused(
        "payload_too_large",
        f"the encoded body has {len(message.body):,} bytes, over max_body_bytes ({limit:,}); "
        "put the data in a file or object store and send its path",
        size_bytes=len(message.body),
        limit_bytes=limit,
    )


def check_message(state: State, message: Message) -> None:
    """Refuse one message that cannot be stored.

    Raises:
        Refused: "usage", "payload_too_large".
    """
    if len(message.body) > state.limits.max_body_bytes:
        raise _too_large(message, state.limits.max_body_bytes)
    _check_headers(state, message)


def _check_headers(state: State, message: Message) -> None:
    # Calls have headers, so this is on their way: what a wire's decoder guarantees is looked at in the cheapest way.
    if message.__class__ is not Message or not isinstance(message.id, str) or not isinstance(message.body, bytes):
        raise Refused("usage", f"what is put must be a Message with a text as id and bytes as body, not {message!r:.80}")
    if not message.id.isascii() and not is_text(message.id):
        raise Refused("usage", f"the id {message.id!r:.80} is not a text that can be written as UTF-8")
    if type(message.priority) is not int or not MIN_PRIORITY <= message.priority <= MAX_PRIORITY:
        raise Refused("usage", f"priority {message.priority!r:.40} is not an integer from {MIN_PRIORITY} to {MAX_PRIORITY}")
    if message.kind not in _KINDS:
        raise Refused("usage", f"message kind {message.kind!r:.40} is unknown to this engine")
    if type(message.max_deliveries) is not int or message.max_deliveries < 1:
        raise Refused("usage", f"max_deliveries {message.max_deliveries!r:.40} must be at least 1")
    if message.due_at and not math.isfinite(message.due_at):
        raise Refused("usage", f"due_at {message.due_at!r} is not a time")
    options = message.options
    if options is None:
        return
    if options is state.options:
        return  # as the last one's, which were in order
    if options == state.options:
        # Thousands of calls carry the same: kept once, they take 150 bytes less each.
        force_setattr(message, "options", state.options)
        return
    if options.__class__ is not Options:
        raise Refused("usage", f"options {options!r:.120} are no Options")
    if (options.expires_at or options.keep_result_s) and not math.isfinite(options.expires_at + options.keep_result_s):
        raise Refused("usage", f"options {options!r:.120} are not valid times")
    if options.reply_to and options.reply_to not in state.streams and not is_name(options.reply_to):
        raise Refused(
            "usage", f"reply_to must be a text of up to {MAX_STREAM_CHARS} characters, not {options.reply_to!r:.80}"
        )
    if options.calls or options.part != -1:
        _check_pack(message, options)
        return  # what it may be depends on the message's kind as well
    state.options = options


def _check_pack(message: Message, options: Options) -> None:
    if type(options.calls) is not int or not 0 <= options.calls <= MAX_CALLS or (options.calls and not message.kind):
        raise Refused("usage", f"a pack has up to {MAX_CALLS:,} calls, which are no items; not {options.calls!r:.40}")
    if options.part != -1:
        raise Refused("usage", "only the engine makes a message of one call of a pack; put the call with an id of its own")


def _check_causes(session: Session, request: Put) -> None:
    causes, leases = request.causes, session.leases
    if len(causes) != len(request.messages):
        raise Refused("usage", f"{len(causes)} causes for {len(request.messages)} messages; each has one, or none has")
    for cause in causes:
        if cause in leases:
            return
    raise Refused(
        "lease_lost",
        f"the message under whose lease this was put into queue {request.queue!r} belongs to another consumer now; "
        "nothing was put, its new holder will do it again",
    )


def _nack_causes(state: State, session: Session, request: Put, reason: str, now: Now) -> None:
    """A refused put reaches the leases that it was sent under: the settlements behind it must not end them as done."""
    for cause in request.causes:
        entry = session.leases.pop(cause, None)
        if entry is not None:
            queue = state.queues[entry.queue]
            queue.release(entry, session.id)
            give_back(state, queue, entry, now, consumer=session.name, outcome="nack", reason=reason)


def _wait_for_room(state: State, session: Session, request: Put, queue: Queue, now: Now) -> None:
    if request.wait_s == 0:
        raise Refused("full", f"queue {queue.name!r} is full ({queue.size()} of {queue.maxsize})")
    check_wait(request.wait_s)
    waiting = WaitingPut(session, request.rid, queue, request)
    state.park(waiting)
    queue.putting[waiting] = None
    if request.seq > 0:
        session.puts[request.queue, request.seq] = waiting
        state.mark(session, request.queue, request.seq, request.floor, is_applied=False)
    if request.wait_s > 0:
        waiting.has_timer = True
        state.timers.at_mono(now.mono + request.wait_s, lambda over, at: refuse_waiting(state, over, at), waiting)
    # Room may have come in this same step, for those in front.
    state.dirty[queue] = None


def refuse_waiting(state: State, waiting: WaitingPut, now: Now) -> None:
    """The wait of a parked put is over."""
    queue = waiting.queue
    _leave(state, waiting)
    code, text = "full", f"queue {queue.name!r} is full ({queue.size()} of {queue.maxsize})"
    if queue.is_shut_down:
        code, text = "shut_down", f"queue {queue.name!r} was shut down and takes nothing more"
    for rid in (waiting.rid, *waiting.also):
        state.fail(waiting.session, rid, code, text)
    _nack_causes(state, waiting.session, waiting.request, text, now)
    state.wake(queue)


def withdraw_waiting(state: State, waiting: WaitingPut) -> None:
    """Its connection ended: the put was never confirmed and is sent again by a session that comes back."""
    _leave(state, waiting)
    state.wake(waiting.queue)


def _leave(state: State, waiting: WaitingPut) -> None:
    state.unpark(waiting)
    del waiting.queue.putting[waiting]
    waiting.session.puts.pop((waiting.queue.name, waiting.request.seq), None)


def admit(state: State, queue: Queue, now: Now) -> None:
    """Let parked puts in, first come first served, as long as the next one fits whole."""
    while (waiting := queue.putting.first()) is not None:
        request, session = waiting.request, waiting.session
        if queue.is_shut_down:
            refuse_waiting(state, waiting, now)
            continue
        if queue.maxsize and queue.size() + len(request.messages) > queue.maxsize:
            return
        _leave(state, waiting)
        try:
            if request.causes:
                _check_causes(session, request)
        except Refused as refused:
            for rid in (waiting.rid, *waiting.also):
                state.fail(session, rid, refused.code, refused.text)
            continue
        lost = _add(state, session, queue, request, False, now)
        state.mark(session, request.queue, request.seq, request.floor, is_applied=True)
        for rid in (waiting.rid, *waiting.also):
            if rid:
                state.reply(session, Settled(rid, lost) if lost else Done(rid))


def _add(state: State, session: Session, queue: Queue, request: Put, is_plain: bool, now: Now) -> list[int]:
    """Add the messages; the causes that were lost, whose messages were left out."""
    messages = request.messages
    lost: list[int] = []
    if request.causes:
        messages, lost = _under_leases(state, session, request)
    if is_plain and state.changes is None:
        n = len(messages)
        queue.lane(0).extend(messages)
    else:
        n = 0
        for message in messages:
            n += _add_one(state, session, queue, message, now)
    queue.put_total += n
    queue.unfinished += n
    if state.changes is not None:
        state.count(queue)
    if queue.waiting:
        state.dirty[queue] = None
    return lost


def _under_leases(state: State, session: Session, request: Put) -> tuple[list[Message], list[int]]:
    """The messages without those that were already put under the same leased message, by this or an earlier holder."""
    leases, fresh, lost = session.leases, [], []
    for message, cause in zip(request.messages, request.causes, strict=True):
        entry = leases.get(cause)
        if entry is None:
            lost.append(cause)
        elif entry.note_put(message.id):
            fresh.append(message)
            if state.changes is not None:
                state.note(Produced(entry.n, message.id))
    return fresh, lost


def _came_too_late(state: State, session: Session, queue: Queue, message: Message) -> None:
    """Its time was over before it came: who awaits a call hears so."""
    if not message.kind:
        return
    know(state, queue, message, message, session)
    stream = unknow(state, queue.name, message)
    n = message.options.calls if message.options is not None else 0
    text = f"message {message.id} was dropped: it expired before it came"
    end_without(state, queue.name, message, "unknown_id", text, stream, 0, n if n > 1 else 0)


def _add_one(state: State, session: Session, queue: Queue, message: Message, now: Now) -> int:
    """Add one message; how many calls it is, 0 if it was left out."""
    n = 1
    options = message.options
    if options is not None:
        if 0 < options.expires_at <= now.wall:
            _came_too_late(state, session, queue, message)
            return 0
        if options.calls > 1:
            n = options.calls
            queue.has_packs = True
        if options.dedupe:
            if message.id in state.known:
                return 0
            state.known[message.id] = 0.0
    if state.changes is None and message.due_at <= now.wall and (options is None or not options.expires_at):
        queue.lane(message.priority).append(message)
        if message.kind:
            know(state, queue, message, message, session)
        return n
    entry = Entry(state.numbers.take(), queue.name, message)
    state.note(Stored(entry.n, queue.name, message))
    if message.kind:
        know(state, queue, message, entry, session)
    enqueue(state, queue, entry, now, message.due_at)
    return n
