"""The dead letters of a queue, for the program that wants to look, try again or clear up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from manyhands import events
from manyhands.codec import Codec
from manyhands.errors import UnknownId
from manyhands.model import DeadLetter, halves, name_of
from manyhands.tasks import Shown, shown

if TYPE_CHECKING:
    from manyhands.client.client import Client


class DeadLetters:
    """Messages that were rejected or whose deliveries are used up: items, calls and tasks of a queue alike."""

    def __init__(self, client: Client, codec: Codec, queue: str) -> None:
        self._client = client
        self._codec = codec
        self._queues = halves(queue) if queue else ("",)

    def list(self, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest first, each with its history."""
        return [_by_name(letter) for letter in self._letters([], limit)]

    def show(self, message_id: str) -> DeadLetter:
        """One dead letter.

        Raises:
            UnknownId: there is none with that id.
        """
        return _by_name(self._find(message_id))

    def call(self, message_id: str) -> Shown | None:
        """Which task or function it would have run, with which arguments; None for an item. Nothing is imported for it.

        Raises:
            UnknownId: there is none with that id.
        """
        return shown(self._find(message_id).message)

    def value(self, message_id: str) -> Any:
        """The item of a dead letter.

        Raises:
            UnknownId, SealBroken, UndecodableBody: it is not there, not genuine, or its class is not known here.
        """
        letter = self._find(message_id)
        return self._codec.open_message(letter.queue, letter.message)

    def retry(self, *message_ids: str) -> int:
        """Put them (no ids: all) back at the tail of their queue with a fresh count; returns how many.

        A task begins with its first attempt again; whoever waited for its result has had its error.
        """
        return self._each(events.DeadRetry, message_ids)

    def drop(self, *message_ids: str) -> int:
        """Delete them (no ids: all); returns how many."""
        return self._each(events.DeadDrop, message_ids)

    def _each(self, ask: Any, message_ids: Sequence[str]) -> int:
        # Only where some are: asking for an unknown queue would make it.
        having = [queue.name for queue in self._client.stats().queues if queue.dead and self._is_meant(queue.name)]
        return sum(self._client.ask(ask, queue, [*message_ids]).n for queue in having)

    def _is_meant(self, queue: str) -> bool:
        return queue in self._queues or self._queues == ("",)

    def _find(self, message_id: str) -> DeadLetter:
        found = self._letters([message_id], 1)
        if not found:
            raise UnknownId(
                f"No dead letter has the id {message_id!r}; .list(), or manyhands dead list, names those there are.",
                id=message_id,
            )
        return found[0]

    def _letters(self, ids: Sequence[str], limit: int) -> Sequence[DeadLetter]:
        found: Sequence[DeadLetter] = []
        for queue in self._queues:
            reply = self._client.ask(events.DeadList, queue, [*ids], limit)
            assert isinstance(reply, events.DeadLetters)
            found = [*found, *reply.letters]
        return sorted(found, key=lambda letter: letter.died_at, reverse=True)[:limit]


def _by_name(letter: DeadLetter) -> DeadLetter:
    """The letter with the name that its queue has for people."""
    return msgspec.structs.replace(letter, queue=name_of(letter.queue))
