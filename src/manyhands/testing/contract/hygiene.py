"""Bad input gets a sentence; many threads at once lose nothing."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from manyhands import errors, events, model
from manyhands.testing.contract.peer import Peer, message
from manyhands.testing.contract.stage import ContractBase, Stage

BAD_REQUESTS: dict[str, events.Request] = {
    "priority above 9": events.Put(0, "q", 1, 0, [message(priority=10)]),
    "priority below -9": events.Put(0, "q", 1, 0, [message(priority=-10)]),
    "no deliveries allowed": events.Put(0, "q", 1, 0, [message(max_deliveries=0)]),
    "a queue without a name": events.Put(0, "", 1, 0, [message()]),
    "a lease of nothing": events.Lease(0, "q", 0),
    "an unknown kind of settlement": events.Settle(0, 1, 0, [model.Settlement(1, 17)]),
    "a wait that is no number": events.Lease(0, "q", 1, 1, math.nan),
    "a wait without a measure": events.Join(0, "unfinished", math.inf),
    "a seq of more than 63 bits": events.Put(0, "q", 2**63, 2**63, [message()]),
    "a negative task_done": events.TaskDone(0, 1, 0, "q", -1),
}


class HygienePromises(ContractBase):
    def test_a_body_over_the_limit_is_refused_and_nothing_stored(self, stage: Stage) -> None:
        stage.limit(max_body_bytes=1000)
        peer = stage.peer()
        peer.put_bodies("q", b"x" * 1000)
        with pytest.raises(errors.PayloadTooLarge):
            peer.put_bodies("q", b"small", b"x" * 1001)
        assert peer.size("q").ready == 1

    @pytest.mark.parametrize("bad", list(BAD_REQUESTS))
    def test_a_bad_value_is_refused_with_a_sentence_and_the_session_goes_on(self, stage: Stage, bad: str) -> None:
        peer = stage.peer()
        peer.put_bodies("unfinished", b"1")
        with pytest.raises(errors.UsageError):
            peer.start(BAD_REQUESTS[bad]).expect(events.Done)
        peer.put_bodies("q", b"still works")
        assert peer.take("q").message.body == b"still works"

    def test_an_empty_put_is_done(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("q")
        assert peer.size("q").ready == 0

    def test_a_large_body_arrives_whole(self, stage: Stage) -> None:
        peer = stage.peer()
        body = bytes(range(256)) * 20_000
        peer.put("q", message(body))
        assert peer.take("q").message.body == body

    def test_a_session_that_said_goodbye_can_send_nothing(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.goodbye()
        with pytest.raises(errors.ServerUnavailable):
            peer.port.send([events.Ping(1)])

    def test_ending_a_session_twice_is_ending_it_once(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.goodbye()
        peer.goodbye()
        peer.cut()

    def test_a_sink_gets_deliveries_in_the_order_of_the_queue(self, stage: Stage) -> None:
        peer, producer = stage.peer(), stage.peer()
        waiting = [peer.start_lease("q", wait_s=events.FOREVER) for _ in range(50)]
        for n in range(50):
            producer.put_bodies("q", str(n).encode())
        got = [pending.expect(events.Granted).deliveries[0].message.body for pending in waiting]
        assert got == [str(n).encode() for n in range(50)]

    def test_many_threads_of_one_session_lose_and_repeat_nothing(self, stage: Stage) -> None:
        peer = stage.peer()
        _work(stage, [peer] * 4, [peer] * 4)

    def test_many_sessions_lose_and_repeat_nothing(self, stage: Stage) -> None:
        _work(stage, [stage.peer() for _ in range(3)], [stage.peer() for _ in range(4)])


def _work(stage: Stage, producers: list[Peer], consumers: list[Peer], each: int = 60) -> None:
    """Producers and consumers, each in a thread of its own; every body must be acked once."""
    got: Counter[bytes] = Counter()
    problems: list[BaseException] = []

    def produce(peer: Peer, n: int) -> None:
        for m in range(each):
            peer.put("q", message(f"{n}:{m}".encode()))

    def consume(peer: Peer, n: int) -> None:
        while (delivery := peer.take("q")).message.body != b"stop":
            assert peer.ack(delivery)
            got[delivery.message.body] += 1
        assert peer.ack(delivery)

    def guarded(work: Callable[[Peer, int], None], peer: Peer, n: int) -> None:
        try:
            work(peer, n)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(produce, peer, n)) for n, peer in enumerate(producers)]
    eaters = [threading.Thread(target=guarded, args=(consume, peer, n)) for n, peer in enumerate(consumers)]
    for thread in threads + eaters:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    stopper = stage.peer()
    stopper.put_bodies("q", *[b"stop"] * len(consumers))
    for thread in eaters:
        thread.join(60.0)
    assert not any(thread.is_alive() for thread in threads + eaters), "a thread hangs"
    assert problems == []
    assert got == Counter(f"{n}:{m}".encode() for n in range(len(producers)) for m in range(each))
