"""`mh.serve` and `mh.connect`: what is allowed without a word, what must be said, and what is refused."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

import manyhands as mh

LONG_KEY = "a key of more than sixteen bytes"
FREE = "tcp://127.0.0.1:0"


def test_programs_of_one_user_find_each_other_with_nothing_configured() -> None:
    with mh.serve(FREE) as server, mh.connect(server.url) as client:
        client.queue("q").put("found")
        assert server.queue("q").get(timeout=5) == "found"


def test_the_address_and_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYHANDS_AUTHKEY", LONG_KEY)
    with mh.serve(FREE) as server:
        monkeypatch.setenv("MANYHANDS_URL", server.url)
        with mh.connect() as client:
            assert client.url == server.url


def test_text_and_bytes_are_one_key() -> None:
    with mh.serve(FREE, LONG_KEY) as server, mh.connect(server.url, LONG_KEY.encode()) as client:
        assert client.stats().queues == []


def test_another_key_does_not_get_in() -> None:
    with mh.serve(FREE, LONG_KEY) as server, pytest.raises(mh.AuthenticationFailed):
        mh.connect(server.url, "another key of sixteen bytes")


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python was built without IPv6")
def test_ipv6_works_in_brackets() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with mh.serve("tcp://[::1]:0") as server, mh.connect(server.url) as client:
        assert client.url.startswith("tcp://[::1]:")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "tcp://0.0.0.0:0"}, "does not encrypt"),
        ({"url": "tcp://0.0.0.0:0", "authkey": LONG_KEY}, "insecure=True"),
        ({"url": "tcp://0.0.0.0:0", "insecure": True}, "needs a key"),
        ({"url": FREE, "authkey": ""}, "authkey"),
        ({"url": FREE, "store": "tcp://127.0.0.1:1"}, "not a store"),
        ({"url": "sqlite:///jobs.db"}, "names a store"),
    ],
)
def test_what_would_be_unsafe_or_cannot_work_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(mh.UsageError, match=says):
        mh.serve(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"url": FREE, "tls": True}, {"url": "tls://127.0.0.1:0"}])
def test_what_comes_later_is_refused_and_nothing_weaker_is_done(options: dict[str, object]) -> None:
    with pytest.raises(mh.UnsupportedFeature):
        mh.serve(**options)  # type: ignore[arg-type]


def test_a_network_is_served_when_both_words_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), mh.serve("tcp://0.0.0.0:0", "short", insecure=True) as server:
        assert mh.connect(server.url, "short").stats().queues == []
    assert "can be guessed" in caplog.text


def test_a_wildcard_address_cannot_be_dialled() -> None:
    with pytest.raises(mh.UsageError, match="cannot be dialled"):
        mh.connect("tcp://0.0.0.0:5959", LONG_KEY)


def test_a_store_can_be_opened_without_a_server(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    with mh.connect(url, LONG_KEY) as client:
        client.queue("q").put("kept")
    with mh.connect(url, LONG_KEY) as client:
        assert client.queue("q").get(timeout=5) == "kept"
    with mh.connect("memory://") as client:
        assert client.queue("q").empty()


def test_a_store_opened_without_a_server_needs_a_key_that_is_given(tmp_path: Path) -> None:
    with pytest.raises(mh.UsageError, match="needs a key"):
        mh.connect(f"sqlite:///{tmp_path / 'jobs.db'}")
    assert not (tmp_path / "jobs.db").exists()


def test_a_server_that_cannot_bind_lets_go_of_its_store(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'jobs.db'}"
    with mh.serve(FREE) as other, pytest.raises(mh.AddressInUse):
        mh.serve(other.url, store=store)
    with mh.serve(FREE, store=store) as server:
        assert server.queue("q").empty()


def test_a_client_with_the_wrong_key_leaves_no_session_behind() -> None:
    with mh.serve(FREE, LONG_KEY) as server:
        with pytest.raises(mh.AuthenticationFailed):
            mh.connect(server.url, "another key of sixteen bytes")
        with mh.connect(server.url, LONG_KEY) as client:
            assert len(client.stats().sessions) == 1, "only this client is there"
