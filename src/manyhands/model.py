"""The nouns: what is stored, leased and settled. design words, one meaning each; see docs/architecture.md.

All are msgspec structs laid out as arrays, so that the same object is the in-memory record, the wire's form and the stored
form. Fields are only ever added at the end, with a default.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

import msgspec

MIN_PRIORITY, MAX_PRIORITY = -9, 9

# Defaults users depend on (docs/guarantees.md).
DEFAULT_PORT = 5959
LEASE_S = 30.0
HEARTBEAT_S = 5.0
RESUME_S = 1.0
MAX_BODY_BYTES = 256 * 1024 * 1024
MAX_DELIVERIES = 3
DEDUPE_S = 600.0
WATERMARK_KEPT_S = 24 * 3600.0
ORPHAN_S = 60.0
CALLS = "()"
"""Ends the name of the queue that holds the calls and tasks of a queue, "mail()" beside "mail": so a `get` never meets a
call, a worker never an item, and a program may use one name for both."""


class Kind(IntEnum):
    """What a message is for. `get` returns items only."""

    ITEM = 0
    CALL = 1
    TASK = 2


class Options(msgspec.Struct, array_like=True, frozen=True):
    """Headers that most messages do without; a message with none of them carries no Options at all."""

    dedupe: bool = False
    """The id was given by the caller: a second put with it, until dedupe_s after completion, is dropped as the same."""
    expires_at: float = 0.0
    """UTC seconds after which the message is dropped undelivered; 0 is never."""
    keep_result_s: float = 0.0
    """Seconds to keep the result after it is stored; 0 means until a waiting client received it."""
    reply_to: str = ""
    """The stream to which the results go (`events.Collect`); "" is none, then they are fetched by id."""
    calls: int = 0
    """How many calls share this message, above 1 for a *pack*. Packing is transport only: each call keeps its own id
    (`part_id`), limits, result and cancellation, and the engine splits the pack wherever they part ways."""
    part: int = -1
    """Which call of a pack this message is, since the pack was split. Its id is `part_id(pack, part)`; body and seal are
    still the whole pack's, so the seal is checked against the pack's id."""


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One immutable entry of a queue. The body is opaque to everyone but its producer and its consumer."""

    id: str
    body: bytes
    seal: bytes = b""
    """The signature over id, queue, kind, direction and body, with the key id and the encoding (codec/sealing.py)."""
    kind: int = 0
    priority: int = 0
    """-9 to 9; larger is sooner."""
    due_at: float = 0.0
    """UTC seconds before which it is not delivered; 0 is at once."""
    max_deliveries: int = MAX_DELIVERIES
    """At this many charged deliveries without an ack it becomes a dead letter; 1 means at most once."""
    options: Options | None = None


class Delivery(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message as handed to one consumer, with the token that proves its lease."""

    token: int
    """Unique in the life of the engine's store and growing: a fencing token."""
    attempt: int
    """1 for the first charged delivery."""
    message: Message


class SettleKind(IntEnum):
    """How a delivery ends."""

    ACK = 0
    """Done; the message is gone, its result (if any) stored in the same step."""
    NACK = 1
    """Failed for now: again after delay_s, at the head; a dead letter if its deliveries are used up."""
    REJECT = 2
    """Never again: to the dead letters, with the reason."""
    RELEASE = 3
    """Not begun: back to the head untouched, and this delivery charged nothing."""
    PARK = 4
    """This consumer cannot run it: kept, charged nothing, until one comes that offers the need that the reason names."""
    MOVED = 5
    """It is at another engine now: gone from here as if it had never been put, so that it may come back. Who waits for its
    result hears "task_moved" with the reason, which says where to ask. Not for packs."""


class Settlement(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The end of one delivery. A token that is not a live lease of this session changes nothing and is reported lost."""

    token: int
    kind: int = SettleKind.ACK
    is_task_done: bool = False
    """Whether this counts as `task_done` for `join` (task_done, receive and iteration do; implicit settlement does not)."""
    delay_s: float = 0.0
    reason: str = ""
    result: bytes | None = None
    """What the call returned or raised, encoded and sealed by the consumer; None stores nothing. With REJECT it is the last
    attempt's error, for those who wait; the message is a dead letter as well. So it is with a NACK that was the last one; of
    a pack it is then not stored."""
    calls: int = 0
    """Of a pack: how many calls this settles, from the first that was not reported; 0 is all that this lease still has. The
    others go back, charged nothing, each a message of its own. A RELEASE gives back all, a PARK parks all."""


class Attempt(msgspec.Struct, array_like=True, frozen=True):
    """One charged delivery in a message's history."""

    attempt: int
    consumer: str
    """The session's name: host, pid and program of who had it."""
    leased_at: float
    ended_at: float
    outcome: str
    """nack, reject, lost (the consumer died or fell silent), released."""
    reason: str = ""


class DeadLetter(msgspec.Struct, array_like=True, frozen=True):
    """A message that will not be delivered again unless somebody retries it."""

    queue: str
    message: Message
    died_at: float
    reason: str
    history: list[Attempt]


class Ended(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What became of one call, or of some calls of one pack that follow each other, for the stream that awaits it."""

    id: str
    """The message's."""
    value: bytes | None = None
    """What the consumer stored, sealed as the result of `result_id` (with n 0 for a message that is no pack); None: there is
    none, the code says why."""
    first: int = 0
    """Of a pack: the first call that it covers."""
    n: int = 1
    """How many calls it covers."""
    code: str = ""
    """worker_crashed (its deliveries are used up, the last consumer was lost), task (refused for good), task_cancelled,
    unknown_id (purged, expired, awaited by nobody for too long, or acked without a result), as errors.from_code's."""
    text: str = ""


class Begun(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How far the holder of a lease has come, as its parent sees it."""

    token: int
    n: int
    """How many calls of it were begun; 0: none, it goes back whole."""


class Durability(msgspec.Struct, array_like=True, frozen=True):
    """What an acknowledgement means at an engine, as found when it was opened."""

    level: str
    """"process" (survives any client's death), "disk" (also kill -9 of the server and power loss), "replicated"."""
    text: str
    """The same as one sentence for people, with the setting that was checked."""
    weaker: str = ""
    """In which way it is weaker than the URL asks for; "" where it is not."""


class Features(msgspec.Struct, array_like=True, frozen=True):
    """What an engine can do; asking for anything else raises UnsupportedFeature."""

    priorities: bool = True
    delays: bool = True
    bounded: bool = True
    results: bool = True
    dedupe: bool = True
    join: bool = True
    survives_restart: bool = False
    calls: bool = True
    """Streams of results, packs, parents, cancelling and parking: what an Executor, tasks and workers stand on."""
    moves: bool = False
    """Giving messages and dead letters away to another engine, and taking dead letters over: `Lease.is_move`,
    `SettleKind.MOVED`, `events.Bury`."""


class Limits(msgspec.Struct, array_like=True, frozen=True):
    """An engine's numbers; tests make them small, users rarely touch them."""

    max_body_bytes: int = MAX_BODY_BYTES
    lease_s: float = LEASE_S
    heartbeat_s: float = HEARTBEAT_S
    resume_s: float = RESUME_S
    dedupe_s: float = DEDUPE_S
    watermark_kept_s: float = WATERMARK_KEPT_S
    recall_after_s: float = 0.005
    """How long a waiting lease waits before others are asked to give back what they have not begun."""
    recall_answer_s: float = 1.0
    """How long such an answer may take before the waiting lease is told Empty without it."""
    orphan_s: float = ORPHAN_S
    """How long unbegun calls outlive the session that awaits their results."""


class QueueStats(msgspec.Struct, array_like=True, frozen=True):
    """One queue at one moment. Counters run since the store was created."""

    name: str
    maxsize: int
    ready: int
    """Waiting and due now."""
    delayed: int
    leased: int
    """Handed out, prefetched included."""
    unbegun: int
    """Of those leased: prefetched by a client and not yet returned by any get."""
    dead: int
    """Messages. The counters below count calls: a pack of n counts n, so that splitting it changes none."""
    unfinished: int
    """What join() waits for."""
    waiting: int
    """Consumers waiting in get."""
    put_total: int
    done_total: int
    redelivered_total: int
    dead_total: int
    is_shut_down: bool = False
    parked: dict[str, int] = {}
    """What no worker here can run: the need ("task:mail.send", "python:3.12") to how many messages wait for it."""


class Told(msgspec.Struct, array_like=True, frozen=True):
    """What a call that runs has said of itself last (`events.Progress`)."""

    id: str
    """The call's."""
    queue: str
    """The engine's name of its queue."""
    done: float
    total: float
    """0 where the call did not say."""
    note: str
    told_at: float
    """UTC seconds."""


class SessionStats(msgspec.Struct, array_like=True, frozen=True):
    """One client or worker as the engine sees it."""

    id: str
    """`public_id` of the session's id: who knows the id itself could speak in its name."""
    name: str
    is_connected: bool
    attached_at: float
    leases: int
    waiting: int
    progress: list[Told] = []
    """Of the calls that it runs, those that tell. Empty at engines that do not keep it."""


def halves(queue: str) -> tuple[str, str]:
    """The engine's queues behind a queue's name: of its items, and of its calls and tasks."""
    return queue, queue + CALLS


def name_of(queue: str) -> str:
    """The queue's name, of either of its halves."""
    return queue.removesuffix(CALLS)


def part_id(pack: str, part: int) -> str:
    """The id of one call of a pack."""
    return f"{pack}.{part}"


def result_id(message_id: str, first: int = 0, n: int = 0) -> str:
    """What a result is sealed to: the message, and of a pack (n above 0) which calls it covers."""
    return f"{message_id}.{first}+{n}" if n else message_id


def public_id(session: str) -> str:
    """What others may see of a session's id: enough to tell sessions apart, nothing to resume one with."""
    return hashlib.sha256(session.encode("utf-8", "surrogatepass")).hexdigest()[:16]
