"""What another engine gives away: its dead letters are taken over as they are."""

from __future__ import annotations

import math

from manyhands._text import REASON_CHARS, readable
from manyhands.clock import Now
from manyhands.events import Bury, Count
from manyhands.lifecycle.changes import Buried, Stored
from manyhands.lifecycle.finishing import death_code
from manyhands.lifecycle.puts import check_message
from manyhands.lifecycle.queue import DEAD, Entry, Past, calls_in
from manyhands.lifecycle.refusal import Refused
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.state import State


def bury_letters(state: State, session: Session, request: Bury, now: Now) -> None:
    """Take over dead letters, all or none; those that are here already are left out."""
    for letter in request.letters:
        check_message(state, letter.message)
        if not math.isfinite(letter.died_at) or letter.died_at <= 0:
            raise Refused("usage", f"died_at {letter.died_at!r} is not a time")
    here: dict[str, set[str]] = {}
    n = 0
    for letter in request.letters:
        queue, message = state.queue(letter.queue), letter.message
        ids = here.get(queue.name)
        if ids is None:
            ids = here[queue.name] = {entry.message.id for entry in queue.dead.values()}
        if message.id in ids:
            continue
        ids.add(message.id)
        n += 1
        reason, history = readable(letter.reason, REASON_CHARS), list(letter.history)
        entry = Entry(state.numbers.take(), queue.name, message, place=DEAD)
        entry.past = Past(history, died_at=letter.died_at, reason=reason)
        state.note(Stored(entry.n, queue.name, message))
        state.note(Buried(entry.n, letter.died_at, reason, history))
        queue.dead[entry.n] = entry
        queue.dead_total += calls_in(message)
        state.count(queue)
        if message.kind:
            state.buried[message.id] = death_code(history), reason
        if message.options is not None and message.options.dedupe:
            state.known[message.id] = 0.0
    state.reply(session, Count(request.rid, n))
