"""The library of functions: the files of `lua/` put together, and how a call is written and its answer read.

```
 FCALL manyhands_…_step 1 manyhands:{space}  caller+limits   head body body   head   head body …
                                                  └── one operation ──┘
```
A head is msgpack without `bin`, which Redis' cmsgpack cannot read; bodies (messages, results) travel beside it as they are
stored. The replies come as the msgpack of `events`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import msgspec

from manyhands.events import Bury, Put, Reply, Report, ReportDead, Request, Settle
from manyhands.model import Limits, Message, Settlement

# Later files use what earlier ones define; run.lua is what happens.
_FILES = (
    "base",
    "queues",
    "sessions",
    "marks",
    "waits",
    "put",
    "lease",
    "finish",
    "packs",
    "settle",
    "parents",
    "streams",
    "results",
    "timers",
    "admin",
    "run",
)
_OPEN = frozenset({"base"})  # the others keep their local names to themselves: Lua allows 200 in one place

_encode = msgspec.msgpack.Encoder().encode
_decode_replies = msgspec.msgpack.Decoder(list[tuple[str, int, Reply]]).decode
_decode_attached = msgspec.msgpack.Decoder(tuple[int, bool, list[int]]).decode


class Answer(NamedTuple):
    """What one call of the script came to."""

    replies: list[tuple[str, int, Reply]]
    """(session, gen of its attach, reply), in order."""
    next_due_s: float
    """Seconds to the next timer; below 0: there is none."""
    turn: int
    """Of a pulse: this client's turn among those who sweep; below 0: enough others do."""
    is_well: bool
    """Of a pulse: whether this client is known there and hears its channel."""
    attached: tuple[int, bool, list[int]] | None
    """Of an attach: gen, whether the session was known, which held tokens are lost."""
    stale: list[str]
    """Sessions that an operation named and that are not attached so any more."""
    taken: list[str]
    """The same, because another connection has them now."""


@cache
def source() -> str:
    """The library as it is loaded. Its name tells its text, so that programs of several versions can share a server."""
    text = _text()
    name = f"manyhands_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return f"#!lua name={name}\n{text.replace('NAME', name)}"


@cache
def function(what: str) -> bytes:
    """The name of one of its functions: "step", or "relief" for steps that put nothing and may run when memory is short."""
    name = source().partition("\n")[0].partition("=")[2]
    return f"{name}_{what}".encode()


def _text() -> str:
    folder = files(__package__) / "lua"
    parts = []
    for name in _FILES:
        text = (folder / f"{name}.lua").read_text(encoding="utf-8")
        parts.append(text if name in _OPEN else f"do\n{text}\nend\n")
    return "\n".join(parts)


def caller(client: str, pulse_s: float, limits: Limits) -> bytes:
    """The argument that says who calls, and the limits."""
    return _encode(
        (
            client,
            pulse_s,
            limits.lease_s,
            limits.resume_s,
            limits.dedupe_s,
            limits.watermark_kept_s,
            limits.recall_after_s,
            limits.recall_answer_s,
            limits.orphan_s,
        )
    )


def operation(what: tuple[Any, ...], session: str = "", gen: int = 0) -> list[bytes]:
    """An operation that is no request: attach, detach, pulse, …"""
    return [_encode((0, session, gen, what))]


def request(one: Request, session: str, gen: int) -> list[bytes]:
    """The arguments of one request."""
    kind = type(one)
    if kind is Put:
        assert isinstance(one, Put)
        messages = one.messages
        put = (2, one.rid, one.queue, one.seq, one.floor, _is_plain(messages), one.wait_s, one.causes)
        return [_encode((len(messages), session, gen, put)), *map(_encode, messages)]
    if kind is Settle:
        assert isinstance(one, Settle)
        results = [settlement.result for settlement in one.settlements if settlement.result is not None]
        if results:
            settle = (7, one.rid, one.seq, one.floor, _numbered(one.settlements))
            return [_encode((len(results), session, gen, settle)), *results]
    if kind is Bury:
        assert isinstance(one, Bury)
        letters = [(each.queue, each.died_at, each.reason, each.history) for each in one.letters]
        return [
            _encode((len(letters), session, gen, (39, one.rid, letters))),
            *[_encode(letter.message) for letter in one.letters],
        ]
    if kind is Report:
        assert isinstance(one, Report)
        report = (33, one.rid, one.seq, one.floor, one.token, one.calls)
        return [_encode((1, session, gen, report)), one.result]
    if kind is ReportDead:
        assert isinstance(one, ReportDead)
        how = one.settlement
        body = [how.result] if how is not None and how.result is not None else []
        end = _numbered([how])[0] if how is not None else None
        dead = (16, one.rid, one.session, one.reason, one.token, one.part, end, one.is_idle)
        return [_encode((len(body), session, gen, dead)), *body]
    return [_encode((0, session, gen, one))]


def _is_plain(messages: Sequence[Message]) -> bool:
    """Whether no message has a header, so that the script need not read their bytes."""
    return not any(m.kind or m.priority or m.due_at or m.options is not None for m in messages)


def _numbered(settlements: Sequence[Settlement]) -> list[tuple[Any, ...]]:
    """The settlements with the number of the body that is their result in its place."""
    out, n = [], 0
    for one in settlements:
        at = None
        if one.result is not None:
            n += 1
            at = n
        out.append((one.token, one.kind, one.is_task_done, one.delay_s, one.reason, at, one.calls))
    return out


def packed(args: Sequence[bytes]) -> list[bytes]:
    """A command as Redis reads it, in few pieces; the driver's own way costs microseconds an argument."""
    out = [b"*%d\r\n" % len(args)]
    for arg in args:
        out += (b"$%d\r\n" % len(arg), arg, b"\r\n")
    return [b"".join(out)]


def read_answer(answer: list[Any]) -> Answer:
    """The script's answer."""
    replies, next_due_s, turn, is_well, attached, *stale = answer
    names = [one.decode() for one in stale]
    return Answer(
        _decode_replies(replies),
        float(next_due_s),
        turn,
        bool(is_well),
        _decode_attached(attached) if attached else None,
        [name[1:] for name in names if name[0] == " "],
        [name[1:] for name in names if name[0] == "!"],
    )


def read_news(payload: bytes) -> list[tuple[str, int, Reply]]:
    """What another client's call brought about for sessions of this one."""
    return _decode_replies(payload)
