"""What a client asks of an engine and what the engine answers: one vocabulary for the core, every engine and the wire.

A session sends *requests*; each with a `rid` other than 0 gets exactly one *reply* with the same rid, in any order: a
waiting `Lease` is parked and never blocks a `Settle` behind it. A negative rid says that nobody waits for the answer: a
server may let it leave with the next thing that goes that way (a put under a lease, an implicit settlement). `Recall` and
`Closing` come unasked. The core takes these objects,
the wire carries these objects, an engine that others write answers these objects; nothing is translated in between.

Waiting: `wait_s` is how long the engine may park a request: 0 not at all, below 0 for ever. The engine ends the wait
itself (`Granted` with no deliveries, `Failed` "full"), so that every request has one answer.

Sending again: a request that changes something carries `seq`, counted from 1 by the session for each *stream* (the
queue's name for puts, "" for everything else that has a seq). The engine keeps one watermark for each session and stream:
a seq at or below it was applied before and is answered as a success without being applied again. A refused request
(and a Settle of which every lease was lost) leaves a hole in the watermark, so that a resend of it is tried anew; `floor`
(the lowest seq that the session still awaits an answer for) lets the engine forget holes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from manyhands.model import (
    Begun,
    DeadLetter,
    Delivery,
    Durability,
    Ended,
    Features,
    Limits,
    Message,
    QueueStats,
    SessionStats,
    Settlement,
)

FOREVER = -1.0


class _Event(msgspec.Struct, array_like=True, frozen=True):
    pass


# -- requests: queues ----------------------------------------------------------------------------------------------


class Declare(_Event, array_like=True, frozen=True, tag=1):
    """Make the queue known, and its bound. maxsize 0 keeps what there is; a conflicting bound is Failed "usage"."""

    rid: int
    queue: str
    maxsize: int = 0


class Put(_Event, array_like=True, frozen=True, tag=2):
    """Add messages to a queue: all or none. Answer: Done once they are as durable as the engine promises.

    Failed: "full" (after wait_s), "shut_down", "payload_too_large", "usage" (more messages than the bound can ever hold),
    "lease_lost" (none of the causes is a live lease of this session). Settled: put but for the messages of the lost causes.
    """

    rid: int
    queue: str
    seq: int
    floor: int
    messages: list[Message]
    wait_s: float = FOREVER
    causes: tuple[int, ...] = ()
    """For each message the token of the lease under which it is put; empty: under none. A message whose id was already put
    under the same *leased message* (by this or an earlier holder) is dropped as the same one. Such a put is sent ahead of
    that lease's settlement without waiting for an answer, so a refusal must reach the lease as well: when the put is
    refused, its leases are given back (NACK, the refusal as reason) in the same step, and the settlements that follow find
    them lost."""


class Lease(_Event, array_like=True, frozen=True, tag=3):
    """Ask for up to max_n messages; answered with at least one as soon as there is one. Answer: Granted, oldest first.

    The first begin_n of the answer count as begun (a get is waiting for them); the rest are prefetched. A message that was
    with a lost consumer travels alone. Granted is empty when wait_s is over; Failed "shut_down" when the queue is shut
    down and has nothing more. Before an empty answer the engine recalls what other sessions hold unbegun; not when begin_n
    is 0: then nobody waits, and it is only asked for what lies ready.
    """

    rid: int
    queue: str
    max_n: int = 1
    begin_n: int = 1
    wait_s: float = FOREVER
    also: list[str] = []
    """More queues that will do, in order of preference behind `queue`. All of one answer come from one of them."""
    is_move: bool = False
    """To take messages elsewhere and not to run them: where nothing is ready, what is not due yet comes as well, soonest
    first (not what waits for its next attempt), and what was with a lost consumer neither travels alone nor counts as
    begun. A wait ends with what is ready."""


class Withdraw(_Event, array_like=True, frozen=True, tag=4):
    """End the wait of the parked request `target` now. That request is answered in its usual way; this one has no reply."""

    target: int


class Begin(_Event, array_like=True, frozen=True, tag=5):
    """These prefetched deliveries were returned by a get: from here they are charged if their holder dies. No reply."""

    queue: str
    tokens: list[int]


class Recalled(_Event, array_like=True, frozen=True, tag=6):
    """The answer to Recall: these unbegun deliveries are released (charged nothing, to the head). May be none. No reply."""

    queue: str
    tokens: list[int]


class Settle(_Event, array_like=True, frozen=True, tag=7):
    """End deliveries. Answer: Settled, which names those whose lease was lost."""

    rid: int
    seq: int
    floor: int
    settlements: list[Settlement]


class Extend(_Event, array_like=True, frozen=True, tag=8):
    """Count the silence of these leases anew from now. Answer: Settled, naming those lost.

    Every request and Ping of a session does the same for all its leases; this is for the few that need to be sure.
    """

    rid: int
    tokens: list[int]


class TaskDone(_Event, array_like=True, frozen=True, tag=9):
    """Count n entries of the queue as finished without ending a lease. Answer: Done, or Failed "too_many_task_done"."""

    rid: int
    seq: int
    floor: int
    queue: str
    n: int = 1


class Join(_Event, array_like=True, frozen=True, tag=10):
    """Wait until the queue has nothing unfinished. Answer: Count (what is unfinished when the wait ended)."""

    rid: int
    queue: str
    wait_s: float = FOREVER


class ShutDown(_Event, array_like=True, frozen=True, tag=11):
    """The broadcast stop: puts fail from now, gets fail when the queue is empty. immediate: what is not handed out is
    dropped now and counts as finished. Lasts until the engine is opened again. Answer: Done."""

    rid: int
    queue: str
    immediate: bool = False


class Size(_Event, array_like=True, frozen=True, tag=12):
    """Answer: QueueInfo with this one queue's numbers; an unknown queue is declared."""

    rid: int
    queue: str


class Result(_Event, array_like=True, frozen=True, tag=13):
    """Fetch a result by message id, or by the `part_id` of a call in a pack, waiting for it. Answer: Outcome; Failed
    "unknown_id" when no such message exists, "task" when it became a dead letter, "worker_crashed" when it did so because
    its consumers were lost, "task_cancelled".

    Calls and tasks (kind above 0) are known from their put on; of an item only a stored result is known, so that ten
    million waiting items need no index.
    """

    rid: int
    id: str
    wait_s: float = FOREVER
    forget: bool = False
    """Drop the stored result once this reply is out; not one that calls share, nor one that a stream still awaits."""


class Ping(_Event, array_like=True, frozen=True, tag=14):
    """The heartbeat. Answer: Pong. Extends every lease of the session."""

    rid: int


class Goodbye(_Event, array_like=True, frozen=True, tag=15):
    """This session ends for good: its unbegun deliveries are released, its other leases given back with reason "goodbye"
    (settle first what should be acked), its parked requests withdrawn. No reply."""


class ReportDead(_Event, array_like=True, frozen=True, tag=16):
    """A parent says that the child with this session id is dead: its leases return at once. Answer: Done.

    What is charged: with a token, the call that was running under it and nothing else (of a pack the one that `part` names).
    Without one, what the session had begun; of a pack nothing is charged then (each unfinished call travels alone from
    here), but for max_deliveries 1, which becomes a dead letter: it may have run. A token whose lease ended meanwhile
    charges nobody.
    """

    rid: int
    session: str
    reason: str = ""
    token: int = 0
    """The lease of the call that was running when it died; 0: not known, or none (see is_idle)."""
    part: int = -1
    """Of a pack: which call of it was running."""
    settlement: Settlement | None = None
    """How the running call ends (a time limit, a cancellation), of a pack that one call alone: a result is then sealed as
    `result_id(pack, part, 1)`. None: it was lost, and is given back or dies of it."""
    is_idle: bool = False
    """Nothing was running: nothing is charged."""


class Collect(_Event, array_like=True, frozen=True, tag=32):
    """Fetch what has ended of the messages whose `Options.reply_to` is this stream. Answer: Collected, as soon as there is
    something; with nothing when wait_s is over.

    A stream belongs to the session that last collected it, before the first Collect to the one that put for it. When that
    session ends or has no connection for orphan_s, what is not begun of the stream's messages is dropped then unless it has
    keep_result_s. Results without keep_result_s are forgotten once acked. Send it again with the same ack after a
    reconnect: what was not acked comes again.
    """

    rid: int
    stream: str
    """At least 96 random bits, as text."""
    ack: int = 0
    """The number of the last Collected that arrived; what it brought is not sent again."""
    wait_s: float = FOREVER


class Report(_Event, array_like=True, frozen=True, tag=33):
    """The next calls of a leased pack have ended: their results are stored, the lease goes on. Answer: Done; Failed
    "lease_lost": the rest of it is somebody else's, stop. Its seq counts in the stream "", as a Settle's."""

    rid: int
    seq: int
    floor: int
    token: int
    calls: int
    """How many, from the first that was not reported."""
    result: bytes


class Cancel(_Event, array_like=True, frozen=True, tag=34):
    """Take calls out of a queue that nobody has begun. Answer: Cancelled. Their stream hears "task_cancelled".

    What is leased counts as begun. Where one that was to be stopped comes back to its queue instead of ending (its worker
    was lost, or gave it back), it ends then as cancelled.
    """

    rid: int
    queue: str
    ids: list[str]
    """Of messages, or of calls in packs (`model.part_id`)."""
    is_running_too: bool = False
    """Also stop those that run: their worker's parent (or, where it has none, the session that holds the lease) is told by
    Stop, and kills the child if it still runs that call."""


class Vouch(_Event, array_like=True, frozen=True, tag=35):
    """A parent's heartbeat for its children: these sessions count as heard from now, unless they are not connected. No
    reply."""

    sessions: list[str]


class Reclaim(_Event, array_like=True, frozen=True, tag=36):
    """A parent gives back what its child has not begun, because the child itself is busy. Answer: Done.

    Of each named lease the first n calls stay with the child, counted from the message's first call, reported ones included;
    the others go back, charged nothing, each a message of its own. n 0 gives the whole message back. Leases that are lost or
    ended are skipped. Where nothing could be given back, the parent is asked again a little later if somebody still waits.
    """

    rid: int
    session: str
    """The child's."""
    queue: str
    begun: list[Begun]
    """None: the answer to a Recall that found nothing to give back."""


class Offer(_Event, array_like=True, frozen=True, tag=37):
    """What this session can run beside what every worker can: parked messages that need one of these may be handed to it,
    ahead of others. Replaces the session's earlier offer; made again after each reconnect. Who parks what it offered has
    taken that need out of its offer. No reply."""

    needs: list[str]


class Progress(_Event, array_like=True, frozen=True, tag=38):
    """How far a running call has come, for who awaits it (Progressed), and in `model.SessionStats` while it runs. No reply;
    nothing is stored."""

    token: int
    part: int
    """Of a pack: which call; else -1."""
    done: float
    total: float
    note: str = ""


class Create(_Event, array_like=True, frozen=True, tag=26):
    """Ask the program that owns the engine for what it offers under a name (a manager's typeid). Answer: Created.

    Answered by the manager in front of the engine and never seen by it. Failed: "usage" (nothing of that name; the facts
    list the names), "task_failed" (its callable raised), "unsupported_feature" (no manager is there, or what its callable
    returned cannot be served).
    """

    rid: int
    typeid: str
    arguments: Message | None = None
    """The callable's arguments, a body sealed as a message to the queue of the typeid's name; None is none."""


class Drop(_Event, array_like=True, frozen=True, tag=27):
    """The session has no more use for a queue that Create made for it alone. No reply."""

    queue: str


class Invoke(_Event, array_like=True, frozen=True, tag=28):
    """Call a method of an object that a manager's program serves. Answer: Returned, when the method has returned.

    Calls of one thread run one after another, those of different threads at the same time. A call that was sent before and
    may have begun is never run again: a resend is answered with the same Returned, or Failed "server_unavailable" where the
    session's calls were forgotten. Withdraw says that nobody waits for it any more; it is answered all the same.
    Failed: "unsupported_feature" (no manager is there), "seal_broken", "undecodable_body" (before anything was called).
    """

    rid: int
    thread: int
    """Which of the session's threads calls, by a number of the client's; a lock with an owner belongs to it."""
    call: Message
    """(ident, method, args, kwds), a body sealed as a message to the queue name "#objects"."""


class Refer(_Event, array_like=True, frozen=True, tag=29):
    """The session has a proxy of this object, so it must stay. Answer: Done, or Failed "unknown_id" when it is gone."""

    rid: int
    ident: str


class Unrefer(_Event, array_like=True, frozen=True, tag=30):
    """The session gives up n references (one for each Create, Refer or Returned that gave one). Answer: Done."""

    rid: int
    ident: str
    n: int = 1
    lingers: bool = False
    """Whether a proxy was pickled or inherited by a fork, so that another process may be about to refer to the object."""


class Leave(_Event, array_like=True, frozen=True, tag=31):
    """A thread makes no more calls; 0 is all of the session's. No reply."""

    thread: int = 0
    is_lost: bool = False
    """Whether it ended in a failure: then everything that it holds is released."""


# -- requests: administration --------------------------------------------------------------------------------------


class Stats(_Event, array_like=True, frozen=True, tag=20):
    """Answer: StatsReply for the named queues, or all when the list is empty."""

    rid: int
    queues: list[str] = []


class Peek(_Event, array_like=True, frozen=True, tag=21):
    """Look at what is ready or delayed, soonest first, without leasing. Answer: Peeked."""

    rid: int
    queue: str
    limit: int = 20


class Purge(_Event, array_like=True, frozen=True, tag=22):
    """Drop everything ready or delayed; leased messages are not touched. Answer: Count of what was dropped."""

    rid: int
    queue: str


class DeadList(_Event, array_like=True, frozen=True, tag=23):
    """Answer: DeadLetters, newest first. An empty queue name means all queues; ids narrows to those messages."""

    rid: int
    queue: str = ""
    ids: list[str] = []
    limit: int = 100


class DeadRetry(_Event, array_like=True, frozen=True, tag=24):
    """Put dead letters back at the tail of their queue with a fresh count. No ids: all. Answer: Count."""

    rid: int
    queue: str
    ids: list[str] = []


class DeadDrop(_Event, array_like=True, frozen=True, tag=25):
    """Delete dead letters. No ids: all. Answer: Count."""

    rid: int
    queue: str
    ids: list[str] = []


class Bury(_Event, array_like=True, frozen=True, tag=39):
    """Take over dead letters of another engine as they are, history included. Answer: Count of those that are new: one whose
    id is among its queue's dead letters already is dropped as the same."""

    rid: int
    letters: list[DeadLetter]


Request = (
    Declare
    | Put
    | Lease
    | Withdraw
    | Begin
    | Recalled
    | Settle
    | Extend
    | TaskDone
    | Join
    | ShutDown
    | Size
    | Result
    | Ping
    | Goodbye
    | ReportDead
    | Collect
    | Report
    | Cancel
    | Vouch
    | Reclaim
    | Offer
    | Progress
    | Create
    | Drop
    | Invoke
    | Refer
    | Unrefer
    | Leave
    | Stats
    | Peek
    | Purge
    | DeadList
    | DeadRetry
    | DeadDrop
    | Bury
)

# -- replies -------------------------------------------------------------------------------------------------------


class Done(_Event, array_like=True, frozen=True, tag=64):
    """It is done, as durably as the engine promises."""

    rid: int


class Failed(_Event, array_like=True, frozen=True, tag=65):
    """Nothing was changed. code and text are errors.from_code's."""

    rid: int
    code: str
    text: str
    facts: dict[str, Any] | None = None


class Granted(_Event, array_like=True, frozen=True, tag=66):
    """Deliveries, now leased to this session; empty when the wait is over."""

    rid: int
    deliveries: list[Delivery]
    queue: str = ""
    """Which queue they come from, where the Lease named more than one."""


class Settled(_Event, array_like=True, frozen=True, tag=67):
    """All settlements were applied but for these tokens, whose leases were lost."""

    rid: int
    lost: list[int] = []


class Count(_Event, array_like=True, frozen=True, tag=68):
    rid: int
    n: int


class QueueInfo(_Event, array_like=True, frozen=True, tag=69):
    rid: int
    stats: QueueStats


class Outcome(_Event, array_like=True, frozen=True, tag=70):
    """A result. value is None while there is none (the wait is over).

    Asked for one call of a pack by its `part_id`: the value is sealed to `result_id(id, first, n)`.
    """

    rid: int
    id: str
    """The message that the value is sealed to: the one asked for, or the pack that it was a call of."""
    queue: str = ""
    value: bytes | None = None
    first: int = 0
    """Of a pack: the first call that the value covers."""
    n: int = 0
    """Of a pack: how many calls the value covers; 0 where the message is none."""


class Pong(_Event, array_like=True, frozen=True, tag=71):
    rid: int


class StatsReply(_Event, array_like=True, frozen=True, tag=72):
    rid: int
    queues: list[QueueStats]
    sessions: list[SessionStats]
    uptime_s: float


class Peeked(_Event, array_like=True, frozen=True, tag=73):
    rid: int
    messages: list[Message]


class DeadLetters(_Event, array_like=True, frozen=True, tag=74):
    rid: int
    letters: list[DeadLetter]


class Created(_Event, array_like=True, frozen=True, tag=75):
    """What Create asked for: a queue, or an object, to which the session has one more reference."""

    rid: int
    queue: str
    """The engine's queue that it is; "" for an object."""
    ident: str = ""
    """What names it in Invoke, Refer and Unrefer; "" for a queue that needs no references."""
    exposed: list[str] = []
    """The methods that its proxy shows."""
    shape: str = ""
    """The standard proxy that fits an object for which none was registered: "dict", "list" or none."""


class Returned(_Event, array_like=True, frozen=True, tag=76):
    """What a call came to."""

    rid: int
    kind: str
    """The standard library's: #RETURN, #ERROR, #TRACEBACK, #UNSERIALIZABLE, #PROXY."""
    value: bytes
    """Sealed as the result of the Invoke's message: the value; (exception, text of its traceback); a text; (typeid, ident,
    exposed, shape) of an object to which the session now has one more reference."""


class Collected(_Event, array_like=True, frozen=True, tag=77):
    """What has ended, in the order in which it did."""

    rid: int
    number: int
    """For the next Collect's `ack`."""
    ended: list[Ended]


class Cancelled(_Event, array_like=True, frozen=True, tag=78):
    """These calls were taken out; the others had begun, or ended before, or were never here."""

    rid: int
    ids: list[str]


class Recall(_Event, array_like=True, frozen=True, tag=90):
    """Others wait for this queue: give back up to n deliveries that no get has returned. Answered by Recalled; a parent that
    is asked for its child answers with Reclaim, and is asked for what lies in the child's begun packs as well."""

    queue: str
    n: int
    session: str = ""
    """The child that is meant, where its parent is asked (Attach.parent)."""


class Stop(_Event, array_like=True, frozen=True, tag=92):
    """To a parent: the call that its child runs under this lease was cancelled. If it still runs it, kill that child and
    report it dead with a settlement that says so."""

    session: str
    token: int
    part: int = -1


class Progressed(_Event, array_like=True, frozen=True, tag=93):
    """To who collects its stream: how far a call has come."""

    id: str
    done: float
    total: float
    note: str = ""


class Closing(_Event, array_like=True, frozen=True, tag=91):
    """The engine's owner is going away on purpose; nothing was settled. Sessions stay valid if it comes back."""

    reason: str = ""
    shut_down: list[str] = []
    """Queues that were shut down and are empty: a get whose question crosses this goodbye needs no answer any more."""


Reply = (
    Done
    | Failed
    | Granted
    | Settled
    | Count
    | QueueInfo
    | Outcome
    | Pong
    | StatsReply
    | Peeked
    | DeadLetters
    | Created
    | Returned
    | Collected
    | Cancelled
    | Recall
    | Stop
    | Progressed
    | Closing
)

# -- attaching -----------------------------------------------------------------------------------------------------


class Attach(_Event, array_like=True, frozen=True, tag=110):
    """Who is here: a new session, or the same one back after its connection broke."""

    session: str
    """At least 96 random bits, as text; whoever knows it is that session."""
    name: str = ""
    """For people: host, pid, program."""
    held: list[int] | None = None
    """None: a new session. Else it resumes and holds these tokens; other leases of the session never arrived: they are
    released, charged nothing."""
    next_seq: dict[str, int] = {}
    """Reserved for a session that resumes at an engine which forgot it."""
    is_here: bool = False
    """Whether it lives in the engine's own process: then it cannot die alone, and its silence means nothing. A server lets
    nobody say so over a socket."""
    parent: str = ""
    """The session id of the worker process that looks after this one: it is asked in this one's place (Recall, Stop), and
    may speak for it (Vouch, Reclaim, ReportDead)."""


class Attached(_Event, array_like=True, frozen=True, tag=111):
    """The engine's side of it."""

    engine: str
    """Its kind: memory, sqlite, …"""
    durability: Durability
    features: Features
    limits: Limits
    is_resumed: bool = False
    """Whether the engine still knew this session; if not, its leases are gone and unanswered requests are applied anew."""
    lost: list[int] = []
    """Of the held tokens: those that are no longer this session's."""
    notes: list[str] = []
    """What a server has to say of itself to the person who looks after it; `manyhands status` shows it."""
