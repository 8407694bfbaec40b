"""One client's or worker's identity: what it holds, what it waits for, what it sent before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manyhands.lifecycle.marks import Mark
    from manyhands.lifecycle.queue import Entry
    from manyhands.lifecycle.waiting import Waiting, WaitingPut
    from manyhands.model import Told


class Session:
    """It outlives connections: leases and unconfirmed puts belong to it.

    ```
      attach ──> connected ──detach──> away ──resume_s over──> leases returned, watermarks kept ──24 h──> forgotten
                  ^   │ └─lease_s silent: leases returned        │
                  │   └── goodbye: forgotten at once             │
                  └───────────────── attach ─────────────────────┘
    ```
    """

    __slots__ = (
        "attached_at",
        "away_until",
        "ended_at",
        "id",
        "is_connected",
        "is_here",
        "is_watched",
        "last_heard",
        "leases",
        "marks",
        "name",
        "offers",
        "parent",
        "parked",
        "puts",
        "recalled",
        "streams",
        "told",
    )

    def __init__(self, session_id: str, name: str) -> None:
        self.id = session_id
        self.name = name
        self.is_connected = False
        self.is_here = False
        """Whether it lives in the engine's own process."""
        self.attached_at = 0.0
        self.last_heard = 0.0
        """Monotonic; silence is counted from here, for all leases at once."""
        self.away_until = 0.0
        """Monotonic; while not connected, when its leases return."""
        self.ended_at = 0.0
        """UTC seconds; when its last connection ended."""
        self.is_watched = False
        """Whether a timer watches for its silence."""
        self.leases: dict[int, Entry] = {}
        """Token to entry, oldest first. A token that is not here is not this session's."""
        self.parked: dict[int, Waiting] = {}
        self.marks: dict[str, Mark] = {}
        self.puts: dict[tuple[str, int], WaitingPut] = {}
        """Its parked puts by stream and seq, so that a resend joins the first one."""
        self.recalled: set[str] = set()
        """Queues that it was asked to give back to and has not answered yet."""
        self.parent = ""
        """The session that is asked in this one's place, and speaks for it."""
        self.offers: frozenset[str] = frozenset()
        """What it can run beside what everybody can."""
        self.streams: set[str] = set()
        """Streams that it was the last to collect, or the first to put for."""
        self.told: dict[int, Told] = {}
        """By token: what calls said of themselves last. May hold some whose lease is over."""
