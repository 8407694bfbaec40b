"""One session across its connections: what is sent again, what is answered here, when it speaks and when it gives up."""

from __future__ import annotations

import random
from typing import Any

import pytest
from wire_talk import ATTACHED, KEY, NONCE, all_of, attach, connect, joined, new_client, new_server, pour

from manyhands.errors import PayloadTooLarge, ProtocolError, ServerUnavailable, SessionTaken
from manyhands.events import (
    Attach,
    Attached,
    Begin,
    Closing,
    Collect,
    Collected,
    Done,
    Failed,
    Goodbye,
    Granted,
    Join,
    Lease,
    Offer,
    Outcome,
    Ping,
    Pong,
    Put,
    Recall,
    Recalled,
    Report,
    Request,
    Result,
    Settle,
    Settled,
    Withdraw,
)
from manyhands.model import Delivery, Limits, Message, Settlement
from manyhands.wire import ClientWire, ServerWire
from manyhands.wire import client as client_module
from manyhands.wire.client import HANDSHAKE_S, TAKEN_AGAIN_S

FORGOT = Attached(ATTACHED.engine, ATTACHED.durability, ATTACHED.features, ATTACHED.limits, is_resumed=False)


def put(rid: int, body: bytes = b"x") -> Put:
    return Put(rid, "q", rid, 1, [Message(f"m{rid}", body)])


def settle(rid: int, *tokens: int) -> Settle:
    return Settle(rid, rid, 1, [Settlement(token) for token in tokens])


def delivery(token: int) -> Delivery:
    return Delivery(token, 1, Message(f"m{token}", b"x"))


def open_pair() -> tuple[ClientWire, ServerWire]:
    client, server = new_client(), new_server()
    attach(client, server)
    return client, server


def heard(client: ClientWire, server: ServerWire) -> list[Any]:
    return pour(server, all_of(client))


def answer(client: ClientWire, server: ServerWire, *replies: Any, now: float = 0.0) -> list[Any]:
    return pour(client, joined(server.encode(replies)), now)


def again(client: ClientWire, attached: Attached = ATTACHED) -> tuple[Attach, list[Any], list[Any]]:
    """Lose the connection and come back: the Attach, what the sink got from the answer, what was sent behind it."""
    client.connection_lost(1.0)
    server = new_server()
    (hello,) = connect(client, server, 2.0)
    replies = answer(client, server, attached, now=2.0)
    return hello, replies, heard(client, server)


# -- requests and replies -----------------------------------------------------------------------------------------------


def test_requests_arrive_in_order_and_replies_end_their_wait() -> None:
    client, server = open_pair()
    requests: list[Request] = [put(1), Lease(2, "q"), Begin("q", [9]), put(3)]
    client.send(requests)
    assert heard(client, server) == requests
    assert client.unanswered == 3
    assert answer(client, server, Done(3), Done(1)) == [Done(3), Done(1)]
    assert client.unanswered == 1


def test_what_is_sent_before_the_connection_is_there_waits_for_it() -> None:
    client, server = new_client(), new_server()
    client.send([put(1)])
    assert client.data_to_send() == []
    attach(client, server)
    assert heard(client, server) == [put(1)]


def test_unasked_events_reach_the_sink() -> None:
    client, server = open_pair()
    assert answer(client, server, Recall("q", 1), Closing("over")) == [Recall("q", 1), Closing("over")]


def test_a_body_over_the_servers_limit_is_refused_before_anything_is_queued() -> None:
    client, server = new_client(), new_server()
    small = Attached("memory", ATTACHED.durability, ATTACHED.features, Limits(max_body_bytes=100_000))
    attach(client, server, small)
    with pytest.raises(PayloadTooLarge, match="200000 bytes is over the limit of 100000"):
        client.send([put(1), put(2, bytes(200_000))])
    assert client.unanswered == 0
    assert client.data_to_send() == []


def test_a_request_that_cannot_be_encoded_is_answered_and_holds_nobody_up() -> None:
    client, server = open_pair()
    client.send([put(1), Lease(2, "\ud800"), put(3)])
    assert heard(client, server) == [put(1), put(3)]
    (failed,) = client.send([])
    assert isinstance(failed, Failed)
    assert (failed.rid, failed.code) == (2, "usage")
    client.send([Lease(4, "q", max_n=2**70)])
    assert client.data_to_send() == []
    assert [reply.rid for reply in answer(client, server, Done(1))] == [1, 4]
    assert client.unanswered == 1


def test_a_reply_that_cannot_be_encoded_becomes_a_failure() -> None:
    client, server = open_pair()
    client.send([put(1), put(2)])
    got = answer(client, server, Done(1), Failed(2, "usage", "no", {"what": object()}))
    assert got[0] == Done(1)
    assert (got[1].rid, got[1].code) == (2, "error")


# -- coming back --------------------------------------------------------------------------------------------------------


def test_what_was_not_answered_is_sent_again_in_order_of_rid() -> None:
    client, server = open_pair()
    client.send([put(2), put(1)])
    client.send([Lease(4, "q"), put(3)])
    heard(client, server)
    answer(client, server, Done(3))
    client.send([put(5)])  # never left
    hello, replies, sent = again(client)
    assert hello.held == []
    assert replies == []
    assert sent == [put(1), put(2), Lease(4, "q"), put(5)]


def test_a_half_written_connection_sends_everything_again() -> None:
    client, _ = open_pair()
    client.send([put(1, bytes(3_000_000)), put(2)])
    assert client.data_to_send()  # a part of it left
    client.connection_lost(1.0)
    assert client.data_to_send() == []
    _, _, sent = again(client)
    assert [event for event in sent if not isinstance(event, Ping)] == [put(1, bytes(3_000_000)), put(2)]


def test_held_tokens_are_named_at_coming_back() -> None:
    client, server = open_pair()
    client.send([Lease(1, "q", 5)])
    heard(client, server)
    answer(client, server, Granted(1, [delivery(n) for n in (10, 11, 12, 13)]))
    client.send([settle(2, 10), settle(3, 11), Recalled("q", [12])])
    heard(client, server)
    answer(client, server, Settled(2))
    hello, _, sent = again(client)
    assert hello.held == [11, 13]  # 10 is settled, 12 given back, 11 not answered yet
    assert sent == [settle(3, 11)]


def test_leases_that_are_gone_are_no_longer_held_but_a_settle_that_may_have_been_applied_is_sent_again() -> None:
    client, server = open_pair()
    client.send([Lease(1, "q", 3)])
    heard(client, server)
    answer(client, server, Granted(1, [delivery(10), delivery(11), delivery(12)]))
    client.send([settle(2, 11)])
    heard(client, server)
    gone = Attached("memory", ATTACHED.durability, ATTACHED.features, ATTACHED.limits, is_resumed=True, lost=[11, 12])
    _, replies, sent = again(client, gone)
    assert replies == []
    assert client.attached == gone
    assert sent == [settle(2, 11)]
    hello, replies, _ = again(client)
    assert hello.held == [10, 11]
    assert replies == []


def test_a_forgotten_session_settles_nothing_and_puts_anew() -> None:
    client, server = open_pair()
    client.send([Lease(1, "q", 2)])
    heard(client, server)
    answer(client, server, Granted(1, [delivery(10), delivery(11)]))
    client.send([put(2), settle(3, 10), put(4)])
    heard(client, server)
    _, replies, sent = again(client, FORGOT)
    assert replies == [Settled(3, [10])]
    assert sent == [put(2), put(4)]
    hello, _, _ = again(client)
    assert hello.held == []


def test_a_put_under_a_lease_of_a_forgotten_session_ends_with_the_lease() -> None:
    client, server = open_pair()
    client.send([Lease(1, "q", 2)])
    heard(client, server)
    answer(client, server, Granted(1, [delivery(10)]))
    under = Put(-2, "results", 1, 1, [Message("m2", b"x")], causes=(10,))
    client.send([under, settle(-3, 10), put(4)])
    heard(client, server)
    _, replies, sent = again(client, FORGOT)
    assert replies == [Done(-2), Settled(-3, [10])]
    assert sent == [put(4)]
    _, replies, sent = again(client)  # known again, it may come to be asked a second time
    assert replies == []
    assert sent == [put(4)]


def test_what_has_no_reply_is_sent_once_and_kept_only_until_it_was_written() -> None:
    client, server = open_pair()
    client.send([Lease(1, "q"), Begin("q", [10])])
    heard(client, server)
    client.send([Withdraw(7), Begin("q", [11]), Goodbye()])
    _, _, sent = again(client)
    assert sent == [Begin("q", [11]), Lease(1, "q"), Withdraw(7), Goodbye()]


def test_who_collects_asks_again_for_what_it_has_not_acknowledged() -> None:
    client, server = open_pair()
    client.send([Collect(1, "stream", 7)])
    heard(client, server)
    client.connection_lost(1.0)
    _, replies, sent = again(client)
    assert (replies, sent) == ([], [Collect(1, "stream", 7)])
    client.connection_lost(3.0)
    assert client.send([Withdraw(1)]) == [Collected(1, 7, [])]


def test_a_report_is_sent_again_and_fails_where_its_lease_was_forgotten() -> None:
    client, server = open_pair()
    report = Report(2, 1, 1, 10, 3, b"r")
    client.send([report])
    heard(client, server)
    assert again(client)[2] == [report]
    _, replies, sent = again(client, FORGOT)
    assert [(reply.rid, reply.code) for reply in replies] == [(2, "lease_lost")]
    assert sent == []


def test_the_newest_offer_is_made_again_after_each_reconnect() -> None:
    client, server = open_pair()
    client.send([Offer(["old"]), Offer(["task:mail.send"]), Lease(1, "q")])
    heard(client, server)
    for attached in (ATTACHED, FORGOT):
        assert again(client, attached)[2] == [Lease(1, "q"), Offer(["task:mail.send"])]
    client.connection_lost(3.0)
    client.send([Offer(["task:newer"])])
    assert again(client)[2] == [Lease(1, "q"), Offer(["task:newer"])]


def test_a_child_names_its_parent_each_time() -> None:
    client = ClientWire(keyring=KEY, session="s" * 24, parent="p" * 24)
    (hello,) = connect(client, new_server())
    answered = again(client)[0]
    assert (hello.parent, answered.parent) == ("p" * 24, "p" * 24)


def test_a_first_attach_whose_answer_was_lost_is_a_first_attach_again() -> None:
    client, server = new_client(), new_server()
    connect(client, server)
    client.connection_lost(1.0)
    (hello,) = connect(client, new_server())
    assert hello.held is None


def test_a_session_taken_over_from_before_names_what_it_holds() -> None:
    client = ClientWire(keyring=KEY, session="s" * 24, held=[5, 6])
    server = new_server()
    (hello,) = connect(client, server)
    assert hello.held == [5, 6]
    assert answer(client, server, FORGOT) == []
    again_hello, _, _ = again(client)
    assert again_hello.held == []


def test_a_get_may_give_up_while_no_server_is_there() -> None:
    client, server = open_pair()
    client.send([Lease(1, "q"), Result(2, "id"), Join(3, "q"), put(4)])
    heard(client, server)
    client.connection_lost(1.0)
    assert client.send([Withdraw(1), Withdraw(2), Withdraw(3), Withdraw(4)]) == [Granted(1, []), Outcome(2, "id")]
    assert client.unanswered == 2


def test_a_get_that_had_given_up_before_the_connection_broke_is_not_asked_again() -> None:
    client, server = open_pair()
    client.send([Lease(1, "q"), Lease(2, "q"), Result(3, "id"), Put(4, "q", 1, 1, [])])
    client.send([Withdraw(1), Withdraw(3), Withdraw(4)])
    heard(client, server)
    _, replies, sent = again(client)
    assert sorted(replies, key=lambda reply: reply.rid) == [Granted(1, []), Outcome(3, "id")]
    assert sent == [Lease(2, "q"), Put(4, "q", 1, 1, [])], "whether a put was applied only the engine knows"
    assert again(client)[1] == []


def test_no_bytes_of_an_old_connection_reach_a_new_one() -> None:
    client, server = open_pair()
    pour(client, joined(server.encode([Done(1)]))[:-1], 0.0)
    client.connection_lost(1.0)
    fresh = new_server()
    attach(client, fresh)
    assert answer(client, fresh, Done(2)) == [Done(2)]


def test_tries_come_quickly_at_first_and_seldom_later() -> None:
    client = new_client()
    waits = []
    for n in range(12):
        client.connection_lost(float(n))
        waits.append(client.next_attempt_at(float(n), 0.999) - n)
    assert waits[0] < 0.06
    assert waits == sorted(waits)
    assert 4.9 < waits[-1] <= 5.0
    attach(client, new_server())
    client.connection_lost(100.0)
    assert client.next_attempt_at(100.0, 0.999) < 100.06
    assert client.next_attempt_at(200.0, 0.999) == 200.0  # it was due long ago


@pytest.mark.parametrize("seed", range(30))
def test_every_request_is_answered_once_however_often_the_connection_breaks(seed: int) -> None:
    """Whatever the network cuts: each request reaches the engine at least once and its sink exactly once."""
    chance = random.Random(seed)
    client = new_client()
    server: ServerWire | None = None
    got: list[int] = []
    rid = 0
    for step in range(300):
        if server is None:
            server = new_server()
            attach(client, server, now=float(step))
        if rid < 100:
            rid += 1
            client.send([put(rid, bytes(chance.choice((10, 70_000, 2_000_000)) if rid % 9 == 0 else 10))])
        stream = joined(client.data_to_send())
        cut = chance.random() < 0.3
        events = pour(server, stream[: chance.randrange(len(stream) + 1)] if cut else stream)
        back = joined(server.encode([Done(event.rid) for event in events if isinstance(event, Put)]))
        lost = chance.random() < 0.2
        replies = pour(client, back[: chance.randrange(len(back) + 1)] if lost else back, float(step))
        got += [reply.rid for reply in replies]
        if cut or lost:
            client.connection_lost(float(step))
            server = None
    assert sorted(got) == list(range(1, 101))
    assert client.unanswered == 0


# -- time ---------------------------------------------------------------------------------------------------------------


def test_a_quiet_session_sends_a_heartbeat_that_the_sink_never_sees() -> None:
    client, server = open_pair()
    assert client.next_due() == 5.0
    client.tick(4.9)
    assert client.data_to_send() == []
    client.tick(5.0)
    client.tick(10.0)
    (ping,) = heard(client, server)
    assert isinstance(ping, Ping)
    assert answer(client, server, Pong(ping.rid), now=10.1) == []
    assert client.unanswered == 0


def test_a_busy_session_sends_no_heartbeat() -> None:
    client, server = open_pair()
    for second in range(1, 20):
        client.send([put(second)])
        events = heard(client, server)
        assert events == [put(second)]
        answer(client, server, Done(second), now=float(second))
        client.tick(float(second))


def test_a_heartbeat_passes_between_the_chunks_of_a_large_body() -> None:
    client, server = open_pair()
    client.send([put(1, bytes(20_000_000))])
    sent = joined(client.data_to_send())
    assert len(sent) < 2_000_000
    client.tick(5.0)
    client.tick(10.0)
    events = pour(server, sent + joined(client.data_to_send()))
    assert any(isinstance(event, Ping) and event.rid for event in events)
    assert not any(isinstance(event, Put) for event in events)
    assert heard(client, server)[-1] == put(1, bytes(20_000_000))


def test_a_heartbeat_never_cuts_a_frame_in_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SEND_BYTES", 1)
    client, server = open_pair()
    client.send([put(1, bytes(3_000_000))])
    pings, events = 0, []
    for now in range(10, 800, 20):
        client.tick(float(now))
        answer(client, server, Recall("q", 1), now=now + 10.0)  # so that the server does not count as silent
        client.tick(now + 10.0)
        came = pour(server, joined(client.data_to_send()))
        pings += sum(isinstance(event, Ping) and event.rid > 0 for event in came)
        events += came
    assert pings > 3
    assert put(1, bytes(3_000_000)) in events


def test_every_part_of_a_large_body_is_a_sign_of_life_at_the_server() -> None:
    client, server = open_pair()
    client.send([put(1, bytes(2_000_000))])
    assert pour(server, joined(client.data_to_send())[:300_000])[0] == Ping(0)


def test_a_server_that_fell_silent_counts_as_lost() -> None:
    client, _ = open_pair()
    for now in (5.0, 10.0, 15.0):
        client.tick(now)
        client.data_to_send()
    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:5959 for 20 s"):
        client.tick(20.0)


def test_a_long_upload_does_not_make_the_server_count_as_silent() -> None:
    client, _ = open_pair()
    client.send([put(1, bytes(30_000_000))])
    for now in range(5, 100, 5):
        assert client.data_to_send()
        client.tick(float(now))


def test_something_that_never_greets_is_given_up() -> None:
    client = new_client()
    client.connection_made(100.0, NONCE)
    assert client.next_due() == 100.0 + HANDSHAKE_S
    client.tick(100.0 + HANDSHAKE_S - 0.1)
    with pytest.raises(ProtocolError, match="did not answer as a manyhands server"):
        client.tick(100.0 + HANDSHAKE_S)


def test_without_a_connection_nothing_is_due() -> None:
    client = new_client()
    assert client.next_due() is None
    client.tick(1000.0)


# -- two that use one session --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after_s", "is_over"), [(0.0, True), (TAKEN_AGAIN_S - 5, True), (TAKEN_AGAIN_S, False)])
def test_a_session_that_is_taken_twice_in_a_minute_is_somebody_elses(after_s: float, is_over: bool) -> None:
    taken = Failed(0, SessionTaken.code, "It attached elsewhere.")
    client, server = open_pair()
    with pytest.raises(ServerUnavailable) as first:
        answer(client, server, taken, now=1.0)
    assert not isinstance(first.value, SessionTaken)  # a connection of its own may have arrived late
    client.connection_lost(1.0)
    server = new_server()
    connect(client, server, 1.0)
    answer(client, server, ATTACHED, now=1.0)
    with pytest.raises(ServerUnavailable) as second:
        answer(client, server, taken, now=1.0 + after_s)
    assert isinstance(second.value, SessionTaken) is is_over
