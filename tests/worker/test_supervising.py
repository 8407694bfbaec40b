"""What a worker's parent decides, told the time: no process is started here."""

from __future__ import annotations

from itertools import count

import pytest

from manyhands.events import Ping, Recall, Reclaim, ReportDead, Stop, Vouch
from manyhands.model import Begun, SettleKind, Settlement
from manyhands.worker.block import Glimpse, Held, Phase, Returned
from manyhands.worker.effects import Effect, Fence, Kill, Say, Send, Start, Tell, Watch, Weigh
from manyhands.worker.minding import LEAVE_S, LOOK_S, RECALL_LONGEST_S, SPLIT_AFTER_S, WATCH_S, WHOLE_AFTER_S, Death, Look
from manyhands.worker.settings import DRAIN, Exit
from manyhands.worker.supervising import KILLED_TOO_OFTEN, RESTART_CAP_S, STEADY_S, Supervisor

KILLED = Death(-9, "was killed by SIGKILL")
QUEUES = ["mail()", "other()"]


def idle() -> Look:
    return Look(Glimpse(Phase.WAITING, 0, 0, 0.0, 0.0, 1.0, 0))


def busy(begun: int, *held: Held, started: float = 0.0, deadline: float = 0.0) -> Look:
    return Look(Glimpse(Phase.RUNNING, begun, begun, started, deadline, 1.0, 0), held)


class Crew:
    """A supervisor with a clock and blocks that a test sets by hand."""

    def __init__(self, *, max_memory_bytes: int = 0) -> None:
        sessions = count(1)
        self.supervisor = Supervisor(
            QUEUES,
            new_session=lambda: f"s{next(sessions)}",
            unit=lambda: 0.5,
            max_memory_bytes=max_memory_bytes,
            grace_s=30.0,
        )
        self.looks: dict[int, Look] = {}
        self.verdict: Settlement | None = None

    def ready(self, n: int = 1, now: float = 0.0) -> list[int]:
        """Start n children; their numbers."""
        started = [effect.child for effect in self.supervisor.want(n, now) if isinstance(effect, Start)]
        for number in started:
            assert self.supervisor.is_ready(number, now) == []
            self.looks[number] = idle()
        return started

    def tick(self, now: float) -> list[Effect]:
        return self.supervisor.tick(now, self.looks.__getitem__, lambda _: self.verdict)

    def ends(self, number: int, death: Death = KILLED, now: float = 0.0) -> list[Effect]:
        return self.supervisor.has_ended(number, death, self.looks.get(number, Look()), now)


def requests(effects: list[Effect]) -> list[object]:
    return [effect.request for effect in effects if isinstance(effect, Send)]


def starts(effects: list[Effect]) -> int:
    return sum(isinstance(effect, Start) for effect in effects)


def report(effects: list[Effect]) -> ReportDead:
    (found,) = [request for request in requests(effects) if isinstance(request, ReportDead)]
    return found


# -- dying -------------------------------------------------------------------------------------------------------------


def test_a_child_that_dies_in_a_call_is_replaced_at_once_and_the_engine_is_told_which_call() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = busy(7, Held(40, 1, 0, 0), Held(41, 5, 10, 0))
    effects = crew.ends(child)
    told = report(effects)
    assert (told.session, told.token, told.part, told.is_idle) == ("s1", 41, 2, False)
    assert told.settlement is None
    assert "SIGKILL" in told.reason
    assert starts(effects) == 1


def test_of_short_calls_that_were_claimed_together_none_is_blamed() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = Look(Glimpse(Phase.RUNNING, 9, 7, 0.0, 0.0, 1.0, 0), [Held(41, 5, 10, 0)])
    told = report(crew.ends(child))
    assert (told.token, told.part, told.is_idle) == (41, -1, False)


def test_a_message_that_is_no_pack_has_no_part() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = busy(1, Held(40, 1, 0, 0))
    assert report(crew.ends(child)).part == -1


def test_a_child_that_dies_beside_any_call_charges_nobody() -> None:
    crew = Crew()
    (child,) = crew.ready()
    told = report(crew.ends(child))
    assert told.is_idle
    assert told.token == 0


def test_children_that_die_in_calls_are_replaced_without_end_and_without_a_pause() -> None:
    crew = Crew()
    (child,) = crew.ready()
    for now in range(100):
        crew.looks[child] = busy(1, Held(40, 1, 0, 0))
        (child,) = [effect.child for effect in crew.ends(child, now=now) if isinstance(effect, Start)]
        crew.supervisor.is_ready(child, now)


def test_children_that_die_beside_any_call_are_replaced_after_pauses_that_grow_to_a_bound() -> None:
    crew = Crew()
    (child,) = crew.ready()
    now, pauses = 0.0, []
    for _ in range(12):
        assert starts(crew.ends(child, now=now)) == 0
        due = crew.supervisor.due()
        assert due is not None
        pauses.append(due - now)
        now = due
        (start,) = [effect for effect in crew.tick(now) if isinstance(effect, Start)]
        child = start.child
        crew.supervisor.is_ready(child, now)
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.3
    assert 0.5 * RESTART_CAP_S <= pauses[-1] <= RESTART_CAP_S


def test_a_child_that_worked_for_long_before_it_died_is_no_sign_of_trouble() -> None:
    crew = Crew()
    for now in (0.0, 100.0, 200.0):
        crew.supervisor.want(1, now)
        crew.tick(now)
        (child,) = crew.supervisor.children
        crew.supervisor.is_ready(child, now)
        crew.looks[child] = idle()
        crew.ends(child, now=now + STEADY_S)
        due = crew.supervisor.due()
        assert due is not None
        assert due - (now + STEADY_S) < 0.3


def test_a_child_that_cannot_work_says_why_once_for_each_try_and_only_one_tries() -> None:
    crew = Crew()
    effects = crew.supervisor.want(4, 0.0)
    assert starts(effects) == 4
    death = Death(Exit.UNUSABLE, "ended with exit code 62", "The module 'nope' cannot be imported.", "tasks.py, line 3")
    said = [effect for number in range(1, 5) for effect in crew.ends(number, death) if isinstance(effect, Say)]
    assert all("The module 'nope' cannot be imported" in each.text for each in said)
    assert ["line 3" in each.text for each in said] == [True, False, False, False]
    assert crew.supervisor.failure == "The module 'nope' cannot be imported."
    assert not crew.supervisor.has_been_ready
    due = crew.supervisor.due()
    assert due is not None
    assert starts(crew.tick(due)) == 1
    crew.supervisor.is_ready(5, due)
    assert crew.supervisor.failure == ""
    assert len(crew.supervisor.children) == 4


def test_a_child_killed_while_it_starts_does_not_say_that_none_can_work_but_five_in_a_row_do() -> None:
    crew = Crew()
    crew.supervisor.want(1, 0.0)
    for n in range(1, KILLED_TOO_OFTEN + 1):
        assert crew.supervisor.failure == ""
        (child,) = crew.supervisor.children
        crew.ends(child)
        if n < KILLED_TOO_OFTEN:
            due = crew.supervisor.due()
            assert due is not None
            crew.tick(due)
    assert crew.supervisor.failure == "a child was killed by SIGKILL before it was ready"


def test_a_child_that_has_worked_and_dies_between_two_calls_is_replaced_at_once() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = Look(Glimpse(Phase.WAITING, 7, 7, 0.0, 0.0, 1.0, 7))
    effects = crew.ends(child)
    assert report(effects).is_idle
    assert starts(effects) == 1


def test_one_child_that_dies_beside_any_call_is_replaced_soon_while_others_work() -> None:
    crew = Crew()
    _, child = crew.ready(2)
    for now in range(20):
        crew.looks[child] = idle()
        crew.ends(child, now=now)
        due = crew.supervisor.due()
        assert due is not None
        assert due - now < 0.3
        (start,) = [effect for effect in crew.tick(due) if isinstance(effect, Start)]
        child = start.child
        crew.supervisor.is_ready(child, due)


def test_a_child_that_retires_is_replaced_at_once() -> None:
    crew = Crew()
    (child,) = crew.ready()
    assert starts(crew.ends(child, Death(Exit.RETIRED, "ended with exit code 61"))) == 1


# -- recalls -----------------------------------------------------------------------------------------------------------


def test_a_recall_of_a_child_that_holds_nothing_is_answered_at_once_with_nothing() -> None:
    crew = Crew()
    (child,) = crew.ready()
    effects = crew.supervisor.is_recalled(Recall("mail()", 1, "s1"), crew.looks.__getitem__, 5.0)
    assert requests(effects) == [Reclaim(1, "s1", "mail()", [])]
    assert child == 1


def test_whole_messages_go_back_when_the_running_call_has_lasted_a_moment() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = busy(1, Held(40, 1, 0, 0), Held(41, 2, 0, 0), Held(42, 3, 0, 1), started=9.0)
    effects = crew.supervisor.is_recalled(Recall("mail()", 1, "s1"), crew.looks.__getitem__, 9.0 + WHOLE_AFTER_S)
    assert effects == [Fence(child, 0)]
    returned = [Returned(41, 0, 0), Returned(42, 0, 1)]
    answers = requests(crew.supervisor.has_fenced(child, returned, crew.looks[child], 9.0))
    assert answers == [Reclaim(1, "s1", "mail()", [Begun(41, 0)]), Reclaim(2, "s1", "other()", [Begun(42, 0)])]


def test_a_pack_is_split_only_behind_a_call_that_has_run_for_50_ms() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = busy(3, Held(40, 1, 10, 0), started=9.0)
    assert crew.supervisor.is_recalled(Recall("mail()", 1, "s1"), crew.looks.__getitem__, 9.001) == []
    assert crew.supervisor.due() == pytest.approx(9.0 + SPLIT_AFTER_S)
    assert crew.tick(9.0 + SPLIT_AFTER_S) == [Fence(child, 0)]


def test_a_pack_of_short_calls_is_left_to_its_child_and_the_recall_is_answered_when_it_is_done() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = busy(3, Held(40, 1, 10, 0), started=9.0)
    crew.supervisor.is_recalled(Recall("mail()", 1, "s1"), crew.looks.__getitem__, 9.001)
    crew.looks[child] = busy(8, Held(40, 1, 10, 0), started=9.04)
    assert crew.tick(9.051) == []
    crew.looks[child] = idle()
    due = crew.supervisor.due()
    assert due is not None
    assert requests(crew.tick(due)) == [Reclaim(1, "s1", "mail()", [])]
    assert crew.supervisor.due() is None


def test_a_begun_pack_stays_whole_when_the_messages_behind_it_go_back() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = busy(3, Held(40, 1, 10, 0), Held(41, 11, 0, 0), started=9.0)
    effects = crew.supervisor.is_recalled(Recall("mail()", 1, "s1"), crew.looks.__getitem__, 9.0 + WHOLE_AFTER_S)
    assert effects == [Fence(child, keep=7)]


def test_a_recall_is_answered_in_the_end_whatever_the_child_does() -> None:
    crew = Crew()
    (child,) = crew.ready()
    now = 9.0
    crew.looks[child] = busy(1, Held(40, 1, 1000, 0), started=now)
    effects = crew.supervisor.is_recalled(Recall("mail()", 1, "s1"), crew.looks.__getitem__, now)
    for begun in range(2, 100):
        if effects:
            break
        now = crew.supervisor.due() or now
        crew.looks[child] = busy(begun, Held(40, 1, 1000, 0), started=now - 0.001)
        effects = crew.tick(now)
    assert effects == [Fence(child, 0)]
    assert now <= 9.0 + RECALL_LONGEST_S


# -- limits and cancellations ------------------------------------------------------------------------------------------


def test_a_call_past_its_limit_is_killed_and_reported_as_the_child_had_prepared() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.verdict = Settlement(40, SettleKind.ACK, result=b"timed out")
    crew.looks[child] = busy(1, Held(40, 1, 0, 0), started=9.0, deadline=9.5)
    assert crew.supervisor.has_limit(child, 9.0) == [Watch(child, True)]
    assert crew.tick(9.0) == []
    due = crew.supervisor.due()
    assert due is not None
    assert due <= 9.0 + LOOK_S
    assert crew.tick(9.49) == []
    assert crew.supervisor.due() == pytest.approx(9.5)
    assert crew.tick(9.5) == [Fence(child, 0)]
    assert crew.supervisor.has_fenced(child, [], crew.looks[child], 9.5) == [Kill(child)]
    told = report(crew.ends(child))
    assert told.token == 40
    assert told.settlement == crew.verdict
    assert "0.5 s" in told.reason


def test_a_call_that_ends_in_the_last_moment_is_not_killed_and_neither_is_the_next() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = busy(1, Held(40, 1, 0, 0), started=9.0, deadline=9.5)
    crew.supervisor.has_limit(child, 9.0)
    assert crew.tick(9.5) == [Fence(child, 0)]
    crew.looks[child] = busy(2, Held(41, 2, 0, 0), started=9.5, deadline=10.0)
    assert crew.supervisor.has_fenced(child, [], crew.looks[child], 9.5) == []
    told = report(crew.ends(child, now=9.6))
    assert told.token == 41
    assert told.settlement is None


def test_the_looking_stops_with_the_limits_and_not_before_one_more_look() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = busy(1, Held(40, 1, 0, 0), started=9.0, deadline=9.5)
    crew.supervisor.has_limit(child, 9.0)
    crew.tick(9.1)
    crew.looks[child] = idle()
    assert crew.tick(9.1 + WATCH_S) == [Watch(child, False)]
    crew.looks[child] = busy(2, Held(41, 2, 0, 0), started=10.1, deadline=10.11)
    due = crew.supervisor.due()
    assert due is not None
    assert crew.tick(due) == [Fence(child, 0)]


def test_nothing_is_looked_at_once_no_limit_is_pending() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.supervisor.has_limit(child, 9.0)
    now = 9.0
    while (due := crew.supervisor.due()) is not None:
        now = due
        crew.tick(now)
    assert now < 9.0 + 2 * WATCH_S


def test_a_cancelled_call_is_killed_only_while_it_runs() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = busy(3, Held(40, 1, 5, 0))
    assert crew.supervisor.is_stopped(Stop("s1", 40, 1), crew.looks.__getitem__) == [Fence(child, 0)]
    assert crew.supervisor.has_fenced(child, [Returned(40, 3, 0)], crew.looks[child], 1.0) == [
        Send(Reclaim(1, "s1", "mail()", [Begun(40, 3)]))
    ]
    assert crew.supervisor.is_stopped(Stop("s1", 40, 2), crew.looks.__getitem__) == [Fence(child, 0)]
    assert crew.supervisor.has_fenced(child, [], crew.looks[child], 1.0) == [Kill(child)]
    told = report(crew.ends(child))
    assert (told.token, told.part, told.settlement) == (40, 2, None)


def test_a_child_over_its_memory_is_killed_with_its_call_and_let_go_without_one() -> None:
    crew = Crew(max_memory_bytes=1000)
    working, resting = crew.ready(2)
    crew.looks[working] = busy(1, Held(40, 1, 0, 0))
    assert {effect.child for effect in crew.tick(1.0) if isinstance(effect, Weigh)} == {working, resting}
    effects = crew.supervisor.has_weighed(working, 1001, crew.looks[working], 1.0)
    assert Fence(working, 0) in effects
    assert crew.supervisor.has_fenced(working, [], crew.looks[working], 1.0) == [Kill(working)]
    assert "over the limit" in report(crew.ends(working)).reason
    effects = crew.supervisor.has_weighed(resting, 1001, crew.looks[resting], 1.0)
    assert Tell(resting, DRAIN) in effects
    assert starts(effects) == 1
    assert crew.supervisor.has_weighed(resting, 999, crew.looks[resting], 1.0) == []


# -- leaving -----------------------------------------------------------------------------------------------------------


def test_drained_children_finish_their_call_and_no_other_follows() -> None:
    crew = Crew()
    working, resting = crew.ready(2)
    crew.looks[working] = busy(1, Held(40, 1, 0, 0))
    effects = crew.supervisor.drain(5.0, 30.0)
    assert [effect.child for effect in effects if isinstance(effect, Tell)] == [working, resting]
    crew.supervisor.has_fenced(working, [], crew.looks[working], 5.0)
    for child in (resting, working):
        assert not crew.supervisor.is_over
        crew.looks[child] = idle()
        assert starts(crew.ends(child, Death(Exit.DRAINED, "ended with exit code 0"))) == 0
    assert crew.supervisor.is_over


def test_a_call_that_outlasts_the_grace_is_killed_and_charged() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = busy(1, Held(40, 1, 0, 0))
    crew.supervisor.drain(5.0, 30.0)
    crew.supervisor.has_fenced(child, [], crew.looks[child], 5.0)
    now = 5.0
    effects: list[Effect] = []
    while not effects:
        now = crew.supervisor.due() or now
        effects = crew.tick(now)
    assert effects == [Kill(child)]
    assert now == pytest.approx(35.0)
    told = report(crew.ends(child))
    assert (told.token, told.settlement) == (40, None)
    assert "stopped" in told.reason


def test_a_second_drain_shortens_the_grace() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.looks[child] = busy(1, Held(40, 1, 0, 0))
    crew.supervisor.drain(5.0, 30.0)
    crew.supervisor.has_fenced(child, [], crew.looks[child], 5.0)
    crew.supervisor.drain(6.0, 0.0)
    assert crew.tick(6.0) == [Kill(child)]


def test_a_child_that_has_nothing_to_run_and_does_not_leave_is_killed() -> None:
    crew = Crew()
    (child,) = crew.ready()
    crew.supervisor.drain(5.0, 30.0)
    assert crew.tick(5.0 + LEAVE_S) == [Kill(child)]


def test_a_child_that_still_starts_is_killed_by_a_drain() -> None:
    crew = Crew()
    crew.supervisor.want(1, 0.0)
    assert crew.supervisor.drain(1.0, 30.0) == [Kill(1)]
    assert requests(crew.ends(1)) == []
    assert crew.supervisor.is_over


def test_replacing_starts_as_many_as_are_let_go() -> None:
    crew = Crew()
    crew.ready(3)
    effects = crew.supervisor.replace(1.0)
    assert starts(effects) == 3
    assert sum(isinstance(effect, Tell) for effect in effects) == 3


# -- the heartbeat -----------------------------------------------------------------------------------------------------


def test_the_heartbeat_vouches_for_every_child() -> None:
    crew = Crew()
    crew.ready(2)
    assert crew.supervisor.due() is None
    crew.supervisor.has_attached(5.0, 10.0)
    sent = requests(crew.tick(10.0))
    assert sent == [Vouch(["s1", "s2"]), Ping(1)]
    assert crew.supervisor.due() == 15.0
