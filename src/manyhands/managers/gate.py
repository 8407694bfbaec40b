"""The engine that a manager serves: the real one, with the manager's own answers to Create and Drop in front of it.

Everything else passes through untouched, and what does the master itself does not come this way at all.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from manyhands.engines.base import Engine, Port, Sink, Waiter
from manyhands.errors import ManyhandsError
from manyhands.events import Attach, Attached, Create, Created, Drop, Failed, Goodbye, Request
from manyhands.model import Durability, Features, Limits, Message

_MINE = frozenset({Create, Drop, Goodbye})
_log = logging.getLogger(__name__)

_COMES_BACK_WITHIN_S = 60.0

Answer = Callable[[str, str, Message | None], str]
"""(session, typeid, sealed arguments) -> the queue's name. Calls the program's own code."""


class Gate:
    """An Engine. Callables of the program run in one thread of their own, since they may take long or wait.

    Args:
        engine: where the queues are; closed with the gate.
        answer: what to do for Create.
        unrefer: what to do for Drop: (queue, session).
        drop: what to do when a queue of a caller's own has lost its last proxy.
        end_session: told when a session said goodbye.
    """

    def __init__(
        self,
        engine: Engine,
        answer: Answer,
        unrefer: Callable[[str, str], None],
        drop: Callable[[str], None],
        end_session: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._answer = answer
        self._unrefer = unrefer
        self._drop = drop
        self._end_session = end_session
        self._creators: set[str] = set()
        self._vanished: dict[str, float] = {}
        """Those of the creators whose connection ended without a goodbye, and when."""
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="manyhands-offers", daemon=True)
        self._thread.start()

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
        self._vanished.pop(attach.session, None)
        return port

    def close(self, *, closing_reason: str = "") -> None:
        """End the thread of the callables, and close the engine."""
        self._work.put(None)
        self._engine.close(closing_reason=closing_reason)

    def create(self, session: str, request: Create, sink: Sink) -> None:
        """Answer, later and in the callables' thread."""
        self._creators.add(session)

        def answer() -> None:
            reply: Created | Failed
            try:
                self._end_vanished(time.monotonic())
                reply = Created(request.rid, self._answer(session, request.typeid, request.arguments))
            except ManyhandsError as error:
                reply = Failed(request.rid, error.code, str(error), error.facts or None)
            except Exception as error:
                _log.exception("offering %r failed", request.typeid)
                text = f"The master could not offer {request.typeid!r} ({type(error).__name__}: {error}); see its log."
                reply = Failed(request.rid, ManyhandsError.code, text)
            sink([reply])

        self._work.put(answer)

    def run(self, work: Callable[[], object]) -> None:
        """Run this, later and in the callables' thread."""
        self._work.put(work)

    def unrefer(self, name: str, session: str) -> None:
        """Drop, later."""
        self._work.put(lambda: self._unrefer(name, session))

    def drop_later(self, name: str) -> None:
        """A queue has lost its last proxy. A collector may say so, in any thread and inside any lock."""
        self._work.put(lambda: self._drop(name))

    def ended(self, session: str) -> None:
        """Forget a session, later."""
        self._vanished.pop(session, None)
        if session in self._creators:
            self._creators.discard(session)
            self._work.put(lambda: self._end_session(session))

    def vanished(self, session: str) -> None:
        """Its connection ended without a goodbye: forget it, if it does not come back."""
        if session in self._creators:
            self._vanished[session] = time.monotonic()

    def _end_vanished(self, now: float) -> None:
        for session, since in list(self._vanished.items()):
            if now - since > _COMES_BACK_WITHIN_S:
                self._vanished.pop(session, None)
                self._creators.discard(session)
                self._end_session(session)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                _log.exception("answering a worker failed")


class _GatePort:
    """One session's end: the engine's own port, but for the manager's requests."""

    def __init__(self, gate: Gate, port: Port, session: str, sink: Sink) -> None:
        self._gate = gate
        self._port = port
        self._session = session
        self._sink = sink

    @property
    def attached(self) -> Attached:
        return self._port.attached

    def send(self, requests: Sequence[Request], *, may_gather: bool = False) -> None:
        """Answer what is the manager's; hand the rest on in order."""
        rest: list[Request] | None = None
        for at, request in enumerate(requests):
            if type(request) in _MINE:
                if rest is None:
                    rest = list(requests[:at])
                if isinstance(request, Create):
                    self._gate.create(self._session, request, self._sink)
                    continue
                if isinstance(request, Drop):
                    self._gate.unrefer(request.queue, self._session)
                    continue
                self._gate.ended(self._session)
            if rest is not None:
                rest.append(request)
        if rest is None or rest:
            self._port.send(requests if rest is None else rest, may_gather=may_gather)

    def wait(self, waiter: Waiter, timeout_s: float) -> bool:
        return self._port.wait(waiter, timeout_s)

    def detach(self, *, goodbye: bool = True) -> None:
        self._port.detach(goodbye=goodbye)
        if goodbye:
            self._gate.ended(self._session)
        else:
            self._gate.vanished(self._session)
