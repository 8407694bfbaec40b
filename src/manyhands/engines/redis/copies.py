"""What may be told only once replicas have it: the URL's `replicas=N`.

```
   step + WAIT, one trip ──enough replicas──> its replies, and those that waited
                          └──too few──> replies wait; nothing new is sent; a pulse with WAIT each half second
```
WAIT answers for all that this connection has written so far, so one good answer frees everything that waits. What another
program's step brought about comes as news, which nobody has confirmed: it waits for a step and a WAIT of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manyhands.engines.redis.checks import Found
from manyhands.engines.redis.driver import Refusal, TooFew, Wire
from manyhands.events import Reply
from manyhands.model import Durability

SLICE_S = 0.5
"""How long one WAIT waits; a replica that is well answers in less than a millisecond."""
ASKED_OF_DISKS = 10
"""So often WAITAOF is asked in that time."""
_PROBE_S = 2.0
Told = tuple[str, int, Reply]
"""(session, gen of its attach, reply)."""


class Copies:
    """Decides what may be told now; does nothing itself.

    Args:
        command: sent behind each step; none: everything may be told at once.
    """

    __slots__ = ("_replicas", "_waiting", "command", "is_behind", "is_on_disk")

    def __init__(self, replicas: int, *, is_on_disk: bool) -> None:
        slice_s = SLICE_S / ASKED_OF_DISKS if is_on_disk else SLICE_S
        self.command = wait_words(replicas, slice_s, is_on_disk=is_on_disk) if replicas else ()
        self.is_behind = False
        """Whether the last answer named too few replicas: then nothing new is begun."""
        self._replicas = replicas
        self.is_on_disk = is_on_disk
        self._waiting: list[Told] = []

    def heard(self, answer: Any) -> bool:
        """Note WAIT's answer; whether it changed something."""
        was_behind, self.is_behind = self.is_behind, not self.is_enough(answer)
        return self.is_behind != was_behind

    def is_enough(self, answer: Any) -> bool:
        """Whether as many have it."""
        return is_enough(answer, self._replicas, is_on_disk=self.is_on_disk)

    def hold(self, replies: Sequence[Told]) -> None:
        """These come with the next good answer."""
        self._waiting += replies

    def pass_on(self, replies: Sequence[Told]) -> Sequence[Told]:
        """What may be told, in order; the rest waits."""
        if self.is_behind:
            self._waiting += replies
            return ()
        if not self._waiting:
            return replies
        free, self._waiting = [*self._waiting, *replies], []
        return free

    def forget(self) -> None:
        """The connection broke: what waited is asked for again, by its seq, when the sessions are attached anew."""
        self._waiting = []
        self.is_behind = False


def wait_words(replicas: int, seconds: float, *, is_on_disk: bool) -> tuple[str, ...]:
    """The command that waits for so many replicas."""
    wait = ("WAITAOF", "1") if is_on_disk else ("WAIT",)
    return (*wait, str(replicas), str(int(seconds * 1000)))


def is_enough(answer: Any, replicas: int, *, is_on_disk: bool) -> bool:
    """Whether as many have it; anything but the expected numbers is a no."""
    if is_on_disk:
        return isinstance(answer, list) and len(answer) == 2 and answer[0] >= 1 and answer[1] >= replicas
    return isinstance(answer, int) and answer >= replicas


def ask_replicas(wire: Wire, prefix: bytes, found: Found, replicas: int) -> tuple[Found, bool]:
    """Try whether so many replicas confirm a write, and how: what an acknowledgement means then, and whether they have it
    on disk.

    Raises:
        TooFew: they do not.
    """
    wire.ask("SET", prefix + b":probe", "1", "EX", "60")
    if found.durability.level == "disk":
        try:
            answer = wire.ask(*wait_words(replicas, _PROBE_S, is_on_disk=True))
        except Refusal:  # Redis 7.0 does not know WAITAOF
            answer = None
        if is_enough(answer, replicas, is_on_disk=True):
            text = f"{found.version} and {_number(replicas)} have it on disk before it is acknowledged (WAITAOF)"
            return found._replace(durability=Durability("replicated", text)), True
    answer = wire.ask(*wait_words(replicas, _PROBE_S, is_on_disk=False))
    if not is_enough(answer, replicas, is_on_disk=False):
        raise TooFew(
            f"replicas={replicas} asks for {_number(replicas)}, and {answer} confirmed a write within {_PROBE_S:.0f} s; "
            "start as many, or ask for fewer."
        )
    has = "has" if replicas == 1 else "have"
    text = f"{_number(replicas)} {has} it in memory before it is acknowledged (WAIT); {found.durability.text}"
    weaker = ""
    if found.durability.level == "disk":
        weaker = (
            "the master has an acknowledged message on disk and its replicas have it in memory only; set appendonly yes and "
            "appendfsync always there too"
        )
    return found._replace(durability=Durability("replicated", text, weaker)), False


def _number(replicas: int) -> str:
    return f"{replicas} {'replica' if replicas == 1 else 'replicas'}"
