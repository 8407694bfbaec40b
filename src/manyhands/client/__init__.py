"""The client side: `Client`, `Queue`, and the pure state that the asyncio client shares.

Names are imported when they are first used: an Executor needs the calls only (`client.calling`), and starts sooner for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manyhands.client.client import Client as Client
    from manyhands.client.dead import DeadLetters as DeadLetters
    from manyhands.client.messages import Received as Received
    from manyhands.client.queue import Queue as Queue

_HOMES = {"Client": "client", "DeadLetters": "dead", "Queue": "queue", "Received": "messages"}

__all__ = ["Client", "DeadLetters", "Queue", "Received"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'manyhands.client' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"manyhands.client.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
