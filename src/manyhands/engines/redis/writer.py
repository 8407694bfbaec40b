"""The engine's thread: it sends what has gathered as one step of the script, and delivers what the step brought about.

```
 ports ──> inbox ──> [requests checked, encoded] ──> FCALL ──> replies ──> sinks
                          one call at a time; meanwhile the next requests gather
```
Nothing is lost by a broken connection: what has no answer yet is kept by its port and sent again once the sessions are
attached anew (`Reach` says when to try); a step that had been applied is recognised by its seq.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from manyhands._chance import CHANCE
from manyhands._inbox import Inbox
from manyhands.engines.redis import asking, script
from manyhands.engines.redis.checks import About
from manyhands.engines.redis.copies import SLICE_S, Copies
from manyhands.engines.redis.driver import Denied, Driver, MemoryShort, Refusal, Unreachable, as_engine_error
from manyhands.engines.redis.items import Attaching, Broken, Detaching, Item, News, Special, Stopping
from manyhands.engines.redis.lines import Lines
from manyhands.engines.redis.listener import Listener
from manyhands.engines.redis.port import RedisPort
from manyhands.engines.redis.reach import Reach
from manyhands.errors import ManyhandsError, SessionTaken
from manyhands.events import Attached, Bury, Closing, Failed, Put, Reply, Request

_log = logging.getLogger(__name__)

PULSE_S = 1.0
"""How often a client says that it lives and looks for others that do not."""
_STEP_BYTES, _STEP_REQUESTS = 1024 * 1024, 256  # a step blocks the server: keep it to a few milliseconds
_TURN_S = 0.002
"""Clients sweep one after another, so that a timer that is due is not run into by all of them at once."""
_SLACK_S = 0.0005
_SPECIAL = (Attaching, Detaching, Stopping, Broken, News)
_ADD = (Put, Bury)  # what is refused while memory is short


class Writer:
    """Owns the connections and every session's way through them."""

    def __init__(self, driver: Driver, client: str, about: About, copies: Copies, text: str) -> None:
        self.inbox: Inbox[Item] = Inbox()
        self.about = about
        self._copies = copies
        self._driver = driver
        self._text = text
        self._caller = script.caller(client, PULSE_S, about.limits)
        self._lines = Lines(driver, driver.prefix + f":c:{client}".encode(), self._news, self._broke)
        self._reach = Reach(time.monotonic())
        self._ports: dict[str, RedisPort] = {}
        self._todo: deque[Item] = deque()
        self._sweep_at = math.inf
        self._pulse_at = 0.0
        self._turn = 0
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="manyhands-redis", daemon=True)

    # -- for the engine

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def connect(self) -> None:
        """The first connection, in the caller's thread.

        Raises:
            Unreachable, Denied: as the driver says.
        """
        self._connect()

    def start(self) -> None:
        self._thread.start()

    def stop(self, reason: str) -> None:
        """Send what was handed over before, tell every session `Closing`, and end."""
        self.inbox.put(Stopping(reason))
        self._is_stopping.set()
        self.inbox.ring()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- the thread

    def _run(self) -> None:
        reason = ""
        while True:
            if not self._todo:
                due = min(self._pulse_at, self._sweep_at) if self._reach.is_up else self._reach.next_at
                if not len(self.inbox):
                    self.inbox.wait(max(0.0, due - time.monotonic()))
                self._todo.extend(self.inbox.take(_STEP_REQUESTS))
            if self._is_stopping.is_set():
                self._todo.extend(self.inbox.take(len(self.inbox)))
                reason = next((item.reason for item in self._todo if isinstance(item, Stopping)), "")
            try:
                if not self._reach.is_up and not self._try_again():
                    if self._is_stopping.is_set():
                        break
                    continue
                self._work()
                if self._is_stopping.is_set():
                    break
                if time.monotonic() >= min(self._pulse_at, self._sweep_at):
                    self._pulse()
            except Unreachable as error:
                self._lost(error)
            except Exception:
                _log.exception("the Redis engine's thread failed; it connects anew")
                self._lost(Unreachable("its thread failed"))
        self._end(reason)

    def _work(self) -> None:
        """Do what is in hand, in order, in as few steps as it fits in."""
        todo = self._todo
        args: list[bytes] = []
        sent: list[tuple[RedisPort, Request]] = []
        size = 0
        while todo and not self._copies.is_behind:
            item = todo.popleft()
            if isinstance(item, _SPECIAL):
                self._step(args, sent)
                args, sent, size = [], [], 0
                self._handle(item)
                continue
            port, requests = item
            if self._ports.get(port.session) is not port:
                continue
            for i, request in enumerate(requests):
                if size >= _STEP_BYTES or len(sent) >= _STEP_REQUESTS:
                    todo.appendleft((port, requests[i:]))  # a step may fail, and these are not noted as sent yet
                    break
                encoded = asking.encoded(port, request, self.about.limits)
                if encoded:
                    sent.append((port, request))
                    args += encoded
                    size += sum(map(len, encoded))
            if size >= _STEP_BYTES or len(sent) >= _STEP_REQUESTS:
                self._step(args, sent)
                args, sent, size = [], [], 0
        self._step(args, sent)

    def _handle(self, item: Special) -> None:
        if isinstance(item, Attaching):
            self._open(item.port)
        elif isinstance(item, Detaching):
            self._detach(item.port, goodbye=item.goodbye)
        elif isinstance(item, News):
            # Nobody has confirmed what others brought about: a step of our own comes behind it.
            self._copies.hold(script.read_news(item.payload))
            self._deliver(self._call([]).replies)
        elif isinstance(item, Broken) and item.listener is self._lines.listener:
            raise Unreachable("the connection for news ended")

    def _step(self, args: Sequence[bytes], sent: Sequence[tuple[RedisPort, Request]], *, is_relief: bool = False) -> None:
        """One call of the script, and what it brought about to the sinks."""
        if not args:
            return
        try:
            answer = self._call(args, is_relief=is_relief)
        except MemoryShort as short:
            _log.warning("Redis has no memory left: %s", short)
            puts = [(port, request) for port, request in sent if type(request) in _ADD]
            self._fail(
                puts, "engine_unavailable", f"the Redis at {self._text} has no memory left ({short}); nothing was put"
            )
            others = [(port, request) for port, request in sent if type(request) not in _ADD]
            if others:
                encoded = [script.request(request, port.session, port.gen) for port, request in others]
                self._step([arg for one in encoded for arg in one], others, is_relief=True)
            return
        except Refusal as refusal:
            _log.warning("Redis refused a step: %s", refusal)
            self._fail(
                sent, "engine_unavailable", f"the Redis at {self._text} refused it ({refusal}); nothing of it was applied"
            )
            return
        except Unreachable:
            for port, request in sent:
                if not getattr(request, "rid", 0):
                    port.untold.append(request)
            raise
        except Exception as error:
            _log.exception("an answer of Redis could not be read")
            self._fail(sent, "engine", f"an answer of the Redis at {self._text} could not be read: {error!r:.200}")
            raise Unreachable("its answer could not be read") from error
        self._deliver(answer.replies)
        for session in answer.stale:
            port_or_none = self._ports.get(session)
            if port_or_none is not None and any(port is port_or_none for port, _ in sent):
                # It was taken for dead (we were asleep, or away too long): it comes back as after a broken connection.
                self._again(port_or_none)
        for session in answer.taken:
            self._taken(session)

    def _fail(self, sent: Sequence[tuple[RedisPort, Request]], code: str, text: str) -> None:
        for port, request in sent:
            rid: Any = getattr(request, "rid", 0)
            if rid:
                port.hand([Failed(rid, code, text)])

    def _call(self, args: Sequence[bytes], *, is_relief: bool = True, is_pulse: bool = False) -> script.Answer:
        """One step. While replicas are behind only pulses wait for them."""
        copies = self._copies if self._copies.command and (is_pulse or not self._copies.is_behind) else None
        raw, confirmed = self._lines.run([self._caller, *args], is_relief=is_relief, copies=copies)
        if copies and copies.heard(confirmed):
            self._say_copies(confirmed)
        if self._copies.is_behind:
            self._pulse_at = 0.0  # which asks again
            if isinstance(confirmed, Exception):
                self._is_stopping.wait(SLICE_S)
        answer = script.read_answer(raw)
        due_s = answer.next_due_s
        self._sweep_at = math.inf
        if due_s >= 0 and self._turn >= 0:
            self._sweep_at = time.monotonic() + due_s + _SLACK_S + self._turn * _TURN_S
        return answer

    def _deliver(self, replies: Sequence[tuple[str, int, Reply]]) -> None:
        """Hand replies of the newest step to the sessions they are for, each session's in one call."""
        by_port: dict[RedisPort, list[Reply]] = {}
        for session, gen, reply in self._copies.pass_on(replies):
            port = self._ports.get(session)
            if port is not None and port.gen == gen:
                by_port.setdefault(port, []).append(reply)
        for port, batch in by_port.items():
            port.hand(batch)

    def _news(self, payload: bytes) -> None:
        """What another program's step brought about; called in the listener's thread."""
        if self._copies.command:
            self.inbox.put(News(payload))
        else:
            self._deliver(script.read_news(payload))

    def _say_copies(self, confirmed: Any) -> None:
        if self._copies.is_behind:
            _log.warning(
                "too few replicas of the Redis at %s confirm what is written (%s); nothing is acknowledged until they do",
                self._text,
                confirmed,
            )
        else:
            _log.info("enough replicas of the Redis at %s confirm what is written again", self._text)

    def _broke(self, listener: Listener) -> None:
        self.inbox.put(Broken(listener))

    def _pulse(self) -> None:
        now = time.monotonic()
        if now < self._pulse_at:
            self._deliver(self._call([]).replies)  # a sweep
            return
        self._pulse_at = now + PULSE_S
        answer = self._call(script.operation(("pulse",)), is_pulse=True)
        self._turn = answer.turn
        self._deliver(answer.replies)
        if not answer.is_well:
            raise Unreachable("it took this program for dead, or lost its subscription")

    # -- sessions

    def _open(self, port: RedisPort) -> None:
        if port.is_over:
            return
        try:
            self._attach(port, port.attach.held)
        except Refusal as refusal:
            port.refuse(_engine_error(as_engine_error(refusal, self._text)))

    def _attach(self, port: RedisPort, held: Sequence[int] | None) -> None:
        attach = port.attach
        what = ("attach", attach.session, attach.name, None if held is None else list(held), attach.is_here, attach.parent)
        try:
            answer = self._call(script.operation(what))
        except Unreachable:
            if not port.is_attached:
                self._todo.appendleft(Attaching(port))
            raise
        assert answer.attached is not None
        port.gen, is_resumed, lost = answer.attached
        before = self._ports.get(port.session)
        if before is not None and before is not port:
            before.is_over = True
        self._ports[port.session] = port
        about = self.about
        port.open(
            Attached("redis", about.found.durability, about.features, about.limits, is_resumed, lost, about.found.notes)
        )
        self._deliver(answer.replies)

    def _again(self, port: RedisPort) -> None:
        """Attach a session anew and send again what has no answer."""
        port.quieten()
        untold, port.untold = port.untold, []
        unanswered = list(port.unanswered.values())
        try:
            self._attach(port, sorted(port.held))
        except Unreachable:
            port.untold = untold
            raise
        again = [*untold, *unanswered]
        if again and not port.is_over:
            self._todo.appendleft((port, again))

    def _detach(self, port: RedisPort, *, goodbye: bool) -> None:
        if self._ports.get(port.session) is not port:
            return
        what: tuple[Any, ...] = (15,) if goodbye else ("detach",)
        try:
            answer = self._call(script.operation(what, port.session, port.gen))
        except Unreachable:
            self._todo.appendleft(Detaching(port, goodbye))
            raise
        del self._ports[port.session]
        self._deliver(answer.replies)

    def _taken(self, session: str) -> None:
        port = self._ports.pop(session, None)
        if port is not None:
            port.is_over = True
            text = f"session {session:.8}… was taken over by another connection"
            port.hand([Failed(rid, SessionTaken.code, text) for rid in list(port.unanswered)])

    # -- connections

    def _connect(self) -> None:
        self._lines.open()
        self._reach.connected()
        run = self.about.found.run
        try:
            run = self._lines.run_id() or run
            answer = self._call(script.operation(("meet", run)))
        except BaseException:
            self._drop()
            self._reach.lost(time.monotonic())
            raise
        self._turn = answer.turn
        self._pulse_at = time.monotonic() + PULSE_S

    def _try_again(self) -> bool:
        """Connect anew if it is time; whether Redis is reached now."""
        left = self._reach.next_at - time.monotonic()
        if left > 0:
            self._is_stopping.wait(left)
            if self._is_stopping.is_set():
                return False
        try:
            self._connect()
        except (Unreachable, Refusal, Denied) as error:
            self._reach.failed(time.monotonic(), CHANCE.random())
            self._driver.look_around()
            _log.debug("Redis is not reached: %s", error)
            return False
        _log.info("reached the Redis at %s again", self._text)
        for port in list(self._ports.values()):
            self._again(port)
        return True

    def _lost(self, error: Exception) -> None:
        _log.warning("lost the Redis at %s: %s; it is tried again", self._text, error)
        self._drop()
        self._driver.look_around()
        self._reach.lost(time.monotonic())

    def _drop(self) -> None:
        self._copies.forget()
        self._lines.close()

    def _end(self, reason: str) -> None:
        if self._lines.is_open:
            try:
                self._call(script.operation(("leave",)))
            except (Unreachable, Refusal) as error:
                _log.debug("left without a word: %s", error)
        self._drop()
        for port in list(self._ports.values()):
            port.is_over = True
            port.hand([Closing(reason)])
        self._ports.clear()
        closed = _engine_error(as_engine_error(Unreachable("the engine was closed in this process"), self._text))
        for item in self._todo:
            if isinstance(item, Attaching):
                item.port.refuse(closed)


def _engine_error(error: Exception) -> ManyhandsError:
    assert isinstance(error, ManyhandsError)
    return error
