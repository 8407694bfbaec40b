"""Sentinels: the master dies, its replica takes over, and programs go on there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from manyhands import events
from manyhands.engines.redis import RedisEngine
from manyhands.errors import EngineUnavailable
from manyhands.model import Limits, Message
from manyhands.testing.contract.peer import Peer
from redis_server import Watched

pytestmark = pytest.mark.faults
PATIENCE_S = 40.0


@pytest.fixture
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    watched = Watched(tmp_path_factory.mktemp("watched"))
    watched.start()
    yield watched
    watched.stop()


def test_programs_go_on_at_the_new_master_with_what_they_held_and_waited_for(watched: Watched) -> None:
    with pytest.raises(EngineUnavailable, match="replica"):  # named by itself it takes no writes
        RedisEngine(watched.replica.url, connect_timeout_s=0.2)
    limits = Limits(lease_s=60.0, resume_s=10.0)
    engines = [RedisEngine(watched.url, limits=limits, connect_timeout_s=PATIENCE_S) for _ in range(2)]
    try:
        worker, producer = map(Peer, engines)
        assert "1 replica follows" in engines[0].durability.text
        producer.put_bodies("held", b"held")
        held = worker.take("held")
        waiting = worker.start_lease("q", wait_s=events.FOREVER)
        worker.ping()
        watched.master.command("WAIT", "1", "5000")  # the replica has all of this
        watched.master.kill()
        put = producer.start(producer.put_request("q", Message("after", b"after")))
        put.expect(events.Done, PATIENCE_S)
        (delivery,) = waiting.expect(events.Granted, PATIENCE_S).deliveries
        assert (delivery.message.body, delivery.attempt) == (b"after", 1)
        assert delivery.token > held.token, "a new master's tokens come after all that the old one may have granted"
        assert worker.ack(held)
        assert worker.ack(delivery)
    finally:
        for engine in engines:
            engine.close()
