"""`manyhands status`: what is in the queues, how fast it moves, and who is connected."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from manyhands.cli.asking import connected
from manyhands.cli.options import AuthkeyOption, JsonOption, UrlOption, read_key
from manyhands.cli.output import ago, console, duration, print_json, table
from manyhands.cli.queues import as_document, holds, state
from manyhands.events import StatsReply
from manyhands.model import QueueStats, SessionStats, Told, name_of, public_id

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from manyhands.client import Client

NUMBERS = frozenset({"ready", "leased", "delayed", "dead", "waiting", "in/s", "done/s", "leases"})


def status(
    server: Annotated[
        str, typer.Argument(metavar="[URL]", help="The server to ask, as --url says it.", show_default=False)
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.05, metavar="SECONDS", help="Seconds between the samples.")
    ] = 1.0,
    url: UrlOption = None,
    authkey: AuthkeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the queues (ready, leased, delayed, dead, rates) and who is connected.

    Rates come from two samples, one interval apart.

    \b
    Example: manyhands status
             manyhands status tcp://10.0.0.5:5959 --authkey @cluster.key
             manyhands status --watch
             manyhands status --json --interval 0.2
    """
    with connected(server or url, read_key(authkey)) as client:
        sample = Sample(client)
        sample.next(interval_s if not watch else min(interval_s, 0.2))
        out = console()
        if not watch:
            sample.show(out, as_json=as_json)
            return
        with suppress(KeyboardInterrupt):
            if as_json or not out.is_terminal:
                while True:
                    sample.show(out, as_json=as_json)
                    sample.next(interval_s)
            from rich.live import Live

            with Live(sample.view(), console=out, auto_refresh=False) as live:
                while True:
                    sample.next(interval_s)
                    live.update(sample.view(), refresh=True)


class Sample:
    """The newest numbers of a server, and those before them, from which the rates come."""

    def __init__(self, client: Client) -> None:
        self._client = client
        attached = client.open().port.attached
        weaker = attached.durability.weaker
        self._warned = [*([f"weaker than asked: {weaker}"] if weaker else []), *attached.notes]
        self._taken_mono = time.monotonic()
        self._stats: StatsReply = client.stats()
        self._rates: dict[str, tuple[float, float]] = {}

    def next(self, interval_s: float) -> None:
        """Wait that long and look again."""
        time.sleep(interval_s)
        before = {each.name: each for each in self._stats.queues}
        self._stats, taken_mono = self._client.stats(), time.monotonic()
        passed_s = taken_mono - self._taken_mono
        self._taken_mono = taken_mono
        self._rates = {each.name: _rates(before.get(each.name), each, passed_s) for each in self._stats.queues}

    def show(self, out: Console, *, as_json: bool) -> None:
        """Print it once."""
        if as_json:
            print_json(self.document())
        else:
            out.print(self.view())

    def document(self) -> dict[str, object]:
        """Everything as data."""
        queues = []
        for each in self._stats.queues:
            put_rate, done_rate = self._rates[each.name]
            queues.append({**as_document(each), "put_per_s": round(put_rate, 2), "done_per_s": round(done_rate, 2)})
        return {
            "url": self._client.url,
            "engine": self._client.engine.name,
            "durability": self._client.engine.durability.text,
            "uptime_s": round(self._stats.uptime_s, 3),
            "queues": queues,
            "sessions": [_session_document(each) for each in self._others()],
            "warnings": self._warned,
        }

    def view(self) -> RenderableType:
        """Everything as text."""
        from rich.console import Group
        from rich.text import Text

        engine = self._client.engine
        head = f"{self._client.url}  {engine.name} engine, up {duration(self._stats.uptime_s)}\n{engine.durability.text}\n"
        parts: list[RenderableType] = [Text(head)]
        parts += [Text(f"warning: {each}\n", style="yellow") for each in self._warned]
        if self._stats.queues:
            columns = ("queue", "of", "ready", "leased", "delayed", "dead", "waiting", "in/s", "done/s", "state")
            parts.append(table(columns, [self._row(each) for each in self._stats.queues], numbers=NUMBERS))
        else:
            parts.append(Text("No queues yet; one appears with its first put or get."))
        parts += [Text(line, style="yellow") for each in self._stats.queues for line in parked(each)]
        parts.append(Text(""))
        others = self._others()
        if others:
            rows = [_session_row(each) for each in others]
            parts.append(table(("client", "state", "since", "leases", "waiting"), rows, numbers=NUMBERS))
            parts += [Text(_progress(each.name, told)) for each in others for told in each.progress]
        else:
            parts.append(Text("Nobody else is connected."))
        return Group(*parts)

    def _others(self) -> Sequence[SessionStats]:
        session = self._client.session
        own = public_id(session.id) if session is not None else ""
        return [each for each in self._stats.sessions if each.id != own]

    def _row(self, each: QueueStats) -> tuple[object, ...]:
        put_rate, done_rate = self._rates.get(each.name, (0.0, 0.0))
        leased = f"{each.leased} ({each.unbegun} unbegun)" if each.unbegun else each.leased
        rates = (f"{put_rate:.1f}", f"{done_rate:.1f}")
        return (
            name_of(each.name),
            holds(each),
            each.ready,
            leased,
            each.delayed,
            each.dead,
            each.waiting,
            *rates,
            state(each),
        )


def parked(stats: QueueStats) -> list[str]:
    """What no worker could run so far, and which worker could."""
    return [_parked(name_of(stats.name), need, n) for need, n in sorted(stats.parked.items()) if n]


def _parked(queue: str, need: str, n: int) -> str:
    kind, _, name = need.partition(":")
    what = f"{n} message{'s' if n != 1 else ''} of queue {queue!r} wait{'s' if n == 1 else ''} for a worker"
    if kind == "task":
        module = name.partition(":")[0]
        return f"{what} that knows the task {name}: manyhands worker --queues {queue} --import {module}"
    if kind == "python":
        return f"{what} on Python {name}, whose code they carry"
    return f"{what} that has {need}"


def _rates(before: QueueStats | None, after: QueueStats, passed_s: float) -> tuple[float, float]:
    """Messages a second in and done; a queue that is new, or whose counters began anew, counts from nothing."""
    put, done = (before.put_total, before.done_total) if before else (0, 0)
    if after.put_total < put or after.done_total < done:
        put = done = 0
    return (after.put_total - put) / passed_s, (after.done_total - done) / passed_s


def _session_row(each: SessionStats) -> tuple[object, ...]:
    return each.name, "connected" if each.is_connected else "away", ago(each.attached_at), each.leases, each.waiting


def _session_document(each: SessionStats) -> dict[str, object]:
    progress = [{**msgspec.structs.asdict(told), "queue": name_of(told.queue)} for told in each.progress]
    return {**msgspec.structs.asdict(each), "progress": progress}


def _progress(client: str, told: Told) -> str:
    """How far a call has come, in a line."""
    far = f"{told.done:g} of {told.total:g}" if told.total else f"{told.done:g}"
    note = f", {told.note}" if told.note else ""
    return f"{client} runs {told.id} of queue {name_of(told.queue)!r}: {far}{note} ({ago(told.told_at)})"
