"""Moving queues from one engine to another while programs go on using both: what `manyhands queue move` does.

```
 source ── Lease, nothing begun ──> Mover ── Put, known by its id ──> target
    ^                                 │                                 │
    └────────── Settle as done <──────┴───────── acknowledged <─────────┘
```

A message leaves the source only when the target has said that it has it, and is put there under its own id as one that is
dropped when it comes twice: a move that is killed loses nothing, and the next one does nothing twice (ADR 0098).
"""

from __future__ import annotations

from manyhands.moving.mover import Mover
from manyhands.moving.progress import Progress

__all__ = ["Mover", "Progress"]
