"""The shared block: what a child and its parent see of each other, and the fence between them."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from manyhands.worker.block import FENCE_S, MAX_IN_HAND, ChildBlock, Held, ParentBlock, Phase, Returned

DEADLINE_S = 30.0


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[ParentBlock]:
    block = ParentBlock(str(tmp_path))
    yield block
    block.close()


@pytest.fixture
def child(parent: ParentBlock) -> Iterator[ChildBlock]:
    block = ChildBlock(parent.path)
    yield block
    block.close()


def verdict_of(child: ChildBlock) -> tuple[int, int]:
    """The verdict, which is there already: else the test ends by its deadline."""
    found: list[tuple[int, int]] = []
    thread = threading.Thread(target=lambda: found.append(child.verdict()), daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert found, "the child waits for a verdict that never comes"
    return found[0]


def test_a_parent_sees_what_its_child_holds_and_runs(parent: ParentBlock, child: ChildBlock) -> None:
    assert parent.look().phase is Phase.STARTING
    assert child.accept([(70, 0, 0), (71, 3, 1), (72, 0, 0)]) == 1
    child.enter(Phase.RUNNING)
    assert child.claim(3, 3, 12.5, 99.0)
    seen = parent.look()
    assert (seen.phase, seen.begun, seen.claimed_from, seen.started_mono, seen.deadline_mono) == (
        Phase.RUNNING,
        3,
        3,
        12.5,
        99.0,
    )
    assert parent.held() == [Held(70, 1, 0, 0), Held(71, 2, 3, 1), Held(72, 5, 0, 0)]
    assert parent.running() == (Held(71, 2, 3, 1), 1)
    child.ended(5)
    assert parent.held() == []
    assert child.accept([(73, 0, 0)]) == 6


def test_a_limit_ends_with_its_call(parent: ParentBlock, child: ChildBlock) -> None:
    child.accept([(1, 0, 0), (2, 0, 0)])
    child.leave_will(b"will")
    child.claim(1, 1, 1.0, 50.0)
    assert (parent.look().deadline_mono, parent.will()) == (50.0, b"will")
    child.claim(2, 2, 2.0)
    assert parent.look().deadline_mono == 0.0


def test_nothing_runs_in_a_child_that_has_gone_on_waiting(parent: ParentBlock, child: ChildBlock) -> None:
    child.accept([(1, 0, 0)])
    child.enter(Phase.RUNNING)
    child.claim(1, 1, 1.0)
    assert parent.running() is not None
    child.enter(Phase.WAITING)
    assert parent.running() is None


def test_what_was_not_begun_is_taken_back(parent: ParentBlock, child: ChildBlock) -> None:
    child.accept([(1, 0, 0), (2, 4, 0), (3, 0, 1)])  # ordinals 1, 2 to 5, 6
    assert child.claim(3, 3, 1.0)
    fence = parent.raise_fence()
    assert parent.take_back(fence) == [Returned(2, 2, 0), Returned(3, 0, 1)]
    assert not child.claim(4, 4, 2.0)
    assert verdict_of(child) == (4, 6)
    assert child.accept([(4, 0, 0)]) == 7
    assert child.claim(7, 7, 3.0), "the fence was for what was given back"


def test_some_of_what_was_not_begun_may_stay(parent: ParentBlock, child: ChildBlock) -> None:
    child.accept([(token, 0, 0) for token in range(1, 11)])
    assert child.claim(2, 2, 1.0)
    first = parent.take_back(parent.raise_fence(keep=5))
    assert [back.token for back in first] == [8, 9, 10]
    assert child.claim(3, 3, 1.0)
    second = parent.take_back(parent.raise_fence(keep=2))
    assert [back.token for back in second] == [6, 7], "what was given back before is not named again"
    assert child.claim(5, 5, 1.0)
    assert not child.claim(6, 6, 1.0)
    assert verdict_of(child) == (6, 10)


def test_a_child_that_had_begun_keeps_the_call(parent: ParentBlock, child: ChildBlock) -> None:
    child.accept([(1, 0, 0), (2, 0, 0), (3, 0, 0)])
    assert child.claim(1, 1, 1.0)
    fence = parent.raise_fence()
    assert not child.claim(2, 2, 1.0), "it saw the fence, and the parent will see that it had begun"
    assert parent.take_back(fence) == [Returned(3, 0, 0)]
    assert verdict_of(child) == (3, 3)


def test_calls_claimed_together_are_not_taken_back(parent: ParentBlock, child: ChildBlock) -> None:
    child.accept([(1, 100, 0)])
    assert child.claim(1, 40, 1.0)
    assert parent.take_back(parent.raise_fence()) == [Returned(1, 40, 0)]
    assert not child.claim(41, 60, 1.0)
    assert verdict_of(child) == (41, 100)


def test_the_list_of_what_is_in_hand_goes_round(parent: ParentBlock, child: ChildBlock) -> None:
    for number in range(5):
        child.accept([(number * 1000 + each, 0, 0) for each in range(MAX_IN_HAND - 100)])
        assert [held.token for held in parent.held()] == [number * 1000 + each for each in range(MAX_IN_HAND - 100)]
        child.ended(0)


def test_what_the_child_said_can_be_read_when_it_has_ended(parent: ParentBlock, child: ChildBlock) -> None:
    assert parent.text() == ""
    child.say("the module 'mäil' cannot be imported" + "!" * 3000)
    child.close()
    assert parent.text().startswith("the module 'mäil' cannot be imported!!")


def test_a_block_of_another_version_is_refused(parent: ParentBlock) -> None:
    with open(parent.path, "r+b") as file:
        file.write(b"\xff" * 8)
    with pytest.raises(ValueError, match="another version"):
        ChildBlock(parent.path)


def test_the_file_goes_with_the_parent(tmp_path: Path) -> None:
    block = ParentBlock(str(tmp_path))
    assert list(tmp_path.iterdir())
    block.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="Windows deletes no file that is mapped: there it goes with the parent")
def test_nothing_is_left_of_a_block_whose_parent_was_killed(parent: ParentBlock, child: ChildBlock) -> None:
    assert not os.path.exists(parent.path), "its name is gone as soon as both have it"
    child.accept([(1, 0, 0)])
    assert parent.held() == [Held(1, 1, 0, 0)]


def play_child(path: str, seed: int, results: Connection, n_batches: int) -> None:
    """A child that runs nothing and notes what it would have run; in a process of its own."""
    choose = random.Random(seed)
    block = ChildBlock(path)
    run: list[tuple[int, int]] = []
    every: list[tuple[int, int]] = []
    token = 0
    for _ in range(n_batches):
        batch = []
        for _ in range(choose.randint(1, 6)):
            token += 1
            batch.append((token, choose.choice([0, 0, 3, 12]), 0))
        calls = [(each, index) for each, n, _ in batch for index in range(n or 1)]
        every += calls
        first = block.accept(batch)
        block.enter(Phase.RUNNING)
        at, limit = first, first + len(calls) - 1
        while at <= limit:
            last = min(limit, at + choose.choice([0, 0, 2]))
            if not block.claim(at, last, time.monotonic()):
                given_from, given_to = block.verdict()
                if first <= given_to and given_from <= given_to:
                    limit = min(limit, max(first, given_from) - 1)
                last = min(last, limit)
            run += calls[at - first : last + 1 - first]
            at = last + 1
            if choose.random() < 0.3:
                time.sleep(choose.choice([0.0, 0.0005, 0.002]))
        block.enter(Phase.WAITING)
        block.ended(len(run))
    results.send((every, run))
    block.close()


def test_no_call_is_run_by_both_sides_or_by_neither(parent: ParentBlock) -> None:
    """Invariant: every call that came into the child's hand was run there, or taken back by the parent, and never both."""
    context = multiprocessing.get_context("spawn")
    results, theirs = context.Pipe(duplex=False)
    seed = random.randrange(10**6)
    process = context.Process(target=play_child, args=(parent.path, seed, theirs, 800), daemon=True)
    process.start()
    choose = random.Random(seed)
    returned: list[Returned] = []
    deadline = time.monotonic() + DEADLINE_S
    while not results.poll(0):
        assert time.monotonic() < deadline, f"the child hangs; seed {seed}"
        fence = parent.raise_fence(choose.choice([0, 0, 0, 1, 4]))
        time.sleep(FENCE_S)
        returned += parent.take_back(fence)
    every, run = results.recv()
    size = dict(every)  # the last index of each token's calls
    taken = {(back.token, index) for back in returned for index in range(back.n, size[back.token] + 1)}
    process.join(DEADLINE_S)
    process.close()
    results.close()
    theirs.close()
    assert len(run) == len(set(run)), f"run twice; seed {seed}"
    assert not taken & set(run), f"run and taken back; seed {seed}"
    assert taken | set(run) == set(every), f"neither run nor taken back; seed {seed}"
    assert len(returned) > 100, "the two sides hardly met"
