"""What a message becomes at its new engine, what those hear who wait for it at the old one, and what cannot go."""

from __future__ import annotations

from msgspec.structs import replace

from manyhands.auth import Keyring
from manyhands.codec import Codec
from manyhands.model import DeadLetter, Delivery, Kind, Message, Options

_KNOWN_BY_ID = Options(dedupe=True)


def stays(message: Message) -> bool:
    """Whether it is to be finished where it is: a call whose program waits at the source for its result.

    Only that program can use the result, it would be answered by nobody at the target, and a pack's calls are told apart by
    the engine that has them.
    """
    options = message.options
    if message.kind != Kind.CALL or options is None:
        return False
    return bool(options.reply_to) or options.calls > 1 or options.part != -1


class Translator:
    """Makes messages for the target. Bodies are not decoded; where the keys differ, seals are checked and made anew.

    Args:
        source: the source's keys.
        target: the target's keys; the first signs there.
        place: the target's URL as it may be shown.
    """

    def __init__(self, source: Keyring, target: Keyring, place: str) -> None:
        self._source = Codec([(key.id, key.body) for key in source])
        self._target = Codec([(key.id, key.body) for key in target])
        self._must_seal = source.first.id != target.first.id
        self._place = place

    def message(self, queue: str, delivery: Delivery) -> Message:
        """The message as it is put at the target: it keeps its id, and what it has used up of its deliveries stays used up.

        Raises:
            SealBroken: it was made by nobody who has the source's key.
        """
        message = delivery.message
        return self._sealed(
            queue,
            replace(
                message,
                options=_known_by_id(message.options),
                max_deliveries=max(1, message.max_deliveries - (delivery.attempt - 1)),
            ),
        )

    def letter(self, letter: DeadLetter) -> DeadLetter:
        """A dead letter for the target's; raises as `message`."""
        return replace(letter, message=self._sealed(letter.queue, letter.message)) if self._must_seal else letter

    def _sealed(self, queue: str, message: Message) -> Message:
        if not self._must_seal:
            return message
        body, kind = message.body, message.kind
        encoding = self._source.verify(queue, message.id, message.seal, body, kind)
        return replace(message, seal=self._target.seal(queue, message.id, encoding, body, kind))

    def told(self, message: Message) -> str:
        """For whoever waits for its result at the source: where to ask instead. "" where nobody can wait."""
        if message.kind == Kind.ITEM:
            return ""
        return f"it was moved to {self._place} before it ran; connect there and ask result({message.id!r})"


def _known_by_id(options: Options | None) -> Options:
    """The same headers, and sent twice is sent once. No stream: who collects it is at the source."""
    if options is None:
        return _KNOWN_BY_ID
    return replace(options, dedupe=True, reply_to="")
