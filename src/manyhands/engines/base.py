"""What every engine is: a place where sessions attach, ask and are answered.

An engine that others write implements these two protocols and runs `manyhands.testing`'s contract suite. Verbs are not
methods but the request objects of `events`, in lists: the same objects that the core applies and the wire carries.

    session ── Port.send([Put, Lease, …]) ──> Engine
       ^                                        │
       └───────── sink([Done, Granted, …]) <────┘   in any thread, in order for each session
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from manyhands._waiter import Waiter as Waiter
from manyhands.events import Attach, Attached, Reply, Request
from manyhands.model import Delivery, Durability, Features, Limits, Message

Sink = Callable[[Sequence[Reply]], None]
"""Takes the replies and unasked events of one session, in order. Called from any thread, also from inside `send`; it must
return soon, must not block, and may call `send` of its own port (which then only queues the requests)."""


class Port(Protocol):
    """One session's end of an engine. All methods are thread-safe."""

    @property
    def attached(self) -> Attached:
        """What the engine said of itself when the session attached (the newest answer, after a reconnect)."""
        ...

    def send(self, requests: Sequence[Request], *, may_gather: bool = False) -> None:
        """Hand requests over, in order; answers come to the sink, perhaps before this returns. Never waits for one.

        Args:
            may_gather: nobody waits for an answer soon, so an engine behind a socket may leave the writing to its own
                thread, which then writes at once all that has gathered.

        Raises:
            ServerUnavailable: the port is closed for good. A connection that is only broken raises nothing: the requests
                are kept and sent again.
        """
        ...

    def wait(self, waiter: Waiter, timeout_s: float) -> bool:
        """Block this thread until the waiter is set or timeout_s is over (below 0: no limit); whether it is set.

        May return early, when the waiter was nudged.

        An engine behind a socket lets the waiting thread itself read it: one thread switch less for each answer.
        """
        ...

    def detach(self, *, goodbye: bool = True) -> None:
        """End the session: with a goodbye for good, without one as if the connection had been cut. Idempotent."""
        ...


@runtime_checkable
class LocalPort(Port, Protocol):
    """A port whose engine can answer in the caller's own thread. Offering it is optional; memory does."""

    def answer_now(self, request: Request) -> Reply | None:
        """Apply one request that cannot be parked (its wait_s is 0) and return its answer, without a way through the sink.

        What it brings about besides goes to the sinks. None: it was not applied, because a step of the engine is being
        delivered in this very thread; send it.
        """
        ...

    def put_nearby(self, queue: str, message: Message, cause: int) -> bool:
        """Put one message that has no headers and fits the limit; false: nothing was done, send a `Put`.

        Args:
            cause: as one of `Put.causes`; 0 is none.
        """
        ...

    def get_nearby(self, queue: str, done: int, is_task_done: bool) -> Delivery | None:
        """Ack the lease with token `done` (0: none) on that queue and take the next message, begun, in one step.

        None: nothing was done; send a `Settle` and a `Lease`.
        """
        ...


@runtime_checkable
class ReadingPort(Port, Protocol):
    """A port behind a socket, which the asking thread may read itself. Offering it is optional; a remote port does."""

    def read_answer(self, rid: int, timeout_s: float | None, *, is_hurried: bool) -> Reply | None:
        """Wait in this thread for the answer to a request that was just sent, and return it past the sink.

        Args:
            timeout_s: at most; None is no limit.
            is_hurried: whether the answer may come so soon that going to sleep would cost more than the wait.

        Returns:
            The answer, if it was all that came. None: somebody else reads, or something else happened first, which went its
            usual way; wait as usual (the answer may even be there by now).
        """
        ...


Lead = Callable[[Waiter, float], bool]
"""Waits as `Port.wait` does, and lets the waiting thread do a server's work meanwhile."""


class Engine(Protocol):
    """Where queues live and the promises are kept."""

    @property
    def name(self) -> str: ...

    @property
    def durability(self) -> Durability:
        """What an acknowledgement means here, found by looking at the backing store's settings."""
        ...

    @property
    def features(self) -> Features: ...

    @property
    def limits(self) -> Limits: ...

    def attach(self, attach: Attach, sink: Sink) -> Port:
        """Open or resume a session. A second attach of a live session takes it over from the first.

        Raises:
            EngineUnavailable, AuthenticationFailed, ServerUnavailable: as the engine's kind can fail.
        """
        ...

    def close(self, *, closing_reason: str = "") -> None:
        """Stop: tell every session `Closing`, settle nothing, release files and sockets. Idempotent."""
        ...


@runtime_checkable
class LedEngine(Engine, Protocol):
    """An engine whose answers come from a server's loop in the same process. Offering it is optional; memory does."""

    def led_by(self, lead: Lead | None) -> None:
        """From now on this process's threads wait for answers by `lead`; None: by themselves."""
        ...
