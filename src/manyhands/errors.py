"""Every error a user can meet, as one tree.

Each names by its branch who must act: the caller (`UsageError`), the store's keeper (`EngineError`), the network
(`WireError`), nobody (`LeaseLost`: someone else has the message now), or the author of the task (`TaskError`). Where the
standard library has an error for the same thing, ours is a subclass of it, so that existing `except` clauses go on working.

Errors cross the wire as (code, text, facts); `to_facts` and `from_facts` are the two directions. Only classes of this
module are rebuilt from a code: a peer can never name another class.
"""

from __future__ import annotations

import multiprocessing
import queue
import sys
from concurrent.futures import process
from concurrent.futures.process import BrokenProcessPool
from typing import Any, ClassVar


class ManyhandsError(Exception):
    """The root. `code` is stable and part of the API; `retryable` says whether the same call may succeed later.

    Keyword arguments become attributes: the facts behind the sentence, so that nobody needs to parse it.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, text: str = "", **facts: Any) -> None:
        super().__init__(text)
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), str(self), self.facts))


def _rebuild(kind: type[ManyhandsError], text: str, facts: dict[str, Any]) -> ManyhandsError:
    return kind(text, **facts)


# -- the caller must change something ------------------------------------------------------------------------------


class UsageError(ManyhandsError, ValueError):
    """The call cannot work as it is written; the sentence says what to write instead."""

    code = "usage"


class PayloadTooLarge(UsageError):
    """The encoded body is over `max_body_bytes`; put the data in a file or object store and send its path."""

    code = "payload_too_large"


class PayloadNotEncodable(UsageError, TypeError):
    """The object cannot be pickled; nothing was sent."""

    code = "payload_not_encodable"


class UnsupportedFeature(UsageError, NotImplementedError):
    """This engine cannot do that, and nothing weaker was done instead."""

    code = "unsupported_feature"


class UnknownTask(UsageError):
    """No task of that name is registered here."""

    code = "unknown_task"


class WrongArguments(UsageError, TypeError):
    """A task was called with arguments that do not fit its parameters or their type hints; nothing was run."""

    code = "wrong_arguments"


class UnknownId(UsageError, KeyError):
    """Nothing with that id exists here (any more)."""

    code = "unknown_id"

    def __str__(self) -> str:  # KeyError would print the sentence in quotes
        return str(self.args[0]) if self.args else ""


class AddressInUse(UsageError, OSError):
    """Another program listens on that port; the sentence names it where the platform tells."""

    code = "address_in_use"


# -- the store failed -----------------------------------------------------------------------------------------------


class EngineError(ManyhandsError):
    """The engine could not do its work."""

    code = "engine"


class EngineUnavailable(EngineError):
    """The store does not answer, or refused this batch; trying again may succeed."""

    code = "engine_unavailable"
    retryable = True


class EngineBusy(EngineUnavailable):
    """Another process owns the store's file; the sentence names it."""

    code = "engine_busy"
    retryable = False


class EngineCorrupt(EngineError):
    """The store's content cannot be trusted; a person must look. Nothing was overwritten."""

    code = "engine_corrupt"


# -- the network ------------------------------------------------------------------------------------------------------


class WireError(ManyhandsError):
    """Something between this process and the server."""

    code = "wire"


class ServerUnavailable(WireError, ConnectionRefusedError):
    """No server answers there; the sentence says what to check."""

    code = "server_unavailable"
    retryable = True


class SessionTaken(ServerUnavailable):
    """Another program attached with this one's session, and again when this one had come back; the session is its."""

    code = "session_taken"
    retryable = False


class AuthenticationFailed(WireError, multiprocessing.AuthenticationError):
    """The keys of the two sides differ."""

    code = "authentication_failed"


class ProtocolError(WireError):
    """The peer sent bytes that are not this protocol; the connection was closed."""

    code = "protocol"


class ServerGone(WireError, queue.Empty, EOFError):
    """The server said an orderly goodbye and did not come back within the call's timeout."""

    code = "server_gone"


# -- somebody else's message --------------------------------------------------------------------------------------


class LeaseLost(ManyhandsError):
    """The message belongs to another consumer now; what was asked under the old lease changed nothing."""

    code = "lease_lost"


class SealBroken(ManyhandsError):
    """The message's signature does not fit its body and place; nothing of it was decoded."""

    code = "seal_broken"


class UndecodableBody(ManyhandsError):
    """The body is genuine, but this process cannot rebuild the object: a module or class is missing here."""

    code = "undecodable_body"


class UndecodableCall(UndecodableBody, BrokenProcessPool):
    """A call or its result cannot be rebuilt where it arrived. The standard library's pool breaks then; ours does not."""

    code = "undecodable_call"


# -- the task's own code ------------------------------------------------------------------------------------------


class TaskError(ManyhandsError):
    """The user's function did not return."""

    code = "task"


class TaskFailed(TaskError):
    """It raised; the text and traceback of the original are facts."""

    code = "task_failed"


class TaskTimedOut(TaskError, TimeoutError):
    """It ran past its limit and was stopped."""

    code = "task_timed_out"


class TaskCancelled(TaskError):
    """It was cancelled."""

    code = "task_cancelled"


class TaskMoved(TaskError):
    """It was moved to another engine before it ran; its result will be there, at `url`, under its `id`."""

    code = "task_moved"


class TryAgain(TaskError):
    """Raised by a task: this attempt did not work out, try again, in delay_s seconds or after the task's usual backoff.

    It counts as an attempt; the last one's ends the task.
    """

    code = "try_again"
    retryable = True

    def __init__(self, text: str = "", *, delay_s: float | None = None, **facts: Any) -> None:
        super().__init__(text, delay_s=delay_s, **facts)
        self.delay_s = delay_s


class GiveUp(TaskError):
    """Raised by a task: no attempt will ever work, so there is no other; the text says why."""

    code = "give_up"


class WorkerCrashed(TaskError, BrokenProcessPool):
    """Its process died each time it was tried."""

    code = "worker_crashed"


# -- the standard library's own, carried over the wire -------------------------------------------------------------

if sys.version_info >= (3, 13):
    ShutDown = queue.ShutDown
else:

    class ShutDown(Exception):
        """`put` or `get` on a queue that was shut down; Python 3.13's `queue.ShutDown` on every version."""


_FOREIGN: dict[str, type[Exception]] = {
    "full": queue.Full,
    "empty": queue.Empty,
    "shut_down": ShutDown,
    "too_many_task_done": ValueError,
}


RemoteTraceback: type[Exception] = process._RemoteTraceback
"""The cause of an exception that was raised in another process: the standard library's, takes the traceback's text."""


def _tree(kind: type[ManyhandsError]) -> dict[str, type[Exception]]:
    found: dict[str, type[Exception]] = {kind.code: kind}
    for child in kind.__subclasses__():
        found |= _tree(child)
    return found


_BY_CODE: dict[str, type[Exception]] = _tree(ManyhandsError) | _FOREIGN


def from_code(code: str, text: str, facts: dict[str, Any] | None = None) -> Exception:
    """The exception that a `Failed` reply stands for.

    Args:
        code: one of this module's codes, or "full", "empty", "shut_down", "too_many_task_done".
            An unknown one (a newer peer's) becomes a plain ManyhandsError.
        text: the sentence, already complete.
        facts: attributes of the exception; ignored for the standard library's own classes.
    """
    kind = _BY_CODE.get(code, ManyhandsError)
    if issubclass(kind, ManyhandsError):
        return kind(text, **(facts or {}))
    return kind(text)
