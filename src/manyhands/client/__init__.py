"""The client side: `Client`, `Queue`, and the pure state that the asyncio client shares."""

from manyhands.client.client import Client
from manyhands.client.dead import DeadLetters
from manyhands.client.messages import Received
from manyhands.client.queue import Queue

__all__ = ["Client", "DeadLetters", "Queue", "Received"]
