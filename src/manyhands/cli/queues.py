"""`manyhands queue …`: which queues there are, what waits in them, emptying one; moving them is in move.py."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from manyhands.cli.asking import connected, require_queue
from manyhands.cli.move import move
from manyhands.cli.options import AuthkeyOption, JsonOption, UrlOption, YesOption, confirm, read_key
from manyhands.cli.output import console, count, duration, plain, preview, print_json, size, table
from manyhands.events import Peek, Purge
from manyhands.model import CALLS, Kind, Message, QueueStats, name_of
from manyhands.tasks import shown

app = typer.Typer(help="List queues, look into one, empty one, move them.", no_args_is_help=True, rich_markup_mode=None)
QueueArgument = Annotated[str, typer.Argument(help="The queue's name.", metavar="QUEUE")]
_KINDS = {int(kind): kind.name.lower() for kind in Kind}
NUMBERS = frozenset({"ready", "leased", "delayed", "dead", "bound", "size", "priority"})


@app.command("list")
def list_queues(url: UrlOption = None, authkey: AuthkeyOption = None, as_json: JsonOption = False) -> None:
    """List all queues with what is in them.

    \b
    Example: manyhands queue list
    """
    with connected(url, read_key(authkey)) as client:
        found = client.stats().queues
    if as_json:
        print_json([as_document(each) for each in found])
        return
    if not found:
        console().print("No queues yet; one appears with its first put or get.")
        return
    rows = [(name_of(q.name), holds(q), q.ready, q.leased, q.delayed, q.dead, q.maxsize or "-", state(q)) for q in found]
    columns = ("queue", "of", "ready", "leased", "delayed", "dead", "bound", "state")
    console().print(table(columns, rows, numbers=NUMBERS))


@app.command()
def peek(
    queue: QueueArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="How many at most.")] = 20,
    url: UrlOption = None,
    authkey: AuthkeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at what waits, soonest first, without taking it. Items are shown as bytes, never decoded; of a task its name and
    arguments are, which are plain data.

    \b
    Example: manyhands queue peek tasks --limit 5
    """
    with connected(url, read_key(authkey)) as client:
        messages: list[Message] = []
        for half in require_queue(client, queue):
            messages += client.ask(Peek, half.name, limit - len(messages)).messages if len(messages) < limit else []
    if as_json:
        print_json([message_document(each) for each in messages])
        return
    if not messages:
        console().print(f"Nothing waits in queue {queue!r}.")
        return
    now = time.time()
    rows = []
    for each in messages:
        due = f"in {duration(each.due_at - now)}" if each.due_at > now else "now"
        rows.append((each.id, kind(each), each.priority, due, size(len(each.body)), content(each)))
    console().print(table(("id", "kind", "priority", "due", "size", "body"), rows, numbers=NUMBERS))


@app.command()
def purge(
    queue: QueueArgument,
    yes: YesOption = False,
    url: UrlOption = None,
    authkey: AuthkeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop everything that waits in a queue, delayed messages too. What a consumer has in hand is not touched.

    \b
    Example: manyhands queue purge tasks --yes
    """
    with connected(url, read_key(authkey)) as client:
        found = require_queue(client, queue)
        n = sum(each.ready + each.delayed for each in found)
        confirm(f"Drop {count(n, 'message')} of queue {queue!r} for ever?", yes=yes)
        dropped = sum(client.ask(Purge, each.name).n for each in found)
    if as_json:
        print_json({"queue": queue, "dropped": dropped})
    else:
        console().print(f"Dropped {count(dropped, 'message')} of queue {queue!r}.")


app.command()(move)


def as_document(stats: QueueStats) -> dict[str, object]:
    """One queue's numbers by name."""
    document = {field: getattr(stats, field) for field in stats.__struct_fields__}
    return {"name": name_of(stats.name), "of": holds(stats), **{key: document[key] for key in document if key != "name"}}


def message_document(message: Message) -> dict[str, object]:
    """One message as data; its body by size and first bytes, and of a call or task what it would run."""
    call = shown(message)
    what = (
        {}
        if call is None
        else {"call": call.name, "arguments": plain(call.arguments), "tags": call.tags, "calls": call.calls}
    )
    return {
        "id": message.id,
        "kind": kind(message),
        "priority": message.priority,
        "due_at": message.due_at,
        "max_deliveries": message.max_deliveries,
        "size_bytes": len(message.body),
        "preview": preview(message.body),
        **what,
    }


def content(message: Message) -> str:
    """What a message holds, in a line: the call that it is, or the first bytes of its body."""
    call = shown(message)
    return preview(message.body) if call is None else str(call)


def holds(stats: QueueStats) -> str:
    """Which of a queue's halves these numbers are of."""
    return "calls" if stats.name.endswith(CALLS) else "items"


def kind(message: Message) -> str:
    """The word for what a message is for; a newer peer's kind by its number."""
    return _KINDS.get(message.kind, str(message.kind))


def state(stats: QueueStats) -> str:
    """What is worth saying of a queue beside its numbers."""
    if stats.is_shut_down:
        return "shut down"
    return "full" if stats.maxsize and stats.ready + stats.delayed >= stats.maxsize else ""
