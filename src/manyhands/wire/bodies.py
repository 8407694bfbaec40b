"""Where events keep their bodies: finding the large ones, taking them out, putting them in.

The one place that knows which fields of which events may be large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec.structs import force_setattr, replace

from manyhands.errors import ProtocolError
from manyhands.events import (
    Bury,
    Collected,
    Create,
    DeadLetters,
    Done,
    Granted,
    Invoke,
    Outcome,
    Peeked,
    Put,
    Report,
    Returned,
    Settle,
    Settled,
)

Place = tuple[int, int, int]
"""Event's index in its batch, item's index in that event's list (0 where there is no list), number of the body."""

_Holder = tuple[Any, str]


def _put_holders(event: Put | Peeked) -> list[_Holder]:
    return [(message, "body") for message in event.messages]


def _granted_holders(event: Granted) -> list[_Holder]:
    return [(delivery.message, "body") for delivery in event.deliveries]


def _settle_holders(event: Settle) -> list[_Holder]:
    return [(settlement, "result") for settlement in event.settlements]


def _outcome_holders(event: Outcome | Returned) -> list[_Holder]:
    return [(event, "value")]


def _collected_holders(event: Collected) -> list[_Holder]:
    return [(ended, "value") for ended in event.ended]


def _report_holders(event: Report) -> list[_Holder]:
    return [(event, "result")]


def _create_holders(event: Create) -> list[_Holder]:
    return [(event.arguments, "body")] if event.arguments is not None else []


def _invoke_holders(event: Invoke) -> list[_Holder]:
    return [(event.call, "body")]


def _dead_holders(event: DeadLetters | Bury) -> list[_Holder]:
    return [(letter.message, "body") for letter in event.letters]


_HOLDERS: dict[type, Callable[[Any], list[_Holder]]] = {
    Put: _put_holders,
    Granted: _granted_holders,
    Settle: _settle_holders,
    Outcome: _outcome_holders,
    Collected: _collected_holders,
    Report: _report_holders,
    Create: _create_holders,
    Invoke: _invoke_holders,
    Returned: _outcome_holders,
    Peeked: _put_holders,
    DeadLetters: _dead_holders,
    Bury: _dead_holders,
}
_RARE = frozenset({Report, Create, Invoke, Returned, Peeked, DeadLetters, Bury})


def any_over(events: Sequence[Any], limit: int) -> bool:
    """Whether any body of these events has more than limit bytes. The hot path: plain loops, the common events first."""
    for event in events:
        kind = type(event)
        if kind is Done or kind is Settled:
            continue
        if kind is Put:
            for message in event.messages:
                if len(message.body) > limit:
                    return True
        elif kind is Settle:
            for settlement in event.settlements:
                if settlement.result is not None and len(settlement.result) > limit:
                    return True
        elif kind is Granted:
            for delivery in event.deliveries:
                if len(delivery.message.body) > limit:
                    return True
        elif kind is Collected:
            for ended in event.ended:
                if ended.value is not None and len(ended.value) > limit:
                    return True
        elif kind is Outcome:
            if event.value is not None and len(event.value) > limit:
                return True
        elif kind in _RARE and any(True for _ in large([event], limit)):
            return True
    return False


def large(events: Sequence[Any], limit: int) -> Iterator[bytes]:
    """The bodies of more than limit bytes."""
    for event in events:
        for holder, field in _holders(event):
            body = getattr(holder, field)
            if body is not None and len(body) > limit:
                yield body


def take_out(events: Sequence[Any], limit: int) -> tuple[list[Any], list[tuple[int, int, bytes]]]:
    """Copies of the events without their large bodies (b"" in their place), and where each was: (event, item, body)."""
    light: list[Any] = []
    taken: list[tuple[int, int, bytes]] = []
    for index, event in enumerate(events):
        found = []
        for item, (holder, field) in enumerate(_holders(event)):
            body = getattr(holder, field)
            if body is not None and len(body) > limit:
                found.append((index, item, body))
        light.append(_without(event, {item for _, item, _ in found}) if found else event)
        taken += found
    return light, taken


def put_in(event: Any, item: int, body: bytes) -> None:
    """Give a freshly decoded event its body back. Writing to a frozen struct is safe here: nobody has seen it yet.

    Raises:
        ProtocolError: the event has no such place.
    """
    holders = _holders(event)
    if not 0 <= item < len(holders):
        raise ProtocolError(f"The peer named a body for item {item} of a {type(event).__name__}, which has {len(holders)}.")
    holder, field = holders[item]
    force_setattr(holder, field, body)


def _holders(event: Any) -> list[_Holder]:
    find = _HOLDERS.get(type(event))
    return find(event) if find is not None else []


def _without(event: Any, items: set[int]) -> Any:
    match event:
        case Outcome() | Returned():
            return replace(event, value=b"")
        case Put() | Peeked():
            return replace(event, messages=[replace(m, body=b"") if i in items else m for i, m in enumerate(event.messages)])
        case Collected():
            return replace(event, ended=[replace(e, value=b"") if i in items else e for i, e in enumerate(event.ended)])
        case Report():
            return replace(event, result=b"")
        case Create():
            return replace(event, arguments=replace(event.arguments, body=b"")) if event.arguments is not None else event
        case Invoke():
            return replace(event, call=replace(event.call, body=b""))
        case Settle():
            return replace(
                event, settlements=[replace(s, result=b"") if i in items else s for i, s in enumerate(event.settlements)]
            )
        case Granted():
            return replace(
                event,
                deliveries=[
                    replace(d, message=replace(d.message, body=b"")) if i in items else d
                    for i, d in enumerate(event.deliveries)
                ],
            )
        case _:
            return replace(
                event,
                letters=[
                    replace(x, message=replace(x.message, body=b"")) if i in items else x
                    for i, x in enumerate(event.letters)
                ],
            )
