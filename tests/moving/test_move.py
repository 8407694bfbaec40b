"""Moving queues between engines: nothing is lost, nothing is done twice, and what a message carries it keeps."""

from __future__ import annotations

import time

import msgspec
import pytest

import manyhands as mh
from manyhands.codec import Codec
from manyhands.errors import TaskMoved, UnknownId, UsageError
from manyhands.events import Bury, Count
from manyhands.model import Attempt, DeadLetter, Kind, Message, Options, QueueStats
from manyhands.moving import translating
from manyhands.testing.contract import Peer, message

from .conftest import KEYS, LIMITS, OTHER_KEYS, Stand

HOUR_S = 3600.0


def here(peer: Peer, queue: str = "q") -> list[Message]:
    return peer.peek(queue, 1_000_000)


def nothing_left(stats: QueueStats) -> bool:
    return not (stats.ready or stats.delayed or stats.leased or stats.dead or stats.unfinished)


@mh.task(queue="mail")
def send(to: str) -> str:
    return to


def test_what_waits_arrives_in_its_order_with_all_its_headers(stand: Stand) -> None:
    source, now = stand.at_source(), time.time()
    sent = [
        message(b"urgent", priority=9),
        *[message(b"plain %d" % n) for n in range(1200)],
        message(b"mine", id="mine", options=Options(dedupe=True), max_deliveries=1),
        message(b"expires", options=Options(expires_at=now + HOUR_S, keep_result_s=60.0)),
        message(b"task", kind=Kind.TASK, options=Options(keep_result_s=77.0)),
        message(b"slow", priority=-9),
        message(b"soon", due_at=now + HOUR_S),
        message(b"later", due_at=now + 2 * HOUR_S, priority=3),
    ]
    source.put("q", *sent)
    done = stand.move()
    assert (done.moved, done.left, done.dead, done.staying, done.overtaken, done.refused) == (len(sent), 0, 0, 0, 0, 0)
    assert nothing_left(source.size("q"))
    want = [msgspec.structs.replace(m, options=msgspec.structs.replace(m.options or Options(), dedupe=True)) for m in sent]
    assert here(stand.at_target()) == want
    assert stand.at_target().size("q").delayed == 2


def test_items_and_calls_of_all_queues_or_of_those_that_are_named(stand: Stand) -> None:
    source = stand.at_source()
    for name in ("a", "a()", "b", "b()", "c"):
        source.put(name, message(b"1", kind=Kind.TASK if name.endswith(")") else Kind.ITEM))
    assert stand.move("a", "b").moved == 4
    assert [q.name for q in stand.at_target().stats().queues] == ["a", "a()", "b", "b()"]
    done = stand.move()
    assert (done.moved, done.queues) == (1, 3)
    assert len(here(stand.at_target(), "c")) == 1


def test_dead_letters_arrive_with_their_history(stand: Stand) -> None:
    source = stand.at_source()
    letters = [
        DeadLetter("q", message(b"%d" % n), 1000.0 + n, "why", [Attempt(1, "w", 1.0, 2.0, "nack", "no disk")])
        for n in range(45)
    ]
    assert source.start(Bury(0, letters)).expect(Count).n == 45
    done = stand.move()
    assert (done.dead, done.left) == (45, 0)
    assert source.dead() == []
    assert sorted(stand.at_target().dead("q"), key=lambda letter: letter.died_at) == letters


def test_deliveries_that_are_used_up_stay_used_up(stand: Stand) -> None:
    source = stand.at_source()
    source.put_bodies("q", b"1", max_deliveries=3)
    source.nack(source.take("q"))
    stand.move()
    target = stand.at_target()
    for _ in range(2):
        assert target.nack(target.take("q"))
    assert len(target.dead("q")) == 1


def test_what_fails_and_is_tried_again_later_is_waited_for(stand: Stand) -> None:
    source = stand.at_source()
    source.put_bodies("q", b"1")
    source.nack(source.take("q"), delay_s=0.5)
    done = stand.move()
    assert (done.moved, done.left) == (1, 0)
    assert len(here(stand.at_target())) == 1


def test_what_a_worker_at_the_source_has_in_hand_is_waited_for(stand: Stand) -> None:
    source = stand.at_source()
    source.put_bodies("q", b"done", b"given back")
    done, given_back = source.lease("q", 2)
    running = stand.start()
    running.until(lambda seen: seen.working == 2)
    assert source.ack(done)
    assert source.nack(given_back)
    assert running.end().moved == 1
    assert [m.body for m in here(stand.at_target())] == [b"given back"]


def test_what_a_killed_move_had_put_already_is_not_there_twice(stand: Stand) -> None:
    source, target = stand.at_source(), stand.at_target()
    sent = [message(b"%d" % n) for n in range(20)]
    source.put("q", *sent)
    killed = stand.at_source()  # a move that dies between the target's answer and the source's
    translator = translating.Translator(KEYS, KEYS, "")
    put = [translator.message("q", delivery) for delivery in killed.lease("q", 10, begin_n=0)]
    target.put("q", *put)
    delivery = target.take("q")
    assert target.ack(delivery), "one of them is done by now"
    killed.cut()
    assert stand.move().moved == 20
    assert {m.id for m in here(target)} == {m.id for m in sent} - {delivery.message.id}
    assert len(here(target)) == 19


def test_a_move_that_is_stopped_in_the_middle_goes_on_where_it_was(stand: Stand) -> None:
    source = stand.at_source()
    sent = [message(b"%d" % n) for n in range(9000)]
    source.put("q", *sent)
    running = stand.start()
    running.until(lambda seen: seen.moved)
    first = running.stop()
    assert 0 < first.moved < 9000
    assert first.moved + len(here(source)) == 9000
    assert stand.move().moved == 9000 - first.moved
    assert [m.id for m in here(stand.at_target())] == [m.id for m in sent]


def test_messages_can_come_back_at_once(stand: Stand) -> None:
    source = stand.at_source()
    source.put("q", message(b"1", id="mine", options=Options(dedupe=True)), message(b"2"))
    for _ in range(2):
        assert stand.move().moved == 2
        assert stand.move(source=stand.target, target=stand.source).moved == 2
    assert [m.body for m in here(source)] == [b"1", b"2"]


def test_producers_and_workers_may_go_on_at_both_ends(stand: Stand) -> None:
    source, target, worker = stand.at_source(), stand.at_target(), stand.at_source()
    source.declare("q")
    running = stand.start(is_following=True)
    running.until(lambda seen: seen.is_idle and seen.queues == 1)
    done: list[bytes] = []
    for n in range(60):
        source.put_bodies("q", b"%d" % n, b"%d+" % n)
        for peer in (worker, target):
            for delivery in peer.lease("q", 1):
                assert peer.ack(delivery)
                done.append(delivery.message.body)
    n_worker = source.size("q").done_total
    running.until(lambda seen: seen.moved + n_worker == 120)
    progress = running.stop()
    done += [m.body for m in here(target)]
    assert sorted(done) == sorted([b"%d" % n for n in range(60)] + [b"%d+" % n for n in range(60)])
    assert (progress.overtaken, progress.left) == (0, 0)


def test_a_queue_that_appears_while_it_follows_is_moved_as_well(stand: Stand) -> None:
    running = stand.start(is_following=True)
    running.until(lambda seen: seen.is_idle)
    stand.at_source().put_bodies("new", b"1")
    running.until(lambda seen: seen.moved == 1)
    assert [m.body for m in here(stand.at_target(), "new")] == [b"1"]


def test_a_future_that_waits_at_the_source_hears_where_its_task_is(stand: Stand) -> None:
    client = stand.client(stand.source)
    future = client.submit(send, "ada")
    client.flush()
    assert stand.move("mail").moved == 1
    with pytest.raises(TaskMoved, match="redis://elsewhere") as caught:
        future.result(10)
    assert future.id in str(caught.value)
    (there,) = here(stand.at_target(), "mail()")
    assert there.id == future.id
    assert there.options is not None
    assert (there.options.reply_to, there.options.keep_result_s) == ("", 3600.0)
    with pytest.raises(TimeoutError):
        stand.client(stand.target).result(future.id, timeout=0)


def test_calls_whose_program_waits_stay_for_the_workers_there(stand: Stand) -> None:
    source, worker = stand.at_source(), stand.at_source()
    calls = [message(b"%d" % n, kind=Kind.CALL, options=Options(reply_to="stream")) for n in range(3)]
    pack = message(b"pack", kind=Kind.CALL, options=Options(reply_to="stream", calls=5))
    source.put("q()", *calls, pack, message(b"task", kind=Kind.TASK))
    running = stand.start(is_following=True)
    running.until(lambda seen: seen.moved == 1 and seen.staying == 4 and seen.is_idle)
    for _ in range(4):
        delivery = worker.take("q()")
        assert delivery.attempt == 1
        assert worker.ack(delivery, result=b"r")
    assert running.stop().moved == 1
    assert {ended.id for ended in source.ended("stream", 4)} == {m.id for m in (*calls, pack)}


def test_a_move_ends_although_calls_stay(stand: Stand) -> None:
    source = stand.at_source()
    source.put("q()", message(b"1", kind=Kind.CALL, options=Options(reply_to="stream")))
    done = stand.move()
    assert (done.moved, done.staying, done.left) == (0, 1, 0)
    assert source.take("q()").attempt == 1


def test_what_is_parked_at_the_source_is_moved(stand: Stand) -> None:
    source = stand.at_source()
    source.put("q()", message(b"1", kind=Kind.TASK))
    assert source.park(source.take("q()"), "task:app:send")
    assert stand.move().moved == 1
    assert nothing_left(source.size("q()"))
    assert stand.at_target().take("q()").message.body == b"1"


def test_where_the_keys_differ_everything_is_signed_anew(stand: Stand) -> None:
    items = ["small", b"bytes", b"x" * 70_000]
    stand.client(stand.source).queue("q").put_many(items)
    assert stand.move("q", target_keys=OTHER_KEYS).moved == 3
    assert stand.client(stand.target, OTHER_KEYS).queue("q").get_many(5) == items


def test_where_the_keys_differ_a_forged_message_is_not_signed(stand: Stand) -> None:
    source = stand.at_source()
    forged = Codec([(key.id, key.body) for key in OTHER_KEYS]).seal("q", "forged", 0, b"evil")
    source.put("q", Message("forged", b"evil", forged))
    stand.client(stand.source).queue("q").put("good")
    done = stand.move("q", target_keys=OTHER_KEYS)
    assert (done.moved, done.refused) == (1, 1)
    assert [letter.message.id for letter in source.dead()] == ["forged"]
    assert len(here(stand.at_target())) == 1


def test_a_message_too_large_for_the_target_stays_and_the_others_go(stand: Stand) -> None:
    source = stand.at_source()
    source.put("q", message(b"x" * 5000), message(b"small"))
    limits = msgspec.structs.replace(LIMITS, max_body_bytes=1000)
    stand.target.close()
    from manyhands.engines.memory import MemoryEngine

    stand.target = MemoryEngine(limits)
    done = stand.move()
    assert (done.moved, done.too_large, done.staying) == (1, 1, 0)
    assert [len(m.body) for m in here(source)] == [5000]


def test_a_bound_is_kept_at_the_target_and_waited_at(stand: Stand) -> None:
    source, target = stand.at_source(), stand.at_target()
    source.declare("q", 10)
    source.put_bodies("q", *[b"%d" % n for n in range(10)])
    target.declare("q", 3)
    running = stand.start()
    got = [target.take("q") for _ in range(10)]
    for delivery in got:
        assert target.ack(delivery)
    assert running.end().moved == 10
    assert [delivery.message.body for delivery in got] == [b"%d" % n for n in range(10)]
    stand.at_source().declare("bounded", 7)
    stand.move()
    assert target.size("bounded").maxsize == 7


def test_a_queue_that_was_shut_down_is_moved_too(stand: Stand) -> None:
    source = stand.at_source()
    source.put_bodies("q", b"1")
    source.shut_down("q")
    assert stand.move().moved == 1


def test_both_ends_the_same_is_refused(stand: Stand) -> None:
    stand.at_source().put_bodies("q", b"1")
    with pytest.raises(UsageError, match="same queues"):
        stand.move(target=stand.source)
    assert len(here(stand.at_source())) == 1


def test_a_queue_that_is_not_there_is_refused_and_named(stand: Stand) -> None:
    stand.at_source().put_bodies("mail", b"1")
    with pytest.raises(UnknownId, match=r"'mial'.*there are: mail"):
        stand.move("mial")


def test_what_the_target_refuses_stays_at_the_source(stand: Stand) -> None:
    source, target = stand.at_source(), stand.at_target()
    source.put_bodies("q", b"1", b"2")
    target.shut_down("q")
    with pytest.raises(UsageError, match=r"'q', which stay at the source: .*shut down"):
        stand.move()
    assert [m.body for m in here(source)] == [b"1", b"2"]
    assert source.take("q").attempt == 1


def test_the_programs_that_still_use_the_source_are_named(stand: Stand) -> None:
    someone = Peer(stand.source, name="a producer")
    someone.put_bodies("q", b"1")
    assert stand.move().users == ("a producer",)
