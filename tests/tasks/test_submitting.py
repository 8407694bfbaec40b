"""Where tasks meet a client: what the decorator makes, where it goes, and that nothing submitted is lost at the end."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import manyhands as mh
from manyhands import submitting
from manyhands.errors import UsageError
from manyhands.submitting import default_client, submitting_through
from manyhands.tasks import REGISTRY, attempts
from manyhands.testing.proxy import CuttingProxy
from programs.lab import until

from . import deeds


@pytest.fixture
def server() -> Iterator[mh.Server]:
    with mh.serve("tcp://127.0.0.1:0") as serving:
        yield serving


def ready(server: mh.Server, queue: str = "deeds()") -> int:
    found = server.client().stats(queue).queues
    return found[0].ready if found else 0


def test_the_decorator_registers_and_plain_calls_run_here() -> None:
    @mh.task(name="here:double", queue="q", max_attempts=3, retry_on=[OSError, ValueError], tags=["a"])
    def double(n: int) -> int:
        return 2 * n

    assert double(4) == 8
    assert REGISTRY.get("here:double") is double
    assert (double.settings.retry_on, double.settings.tags) == ((OSError, ValueError), ("a",))
    with pytest.raises(mh.UsageError, match="no option 'retries'"):
        mh.task(retries=3)  # type: ignore[call-overload]


def test_submit_goes_to_the_server_that_connect_would_find(server: mh.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYHANDS_URL", server.url)
    monkeypatch.setattr(submitting, "_default", None)
    deeds.add.submit(1, 2)
    first = default_client()
    assert first is default_client()
    first.close()
    deeds.add.submit(1, 2)
    assert default_client() is not first, "a closed client is replaced"
    default_client().close()
    assert ready(server) == 2


def test_in_a_worker_submit_goes_to_the_server_that_it_works_for(server: mh.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYHANDS_URL", "tcp://127.0.0.1:1")
    monkeypatch.setattr(submitting, "_default", None)
    monkeypatch.setattr(attempts, "_home", attempts.Home(server.url, server.client().key))
    deeds.add.submit(1, 2)
    default_client().close()
    assert ready(server) == 1


def test_a_wrong_call_is_said_before_a_server_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYHANDS_URL", "tcp://127.0.0.1:1")
    monkeypatch.setattr(submitting, "_default", None)
    with pytest.raises(mh.WrongArguments, match="'b'"):
        deeds.add.submit(1, "2")  # type: ignore[arg-type]


def test_a_client_is_not_closed_before_the_engine_has_what_was_submitted(server: mh.Server) -> None:
    with CuttingProxy(server.address) as proxy:
        client = mh.connect(proxy.url)
        with submitting_through(client):
            deeds.add.submit(1, 1)
            proxy.is_refusing = True
            proxy.drop_all()
            deeds.add.submit(2, 2)
            closing = threading.Thread(target=client.close)
            closing.start()
            proxy.is_refusing = False
            closing.join(20)
    assert not closing.is_alive()
    assert ready(server) == 2


def test_a_future_of_a_closed_client_fails_and_the_client_takes_no_more(server: mh.Server) -> None:
    client = mh.connect(server.url)
    future = client.submit(deeds.add, 1, 2)
    client.close()
    with pytest.raises(mh.ServerUnavailable):
        future.result(5)
    with pytest.raises(mh.ServerUnavailable, match="closed"):
        client.submit(deeds.add, 1, 2)
    assert ready(server) == 1, "the task outlives who submitted it"


def test_a_queued_task_can_be_cancelled(server: mh.Server) -> None:
    with mh.connect(server.url) as client:
        future = client.submit(deeds.add, 1, 2)
        assert future.cancel()
        assert future.cancelled()
    assert ready(server) == 0


def test_a_module_of_tasks_imports_no_client() -> None:
    text = (
        "import manyhands as mh, sys\n"
        "@mh.task\n"
        "def f(): mh.current()\n"
        "heavy = [name for name in ('manyhands.client', 'asyncio', 'cryptography', 'ssl') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", text], check=True, timeout=60)


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_a_worker_in_this_process_leads_what_is_submitted_to_its_server_until_it_ends(
    server: mh.Server, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    monkeypatch.setenv("MANYHANDS_URL", "tcp://127.0.0.1:1")
    monkeypatch.setattr(submitting, "_default", None)
    worker = mh.Worker(server.url, ["deeds"], pool=pool, concurrency=2)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        with mh.connect(server.url) as client:
            assert client.submit(deeds.add_later, 1, 2).result(30) == 4
    finally:
        worker.stop()
        thread.join(20)
        default_client().close()
    assert not thread.is_alive()
    assert attempts.home() is None


def test_a_burst_shares_requests_and_nothing_of_it_is_left_behind(
    server: mh.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mh.connect(server.url) as client:
        client.submit(deeds.add, 0, 0)
        port = client._calls.port  # type: ignore[union-attr]
        batches: list[int] = []
        send = port.send
        monkeypatch.setattr(port, "send", lambda requests: (batches.append(len(requests)), send(requests)))
        for n in range(320):
            client.submit(deeds.add, n, n)
        until(lambda: ready(server) == 321, "what nobody waits for is sent a moment later")
        assert len(batches) < 32


def test_the_first_task_of_a_quiet_program_is_sent_at_once(server: mh.Server) -> None:
    with mh.connect(server.url) as client:
        client.submit(deeds.add, 0, 0)
        calls = client._calls
        assert calls is not None
        assert not calls.state.has_output


@pytest.mark.parametrize("target", [3, "shop:send", functools.partial(print)], ids=repr)
def test_what_is_no_function_with_a_name_cannot_be_a_task(target: Any) -> None:
    with pytest.raises(UsageError, match=r"write @mh\.task above a def"):
        mh.task(target)
