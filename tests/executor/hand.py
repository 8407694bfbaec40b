"""A worker by hand: a thread that leases calls at an engine, runs them and settles, when and as its test says."""

from __future__ import annotations

import secrets
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence

from manyhands._waiter import Waiter
from manyhands.calls import outcomes, running
from manyhands.codec import Codec
from manyhands.engines.base import Engine
from manyhands.events import Attach, Granted, Lease, Reply, Settle, Withdraw
from manyhands.model import Delivery, SettleKind, Settlement, result_id

PYTHON = "{}.{}".format(*sys.version_info)


class Hand:
    """Runs what is in the queue in a thread, one message at a time.

    Args:
        lasting_s: what it says that a call took.
        gate: called before each message; the test may hold it there.
    """

    def __init__(
        self,
        engine: Engine,
        codec: Codec,
        queue: str = "default()",
        *,
        lasting_s: float = 1e-6,
        gate: Callable[[Delivery], None] | None = None,
    ) -> None:
        self.sizes: list[int] = []
        """How many calls each message had, in order."""
        self._codec, self._queue, self._lasting_s, self._gate = codec, queue, lasting_s, gate
        self._loader = running.Loader(codec, PYTHON)
        self._replies: deque[Reply] = deque()
        self._waiter: Waiter | None = None
        self._rid = self._seq = 0
        self._is_stopped = False
        self._port = engine.attach(Attach(secrets.token_hex(16), "hand", is_here=True), self._on_replies)
        self._thread = threading.Thread(target=self._run, name="hand", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Lease no more; returns when the thread has ended."""
        self._is_stopped = True
        self._port.send([Withdraw(self._lease_rid)])
        waiter = self._waiter
        if waiter is not None and not waiter.is_set:
            waiter.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._port.detach()

    def _on_replies(self, replies: Sequence[Reply]) -> None:
        self._replies.extend(replies)
        waiter = self._waiter
        if waiter is not None and not waiter.is_set:
            waiter.set()

    def _lease(self) -> Lease:
        self._rid += 1
        self._lease_rid = self._rid
        return Lease(self._rid, self._queue)

    _lease_rid = 1

    def _run(self) -> None:
        self._port.send([self._lease()])
        while not self._is_stopped:
            self._waiter = Waiter()
            if not self._replies:
                self._port.wait(self._waiter, 10.0)
            while self._replies:
                reply = self._replies.popleft()
                if isinstance(reply, Granted) and reply.deliveries:
                    settled = [self._settle(delivery) for delivery in reply.deliveries]
                    self._seq += 1
                    self._rid += 1
                    self._port.send([Settle(self._rid, self._seq, self._seq, settled), self._lease()])

    def _settle(self, delivery: Delivery) -> Settlement:
        if self._gate is not None:
            self._gate(delivery)
        message = delivery.message
        part = message.options.part if message.options is not None else -1
        calls = self._loader.load(self._queue, [message])
        if calls.needs:
            return Settlement(delivery.token, SettleKind.PARK, reason=calls.needs)
        first, end = (part, part + 1) if part >= 0 else (0, calls.n)
        self.sizes.append(end - first)
        into = outcomes.Outcomes(is_one=end - first == 1)
        calls.run(first, end, into)
        into.took(end - first, self._lasting_s * (end - first))
        sealed = result_id(message.id, 0, calls.n if calls.n > 1 and part < 0 else 0)
        return Settlement(delivery.token, result=running.encode_result(self._codec, self._queue, sealed, message.kind, into))
