"""A program that shuts its queue down and stops its server at once must not leave its workers waiting."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh


@pytest.mark.parametrize("run", range(5))
def test_workers_end_by_themselves_when_the_last_result_is_followed_by_the_end(run: int) -> None:
    server = mh.serve("tcp://127.0.0.1:0")
    tasks, results = server.queue("tasks"), server.queue("results")
    ended: list[str] = []

    def work() -> None:
        with mh.connect(server.url) as client:
            for n in client.queue("tasks"):
                client.queue("results").put(n * n)
        ended.append("normally")

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    tasks.put_many(range(10))
    assert sorted(results.get(timeout=20) for _ in range(10)) == [n * n for n in range(10)]
    tasks.shutdown()
    server.stop()
    for worker in workers:
        worker.join(20)
    assert ended == ["normally"] * 2
