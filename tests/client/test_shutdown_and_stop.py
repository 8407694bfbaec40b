"""A program that shuts its queue down and stops its server at once must not leave its workers waiting."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import manyhands as mh
from manyhands.auth import Keyring
from manyhands.engines.remote import RemoteEngine
from manyhands.events import Attach, Closing, Reply


def test_the_goodbye_names_the_queues_that_are_over_and_no_others() -> None:
    key = "a key of sixteen bytes"
    server = mh.serve("tcp://127.0.0.1:0", key)
    for name in ("over", "open", "still full"):
        server.queue(name).put(1)
    server.queue("over").get()
    server.queue("over").shutdown()
    server.queue("still full").shutdown()
    goodbyes: list[Closing] = []
    told = threading.Event()

    def listen(replies: Sequence[Reply]) -> None:
        goodbyes.extend(reply for reply in replies if isinstance(reply, Closing))
        if goodbyes:
            told.set()

    engine = RemoteEngine(server.url, Keyring(key))
    engine.attach(Attach("a session that listens"), listen)
    server.stop()
    assert told.wait(10)
    engine.close()
    assert goodbyes[0].shut_down == ["over"]


def test_workers_end_by_themselves_when_the_last_result_is_followed_by_the_end() -> None:
    server = mh.serve("tcp://127.0.0.1:0")
    tasks, results = server.queue("tasks"), server.queue("results")
    ended: list[str] = []
    are_connected = threading.Barrier(3)  # one alone may do all the work before the other has reached the server

    def work() -> None:
        with mh.connect(server.url) as client:
            are_connected.wait(20)
            for n in client.queue("tasks"):
                client.queue("results").put(n * n)
        ended.append("normally")

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    are_connected.wait(20)
    tasks.put_many(range(10))
    assert sorted(results.get(timeout=20) for _ in range(10)) == [n * n for n in range(10)]
    tasks.shutdown()
    server.stop()
    for worker in workers:
        worker.join(20)
    assert ended == ["normally"] * 2


def test_a_client_shows_where_it_is_connected_and_that_it_was_closed() -> None:
    with mh.serve("tcp://127.0.0.1:0") as server:
        with server.client() as client:
            assert repr(client).startswith("<manyhands.Client of ")
            assert "closed" not in repr(client)
        assert repr(client).endswith(", closed>")
