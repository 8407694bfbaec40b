"""The dead letters of a queue, for the program that wants to look, try again or clear up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from manyhands import events
from manyhands.codec import Codec
from manyhands.errors import UnknownId
from manyhands.model import DeadLetter

if TYPE_CHECKING:
    from manyhands.client.client import Client


class DeadLetters:
    """Messages that were rejected or whose deliveries are used up."""

    def __init__(self, client: Client, codec: Codec, queue: str) -> None:
        self._client = client
        self._codec = codec
        self._queue = queue

    def list(self, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest first, each with its history."""
        return self._letters([], limit)

    def show(self, message_id: str) -> DeadLetter:
        """One dead letter.

        Raises:
            UnknownId: there is none with that id.
        """
        return self._find(message_id)

    def value(self, message_id: str) -> Any:
        """The item of a dead letter.

        Raises:
            UnknownId, SealBroken, UndecodableBody: it is not there, not genuine, or its class is not known here.
        """
        letter = self._find(message_id)
        return self._codec.open_message(letter.queue, letter.message)

    def retry(self, *message_ids: str) -> int:
        """Put them (no ids: all) back at the tail of their queue with a fresh count; returns how many."""
        count: int = self._client.ask(events.DeadRetry, self._queue, [*message_ids]).n
        return count

    def drop(self, *message_ids: str) -> int:
        """Delete them (no ids: all); returns how many."""
        count: int = self._client.ask(events.DeadDrop, self._queue, [*message_ids]).n
        return count

    def _find(self, message_id: str) -> DeadLetter:
        found = self._letters([message_id], 1)
        if not found:
            raise UnknownId(f"no dead letter has the id {message_id!r}; list() names those there are", id=message_id)
        return found[0]

    def _letters(self, ids: Sequence[str], limit: int) -> Sequence[DeadLetter]:
        reply = self._client.ask(events.DeadList, self._queue, [*ids], limit)
        assert isinstance(reply, events.DeadLetters)
        return reply.letters
