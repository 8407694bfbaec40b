"""The program whose power is cut: puts, leases, acks with results, nacks, dead letters, checkpoints, a restart.

Run by tracing.py in a process of its own. It writes into the file `marks` what it knows, at the moment it knows it: `try`
before a settlement is sent; `put`, `got`, `settled` when the engine has answered. The answer's mark is written inside the
sink, in the writer's thread: nothing can come between the engine's answer and its mark. Bodies follow from ids, so that
the checker can tell an invented or mixed-up message.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from manyhands.engines.base import Waiter
from manyhands.engines.sqlite import SqliteEngine, store
from manyhands.events import Attach, Done, Failed, Granted, Lease, Put, Reply, Request, Settle, Settled
from manyhands.model import Kind, Message, Options, SettleKind, Settlement

ROUNDS, PRODUCERS = 60, 3
QUEUES = ("letters", "numbers")


def body_of(message_id: str) -> bytes:
    """The one body that a message of this id may have: mostly small, a few over several pages, some over many."""
    digest = hashlib.blake2b(message_id.encode()).digest()
    length = (40, 100, 100, 700, 6_000, 30_000)[digest[0] % 6] if digest[1] % 4 == 0 else 100
    return (digest * (length // 64 + 1))[:length]


class Marks:
    """Appends one line for each thing known."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / "marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, **facts: object) -> None:
        os.write(self._descriptor, json.dumps(facts).encode() + b"\n")


class Peer:
    """One session, driven round by round; every answer is marked as it comes."""

    def __init__(self, engine: SqliteEngine, session: str, marks: Marks) -> None:
        self.session = session
        self.held: dict[int, tuple[str, str]] = {}
        """Token to (queue, message id)."""
        self._marks = marks
        self._asked: dict[int, Request] = {}
        self._rid = 0
        self._seqs: dict[str, int] = {}
        self._waiter = Waiter()
        self.attach(engine)

    def attach(self, engine: SqliteEngine) -> None:
        self._port = engine.attach(Attach(self.session, self.session, list(self.held)), self._sink)

    def put(self, queue: str, ids: list[str], *, kind: Kind) -> None:
        options = Options(dedupe=True) if kind is Kind.ITEM and ids[0].endswith("0") else None
        messages = [Message(id_, body_of(id_), kind=kind, options=options, max_deliveries=2) for id_ in ids]
        self._send(Put(self._next_rid(), queue, self._next_seq(queue), 0, messages))

    def lease(self, queue: str, n: int) -> None:
        self._send(Lease(self._next_rid(), queue, max_n=n, begin_n=n, wait_s=0.0))

    def settle(self, chance: random.Random) -> None:
        """End about two thirds of what is held, in every way there is."""
        tokens = [token for token in self.held if chance.random() < 0.66]
        settlements = []
        for token in tokens:
            queue, id_ = self.held.pop(token)
            kind = chance.choices((SettleKind.ACK, SettleKind.NACK, SettleKind.REJECT, SettleKind.RELEASE), (8, 2, 1, 1))[0]
            result = body_of(f"result of {id_}") if kind is SettleKind.ACK and queue == "numbers" else None
            settlements.append(Settlement(token, kind, result=result, reason="workload"))
            self._marks.write(what="try", id=id_, token=token, kind=int(kind), has_result=result is not None)
        if settlements:
            self._send(Settle(self._next_rid(), self._next_seq(""), 0, settlements))

    def wait(self) -> None:
        """Until everything asked was answered."""
        while self._asked:
            self._waiter.block(10.0)
            if self._asked and self._waiter.is_set:
                self._waiter = Waiter()

    def _next_rid(self) -> int:
        self._rid += 1
        return self._rid

    def _next_seq(self, stream: str) -> int:
        self._seqs[stream] = self._seqs.get(stream, 0) + 1
        return self._seqs[stream]

    def _send(self, request: Put | Lease | Settle) -> None:
        self._asked[request.rid] = request
        self._port.send([request])

    def _sink(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            request = self._asked.get(getattr(reply, "rid", 0))
            match reply, request:
                case Done(), Put(queue=queue, seq=seq, messages=messages):
                    ids = [message.id for message in messages]
                    self._marks.write(what="put", session=self.session, queue=queue, seq=seq, ids=ids)
                case Granted(deliveries=deliveries), Lease(queue=queue):
                    for delivery in deliveries:
                        self.held[delivery.token] = (queue, delivery.message.id)
                        attempt = delivery.attempt
                        self._marks.write(what="got", id=delivery.message.id, token=delivery.token, attempt=attempt)
                case Settled(lost=lost), Settle(settlements=settlements):
                    tokens = [settlement.token for settlement in settlements if settlement.token not in lost]
                    self._marks.write(what="settled", tokens=tokens)
                case Failed(code=code, text=text), _:
                    self._marks.write(what="failed", code=code, text=text)
            self._asked.pop(getattr(reply, "rid", 0), None)
        if not self._waiter.is_set:
            self._waiter.set()


def main(folder: Path, seed: int) -> None:
    store.CHECKPOINT_PAGES = 60  # small, so that a short run has many
    chance = random.Random(seed)
    marks = Marks(folder)
    engine = SqliteEngine(folder / "jobs.db")
    marks.write(what="open")
    peers = [Peer(engine, f"session-{i}", marks) for i in range(PRODUCERS)]
    for round_ in range(ROUNDS):
        if round_ == ROUNDS // 2:
            for peer in peers:
                peer.wait()
            engine.close()
            engine = SqliteEngine(folder / "jobs.db")
            marks.write(what="open")
            for peer in peers:
                peer.attach(engine)
        for number, peer in enumerate(peers):
            queue = chance.choice(QUEUES)
            kind = Kind.CALL if queue == "numbers" else Kind.ITEM
            ids = [f"{queue}-{round_}-{number}-{i}" for i in range(chance.choice((1, 1, 3, 12)))]
            peer.put(queue, ids, kind=kind)
            peer.lease(chance.choice(QUEUES), chance.randrange(1, 12))
            if chance.random() < 0.7:
                peer.wait()
            peer.settle(chance)
        if chance.random() < 0.5:
            for peer in peers:
                peer.wait()
    for peer in peers:
        peer.wait()
    os._exit(0)  # the last cut is at a run that never said goodbye


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
