"""Calls as bytes: what a worker's child makes of a message is what its sender meant, whatever is in it."""

from __future__ import annotations

import ctypes
import operator
import pickle
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from manyhands.auth import Keyring
from manyhands.calls import bodies, outcomes, running
from manyhands.codec import PICKLED_CALLS, Codec
from manyhands.errors import PayloadNotEncodable, RemoteTraceback, SealBroken, TaskFailed, UndecodableBody
from manyhands.model import Kind, Message, Options, part_id

QUEUE = "default()"
CODEC = Codec([(key.id, key.body) for key in Keyring(b"a key of this test")])


def make(function: Callable[..., Any], *calls: tuple[Any, ...], single: bool = False, **kwargs: Any) -> Message:
    """A message as a client makes one."""
    found = bodies.to_function(function, "3.11")
    prefix = bodies.Prefix(found.head)
    if single:
        items = bodies.single_arguments([one for (one,) in calls])
        assert items is not None
        body = prefix.encode(items, bodies.SINGLE)
    else:
        arguments = [bodies.argument(found.before + args, kwargs) for args in calls]
        if len(arguments) == 1 and isinstance(arguments[0], bodies.Pickled):
            body = prefix.encode_alone(arguments[0], "3.11")
        else:
            body = prefix.encode(arguments)  # type: ignore[arg-type]
    seal = CODEC.seal(QUEUE, "pack", PICKLED_CALLS, body, Kind.CALL)
    return Message("pack", body, seal, Kind.CALL, options=Options(calls=len(calls)) if len(calls) > 1 else None)


def run(message: Message, *, python: str = "3.11") -> outcomes.Read:
    """Run all its calls as a child does, and read the outcomes as a client does."""
    box = [message]
    del message
    calls = running.Loader(CODEC, python).load(QUEUE, box)
    into = outcomes.Outcomes(is_one=calls.n == 1)
    calls.run(0, calls.n, into)
    into.took(calls.n, 0.5)
    return read(into)


def read(into: outcomes.Outcomes) -> outcomes.Read:
    data = running.encode_result(CODEC, QUEUE, "pack", Kind.CALL, into)
    encoding, start = CODEC.verify_result(QUEUE, "pack", data, Kind.CALL)
    assert encoding == PICKLED_CALLS
    return outcomes.read([data], start)


class Sum:
    """Callable, and changed by being called."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, n: int) -> int:
        self.total += n
        return self.total


class Array:
    """Memory that leaves a pickle, as numpy's does."""

    def __init__(self, memory: Any) -> None:
        self.memory = memoryview(memory)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Array, (pickle.PickleBuffer(self.memory),)

    def address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.memory))


class OddError(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} is not {right}")


class Unbuildable:
    def __reduce__(self) -> Any:
        return sys.intern, (1,)


def fails(n: int) -> int:
    if n % 3 == 0:
        raise ValueError(f"{n} can be divided by three")  # as the traceback shows
    return n


def odd(left: int, right: int) -> None:
    raise OddError(left, right)


def negated(array: Array) -> Array:
    return Array(bytearray(255 - one for one in array.memory[:4]) + array.memory[4:])


def whole(array: Array) -> tuple[bool, int, bytes]:
    array.memory[0] = 7
    return array.memory.readonly, array.address() % 16, bytes(array.memory[:2])


def doubled(array: np.ndarray, view: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool, bool]:
    was_writable, owns = array.flags.writeable, array.flags.owndata
    array *= 2
    return array, view, was_writable, owns


def returned_list(kept: list[int] = []) -> list[int]:  # noqa: B006 - one list for all calls is the point
    kept.append(len(kept))
    return kept


@pytest.mark.parametrize("single", [True, False])
def test_every_call_of_a_message_has_its_own_outcome(single: bool) -> None:
    result = run(make(fails, *((n,) for n in range(7)), single=single))
    assert [value for index, value in enumerate(result.values) if index not in result.failed] == [1, 2, 4, 5]
    assert {index: str(error) for index, error in result.failed.items()} == {
        n: f"{n} can be divided by three" for n in (0, 3, 6)
    }
    assert list(result.times) == [(7, 0.5)]


def test_calls_can_be_run_and_reported_in_any_ranges() -> None:
    calls = running.Loader(CODEC, "3.11").load(QUEUE, [make(fails, *((n,) for n in range(8)))])
    into = outcomes.Outcomes()
    calls.run(0, 2, into)
    calls.run(2, 5, into)
    first = read(into)
    calls.run(5, 8, into)
    second = read(into)
    assert (first.values, sorted(first.failed)) == ([None, 1, 2, None, 4], [0, 3])
    assert (second.values, sorted(second.failed)) == ([5, None, 7], [1])


def test_keyword_arguments_and_values_of_any_kind_arrive() -> None:
    assert run(make(dict, (), a=[1], b={"c": (2,)})).values == [{"a": [1], "b": {"c": (2,)}}]
    assert run(make(operator.add, ([1], [2]), ("a", "b"), (b"x", b"y"))).values == [[1, 2], "ab", b"xy"]


def test_what_the_caller_changes_after_submitting_does_not_matter() -> None:
    given = [1]
    argument = bodies.argument((given,), {})
    given.append(2)
    assert pickle.loads(argument) == (([1],), {})  # type: ignore[arg-type]


def test_calls_of_one_message_share_no_object() -> None:
    message = make(returned_list, (), ())
    assert run(message).values == [[0], [0, 1]], "a value was pickled after a later call had changed it"
    given = [0]
    result = run(make(lambda kept: kept.append(1) or kept, (given,), (given,)))
    assert result.values == [[0, 1], [0, 1]], "two calls had one list"


def test_an_object_that_is_called_is_as_it_was_submitted_for_each_call() -> None:
    assert run(make(Sum(), (5,), (7,))).values == [5, 7]


def test_functions_without_a_name_travel_by_value_and_only_to_their_own_python() -> None:
    factor = 3
    message = make(lambda n: n * factor, (2,), (4,))
    assert run(message).values == [6, 12]
    calls = running.Loader(CODEC, "3.99").load(QUEUE, [message])
    assert (calls.needs, calls.n) == ("python:3.11", 2)
    assert running.Loader(CODEC, "3.99").load(QUEUE, [make(fails, (1,))]).needs == ""


def test_what_cannot_be_pickled_fails_where_it_is_submitted() -> None:
    with pytest.raises(PayloadNotEncodable, match="an argument of type tuple cannot be sent"):
        bodies.argument((sys._getframe(),), {})
    frame = sys._getframe()
    with pytest.raises(PayloadNotEncodable, match="a function of type"):
        bodies.to_function(lambda: frame, "3.11")


def test_a_value_that_cannot_be_pickled_costs_its_own_call_only() -> None:
    result = run(make(lambda n: sys._getframe() if n else 5, (1,), (0,)))
    assert result.values[1] == 5
    assert isinstance(result.failed[0], PayloadNotEncodable)


def test_a_value_or_argument_that_cannot_be_rebuilt_costs_its_own_call_only() -> None:
    result = run(make(type, (Unbuildable(),), (3,)))
    assert result.values[1] is int
    assert isinstance(result.failed[0], UndecodableBody)
    result = run(make(lambda n: Unbuildable() if n else 5, (1,), (0,)))
    assert result.values[1] == 5
    assert isinstance(result.failed[0], UndecodableBody)


def test_an_exception_is_raised_as_itself_with_the_remote_traceback_as_its_cause() -> None:
    error = run(make(fails, (3,))).failed[0]
    assert type(error) is ValueError
    assert type(error.__cause__) is RemoteTraceback
    assert 'raise ValueError(f"{n} can be divided by three")  # as the traceback shows' in str(error.__cause__)
    assert "running.py" not in str(error.__cause__), "our own frames are noise"


def test_an_exception_that_cannot_be_rebuilt_says_what_it_was() -> None:
    error = run(make(odd, (1, 2))).failed[0]
    assert type(error) is TaskFailed
    assert error.error_text == "1 is not 2"
    assert str(error) == f"{__name__}.OddError: 1 is not 2"


def test_an_exception_whose_class_the_receiver_does_not_know_is_not_rebuilt() -> None:
    class HereOnly(Exception):
        pass

    def raises() -> None:
        raise HereOnly("no")

    error = run(make(raises, ())).failed[0]
    assert type(error) is TaskFailed
    assert "HereOnly: no" in str(error)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_no_exception_ends_the_loop(error: BaseException) -> None:
    def raises(n: int) -> int:
        if n:
            raise error
        return n

    result = run(make(raises, (1,), (0,)))
    assert result.values == [None, 0]
    assert type(result.failed[0]) is type(error)


def test_large_memory_comes_back_writable_aligned_and_without_a_copy_of_its_own() -> None:
    message = make(whole, (Array(bytearray(b"ab") + bytes(200_001)),))
    readonly, misalignment, first = run(message).values[0]
    assert (readonly, misalignment, first) == (False, 0, b"\x07b")
    result = run(make(negated, (Array(bytearray(range(256)) * 1000),))).values[0]
    assert bytes(result.memory[:6]) == bytes([255, 254, 253, 252, 4, 5])
    assert not result.memory.readonly
    assert result.address() % 16 == 0


def test_arrays_of_numpy_travel_beside_the_pickle_and_arrive_writable_without_a_copy_more() -> None:
    sent = np.arange(200_000, dtype=np.float64).reshape(400, 500)
    message = make(doubled, (sent, sent[::2].T))
    size = int.from_bytes(message.body[: bodies.HEAD_SIZE_BYTES], "little")
    head = msgspec.msgpack.decode(message.body[bodies.HEAD_SIZE_BYTES :][:size], type=bodies.Head)
    assert head.sizes[1] == sent.nbytes, "beside the pickle"
    assert head.sizes[0] < 1000 + sent.nbytes, "the view is no memory of its own, and is copied"
    result = run(message)
    assert not result.failed
    first, view, was_writable, owns = result.values[0]
    assert np.array_equal(first, 2 * sent)
    assert np.array_equal(view, sent[::2].T)
    assert (was_writable, owns) == (True, False), "in the message's own memory"
    assert first.flags.writeable
    assert not first.flags.owndata, "in the result's own memory"


def test_memory_that_somebody_else_has_too_is_copied_before_it_is_written() -> None:
    message = make(whole, (Array(bytearray(b"ab") + bytes(200_000)),))
    body = bytes(bytearray(message.body))
    run(message)
    assert message.body == body, "a call changed the message, which may have to be run again"


def test_large_bytes_and_a_function_with_large_memory_travel() -> None:
    data = bytes(range(256)) * 2000
    assert run(make(len, (data,))).values == [len(data)]
    assert run(make(operator.mul, (data[:1000], 100), (b"", 3))).values == [data[:1000] * 100, b""]
    assert run(make(lambda: data, ())).values == [data]


def test_nothing_is_decoded_of_a_message_that_was_changed() -> None:
    message = make(fails, (1,))
    touched = Message(message.id, message.body + b"\0", message.seal, message.kind)
    moved = Message("another", message.body, message.seal, message.kind)
    loader = running.Loader(CODEC, "3.11")
    for bad in (touched, moved):
        with pytest.raises(SealBroken):
            loader.load(QUEUE, [bad])
    with pytest.raises(SealBroken):
        loader.load("another()", [message])


def test_a_part_of_a_split_message_has_the_seal_of_the_whole() -> None:
    message = make(fails, (1,), (2,))
    part = Message(part_id("pack", 1), message.body, message.seal, Kind.CALL, options=Options(calls=2, part=1))
    calls = running.Loader(CODEC, "3.11").load(QUEUE, [part])
    into = outcomes.Outcomes(is_one=True)
    calls.run(1, 2, into)
    assert into.values == [2]


def test_a_function_that_is_missing_here_fails_its_calls_and_says_which_module() -> None:
    head = bodies.Head("no_such_module_anywhere:run")
    body = bodies.Prefix(head).encode([(1,), (2,)])
    message = Message("pack", body, CODEC.seal(QUEUE, "pack", PICKLED_CALLS, body, Kind.CALL), Kind.CALL)
    result = run(message)
    assert sorted(result.failed) == [0, 1]
    assert "no_such_module_anywhere" in str(result.failed[0])


def test_a_setup_runs_what_the_executor_was_given() -> None:
    seen: list[Any] = []
    setup = bodies.to_setup("e1", operator.setitem, ({}, "a", 1))
    running.run_setup(setup)
    with pytest.raises(PayloadNotEncodable):
        bodies.to_setup("e1", seen.append, (sys._getframe(),))
