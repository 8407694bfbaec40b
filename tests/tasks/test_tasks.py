"""A task from its decorator's options to the message, the worker's call and the outcome. All pure, all by hand."""

from __future__ import annotations

import pickle
import queue
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from manyhands import tasks
from manyhands.codec import PLAIN, Codec
from manyhands.errors import (
    GiveUp,
    LeaseLost,
    PayloadNotEncodable,
    PayloadTooLarge,
    RemoteTraceback,
    TaskCancelled,
    TaskFailed,
    TaskTimedOut,
    TryAgain,
    UndecodableBody,
    UnknownTask,
    UsageError,
    WrongArguments,
)
from manyhands.model import Kind, Message, SettleKind
from manyhands.tasks import REGISTRY, Current, Registry, Task, TaskCall, TaskOptions, current, running
from manyhands.tasks.options import checked
from manyhands.tasks.task import changed

CODEC = Codec([(b"kkkk", b"s" * 32)])
NOW = 1_800_000_000.0


@dataclass
class Order:
    number: int
    when: datetime


def ship(order: Order, *, copies: int = 1) -> Order:
    """Ship it."""
    return order


SHIP = Task(ship, TaskOptions(queue="orders"))


def made(task: Task[..., Any], *args: Any, **kwargs: Any) -> Message:
    return task.make_message(CODEC, "id-1", args, kwargs, now=NOW)


def opened(task: Task[..., Any], message: Message) -> TaskCall:
    registry = Registry()
    registry.add(task)
    return tasks.open_body(message.body, registry)


# -- messages ------------------------------------------------------------------------------------------------------


def test_a_call_arrives_with_what_was_given() -> None:
    order = Order(7, datetime(2026, 1, 2, tzinfo=UTC))
    message = made(SHIP, order, copies=2)
    assert CODEC.verify("orders()", "id-1", message.seal, message.body, Kind.TASK) == PLAIN
    call = opened(SHIP, message)
    assert (call.task, call.args, call.kwargs) == (SHIP, [order], {"copies": 2})
    assert call.body.submitted_at == NOW


def test_options_reach_the_message_and_its_body() -> None:
    task = SHIP.options(
        priority=3, max_attempts=5, timeout_s=9, backoff_s=2, delay_s=60, expires_s=100, keep_result_s=7, tags=["a", "b"]
    )
    message = task.make_message(CODEC, "x", (Order(1, datetime(2026, 1, 1)),), {}, now=NOW, reply_to="stream")
    assert (message.kind, message.priority, message.due_at, message.max_deliveries) == (Kind.TASK, 3, NOW + 60, 7)
    assert message.options is not None
    assert (message.options.expires_at, message.options.keep_result_s) == (NOW + 100, 7)
    assert (message.options.reply_to, message.options.dedupe) == ("stream", False)
    body = opened(task, message).body
    assert (body.timeout_s, body.max_attempts, body.backoff_s, body.tags) == (9, 5, 2, ["a", "b"])


def test_a_task_whose_result_nobody_wants_does_not_end_with_its_submitter() -> None:
    message = made(SHIP.options(keep_result_s=0), Order(1, datetime(2026, 1, 1)))
    assert message.options is not None
    assert message.options.keep_result_s > 0, "the engine drops what keeps no result when its stream's session is gone"


@pytest.mark.parametrize(
    ("eta", "due_at"),
    [
        (NOW + 5, NOW + 5),
        (datetime.fromtimestamp(NOW + 5, UTC), NOW + 5),
        (datetime.fromtimestamp(NOW + 5), NOW + 5),  # a naive one is local time
        (NOW - 5, 0.0),
    ],
)
def test_an_eta_is_a_moment(eta: Any, due_at: float) -> None:
    assert SHIP.options(eta=eta).settings.due_at(NOW) == due_at


def test_options_for_one_call_leave_the_task_as_it_is() -> None:
    other = SHIP.options(queue="slow", delay_s=5)
    assert (other.calls_queue, SHIP.calls_queue) == ("slow()", "orders()")
    assert other.name == SHIP.name
    assert other.options(eta=NOW).settings.delay_s == 0
    assert other.options(eta=NOW).options(delay_s=1).settings.eta is None


def test_a_dedupe_key_makes_the_id() -> None:
    def order_1(number: int) -> None:
        pass

    task = Task(order_1, TaskOptions(dedupe_key=lambda number: f"order {number}"), "m:order")
    first, again, other = made(task, 1), made(task, 1), made(task, 2)
    assert first.id == again.id != other.id
    assert first.id != made(Task(order_1, TaskOptions(dedupe_key="order 1"), "m:other"), 1).id
    assert first.id == made(task.options(dedupe_key="order 1"), 2).id
    assert first.options is not None
    assert first.options.dedupe
    shared = task.make_message(CODEC, "x", (1,), {}, now=NOW, reply_to="stream")
    assert shared.options is not None
    assert shared.options.reply_to == "", "it may be another submitter's stream that would hear of it"
    with pytest.raises(UsageError, match="dedupe_key"):
        made(task.options(dedupe_key=lambda number: ""), 1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"queue": ""}, "queue"),
        ({"queue": "mail()"}, "queue"),
        ({"priority": 10}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 4, "max_deliveries": 3}, "max_deliveries"),
        ({"backoff_s": -1}, "backoff_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"delay_s": float("inf")}, "delay_s"),
        ({"timeout_s": "3"}, "timeout_s"),
        ({"delay_s": 5, "expires_s": 5}, "never run"),
        ({"retry_on": ("OSError",)}, "retry_on"),
        ({"eta": "tomorrow"}, "eta"),
        ({"eta": 5.0, "delay_s": 5.0}, "eta"),
        ({"dedupe_key": 5}, "dedupe_key"),
        ({"tags": "mail"}, "tags"),
        ({"retries": 5}, "no option 'retries'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        checked(changed(TaskOptions(), wrong))


def test_a_task_of_the_main_program_is_refused_with_the_remedy() -> None:
    def job() -> None:
        pass

    job.__module__ = "__main__"
    with pytest.raises(UsageError, match=r'main program.*name="app:.*--import app'):
        made(Task(job, TaskOptions()))
    assert made(Task(job, TaskOptions(), "app:job")).body


def test_a_call_over_the_limit_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        SHIP.make_message(CODEC, "x", (Order(1, datetime(2026, 1, 1)),), {}, now=NOW, limit_bytes=10)


def test_calling_a_task_runs_it_here() -> None:
    order = Order(1, datetime(2026, 1, 1))
    assert SHIP(order) is order
    assert (SHIP.__name__, SHIP.__doc__) == ("ship", "Ship it.")  # type: ignore[attr-defined]


# -- the registry --------------------------------------------------------------------------------------------------


def test_an_unknown_task_says_what_a_worker_must_offer() -> None:
    with pytest.raises(UnknownTask, match=f"Task '{SHIP.name}'.*--import") as caught:
        tasks.open_body(made(SHIP, Order(1, datetime(2026, 1, 1))).body, Registry())
    assert caught.value.need == f"task:{SHIP.name}"
    registry = Registry()
    registry.add(SHIP)
    assert registry.needs() == [caught.value.need]


def test_two_functions_cannot_share_a_name_but_a_reloaded_one_replaces_itself() -> None:
    registry = Registry()
    registry.add(SHIP)
    again = Task(ship, TaskOptions())
    registry.add(again)
    assert registry.get(SHIP.name) is again

    def other() -> None:
        pass

    with pytest.raises(UsageError, match="Two tasks"):
        registry.add(Task(other, TaskOptions(), SHIP.name))


def test_a_module_is_imported_for_a_task_only_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazily_found.py").write_text(
        "from manyhands.tasks import REGISTRY, Task, TaskOptions\ndef job(): pass\nREGISTRY.add(Task(job, TaskOptions()))\n"
    )
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownTask, match="not among the registered"):
        REGISTRY.find("lazily_found:job")
    assert REGISTRY.find("lazily_found:job", may_import=True).name == "lazily_found:job"
    with pytest.raises(UnknownTask, match="defines no such task"):
        REGISTRY.find("lazily_found:other", may_import=True)
    with pytest.raises(UnknownTask, match="ZeroDivisionError"):
        REGISTRY.find("broken_module:job", may_import=True)
    del sys.modules["lazily_found"]


def test_a_task_is_pickled_like_a_function() -> None:
    assert pickle.loads(pickle.dumps(ship_as_task)) is ship_as_task


ship_as_task = Task(ship, TaskOptions())
ship_as_task.__qualname__ = "ship_as_task"


def test_garbage_is_no_body() -> None:
    for body in (b"", b"\x93", b"\x91\x05", b"\x00" * 9):
        with pytest.raises(UndecodableBody, match="says that it is a task"):
            tasks.read_body(body)


# -- what becomes of an attempt ------------------------------------------------------------------------------------


def attempt(error: BaseException, n: int = 1, unit: float = 0.5, **options: Any) -> tuple[int, float]:
    options = {"max_attempts": 3, "backoff_s": 8.0, "backoff_cap_s": 10.0, **options}
    task = SHIP.options(**options)
    call = opened(task, made(task, Order(1, datetime(2026, 1, 1))))
    verdict = tasks.after(error, n, call.task, call.body, unit)
    return verdict.kind, verdict.delay_s


def test_what_is_to_be_retried_waits_exponentially_and_at_most_the_cap() -> None:
    assert attempt(OSError(), 1) == (SettleKind.NACK, 4.0)
    assert attempt(OSError(), 2) == (SettleKind.NACK, 5.0)
    assert attempt(OSError(), 1, unit=0.0) == (SettleKind.NACK, 0.0)


def test_the_last_attempt_ends_it() -> None:
    for error in (OSError(), TryAgain(delay_s=1), TaskTimedOut("late")):
        assert attempt(error, 2)[0] == SettleKind.NACK
        assert attempt(error, 3)[0] == SettleKind.REJECT


def test_only_what_retry_on_names_is_tried_again() -> None:
    assert attempt(ValueError(), retry_on=OSError)[0] == SettleKind.REJECT
    assert attempt(ConnectionError(), retry_on=OSError)[0] == SettleKind.NACK
    assert attempt(TaskTimedOut("late"), retry_on=OSError)[0] == SettleKind.NACK
    assert attempt(TaskTimedOut("late"), retry_on=ValueError)[0] == SettleKind.REJECT
    assert attempt(SystemExit(1))[0] == SettleKind.REJECT


def test_give_up_ends_it_whatever_is_left_and_so_does_a_value_that_cannot_be_sent() -> None:
    assert attempt(GiveUp("no such address"))[0] == SettleKind.REJECT
    assert attempt(PayloadNotEncodable("a Registry"))[0] == SettleKind.REJECT


def test_try_again_waits_as_it_says() -> None:
    assert attempt(TryAgain(delay_s=77)) == (SettleKind.NACK, 77)
    assert attempt(TryAgain(delay_s=0), retry_on=()) == (SettleKind.NACK, 0)
    assert attempt(TryAgain("busy"), retry_on=()) == (SettleKind.NACK, 4.0)
    assert attempt(TryAgain(delay_s=float("nan"))) == (SettleKind.NACK, 4.0)


def test_a_cancelled_task_is_no_dead_letter() -> None:
    assert attempt(TaskCancelled("cancelled"))[0] == SettleKind.ACK


def test_the_reason_names_the_error_even_if_its_text_cannot_be_made() -> None:
    class Nameless(Exception):
        def __str__(self) -> str:
            raise ValueError

    call = opened(SHIP, made(SHIP, Order(1, datetime(2026, 1, 1))))
    assert tasks.after(KeyError("x"), 1, call.task, call.body, 0).reason == "KeyError: 'x'"
    assert tasks.after(GiveUp(), 1, call.task, call.body, 0).reason == "GiveUp"
    assert "Nameless" in tasks.after(Nameless(), 1, call.task, call.body, 0).reason


# -- outcomes ------------------------------------------------------------------------------------------------------


def test_a_value_is_rebuilt_by_the_return_hint() -> None:
    order = Order(1, datetime(2026, 1, 1))
    body = tasks.pack_value(SHIP, order, 0.25)
    assert tasks.read_outcome(body, SHIP) == (order, None, 0.25)
    assert tasks.read_outcome(body)[0] == {"number": 1, "when": "2026-01-01T00:00:00"}


@pytest.mark.parametrize(
    "value", [None, (1, {2}), "text", {"a": timedelta(1)}, {"number": 1, "when": "2026-01-01T00:00:00"}]
)
def test_a_value_that_is_not_what_the_hint_says_arrives_as_it_is(value: Any) -> None:
    assert tasks.read_outcome(tasks.pack_value(SHIP, value, 0), SHIP)[0] == value


def test_a_value_that_is_no_plain_data_names_its_type() -> None:
    for task in (SHIP, Task(lambda: None, TaskOptions(), "m:f")):
        with pytest.raises(PayloadNotEncodable, match=rf"Task {task.name} returned an object of type .*Registry"):
            tasks.pack_value(task, Registry(), 0)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        found = tasks.read_outcome(tasks.pack_error(caught, 0.0))[1]
    assert found is not None
    return found


def test_an_error_arrives_as_what_it_was_with_its_traceback_as_cause() -> None:
    found = raised(FileNotFoundError(2, "No such file", "/x"))
    assert isinstance(found, FileNotFoundError)
    assert (found.errno, found.filename) == (2, "/x")
    assert isinstance(found.__cause__, RemoteTraceback)
    assert "in raised" in str(found.__cause__)


def test_errors_of_ours_keep_their_facts() -> None:
    lost = raised(LeaseLost("gone", id="m1"))
    assert isinstance(lost, LeaseLost)
    assert lost.id == "m1"
    again = raised(TryAgain("busy", delay_s=5))
    assert isinstance(again, TryAgain)
    assert again.delay_s == 5
    assert isinstance(raised(TaskTimedOut("late")), TimeoutError)
    assert isinstance(pickle.loads(pickle.dumps(TryAgain("busy", delay_s=5))), TryAgain)


class Stubborn(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("just one")


@pytest.mark.parametrize("error", [Stubborn(1, 2), SystemExit(3), KeyboardInterrupt(), ValueError(Registry())])
def test_an_error_that_cannot_or_must_not_be_rebuilt_is_a_task_failed_that_names_it(error: BaseException) -> None:
    found = raised(error)
    assert isinstance(found, TaskFailed)
    assert found.error_type.endswith(type(error).__name__)
    assert "Traceback" in found.traceback


def test_no_module_is_imported_for_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strange_errors.py").write_text("class Odd(Exception): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import strange_errors  # type: ignore[import-not-found]

    body = tasks.pack_error(strange_errors.Odd("x"), 0)
    monkeypatch.delitem(sys.modules, "strange_errors")
    found = tasks.read_outcome(body)[1]
    assert isinstance(found, TaskFailed)
    assert "strange_errors" not in sys.modules


def test_an_outcome_for_another_version_of_the_task_is_a_sentence() -> None:
    body = tasks.pack_value(SHIP, Order(1, datetime(2026, 1, 1)), 0)

    def other() -> int:
        return 1

    for outcome, task in ((body, Task(other, TaskOptions())), (b"\x93\x01", None), (b"", None)):
        with pytest.raises(UndecodableBody, match="same version"):
            tasks.read_outcome(outcome, task)


def test_queue_errors_of_a_task_arrive() -> None:
    assert isinstance(raised(queue.Full()), queue.Full)
    assert isinstance(raised(WrongArguments("x", argument="a")), TypeError)


# -- current -------------------------------------------------------------------------------------------------------


def test_a_plain_call_has_a_current_that_nobody_listens_to() -> None:
    now = current()
    assert (now.id, now.attempt, now.deadline, now.cancelled()) == ("", 1, None, False)
    now.progress(1, 2, "half")


def test_the_runner_says_what_runs() -> None:
    heard: list[Any] = []
    mine = Current(
        "m1",
        2,
        max_attempts=3,
        deadline=NOW,
        on_progress=lambda *told: heard.append(told),
        is_cancelled=lambda: bool(heard),
    )
    with running(mine):
        assert current() is mine
        assert not current().cancelled()
        current().progress(1, 4, "a quarter")
        assert current().cancelled()
    assert heard == [(1.0, 4.0, "a quarter")]
    assert current().id == ""
