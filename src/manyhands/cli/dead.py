"""`manyhands dead …`: what was rejected or used up its deliveries, why, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from manyhands.cli.asking import connected, require_queue
from manyhands.cli.options import AuthkeyOption, JsonOption, UrlOption, YesOption, confirm, read_key
from manyhands.cli.output import ago, console, count, duration, preview, print_json, size, table, visible
from manyhands.cli.queues import content, kind, message_document
from manyhands.errors import UnknownId, UsageError
from manyhands.events import DeadList
from manyhands.model import DeadLetter, halves
from manyhands.tasks import shown

if TYPE_CHECKING:
    from manyhands.client import Client

app = typer.Typer(help="Dead letters: list, show, retry, drop.", no_args_is_help=True, rich_markup_mode=None)
QueueArgument = Annotated[str, typer.Argument(help="The queue that they died in.", metavar="QUEUE")]
IdsArgument = Annotated[list[str] | None, typer.Argument(help="Which ones.", metavar="[ID]...", show_default=False)]
AllOption = Annotated[bool, typer.Option("--all", help="All of the queue.")]


@app.command("list")
def list_letters(
    queue: Annotated[str, typer.Argument(help="Only this queue.", metavar="[QUEUE]", show_default=False)] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="How many at most.")] = 100,
    url: UrlOption = None,
    authkey: AuthkeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, newest first, with why they died.

    \b
    Example: manyhands dead list mail
    """
    with connected(url, read_key(authkey)) as client:
        if queue:
            require_queue(client, queue)
        letters = client.dead(queue).list(limit)
    if as_json:
        print_json([letter_document(each) for each in letters])
        return
    if not letters:
        console().print("No dead letters.")
        return
    rows = [
        (d.message.id, d.queue, kind(d.message), ago(d.died_at), len(d.history), content(d.message), d.reason)
        for d in letters
    ]
    columns = ("id", "queue", "kind", "died", "tries", "content", "reason")
    console().print(table(columns, rows, numbers=frozenset({"tries"})))


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(help="The dead letter's id.", metavar="ID")],
    url: UrlOption = None,
    authkey: AuthkeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter: who had it when, and how each try ended.

    \b
    Example: manyhands dead show 7f3a90c1
    """
    with connected(url, read_key(authkey)) as client:
        letter = client.dead().show(letter_id)
    if as_json:
        print_json(letter_document(letter))
        return
    out = console()
    message = letter.message
    facts = [
        ("id", message.id),
        ("queue", letter.queue),
        ("died", ago(letter.died_at)),
        ("reason", letter.reason),
        ("size", size(len(message.body))),
    ]
    call = shown(message)
    if call is None:
        facts.append(("body", preview(message.body)))
    else:
        facts += [
            (kind(message), call.name),
            *((f"  {name}", repr(value)) for name, value in (call.arguments or {}).items()),
        ]
        facts += [("tags", ", ".join(call.tags))] if call.tags else []
        facts += [("submitted", ago(call.submitted_at))] if call.submitted_at else []
    for name, value in facts:
        out.print(f"{name:9} {visible(value)}", markup=False)
    rows = [
        (a.attempt, a.consumer, ago(a.leased_at), duration(a.ended_at - a.leased_at), a.outcome, a.reason)
        for a in letter.history
    ]
    out.print()
    out.print(table(("try", "worker", "handed out", "held", "ended", "reason"), rows, numbers=frozenset({"try", "held"})))


@app.command(short_help="Put dead letters back into their queue.")
def retry(
    queue: QueueArgument,
    ids: IdsArgument = None,
    all_of_them: AllOption = False,
    url: UrlOption = None,
    authkey: AuthkeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put dead letters back at the tail of their queue, with a fresh count of deliveries.

    \b
    Example: manyhands dead retry mail 7f3a90c1
             manyhands dead retry mail --all
    """
    chosen = choose(ids, all_of_them)
    with connected(url, read_key(authkey)) as client:
        require_letters(client, queue, chosen)
        n = client.dead(queue).retry(*chosen)
    if as_json:
        print_json({"queue": queue, "retried": n})
    else:
        console().print(f"Put {count(n, 'message')} back into queue {queue!r}.")


@app.command()
def drop(
    queue: QueueArgument,
    ids: IdsArgument = None,
    all_of_them: AllOption = False,
    yes: YesOption = False,
    url: UrlOption = None,
    authkey: AuthkeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete dead letters for ever.

    \b
    Example: manyhands dead drop mail 7f3a90c1 --yes
             manyhands dead drop mail --all
    """
    chosen = choose(ids, all_of_them)
    with connected(url, read_key(authkey)) as client:
        require_letters(client, queue, chosen)
        what = count(len(chosen), "dead letter") if chosen else "all dead letters"
        confirm(f"Delete {what} of queue {queue!r} for ever?", yes=yes)
        n = client.dead(queue).drop(*chosen)
    if as_json:
        print_json({"queue": queue, "dropped": n})
    else:
        console().print(f"Deleted {count(n, 'dead letter')} of queue {queue!r}.")


def choose(ids: list[str] | None, all_of_them: bool) -> list[str]:
    """The ids to act on; none means all, which must be said.

    Raises:
        UsageError: neither or both were given.
    """
    if bool(ids) == all_of_them:
        raise UsageError("Name the dead letters by their ids, or say --all; 'manyhands dead list' shows them.")
    return ids or []


def require_letters(client: Client, queue: str, ids: list[str]) -> None:
    """See that these dead letters are there, before any of them is touched.

    Raises:
        UnknownId: the queue, or one of them, does not exist.
    """
    require_queue(client, queue)
    if not ids:
        return
    found: set[str] = set()
    for half in halves(queue):
        found |= {letter.message.id for letter in client.ask(DeadList, half, ids, len(ids)).letters}
    missing = sorted(set(ids) - found)
    if missing:
        raise UnknownId(f"No dead letter of queue {queue!r} has the id {missing[0]!r}; see 'manyhands dead list {queue}'.")


def letter_document(letter: DeadLetter) -> dict[str, object]:
    """One dead letter as data."""
    return {
        **message_document(letter.message),
        "queue": letter.queue,
        "died_at": letter.died_at,
        "reason": letter.reason,
        "history": [{field: getattr(each, field) for field in each.__struct_fields__} for each in letter.history],
    }
