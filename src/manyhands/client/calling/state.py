"""Which calls share a message, what is sent, and whose a result is. Pure: no threads, no sockets, no clock.

Calls of one function gather in its group until somebody takes them: at once when nothing is under way, else when results
arrive, when a message is full, or a millisecond later. So a lone call waits for nobody, and a burst shares messages by
itself. What is sent stays in `sent` until every call of it has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, islice
from typing import Any, Protocol

from manyhands.calls import bodies, outcomes
from manyhands.client.calling.pace import PACK_CALLS, PackPace
from manyhands.client.records import Stream
from manyhands.codec import PICKLED_CALLS, Codec
from manyhands.errors import UndecodableBody
from manyhands.events import FOREVER, Collect, Put, Request, Result
from manyhands.model import CALLS, MAX_DELIVERIES, Ended, Kind, Message, Options, part_id, result_id

_PUT_MESSAGES = 256
_PUT_BYTES = 1024 * 1024
_BURST_MESSAGES = 64
"""So many single messages gather in a burst: then what a Put costs is shared, and the workers have long had the first."""


Reader = Callable[[int, list[bytes], int], outcomes.Read]
Encoder = Callable[[Sequence[Any]], bytes]
"""Makes the body of a message with these calls."""


def read_outcomes(encoding: int, box: list[bytes], start: int) -> outcomes.Read:
    """The Reader of calls.

    Raises:
        UndecodableBody: these are no outcomes of calls.
    """
    if encoding != PICKLED_CALLS:
        raise UndecodableBody(f"a call's result is in encoding {encoding}; install its worker's version")
    return outcomes.read(box, start)


class Awaiting(Protocol):
    """Who gets the outcomes of one message's calls: a list of futures, or a part of a map."""

    def sent(self, sent: Sent, first: int) -> None:
        """It was put into a message; its first call is that one's."""

    def ended(self, first: int, values: Sequence[Any], failed: dict[int, BaseException]) -> None:
        """These of its calls have ended."""

    def cancelled(self, first: int, n: int) -> None:
        """These of its calls were cancelled."""


class _Nobody:
    """Awaits nothing any more."""

    def sent(self, sent: Sent, first: int) -> None:
        """It was told before."""

    def ended(self, first: int, values: Sequence[Any], failed: dict[int, BaseException]) -> None:
        """It came twice."""

    def cancelled(self, first: int, n: int) -> None:
        """It came twice."""


class Sent:
    """One message whose calls have not all ended."""

    __slots__ = ("_done", "awaiting", "group", "id", "is_split", "left", "n")

    def __init__(self, message_id: str, n: int, awaiting: Awaiting, group: Group) -> None:
        self.id = message_id
        self.n = n
        self.left = n
        """How many of its calls have not ended."""
        self.awaiting = awaiting
        self.group = group
        self.is_split = False
        """Whether calls of it came back that had become messages of their own."""
        self._done = bytearray(n)

    def over(self, first: int, n: int) -> int:
        """Calls have ended; how many of them had not before (a result may come twice)."""
        done = self._done
        end = min(first + n, self.n)
        fresh = end - first - done.count(1, first, end)
        if fresh > 0:
            done[first:end] = b"\1" * (end - first)
            self.left -= fresh
        return max(fresh, 0)

    def missing(self) -> list[int]:
        """Which of its calls have not ended."""
        return [index for index, is_done in enumerate(self._done) if not is_done]

    def call_id(self, index: int) -> str:
        """The id of one of its calls."""
        return part_id(self.id, index) if self.n > 1 else self.id


class Group:
    """The calls of one function to one queue under the same terms.

    Args:
        queue: the engine's name of the queue, with "()".
        read: rebuilds what its calls came to, from the encoding, a box with the result, and where its body begins there.
        encode: makes bodies of arguments; the head's own way unless it is given.
        encodings: of a body with one call, and of one with several.
        pack_bytes: a message with several calls grows to about this size.
        keeps_order: whether its calls leave behind those of other such groups of the queue that were there before.
        avoids_splits: see PackPace.
    """

    __slots__ = (
        "_alone",
        "awaiting",
        "encode",
        "encodings",
        "is_packable",
        "keep_result_s",
        "keeps_order",
        "kind",
        "max_deliveries",
        "open",
        "pace",
        "pack_bytes",
        "prefix",
        "priority",
        "python",
        "queue",
        "read",
        "size_bytes",
    )

    def __init__(
        self,
        queue: str,
        head: bodies.Head,
        python: str,
        *,
        keep_result_s: float = 0.0,
        max_deliveries: int = MAX_DELIVERIES,
        priority: int = 0,
        kind: int = Kind.CALL,
        read: Reader = read_outcomes,
        encode: Encoder | None = None,
        encodings: tuple[int, int] = (PICKLED_CALLS, PICKLED_CALLS),
        pack_bytes: int = bodies.PACK_BYTES,
        keeps_order: bool = False,
        avoids_splits: bool = False,
    ) -> None:
        self.queue = queue
        self.kind = kind
        self.read = read
        self.prefix = bodies.Prefix(head)
        self.encode = encode or self.prefix.encode
        self.encodings = encodings
        self.pack_bytes = pack_bytes
        self.keeps_order = keeps_order
        self.python = python
        self.keep_result_s = keep_result_s
        self.max_deliveries = max_deliveries
        self.priority = priority
        self.pace = PackPace(avoids_splits=avoids_splits)
        self.is_packable = max_deliveries != 1
        self.open: list[Any] = []
        """Arguments that wait to be put into a message."""
        self.awaiting: list[Any] = []
        """Their futures."""
        self.size_bytes = 0
        self._alone: Options | None = None

    @property
    def pack_calls(self) -> int:
        """How many calls a message may hold now."""
        return self.pace.calls if self.is_packable else 1

    def options(self, stream: str, n: int) -> Options:
        """The headers of a message with n calls."""
        if n > 1:
            return Options(keep_result_s=self.keep_result_s, reply_to=stream, calls=n)
        if self._alone is None:
            self._alone = Options(keep_result_s=self.keep_result_s, reply_to=stream)
        return self._alone


class _PutUnderWay:
    __slots__ = ("ids", "seq", "stream")

    def __init__(self, stream: Stream, seq: int, ids: list[str]) -> None:
        self.stream = stream
        self.seq = seq
        self.ids = ids


class CallState:
    """One session's calls.

    Args:
        stream: the id of the stream of results; a secret.
        new_id: makes message ids.
        futures: makes the Awaiting of a list of futures.
    """

    def __init__(
        self, codec: Codec, stream: str, new_id: Callable[[], str], futures: Callable[[list[Any]], Awaiting]
    ) -> None:
        self._codec = codec
        self.stream = stream
        self._new_id = new_id
        self._futures = futures
        self.next_rid: Callable[[], int] = count(1).__next__
        """The rid of a request of the session's own."""
        self._puts: dict[str, Stream] = {}
        self._under_way: dict[int, _PutUnderWay] = {}
        self._fetches: dict[int, str] = {}
        """By the rid of its Result: what is asked for by id."""
        self._groups: dict[Group, None] = {}
        self._ready: list[tuple[Group, Message]] = []
        self.sent: dict[str, Sent] = {}
        """By message id: what has not ended."""
        self.n_open = 0
        """Calls that wait to be put into a message."""
        self.n_left = 0
        """Calls that were put into messages and have not ended."""
        self._number = 0
        self.collect_rid = 0
        """Of the Collect that is parked; 0: none is."""

    # -- out -----------------------------------------------------------------------------------------------------------

    def add(self, group: Group, argument: tuple[Any, ...] | bytes, future: Any) -> bool:
        """Leave a call to be sent; whether it should be sent now."""
        group.open.append(argument)
        group.awaiting.append(future)
        self.n_open += 1
        if len(group.open) == 1:
            self._close_others(group)
            self._groups[group] = None
        if not self.n_left:
            return True
        size = group.size_bytes = group.size_bytes + bodies.size_bytes(argument)
        return size >= bodies.PACK_BYTES or (len(group.open) >= group.pace.calls > 1)

    def add_body(self, group: Group, body: bytes, n: int, awaiting: Awaiting) -> None:
        """Leave a whole message to be sent, behind what is open of the same group."""
        if group.open:
            self._close(group)
        self._seal(group, body, n, awaiting)

    def add_message(self, group: Group, message: Message, n: int, awaiting: Awaiting) -> bool:
        """Leave a sealed message with n calls to be sent, behind what is open; whether it should be sent now."""
        if group.open:
            self._close(group)
        self._close_others(group)
        return self._leave(group, message, n, awaiting)

    def _leave(self, group: Group, message: Message, n: int, awaiting: Awaiting) -> bool:
        is_quiet = not self.n_left
        sent = self.sent[message.id] = Sent(message.id, n, awaiting, group)
        self.n_left += n
        awaiting.sent(sent, 0)
        self._ready.append((group, message))
        return is_quiet or len(self._ready) >= _BURST_MESSAGES or len(message.body) > bodies.PACK_BYTES

    @property
    def has_output(self) -> bool:
        """Whether `take` has something to send."""
        return bool(self._groups or self._ready or (self.n_left and not self.collect_rid))

    def take(self) -> list[Request]:
        """Everything that is to be sent now, in order."""
        groups, self._groups = self._groups, {}
        for group in groups:
            self._close(group)
        requests: list[Request] = []
        ready, self._ready = self._ready, []
        start = 0
        while start < len(ready):
            start = self._put(ready, start, requests)
        for _, message in ready:
            if message.options and not message.options.reply_to:
                requests.append(self._fetch(message.id))
        if self.n_left and not self.collect_rid:
            self.collect_rid = self.next_rid()
            requests.append(Collect(self.collect_rid, self.stream, self._number, FOREVER))
        return requests

    def _close_others(self, group: Group) -> None:
        """Make messages of what was left before and must not be overtaken by a group's calls."""
        if group.keeps_order:
            for other in [one for one in self._groups if one.keeps_order and one.queue == group.queue and one is not group]:
                del self._groups[other]
                self._close(other)

    def _close(self, group: Group) -> None:
        """Make messages of a group's open calls."""
        arguments, awaiting = group.open, group.awaiting
        group.open, group.awaiting, group.size_bytes = [], [], 0
        self.n_open -= len(arguments)
        first = 0
        while first < len(arguments):
            end = self._end_of_pack(group, arguments, first) if len(arguments) > 1 else 1
            self._seal(group, group.encode(arguments[first:end]), end - first, self._futures(awaiting[first:end]))
            first = end

    @staticmethod
    def _end_of_pack(group: Group, arguments: list[Any], first: int) -> int:
        end = min(len(arguments), first + group.pack_calls)
        size = 0
        for index in range(first, end):
            size += bodies.size_bytes(arguments[index])
            if size > group.pack_bytes:
                return max(index, first + 1)
        return end

    def _seal(self, group: Group, body: bytes, n: int, awaiting: Awaiting) -> None:
        message_id = self._new_id()
        message = Message(
            message_id,
            body,
            self._codec.seal(group.queue, message_id, group.encodings[n > 1], body, group.kind),
            group.kind,
            group.priority,
            0.0,
            group.max_deliveries,
            group.options(self.stream, n),
        )
        self._leave(group, message, n, awaiting)

    def _fetch(self, message_id: str) -> Result:
        rid = self.next_rid()
        self._fetches[rid] = message_id
        return Result(rid, message_id)

    def _put(self, ready: list[tuple[Group, Message]], start: int, requests: list[Request]) -> int:
        """One Put of messages that follow each other and go to the same queue; where the next begins."""
        queue = ready[start][0].queue
        messages: list[Message] = []
        ids: list[str] = []
        size = 0
        end = start
        while end < len(ready) and len(messages) < _PUT_MESSAGES and ready[end][0].queue == queue:
            message = ready[end][1]
            size += len(message.body)
            if messages and size > _PUT_BYTES:
                break
            messages.append(message)
            ids.append(message.id)
            end += 1
        stream = self._puts.get(queue) or self._puts.setdefault(queue, Stream())
        rid, seq = -self.next_rid(), stream.next()
        self._under_way[rid] = _PutUnderWay(stream, seq, ids)
        requests.append(Put(rid, queue, seq, stream.floor, messages))
        return end

    def groups(self) -> list[Group]:
        """Those with calls that were not put into a message."""
        return list(self._groups)

    def is_running(self, sent: Sent, width: int) -> bool:
        """Whether a message is among the first `width` that have not ended, so that somebody probably runs it."""
        return any(one is sent for one in islice(self.sent.values(), width))

    def under_way(self) -> set[str]:
        """The ids of the messages whose put was not answered."""
        return {message_id for put in self._under_way.values() for message_id in put.ids}

    def take_all_open(self, group: Group) -> list[Any]:
        """Take back all calls of a group that were not put into a message; their futures."""
        futures = group.awaiting
        group.open, group.awaiting, group.size_bytes = [], [], 0
        self.n_open -= len(futures)
        return futures

    # -- in ------------------------------------------------------------------------------------------------------------

    def put_done(self, rid: int) -> list[str]:
        """A Put was answered; the ids of the messages that it carried."""
        put = self._under_way.pop(rid, None)
        if put is None:
            return []
        put.stream.answered(put.seq)
        return put.ids

    def put_failed(self, rid: int) -> list[Sent]:
        """A Put was refused; what it carried and has not ended."""
        return [sent for message_id in self.put_done(rid) if (sent := self.sent.get(message_id)) is not None]

    def fetched(self, rid: int) -> list[Sent]:
        """A Result was answered; what it asked for, unless that has ended."""
        sent = self.sent.get(self._fetches.pop(rid, ""))
        return [sent] if sent is not None else []

    def collected(self, number: int) -> None:
        """Results arrived; the next Collect says so."""
        self._number = number
        self.collect_rid = 0

    def whose(self, ended: Ended) -> tuple[Sent, int, str] | None:
        """The message that a result belongs to, its first call that ended, and what the value is sealed to.

        None: nobody here waits for it (any more).
        """
        sent = self.sent.get(ended.id)
        if sent is not None:
            return sent, ended.first, result_id(ended.id, ended.first, ended.n) if sent.n > 1 else ended.id
        pack, _, part = ended.id.rpartition(".")
        sent = self.sent.get(pack)
        if sent is None or not part.isdecimal() or int(part) >= sent.n:
            return None
        if not sent.is_split:
            sent.is_split = True
            sent.group.pace.was_split()
        return sent, int(part), ended.id

    def over(self, sent: Sent, first: int, n: int) -> Awaiting:
        """Calls of a message have ended; who is to be told."""
        awaiting = sent.awaiting
        self.n_left -= sent.over(first, n)
        if not sent.left:
            self.sent.pop(sent.id, None)
            sent.awaiting = _NOBODY  # futures know their message: in a cycle, their results would wait for the collector
        return awaiting


_NOBODY = _Nobody()


def engine_queue(queue: str) -> str:
    """Where the calls of the queue of that name live."""
    return queue + CALLS


__all__ = ["PACK_CALLS", "Awaiting", "CallState", "Group", "Sent", "engine_queue"]
