"""The memory that one child shares with its parent: what runs, what is in hand, and the fence between the two.

A child runs the calls that it holds in order and counts them: each has an *ordinal*, from 1, never used twice. The child
alone writes what it has begun; the parent alone writes from where on it must not go. No lock, no system call for a call.

    child, before each call n           parent, to take back what is not begun
    ───────────────────────────         ──────────────────────────────────────
    begun = n                           fence = f            (`raise_fence`)
    is fence <= n?                      wait FENCE_S
      no:  run it                       limit = max(begun, f - 1)
      yes: wait for the verdict         verdict = "from limit + 1 to the last in hand: given back"   (`take_back`)
           run it, or drop what
           was given back

Each side writes first and looks then, so at least one sees the other: a child that missed the fence had written its `begun`
before the parent read it, since FENCE_S is ten thousand times what a store needs to become visible. A child that saw the
fence does nothing until it has read the verdict, which says of every ordinal whose it is; so none is run by both or by
neither. Fences only rise from one verdict that the child has acted on to the next; one that it has not seen may be lowered.

Very short calls are claimed several at a time: `begun` is then the last of them, and `claimed_from` the first. They are
the child's all the same.

The block is a file, mapped by both: that works on every platform and under every start method. Words are 8 bytes and
aligned, so each is read and written whole.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

FENCE_S = 0.001
"""How long a parent waits between raising the fence and reading what was begun."""
VERDICT_NAP_S = 0.0002
"""How long a child that met the fence sleeps between two looks for the verdict; it meets one at most once for a recall."""
MAX_IN_HAND = 512
"""So many messages fit the list of what is in hand."""
TEXT_BYTES, WILL_BYTES = 2048, 4096

_VERSION = 1
_NEVER = 2**62

# Words of the child.
_VERSION_AT, _PHASE, _BEGUN, _CLAIMED_FROM, _STARTED, _DEADLINE, _ARRIVED, _ENDED, _SEEN, _HEARD, _N_RUN, _TEXT_SIZE = range(
    12
)
_WILL_SIZE = 12
# Words of the parent, in a cache line of their own.
_FENCE, _VERDICT, _GIVEN_FROM, _GIVEN_TO, _WATCHED = 16, 17, 18, 19, 20
_SLOTS = 32
_SLOT = 4  # token, first ordinal, how many calls (0: no pack), index of its queue
_TEXT = (_SLOTS + MAX_IN_HAND * _SLOT) * 8
_WILL = _TEXT + TEXT_BYTES
SIZE_BYTES = _WILL + WILL_BYTES


class Phase(IntEnum):
    """What a child is doing."""

    STARTING = 0
    """Importing and initialising; not attached yet."""
    CONNECTING = 1
    WAITING = 2
    """It has asked for work and has none."""
    RUNNING = 3
    """It has begun call `begun` and has not gone on to the next, nor run out of calls."""
    LEAVING = 4


class Held(NamedTuple):
    """A message that a child has in hand."""

    token: int
    first: int
    """The ordinal of its (first) call."""
    calls: int
    """How many calls it packs; 0: it is no pack."""
    queue: int
    """The index of its queue in ChildSettings.queues."""

    @property
    def last(self) -> int:
        """The ordinal of its (last) call."""
        return self.first + max(self.calls, 1) - 1


class Glimpse(NamedTuple):
    """A child as its parent saw it at one moment."""

    phase: Phase
    begun: int
    """The ordinal that it has begun last; as `claimed_from`, unless several very short calls were claimed together."""
    claimed_from: int
    started_mono: float
    """When that was, on time.monotonic()."""
    deadline_mono: float
    """When its hard limit ends; 0.0: it has none."""
    heard_mono: float
    """When the engine's last answer arrived, or it began to wait for one; 0.0: it has never been reached."""
    n_run: int
    """How many calls it has finished in its life, as of the last settlement."""


class Returned(NamedTuple):
    """What a parent takes back: of the message under this token only the first n calls stay with the child."""

    token: int
    n: int
    queue: int


class _Block:
    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE_BYTES)
        self._view = memoryview(self._map)
        self._ints = self._view.cast("q")
        self._floats = self._view.cast("d")

    def close(self) -> None:
        """Unmap it here. Idempotent."""
        for view in (self._ints, self._floats, self._view):
            view.release()
        with contextlib.suppress(BufferError):
            self._map.close()


class ChildBlock(_Block):
    """The child's side. Not for several threads, but for `say`."""

    def __init__(self, path: str) -> None:
        """Open the block that the parent made.

        Raises:
            OSError: there is none.
            ValueError: it is another version's.
        """
        super().__init__(path)
        if self._ints[_VERSION_AT] != _VERSION:
            self.close()
            raise ValueError(f"the shared block {path} was made by another version of manyhands than this child runs")
        if os.name == "posix":
            with contextlib.suppress(OSError):
                os.unlink(path)  # both sides have it mapped; a parent that is killed could not do it later
        self._top = 0  # the highest ordinal in hand
        self._arrived = 0
        self._dealt = _NEVER  # the fence whose verdict was carried out
        self._has_deadline = False
        self._phase = Phase.STARTING

    def enter(self, phase: Phase) -> None:
        """Say what this child does from now on."""
        if phase is not self._phase:
            self._phase = phase
            self._ints[_PHASE] = phase

    def say(self, text: str) -> None:
        """Leave a sentence for the parent, to be read when this child has ended."""
        data = text.encode("utf-8", "replace")[:TEXT_BYTES]
        self._view[_TEXT : _TEXT + len(data)] = data
        self._ints[_TEXT_SIZE] = len(data)

    @property
    def is_watched(self) -> bool:
        """Whether the parent looks at the limits of what runs; else it wants a notice of a call that has one."""
        return bool(self._ints[_WATCHED])

    def leave_will(self, settlement: bytes) -> None:
        """Say how the next call shall end if its limit ends it; before the claim that sets the limit.

        Args:
            settlement: msgpack of a model.Settlement; one that is too large is left out.
        """
        size = len(settlement) if len(settlement) <= WILL_BYTES else 0
        self._view[_WILL : _WILL + size] = settlement[:size]
        self._ints[_WILL_SIZE] = size

    def accept(self, messages: Sequence[tuple[int, int, int]]) -> int:
        """Note messages that arrived, in the order in which they will be run.

        Args:
            messages: token, how many calls it packs (0: no pack), index of its queue. Together with what has not ended at
                most MAX_IN_HAND.

        Returns:
            The ordinal of the first call; the others follow without a gap.
        """
        first = at = self._top + 1
        ints, arrived = self._ints, self._arrived
        for token, calls, queue in messages:
            slot = _SLOTS + arrived % MAX_IN_HAND * _SLOT
            ints[slot], ints[slot + 1], ints[slot + 2], ints[slot + 3] = token, at, calls, queue
            at += calls or 1
            arrived += 1
        self._top = at - 1
        self._arrived = arrived
        ints[_ARRIVED] = arrived  # last: the parent reads only what is complete
        return first

    def ended(self, n_run: int) -> None:
        """All that is in hand has ended or was given back.

        Args:
            n_run: how many calls this child has finished in its life.
        """
        ints = self._ints
        ints[_ENDED] = self._arrived
        ints[_N_RUN] = n_run

    def heard(self, heard_mono: float) -> None:
        """When the engine's last answer arrived."""
        self._floats[_HEARD] = heard_mono

    def claim(self, first: int, last: int, now_mono: float, deadline_mono: float = 0.0) -> bool:
        """Take calls to run them now, one after another. Whether they are this child's; else see `verdict`.

        Args:
            deadline_mono: when the parent shall stop the one that is claimed; 0.0 is never.
        """
        ints = self._ints
        self._floats[_STARTED] = now_mono
        if deadline_mono or self._has_deadline:
            self._floats[_DEADLINE] = deadline_mono
            self._has_deadline = deadline_mono != 0.0
        ints[_CLAIMED_FROM] = first
        ints[_BEGUN] = last
        fence = ints[_FENCE]
        return fence > last or fence == self._dealt

    def verdict(self) -> tuple[int, int]:
        """Wait until the parent has said what it takes, after `claim` said no.

        Returns:
            The first and the last ordinal that were given back: all in between is to be forgotten, what was claimed below
            is to be run after all. Empty when the first is above the last.
        """
        ints = self._ints
        while True:
            # Also a barrier: what the parent wrote before its word is visible once the word was and we slept.
            time.sleep(VERDICT_NAP_S)
            fence = ints[_FENCE]
            if ints[_VERDICT] != fence:
                continue
            time.sleep(0)
            given = (ints[_GIVEN_FROM], ints[_GIVEN_TO])
            if ints[_FENCE] == fence:
                self._dealt = fence
                ints[_SEEN] = fence
                return given


class ParentBlock(_Block):
    """The parent's side; makes the file. One thread at a time."""

    def __init__(self, folder: str | None = None) -> None:
        """Make a block.

        Args:
            folder: where; None: in memory where the system has a file system there, else where temporary files are.

        Raises:
            OSError: it cannot be made there.
        """
        descriptor, path = tempfile.mkstemp(prefix="manyhands-", suffix=".block", dir=folder or _folder())
        with open(descriptor, "wb") as file:
            file.truncate(SIZE_BYTES)
        super().__init__(path)
        ints = self._ints
        ints[_FENCE] = _NEVER
        ints[_VERDICT] = _NEVER
        ints[_GIVEN_FROM] = 1  # nothing: from 1 to 0
        ints[_SEEN] = _NEVER
        ints[_VERSION_AT] = _VERSION
        self._is_lowered = False

    def look(self) -> Glimpse:
        """What the child does now. What is read was true at some moments around this one."""
        ints, floats = self._ints, self._floats
        while True:
            begun = ints[_BEGUN]
            seen = Glimpse(
                Phase(ints[_PHASE]),
                begun,
                ints[_CLAIMED_FROM],
                floats[_STARTED],
                floats[_DEADLINE],
                floats[_HEARD],
                ints[_N_RUN],
            )
            if ints[_BEGUN] == begun:
                return seen

    def held(self) -> list[Held]:
        """What the child has in hand and has not settled, oldest first, begun or not."""
        ints = self._ints
        while True:
            ended, arrived = ints[_ENDED], ints[_ARRIVED]
            found = []
            for number in range(ended, arrived):
                slot = _SLOTS + number % MAX_IN_HAND * _SLOT
                found.append(Held(*ints[slot : slot + _SLOT].tolist()))
            if ints[_ENDED] == ended:  # else a slot may have been used again meanwhile
                return found

    def running(self) -> tuple[Held, int] | None:
        """The message whose call is being run, and which call of it by the child's count from 0; None: nothing is.

        For calls that were claimed together it is the first of them that may be running. After the child's death this is
        what it was at when it died.
        """
        seen = self.look()
        if seen.phase is not Phase.RUNNING:
            return None
        at = seen.claimed_from
        for held in self.held():
            if held.first <= at <= held.last:
                return held, at - held.first
        return None

    def text(self) -> str:
        """What the child left to be said of it; "" for nothing."""
        return bytes(self._view[_TEXT : _TEXT + self._ints[_TEXT_SIZE]]).decode("utf-8", "replace")

    def watch(self, is_on: bool) -> None:
        """Say whether this parent looks at the limits of what runs, without a notice from the child."""
        self._ints[_WATCHED] = is_on

    def will(self) -> bytes:
        """How the running call ends if its limit ended it: msgpack of a model.Settlement; b"": the child could not say."""
        return bytes(self._view[_WILL : _WILL + self._ints[_WILL_SIZE]])

    # -- taking back ---------------------------------------------------------------------------------------------------

    def raise_fence(self, keep: int = 0) -> int:
        """Let the child begin nothing more but `keep` calls that it has not begun. FENCE_S later comes `take_back`, always.

        Returns:
            The fence, for `take_back`; 0: the child stands at one, so that there is nothing new to take.
        """
        ints = self._ints
        fence = ints[_FENCE]
        self._is_lowered = ints[_SEEN] != fence
        wanted = ints[_BEGUN] + 1 + keep  # read last: who has seen the fence has begun at it, so the next one is another
        if not self._is_lowered:
            wanted = max(wanted, ints[_GIVEN_TO] + 1)
        elif wanted >= fence:
            return 0
        ints[_FENCE] = wanted
        return wanted

    def take_back(self, fence: int) -> list[Returned]:
        """What is the parent's to give back: all in hand that the child had not begun when it could see the fence.

        From here on the child does not run it, and hears so at its next call. What was given back under an earlier fence
        that the child has not come to is not named again, but for the message in which that began.
        """
        if not fence:
            return []
        ints = self._ints
        limit = max(ints[_BEGUN], fence - 1)
        helds = self.held()
        end = max(limit, helds[-1].last if helds else 0)
        given_from, given_to = ints[_GIVEN_FROM], ints[_GIVEN_TO]
        if not self._is_lowered or given_to < limit or given_to < given_from:
            given_from, given_to = limit + 1, limit  # nothing that the child still has to hear of
        ints[_GIVEN_FROM] = min(limit + 1, given_from)
        ints[_GIVEN_TO] = max(end, given_to)
        ints[_VERDICT] = fence
        return [
            Returned(held.token, max(0, limit + 1 - held.first), held.queue)
            for held in helds
            if limit < held.last and not given_from <= held.first <= held.last <= given_to
        ]

    def close(self) -> None:
        """Unmap and delete it, if no child did. The child must have ended (Windows deletes no file that is mapped)."""
        super().close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def _folder() -> str | None:
    # A page of a file on a disk may be held for milliseconds while it is written back; one in memory is not.
    return "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
