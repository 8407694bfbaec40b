"""What the Redis engine decides without a server: what a URL means, what an acknowledgement is worth, when to try again."""

from __future__ import annotations

import pytest

from manyhands.engines.redis import script
from manyhands.engines.redis.checks import examine
from manyhands.engines.redis.reach import CAP_S, Reach
from manyhands.engines.redis.where import parse
from manyhands.errors import EngineUnavailable, UsageError

VALKEY = {"valkey_version": "9.1.2", "redis_version": "7.2.4", "run_id": "r", "role": "master", "aof_enabled": "1"}
SAFE = {"appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}


@pytest.mark.parametrize(
    ("url", "hosts", "rest"),
    [
        ("redis://box", [("box", 6379)], (False, 0, None, None, "main", "")),
        ("rediss://me:p%40ss@box:7000/3?space=mail", [("box", 7000)], (True, 3, "me", "p@ss", "mail", "")),
        ("redis://:secret@one:1,two:2", [("one", 1), ("two", 2)], (False, 0, None, "secret", "main", "")),
        ("redis://one,two?sentinel=mymaster", [("one", 26379), ("two", 26379)], (False, 0, None, None, "main", "mymaster")),
        ("redis://[::1]:6380", [("::1", 6380)], (False, 0, None, None, "main", "")),
    ],
)
def test_a_url_says_where_and_which_space(url: str, hosts: list[tuple[str, int]], rest: tuple[object, ...]) -> None:
    where = parse(url)
    assert where.hosts == hosts
    assert (where.is_tls, where.db, where.username, where.password, where.space, where.sentinel) == rest
    assert "secret" not in where.text
    assert "p@ss" not in where.text


@pytest.mark.parametrize(
    "url",
    ["redis://", "redis://box/zero", "redis://box:port", "redis://box?speed=9", "redis://box?space=a b", "redis://a,,b"],
)
def test_a_url_that_cannot_be_read_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(UsageError, match=r"redis://|space="):
        parse(url)


def test_only_appendfsync_always_promises_the_disk() -> None:
    always = examine(VALKEY, SAFE, "box")
    assert (always.durability.level, always.survives_restart, always.notes) == ("disk", True, [])
    everysec = examine(VALKEY, SAFE | {"appendfsync": "everysec"}, "box")
    assert (everysec.durability.level, everysec.survives_restart) == ("process", True)
    assert "last second" in everysec.durability.text
    nothing = examine(VALKEY | {"aof_enabled": "0"}, SAFE, "box")
    assert (nothing.durability.level, nothing.survives_restart) == ("process", False)
    assert "appendonly" in nothing.notes[0]


def test_what_a_managed_service_does_not_show_is_taken_as_the_weakest() -> None:
    found = examine(VALKEY, {}, "box")
    assert found.durability.level == "process"
    assert any("noeviction" in note for note in found.notes)


def test_a_server_that_evicts_keys_is_refused() -> None:
    with pytest.raises(UsageError, match="noeviction"):
        examine(VALKEY, SAFE | {"maxmemory-policy": "allkeys-lru"}, "box")


@pytest.mark.parametrize("info", [{"redis_version": "6.2.14"}, {"valkey_version": "7.2.5"}, {"redis_version": "?"}, {}])
def test_a_server_that_is_too_old_is_refused(info: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="Redis 7 or Valkey 8"):
        examine(info | {"role": "master", "aof_enabled": "1"}, SAFE, "box")


def test_a_replica_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match="replica"):
        examine(VALKEY | {"role": "slave"}, SAFE, "box")


def test_a_lost_connection_is_tried_at_once_and_then_less_and_less_often() -> None:
    reach = Reach(0.0)
    reach.connected()
    reach.lost(100.0)
    assert (reach.is_up, reach.next_at) == (False, 100.0)
    waits = []
    for _ in range(12):
        reach.failed(100.0, 0.999)
        waits.append(reach.next_at - 100.0)
    assert waits == sorted(waits)
    assert waits[0] < 0.1, "a blip of a moment must not cost leases"
    assert CAP_S / 2 <= waits[-1] <= CAP_S
    reach.connected()
    reach.lost(200.0)
    assert reach.next_at == 200.0


def test_the_library_names_its_own_text() -> None:
    first = script.source().partition("\n")[0]
    assert first.startswith("#!lua name=manyhands_")
    assert script.function("step").decode() == first.partition("=")[2] + "_step"
    assert "NAME" not in script.source()
