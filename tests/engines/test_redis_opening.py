"""Opening a Redis: what it refuses, what it says, and what programs that share a space see of each other."""

from __future__ import annotations

import re
import secrets
import sys
from pathlib import Path

import pytest
import redis

import manyhands as mh
from manyhands import events, model
from manyhands.engines.opening import open_engine
from manyhands.engines.redis import RedisEngine
from manyhands.errors import AuthenticationFailed, EngineUnavailable, UsageError
from manyhands.model import Limits
from manyhands.testing.contract.peer import Peer, message
from redis_server import RedisServer

from .conftest import Place, Serve

KEY = "a key of these tests"


def test_without_the_driver_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("redis", "manyhands.engines.redis"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(UsageError, match=r"pip install 'manyhands\[redis\]'"):
        open_engine("redis://127.0.0.1:1")


def test_nobody_there_is_said_after_the_time_that_was_given() -> None:
    with pytest.raises(EngineUnavailable, match=r"redis://127\.0\.0\.1:1/0 does not answer"):
        RedisEngine("redis://:secret@127.0.0.1:1", connect_timeout_s=0.3)


def test_a_wrong_password_is_said_at_once_and_never_shown(serve: Serve) -> None:
    server = serve("--requirepass", "the right one")
    with pytest.raises(AuthenticationFailed) as caught:
        RedisEngine(f"redis://:wrong-one@127.0.0.1:{server.port}")
    assert "wrong-one" not in str(caught.value)
    RedisEngine(f"redis://:the%20right%20one@127.0.0.1:{server.port}").close()


def test_a_server_that_evicts_is_refused(serve: Serve) -> None:
    server = serve("--maxmemory-policy", "allkeys-lru")
    with pytest.raises(UsageError, match="noeviction"):
        RedisEngine(server.url)


def test_an_engine_says_what_an_acknowledgement_means(server: RedisServer, serve: Serve) -> None:
    safe = RedisEngine(server.url)
    try:
        assert safe.durability.level == "disk"
        assert "appendfsync always" in safe.durability.text
        assert safe.features.survives_restart
    finally:
        safe.close()
    quick = RedisEngine(serve(fsync="everysec").url)
    try:
        peer = Peer(quick)
        assert quick.durability.level == "process"
        assert any("everysec" in note for note in peer.port.attached.notes)
    finally:
        quick.close()


def test_a_key_must_be_given(place: Place) -> None:
    with pytest.raises(UsageError, match="key"):
        mh.connect(place.url)


def test_the_rights_that_the_page_names_are_enough(serve: Serve) -> None:
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    rights = re.findall(r"^\*\*Rights\*\*[^`]*`([^`]+)`, `([^`]+)`[^`]*`([^`]+)`", page, re.MULTILINE)
    server = serve()
    words = [word for part in rights[0] for word in part.split()]
    with redis.Redis(port=server.port) as admin:
        admin.execute_command("ACL", "SETUSER", "mh", "on", ">secret", *words)
    engines = [RedisEngine(f"redis://mh:secret@127.0.0.1:{server.port}") for _ in range(2)]
    try:
        worker, producer = map(Peer, engines)
        waiting = worker.start_lease("q", wait_s=events.FOREVER)
        worker.ping()
        producer.put_bodies("q", b"work")
        assert worker.ack(waiting.expect(events.Granted).deliveries[0])
        assert engines[0].durability.level == "disk"
    finally:
        for engine in engines:
            engine.close()


def test_limits_of_who_sets_them_hold_for_those_who_come_without(place: Place) -> None:
    assert place.engine().limits == Limits()
    small = Limits(lease_s=7.0, max_body_bytes=1000)
    place.engine(small)
    assert place.engine().limits == small


def test_spaces_know_nothing_of_each_other(server: RedisServer, place: Place) -> None:
    peer = place.peer()
    peer.put_bodies("q", b"here")
    elsewhere = RedisEngine(f"{server.url}?space={secrets.token_hex(8)}")
    try:
        assert Peer(elsewhere).stats().queues == []
    finally:
        elsewhere.close()
    assert peer.take("q").message.body == b"here"


def test_calls_of_a_lost_pack_share_its_body(place: Place) -> None:
    parent, calls, body = place.peer(), 500, b"x" * 50_000
    options = model.Options(reply_to="a stream of this test's", calls=calls)
    parent.put("q", message(body, id="P", kind=model.Kind.CALL, options=options))
    child = place.peer()
    child.take("q")
    parent.report_dead(child.session)
    prefix = f"manyhands:{{{place.url.partition('=')[2]}}}:q:q"
    with redis.Redis(port=place.server.port) as admin:
        assert sum(admin.memory_usage(f"{prefix}:{part}", samples=0) or 0 for part in "mb") < 20 * len(body)
        for _ in range(calls):
            delivery = parent.take("q")
            assert delivery.message.body == body
            assert parent.ack(delivery, result=b"done")
        assert len(parent.ended("a stream of this test's", calls)) == calls
        assert not admin.exists(f"{prefix}:b", f"{prefix}:m")


def test_a_body_that_was_changed_in_redis_itself_is_refused_and_parked(place: Place) -> None:
    with mh.connect(place.url, KEY) as client, redis.Redis(port=place.server.port) as intruder:
        queue = client.queue("mail")
        queue.put("send ten", id="forged")
        queue.put("send none")
        bodies = f"manyhands:{{{place.url.partition('=')[2]}}}:q:mail:m"
        (field, body), *_ = [(k, v) for k, v in intruder.hgetall(bodies).items() if b"send ten" in v]
        intruder.hset(bodies, field, body.replace(b"send ten", b"send all"))
        assert queue.get(timeout=10) == "send none"
        (letter,) = client.dead("mail").list()
        assert letter.message.id == "forged"
        assert b"send all" in letter.message.body, "what was refused is kept as it was found"


def test_a_shutdown_ends_with_the_last_program_that_was_there(place: Place) -> None:
    first, second = place.engine(), place.engine()
    one, two = Peer(first), Peer(second)
    one.shut_down("q")
    one.cut()
    first.close()
    assert place.peer().size("q").is_shut_down, "somebody was still there"
    two.cut()
    for engine in list(place._engines):
        engine.close()
    assert not place.peer().size("q").is_shut_down


def test_thousands_of_delayed_and_expiring_messages_do_not_hold_up_who_is_served(place: Place) -> None:
    peer = place.peer()
    options = model.Options(expires_at=2**33)
    for _ in range(5):
        peer.put("later", *[message(due_at=2.0**33, options=options) for _ in range(400)])
    peer.put_bodies("q", b"now")
    assert peer.take("q").message.body == b"now"
    assert peer.size("later").delayed == 2000
    assert peer.purge("later") == 2000
