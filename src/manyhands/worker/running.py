"""From a delivery to its outcome: what a child does with a message, and a worker's threads and event loops as well.

    Runner.open(queue, delivery) ──> CallWork, TaskWork ── run(first, end) ──> settlement(), report()
                             └─────> Refusal: a Settlement at once (parked, rejected); nothing of it was run

No sockets, no threads, no clock: who runs the work measures it and says how long it took.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from manyhands._text import REASON_CHARS, readable
from manyhands.calls.outcomes import Outcomes
from manyhands.calls.running import Calls, Loader, encode_result, run_setup, sealed_id
from manyhands.codec import PLAIN, PLAIN_CALLS, Codec
from manyhands.errors import SealBroken, UndecodableBody, UnknownTask
from manyhands.model import MAX_BODY_BYTES, Delivery, Kind, Message, SettleKind, Settlement, result_id
from manyhands.tasks.bodies import open_body, open_pack
from manyhands.tasks.registry import REGISTRY, Registry
from manyhands.tasks.results import pack_error, pack_outcomes
from manyhands.worker.task_work import TaskPackWork, TaskWork, Work
from manyhands.worker.work import PORTION_BYTES, CallWork

CALLS_NEED, ITEMS_NEED = "calls", "items"
"""What a message needs that is an Executor's call (workers with tasks_only run none), or no call at all (none runs it)."""

Progress = Callable[[int, int, float, float, str], None]
"""Takes (token, part, done, total, note)."""


def python_need() -> str:
    """What a function that was sent by value needs: this interpreter's minor version."""
    return f"python:{sys.version_info.major}.{sys.version_info.minor}"


class Runner:
    """Makes work of deliveries, for one process or pool. `open` is for one thread at a time.

    Args:
        tasks_only: run registered tasks only; refuse whatever would be unpickled, and import nothing for a message.
        utc: UTC seconds now.
        unit: a random number in [0, 1), which spreads retries.
        on_progress: hears how far calls have come, in their own thread.
        is_cancelled: whether a call was asked to stop: by its token, and of a pack which call, else -1.
        complete: runs a coroutine to its end, for tasks that are coroutine functions.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        utc: Callable[[], float],
        unit: Callable[[], float],
        tasks_only: bool = False,
        registry: Registry = REGISTRY,
        on_progress: Progress = lambda token, part, done, total, note: None,
        is_cancelled: Callable[[int, int], bool] = lambda token, part: False,
        complete: Callable[[Any], Any] | None = None,
    ) -> None:
        self.codec = codec
        self.utc = utc
        self.unit = unit
        self.on_progress = on_progress
        self.is_cancelled = is_cancelled
        self.complete = complete or _complete
        self.limit_to(MAX_BODY_BYTES)
        self._tasks_only = tasks_only
        self._registry = registry
        self._loader = Loader(codec, python_need().partition(":")[2])
        self._set_up: dict[str, BaseException | None] = {}  # by executor: how its initializer failed
        self._split: tuple[str, bytes, bytes, Calls] | None = None  # the pack that was opened last, for the others of it

    def limit_to(self, limit_bytes: int) -> None:
        """Make no result larger than this, the engine's max_body_bytes."""
        self.limit_bytes = limit_bytes
        self.portion_bytes = min(PORTION_BYTES, limit_bytes)

    def offers(self) -> list[str]:
        """What this worker can run beside what each can (events.Offer)."""
        return [*self._registry.needs(), *(() if self._tasks_only else (CALLS_NEED, python_need()))]

    def open(self, queue: str, delivery: Delivery) -> Work | Settlement:
        """Verify a delivery and make work of it, or say how it ends because it cannot be run here. Never raises.

        Args:
            queue: the engine's queue that it came from.
        """
        message = delivery.message
        try:
            if message.kind == Kind.CALL:
                return self._open_call(queue, delivery)
            if message.kind == Kind.TASK:
                return self._open_task(queue, delivery)
        except UnknownTask as error:
            return Settlement(delivery.token, SettleKind.PARK, reason=error.need)
        except BaseException as error:  # rebuilding objects runs their own code, which may do anything
            return self._refused(queue, delivery, error)
        return Settlement(delivery.token, SettleKind.PARK, reason=ITEMS_NEED)

    def set_up(self, setup: Any) -> BaseException | None:
        """Run an executor's initializer unless that was done here; how it failed."""
        known = self._set_up
        if setup.executor not in known:
            try:
                run_setup(setup)
                known[setup.executor] = None
            except BaseException as error:
                known[setup.executor] = error
        return known[setup.executor]

    def _open_call(self, queue: str, delivery: Delivery) -> Work | Settlement:
        message = delivery.message
        if self._tasks_only:
            return Settlement(delivery.token, SettleKind.PARK, reason=CALLS_NEED)
        if message.options is None or message.options.part < 0:
            loaded = self._loader.load(queue, [message])
        else:
            loaded = self._load_part(queue, message)
        if loaded.needs:
            return Settlement(delivery.token, SettleKind.PARK, reason=loaded.needs)
        return CallWork(self, queue, delivery, loaded)

    def _load_part(self, queue: str, message: Message) -> Calls:
        """A call of a pack that was split: the others of it have the same body, and likely come next."""
        last, of = self._split, queue + " " + sealed_id(message)
        if last is not None and last[0] == of and last[1] == message.seal and last[2] == message.body:
            return last[3]
        loaded = self._loader.load(queue, [message])
        self._split = (of, message.seal, message.body, loaded)
        return loaded

    def _open_task(self, queue: str, delivery: Delivery) -> TaskWork | TaskPackWork:
        message, may_import = delivery.message, not self._tasks_only
        encoding = self.codec.verify(queue, sealed_id(message), message.seal, message.body, message.kind)
        n, part = _pack_of(message)
        if encoding != (PLAIN_CALLS if n or part >= 0 else PLAIN):
            raise UndecodableBody(f"the body is in encoding {encoding} and no task's; install the sender's version")
        if not n:
            call = open_body(message.body, self._registry, part=part, may_import=may_import)
            return TaskWork(self, queue, delivery, call)
        pack = open_pack(message.body, self._registry, may_import=may_import)
        if len(pack.calls) != n:
            raise UndecodableBody(f"the message says that {n} calls share it, and its body has {len(pack.calls)}")
        return TaskPackWork(self, queue, delivery, pack)

    def _refused(self, queue: str, delivery: Delivery, error: BaseException) -> Settlement:
        """A message that is not what it says, or is none for this version: a dead letter, with an answer for who waits."""
        message = delivery.message
        reason = readable(f"{type(error).__name__}: {error}", REASON_CHARS)
        n, _ = _pack_of(message)
        if message.kind == Kind.TASK:
            body = pack_error(error, 0.0)
            encoding = PLAIN
            if n:
                encoding, body = PLAIN_CALLS, pack_outcomes([], [body] * n)
            result = self.codec.sealed(queue, result_id(message.id, 0, n), encoding, [body], Kind.TASK)
        else:
            outcomes = Outcomes()
            for _ in range(n or 1):
                outcomes.fail(error, is_ours=isinstance(error, SealBroken | UndecodableBody))
            result = encode_result(self.codec, queue, result_id(message.id, 0, n), Kind.CALL, outcomes)
        return Settlement(delivery.token, SettleKind.REJECT, reason=reason, result=result)


def _pack_of(message: Message) -> tuple[int, int]:
    """(how many calls share the message, 0 for one; which call of a pack it is, -1 for none)."""
    options = message.options
    if options is None:
        return 0, -1
    return options.calls if options.calls > 1 else 0, options.part


def _complete(coroutine: Any) -> Any:
    import asyncio  # most children run no coroutine

    return asyncio.run(coroutine)
