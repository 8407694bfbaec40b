"""The engine that a manager serves: the real one, with the manager's own answers about objects in front of it.

    Create, Refer, Unrefer, Drop ──> errands (one thread, in order) ──> Objects
    Invoke ───────────────────────> callers (each thread's calls in one thread) ──> Objects
    everything else ──────────────> the engine

What does the master itself does not come this way at all. Nothing here waits: the loop's thread calls it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

from manyhands.engines.base import Engine, Lead, LedEngine, Port, Sink, Waiter
from manyhands.errors import ManyhandsError, ServerUnavailable
from manyhands.events import (
    Attach,
    Attached,
    Create,
    Created,
    Done,
    Drop,
    Failed,
    Goodbye,
    Invoke,
    Leave,
    Refer,
    Reply,
    Request,
    Returned,
    Unrefer,
    Withdraw,
)
from manyhands.managers.answering import Answering
from manyhands.managers.errands import Errands
from manyhands.managers.objects.callers import Callers
from manyhands.managers.objects.session_calls import SessionCalls, Verdict
from manyhands.managers.objects.table import QUEUE_PREFIX, Made
from manyhands.model import Durability, Features, Limits
from manyhands.sweeper import Sweeper

_MINE = frozenset({Create, Drop, Goodbye, Invoke, Refer, Unrefer, Leave, Withdraw})
_log = logging.getLogger(__name__)

COMES_BACK_WITHIN_S = 60.0
"""So long after its connection ended without a goodbye, what a session refers to is kept."""
_TOMBSTONES = 10_000


class Gate:
    """An Engine; see the module's text.

    Args:
        engine: where the queues are; closed with the gate.
        answering: what to do for requests about objects.
        callers: the threads of calls; stopped with the gate.
        errands: the thread of everything else; stopped with the gate.
    """

    def __init__(self, engine: Engine, answering: Answering, callers: Callers, errands: Errands) -> None:
        self._engine = engine
        self.answering = answering
        self.callers = callers
        self.errands = errands
        self._lock = threading.Lock()
        self._peers: dict[str, Peer] = {}
        self._forgotten: OrderedDict[str, int] = OrderedDict()
        """Of sessions that were forgotten: the highest rid that had been seen, so that no call is run again."""
        self._vanished: dict[Peer, float] = {}
        self._sweeper = Sweeper(self._sweep, name="manyhands-gate")

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def durability(self) -> Durability:
        return self._engine.durability

    @property
    def features(self) -> Features:
        return self._engine.features

    @property
    def limits(self) -> Limits:
        return self._engine.limits

    def attach(self, attach: Attach, sink: Sink) -> Port:
        """Open or resume a session of the engine behind."""
        port = _GatePort(self, self._engine.attach(attach, sink), attach.session, sink)
        with self._lock:
            peer = self._peers.get(attach.session)
            if peer is not None:
                peer.sink = sink
                self._vanished.pop(peer, None)
                port.peer = peer
        return port

    def led_by(self, lead: Lead | None) -> None:
        """See `LedEngine`: the engine behind it, where that one can be."""
        if isinstance(self._engine, LedEngine):
            self._engine.led_by(lead)

    def close(self, *, closing_reason: str = "") -> None:
        """End the threads of calls and callables, and close the engine."""
        self._sweeper.stop(must_wait=False)
        self.callers.stop()
        self.errands.stop()
        self._engine.close(closing_reason=closing_reason)

    def peer(self, session: str, sink: Sink) -> Peer:
        """What is known of a session that asks about objects."""
        with self._lock:
            peer = self._peers.get(session)
            if peer is None:
                peer = self._peers[session] = Peer(self, session, sink, self._forgotten.pop(session, 0))
            return peer

    # -- the end of sessions

    def ended(self, peer: Peer) -> None:
        """It said goodbye."""
        with self._lock:
            self._peers.pop(peer.session, None)
            self._vanished.pop(peer, None)
        peer.end(is_lost=False)

    def vanished(self, peer: Peer, sink: Sink) -> None:
        """Its connection ended without a goodbye: locks are released after resume_s, references later, unless it returns."""
        with self._lock:
            if peer.sink is not sink:
                return  # it is here over another connection already
            self._vanished[peer] = now = time.monotonic()
        self._sweeper.start()
        self._sweeper.nudge(now + self.limits.resume_s)

    def _sweep(self) -> float | None:
        now = time.monotonic()
        due: float | None = None
        over: list[Peer] = []
        late: list[Peer] = []
        with self._lock:
            for peer, since in list(self._vanished.items()):
                if now >= since + COMES_BACK_WITHIN_S:
                    del self._vanished[peer], self._peers[peer.session]
                    self._forgotten[peer.session] = peer.calls.highest
                    if len(self._forgotten) > _TOMBSTONES:
                        self._forgotten.popitem(last=False)
                    over.append(peer)
                    continue
                if now >= since + self.limits.resume_s:
                    late.append(peer)
                at = since + (COMES_BACK_WITHIN_S if now >= since + self.limits.resume_s else self.limits.resume_s)
                due = at if due is None else min(due, at)
        for peer in late:
            peer.leave_all(is_lost=True, may_return=True)
        for peer in over:
            peer.end(is_lost=True)
        return due


class Peer:
    """One session that asks about objects, over all its connections."""

    def __init__(self, gate: Gate, session: str, sink: Sink, forgotten_to: int) -> None:
        self.session = session
        self.sink = sink
        """Of its newest connection."""
        self.calls = SessionCalls(forgotten_to)
        self._gate = gate
        self._lock = threading.Lock()
        self._is_over = False

    def take(self, request: Request) -> bool:
        """Answer a request about objects, now or later; whether the engine shall not see it."""
        match request:
            case Invoke():
                self._invoke(request)
            case Create() | Refer() | Unrefer():
                self._in_order(request)
            case Drop():
                self._gate.errands.put(lambda: self._gate.answering.unrefer(self.session, QUEUE_PREFIX + request.queue, 1))
            case Leave():
                self._leave(request)
            case Withdraw():
                return self._withdraw(request.target)
            case _:
                return False
        return True

    # -- calls

    def _invoke(self, request: Invoke) -> None:
        rid = request.rid
        with self._lock:
            verdict, answer = self.calls.invoke(rid, request.thread)
        match verdict:
            case Verdict.RUN:
                caller = (self.session, request.thread)
                if self._gate.callers.is_idle(caller):
                    quick = self._gate.answering.quickly(request)
                    if quick is not None:
                        self._answer(rid, quick)
                        return
                try:
                    self._gate.callers.submit(caller, lambda: self._run(request), lambda reply: self._answer(rid, reply))
                except RuntimeError as error:
                    text = f"The master has no thread for another call ({error}); try again, or use fewer waiting calls."
                    self._answer(rid, Failed(rid, ManyhandsError.code, text))
            case Verdict.AGAIN:
                self.sink([answer])
            case Verdict.UNKNOWN:
                text = (
                    "The connection to the master was lost during this call, and whether it was done is not known; look at "
                    "the object before you call again."
                )
                self.sink([Failed(rid, ServerUnavailable.code, text)])

    def _run(self, request: Invoke) -> Reply:
        """In the caller's own thread."""
        is_wanted = self.calls.abandoned.isdisjoint
        if not is_wanted((request.rid,)):
            return Failed(request.rid, ManyhandsError.code, "The call was given up before it began.")
        return self._gate.answering.invoke(self.session, request, lambda: is_wanted((request.rid,)))

    def _answer(self, rid: int, reply: Reply) -> None:
        with self._lock:
            size = len(reply.value) if isinstance(reply, Returned) else 0
            self.calls.answered(rid, reply, size)
        if self._is_over:
            self._gate.answering.end(self.session)  # a reference that it gave has nobody to use it
        self.sink([reply])

    def _withdraw(self, rid: int) -> bool:
        with self._lock:
            thread = self.calls.running.get(rid)
            if thread is None:
                return False
            self.calls.abandoned.add(rid)
        caller = (self.session, thread)
        self._gate.answering.withdraw(caller)
        self._gate.callers.abandon(caller)
        return True

    # -- references

    def _in_order(self, request: Create | Refer | Unrefer) -> None:
        with self._lock:
            is_known, answer = self.calls.ordered(request.rid)
        if is_known:
            # Not kept, or still on its way through the errands' thread, behind which this answer comes.
            self._gate.errands.put(lambda: self.sink([answer or self.calls.ordered(request.rid)[1] or Done(request.rid)]))
            return
        self._gate.errands.put(lambda: self._do_in_order(request))

    def _do_in_order(self, request: Create | Refer | Unrefer) -> None:
        answering = self._gate.answering
        reply: Reply
        try:
            match request:
                case Create():
                    reply = _created(request.rid, answering.create(self.session, request.typeid, request.arguments))
                case Refer():
                    answering.refer(self.session, request.ident)
                    reply = Done(request.rid)
                case Unrefer():
                    answering.unrefer(self.session, request.ident, request.n, lingers=request.lingers)
                    reply = Done(request.rid)
        except ManyhandsError as error:
            reply = Failed(request.rid, error.code, str(error), error.facts or None)
        except Exception as error:
            what = request.typeid if isinstance(request, Create) else request.ident
            _log.exception("offering %r failed", what)
            text = f"The master could not offer {what!r} ({type(error).__name__}: {error}); see its log."
            reply = Failed(request.rid, ManyhandsError.code, text)
        with self._lock:
            self.calls.ordered_answer(request.rid, reply)
        if self._is_over:
            answering.end(self.session)
        self.sink([reply])

    # -- the end

    def _leave(self, request: Leave) -> None:
        if not request.thread:
            self.leave_all(is_lost=request.is_lost)
            return
        self._end_caller(request.thread, is_lost=request.is_lost)
        with self._lock:
            self.calls.leave(request.thread)

    def leave_all(self, *, is_lost: bool, may_return: bool = False) -> None:
        """None of its threads holds anything any more, nor waits for anything."""
        with self._lock:
            threads = self.calls.threads
        for thread in threads:
            self._end_caller(thread, is_lost=is_lost, may_return=may_return)

    def end(self, *, is_lost: bool) -> None:
        """The session is over: so are its threads, and its references are given up."""
        self._is_over = True
        self.leave_all(is_lost=is_lost)
        self._gate.errands.put(lambda: self._gate.answering.end(self.session))

    def _end_caller(self, thread: int, *, is_lost: bool, may_return: bool = False) -> None:
        caller = (self.session, thread)
        answering = self._gate.answering
        with self._lock:  # also a call that waits for its turn: it must not begin behind the withdrawal
            self.calls.abandon(thread)
        answering.withdraw(caller)
        with suppress(RuntimeError):  # no thread is to be had, and what it holds stays locked
            self._gate.callers.submit(
                caller, lambda: answering.caller_ended(caller, is_lost=is_lost, may_return=may_return), _nothing
            )


class _GatePort:
    """One session's end: the engine's own port, but for the manager's requests."""

    def __init__(self, gate: Gate, port: Port, session: str, sink: Sink) -> None:
        self._gate = gate
        self._port = port
        self._session = session
        self._sink = sink
        self.peer: Peer | None = None
        """Once the session has asked about objects."""

    @property
    def attached(self) -> Attached:
        return self._port.attached

    def send(self, requests: Sequence[Request], *, may_gather: bool = False) -> None:
        """Answer what is the manager's; hand the rest on, in order.

        What came before a request of the manager's has reached the engine when that begins: whoever hears of a call (an
        event that was set, say) finds done what its caller had asked before it.
        """
        start = 0
        for at, request in enumerate(requests):
            if type(request) in _MINE:
                if at > start:
                    self._port.send(requests[start:at])
                start = at + 1 if self._take(request) else at
        if start < len(requests):
            self._port.send(requests[start:] if start else requests, may_gather=may_gather)

    def _take(self, request: Request) -> bool:
        peer = self.peer
        if isinstance(request, Goodbye):
            if peer is not None:
                self._gate.ended(peer)
            return False
        if peer is None:
            if isinstance(request, Withdraw):
                return False
            peer = self.peer = self._gate.peer(self._session, self._sink)
        return peer.take(request)

    def wait(self, waiter: Waiter, timeout_s: float) -> bool:
        return self._port.wait(waiter, timeout_s)

    def detach(self, *, goodbye: bool = True) -> None:
        self._port.detach(goodbye=goodbye)
        peer = self.peer
        if peer is None:
            return
        if goodbye:
            self._gate.ended(peer)
        else:
            self._gate.vanished(peer, self._sink)


def _created(rid: int, made: Made) -> Created:
    ident = made.ident if made.is_counted else ""
    return Created(rid, made.queue, ident, list(made.exposed), made.shape)


def _nothing(_: object) -> None:
    """Who ends a caller waits for no answer."""
