"""The processes and blocks of a crew's children, by the supervisor's numbers: what its effects are done to.

All of it is the crew's thread's, but for `census`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from manyhands.model import Settlement
from manyhands.worker.block import FENCE_S, ParentBlock, Returned
from manyhands.worker.effects import Fence, Kill, Start, Tell, Watch
from manyhands.worker.minding import Death, Look
from manyhands.worker.settings import LIMIT, READY, ChildSettings
from manyhands.worker.starting import ChildProcess, Starter, words


class _Member(NamedTuple):
    process: ChildProcess
    block: ParentBlock

    def look(self) -> Look:
        return Look(self.block.look(), self.block.held())

    def said(self) -> bytes:
        """Its notices; of a child that cannot speak, what it would say."""
        if self.process.notices is not None:
            return self.process.read()
        seen = self.block.look()
        return (READY if seen.heard_mono else b"") + (LIMIT if seen.deadline_mono else b"")

    def close(self) -> None:
        self.process.close()
        self.block.close()


class Members:
    """The children that there are.

    Args:
        settings: what they are all told.
        starter: starts a process.
    """

    def __init__(self, settings: ChildSettings, starter: Starter) -> None:
        self._settings = settings
        self._start_process = starter
        self._members: dict[int, _Member] = {}
        self._lock = threading.Lock()

    def start(self, effect: Start) -> Death | None:
        """Start a child; how that failed, if it did."""
        block: ParentBlock | None = None
        try:
            block = ParentBlock()
            process = self._start_process(
                msgspec.structs.replace(
                    self._settings,
                    session=effect.session,
                    block=block.path,
                    name=f"{self._settings.name}, child {effect.child}",
                )
            )
        except Exception as error:  # the system may refuse, and a context of the program's may raise anything
            if block is not None:
                block.close()
            return Death(1, "could not be started", f"a child could not be started ({type(error).__name__}: {error})")
        with self._lock:
            self._members[effect.child] = _Member(process, block)
        return None

    def do(self, effect: Kill | Tell | Watch) -> None:
        """What is done to one child; one that is gone needs nothing."""
        member = self._members.get(effect.child)
        if member is None:
            return
        match effect:
            case Kill():
                member.process.kill()
            case Tell(_, command):
                member.process.tell(command)
            case Watch(_, is_on):
                member.block.watch(is_on)

    def fence(self, effects: list[Fence]) -> Iterator[tuple[int, list[Returned], Look]]:
        """Raise fences and take back, with one wait for all of them: for each child what it had not begun."""
        raised = [
            (effect.child, self._members[effect.child].block.raise_fence(effect.keep))
            for effect in effects
            if effect.child in self._members
        ]
        if raised:
            time.sleep(FENCE_S)
        for number, fence in raised:
            member = self._members[number]
            returned = member.block.take_back(fence)
            yield number, returned, member.look()

    def look(self, number: int) -> Look:
        """A child's block now."""
        member = self._members.get(number)
        return member.look() if member is not None else Look()

    def will(self, number: int) -> Settlement | None:
        """How the call that a child runs is to end if it is ended for its limit, as the child left it."""
        member = self._members.get(number)
        will = member.block.will() if member is not None else b""
        return msgspec.msgpack.decode(will, type=Settlement) if will else None

    def pid(self, number: int) -> int:
        """A child's process; 0 if it is gone."""
        member = self._members.get(number)
        return member.process.pid if member is not None else 0

    def handles(self) -> list[Any]:
        """What `multiprocessing.connection.wait` is to wait for."""
        processes = [member.process for member in self._members.values()]
        return [each for process in processes for each in (process.sentinel, process.notices) if each is not None]

    def are_heard(self) -> bool:
        """Whether all of them can speak; else their blocks have to be looked at now and then."""
        return all(member.process.notices is not None for member in self._members.values())

    def notices(self) -> list[tuple[int, bytes]]:
        """What each has said since."""
        return [(number, member.said()) for number, member in self._members.items()]

    def bury(self) -> Iterator[tuple[int, bytes, Death, Look]]:
        """Those that have ended: what each said at last, how it ended, and its block then. They are gone from here."""
        for number, member in list(self._members.items()):
            code = member.process.code()
            if code is None:
                continue
            said = member.process.read()
            sentence, _, where = member.block.text().partition("\n")
            look = member.look()
            with self._lock:
                del self._members[number]
            member.close()
            yield number, said, Death(code, words(code), sentence, where), look

    def census(self) -> list[tuple[int, int, Look]]:
        """Number, pid and block of each. From any thread."""
        with self._lock:
            return [(number, member.process.pid, member.look()) for number, member in self._members.items()]

    def close(self) -> None:
        """End and release whoever is left."""
        with self._lock:
            members, self._members = self._members, {}
        for member in members.values():
            member.process.kill()
        for member in members.values():
            member.close()
