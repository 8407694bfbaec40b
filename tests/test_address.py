"""Addresses as users write them."""

from __future__ import annotations

import pytest

import manyhands as mh
from manyhands.address import DEFAULT_URL, Address, parse_address, scheme_of
from manyhands.errors import UnsupportedFeature, UsageError


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("tcp://10.0.0.5:6000", "10.0.0.5", 6000),
        ("tcp://10.0.0.5", "10.0.0.5", 5959),
        ("tcp://queue.example.org/", "queue.example.org", 5959),
        ("tcp://[::1]:0", "::1", 0),
        ("TCP://LocalHost:7", "localhost", 7),
        (DEFAULT_URL, "127.0.0.1", 5959),
    ],
)
def test_an_address_is_read(url: str, host: str, port: int) -> None:
    assert parse_address(url) == Address(host, port)


@pytest.mark.parametrize(
    ("url", "name"), [("valkey://host", "redis"), ("VALKEYS://host", "rediss"), ("rediss://host", "rediss")]
)
def test_a_store_is_known_by_its_other_names_as_well(url: str, name: str) -> None:
    assert scheme_of(url) == name


@pytest.mark.parametrize("address", [Address("::1", 5959), Address("10.0.0.5", 1), Address("localhost", 65535)])
def test_an_address_written_as_a_url_reads_back(address: Address) -> None:
    assert parse_address(address.url) == address


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("10.0.0.5:5959", "no scheme"),
        ("http://10.0.0.5:80", "not an address manyhands knows"),
        ("tcp://:5959", "names no host"),
        ("tcp://", "names no host"),
        ("tcp://host:99999", "cannot be read"),
        ("tcp://host:-1", "cannot be read"),
        ("tcp://host:abc", "cannot be read"),
        ("tcp://[::1", "cannot be read"),
        ("tcp://me:secret@host", "no user or key"),
        ("tcp://host:1/queue", "after the port"),
        ("tcp://host:1?x=2", "after the port"),
        ("sqlite:///jobs.db", "names a store"),
        ("", "no scheme"),
    ],
)
def test_a_bad_address_gets_a_sentence_with_what_to_write(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_address(url)
    assert "secret" not in str(caught.value)


def test_a_store_without_a_scheme_is_told_how_a_store_is_written() -> None:
    with pytest.raises(UsageError, match=r"'jobs\.db' has no scheme; write a store like sqlite:///jobs\.db"):
        mh.serve("tcp://127.0.0.1:0", store="jobs.db")


def test_an_address_that_is_not_text_gets_a_sentence() -> None:
    with pytest.raises(UsageError, match="not tuple"):
        scheme_of(("127.0.0.1", 5959))  # type: ignore[arg-type]


def test_what_comes_later_is_refused_and_nothing_weaker_is_done() -> None:
    with pytest.raises(UnsupportedFeature, match="not in this version"):
        parse_address("tls://host:5959")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_recognised(host: str) -> None:
    assert Address(host, 1).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "localhost.example.org", "127.0.0.1.example.org"])
def test_what_the_network_can_reach_is_not_loopback(host: str) -> None:
    assert not Address(host, 1).is_loopback
