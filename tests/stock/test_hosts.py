"""Which ends of standard-library consumers count as orderly; where it is not certain, the end counts as lost."""

from __future__ import annotations

from manyhands.managers.stock.hosts import CONTEST_S, RECENT_S, Hosts

HERE, THERE = "192.0.2.1", "192.0.2.2"
BOTH = {"task", "result"}


def made(hosts: Hosts, host: str, now: float, *queues: str) -> None:
    """A program there makes a proxy of each: create, incref, decref."""
    for queue in queues:
        hosts.created(host, queue, now)
        hosts.decreffed(host, queue, now + 0.001)


def let_go(hosts: Hosts, host: str, now: float, *queues: str) -> None:
    for queue in queues:
        hosts.decreffed(host, queue, now)


def test_an_end_right_after_the_proxies_were_let_go_is_orderly() -> None:
    hosts = Hosts()
    made(hosts, HERE, 0.0, "task", "result")
    let_go(hosts, HERE, 100.0, "result", "task")
    claim = hosts.ended(HERE, BOTH, 100.01)
    assert claim is not None
    assert not claim.is_contested


def test_the_end_of_a_killed_program_is_not() -> None:
    hosts = Hosts()
    made(hosts, HERE, 0.0, "task", "result")
    assert hosts.ended(HERE, BOTH, 0.1) is None


def test_the_decref_of_making_a_proxy_is_no_letting_go() -> None:
    hosts = Hosts()
    made(hosts, HERE, 0.0, "task")
    made(hosts, HERE, 99.99, "task")  # another program of that host begins while this one is killed
    assert hosts.ended(HERE, {"task"}, 100.0) is None


def test_a_program_killed_while_it_made_a_proxy_does_not_spoil_the_ends_of_others_for_ever() -> None:
    hosts = Hosts()
    hosts.created(HERE, "task", 0.0)
    let_go(hosts, HERE, 100.0, "task")
    assert hosts.ended(HERE, {"task"}, 100.01) is not None


def test_an_end_long_after_is_not_orderly() -> None:
    hosts = Hosts()
    let_go(hosts, HERE, 0.0, "task")
    assert hosts.ended(HERE, {"task"}, RECENT_S + 0.1) is None


def test_every_queue_that_was_used_must_have_been_let_go() -> None:
    hosts = Hosts()
    let_go(hosts, HERE, 0.0, "task")
    assert hosts.ended(HERE, BOTH, 0.01) is None


def test_one_that_was_let_go_earlier_counts_when_another_one_was_just_now() -> None:
    hosts = Hosts()
    let_go(hosts, HERE, 0.0, "result")
    let_go(hosts, HERE, 60.0, "task")
    assert hosts.ended(HERE, BOTH, 60.01) is not None


def test_another_hosts_letting_go_does_not_count() -> None:
    hosts = Hosts()
    let_go(hosts, THERE, 0.0, "task")
    assert hosts.ended(HERE, {"task"}, 0.01) is None


def test_one_letting_go_is_worth_one_end() -> None:
    hosts = Hosts()
    let_go(hosts, HERE, 0.0, "task")
    assert hosts.ended(HERE, {"task"}, 0.01) is not None
    assert hosts.ended(HERE, {"task"}, 0.02) is None


def test_of_two_that_end_at_once_when_one_let_go_neither_is_believed() -> None:
    hosts = Hosts()
    let_go(hosts, HERE, 0.0, "task", "result")
    killed = hosts.ended(HERE, {"task"}, 0.01)  # its end happens to be seen first
    assert killed is not None
    assert hosts.ended(HERE, BOTH, 0.02) is None
    let_go(hosts, HERE, 10.0, "task")
    first = hosts.ended(HERE, {"task"}, 10.01)
    assert hosts.ended(HERE, {"task"}, 10.02) is None
    assert first is not None
    assert first.is_contested


def test_two_that_both_let_go_are_both_believed() -> None:
    hosts = Hosts()
    let_go(hosts, HERE, 0.0, "task", "task")
    claims = [hosts.ended(HERE, {"task"}, 0.01), hosts.ended(HERE, {"task"}, 0.02)]
    assert [claim is not None and not claim.is_contested for claim in claims] == [True, True]


def test_an_end_after_the_time_for_it_contests_nothing() -> None:
    hosts = Hosts()
    let_go(hosts, HERE, 0.0, "task")
    claim = hosts.ended(HERE, {"task"}, 0.01)
    hosts.ended(HERE, {"task"}, 0.01 + CONTEST_S + 0.01)
    assert claim is not None
    assert not claim.is_contested


def test_a_connection_that_used_nothing_has_nothing_to_claim() -> None:
    hosts = Hosts()
    let_go(hosts, HERE, 0.0, "task")
    assert hosts.ended(HERE, set(), 0.01) is None
