"""A cluster: a space lies in one slot, so every step is atomic there; what is asked of another node is sent on."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from manyhands import events
from manyhands.engines.redis import RedisEngine
from manyhands.testing.contract.peer import Peer
from redis_server import RedisCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.mark.parametrize("n", range(4))
def test_a_space_is_found_on_whichever_node_it_lies_and_programs_wake_each_other_there(
    cluster: RedisCluster, n: int
) -> None:
    url = f"{cluster.url}?space=space{n}-{secrets.token_hex(4)}"
    engines = [RedisEngine(url) for _ in range(2)]
    try:
        worker, producer = map(Peer, engines)
        waiting = worker.start_lease("q", wait_s=events.FOREVER)
        worker.ping()
        producer.put_bodies("q", b"work")
        (delivery,) = waiting.expect(events.Granted).deliveries
        worker.put_bodies("results", b"done")
        assert worker.ack(delivery)
        assert producer.take("results").message.body == b"done"
    finally:
        for engine in engines:
            engine.close()


@pytest.mark.faults
def test_a_node_that_is_killed_and_comes_back_has_lost_nothing(cluster: RedisCluster) -> None:
    engine = RedisEngine(f"{cluster.url}?space={secrets.token_hex(4)}")
    try:
        peer = Peer(engine)
        peer.put_bodies("q", b"1", b"2")
        held = peer.take("q")
        for node in cluster.nodes:
            node.kill()
        cluster.start()
        assert peer.ack(held)
        assert peer.take("q").message.body == b"2"
    finally:
        engine.close()
