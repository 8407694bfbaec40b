"""`manyhands serve`: a server by itself, until it is told to stop."""

from __future__ import annotations

import os
import sys
import threading
from typing import Annotated

import typer

from manyhands._version import __version__
from manyhands.address import DEFAULT_URL, without_password
from manyhands.cli.options import AuthkeyOption, JsonOption, read_key
from manyhands.cli.output import print_json
from manyhands.cli.signals import stopped_by_signals
from manyhands.model import Durability


def serve(
    url: Annotated[str, typer.Argument(help="Where to listen; port 0 is any free one.", metavar="[URL]")] = DEFAULT_URL,
    store: Annotated[
        str,
        typer.Option(
            "--store",
            metavar="STORE",
            help="Where the queues live: memory://, sqlite:///file.db (four slashes: absolute), redis://host or nats://host.",
        ),
    ] = "memory://",
    authkey: AuthkeyOption = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve beyond this machine without encryption, on a network you trust.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep named queues and serve them, until Ctrl-C or SIGTERM.

    \b
    Example: manyhands serve
             manyhands serve --store sqlite:///jobs.db
             manyhands serve tcp://0.0.0.0:5959 --insecure --authkey @cluster.key
    """
    from manyhands.config import open_server  # not at the top: a worker's parent is small without a server

    stop = threading.Event()
    # Before anything is served, so that a stop that comes early is an orderly one too.
    with stopped_by_signals(stop.set):
        server, key, durability = open_server(url, read_key(authkey), store=store, insecure=insecure)
        with server:
            announce(server.url, without_password(store), durability, key.source, as_json=as_json)
            if key.is_short and not as_json:
                sys.stderr.write("manyhands: the key has fewer than 16 bytes and can be guessed; use a longer one.\n")
            while not stop.wait(0.5):  # in slices, because on Windows a signal does not end a wait
                pass
    if not as_json:
        sys.stdout.write("stopped; clients were told\n")


def announce(url: str, store: str, durability: Durability, key_source: str, *, as_json: bool) -> None:
    """Say what is served where, once it is: programs that start a server wait for this."""
    if as_json:
        document = {"url": url, "store": store, "durability": durability.text, "key": key_source, "pid": os.getpid()}
        if durability.weaker:
            document["weaker"] = durability.weaker
        print_json({"version": __version__, **document})
        return
    lines = [
        f"manyhands {__version__} serves {url}",
        f"  store  {store}: {durability.text}",
        *([f"  weaker {durability.weaker}"] if durability.weaker else []),
        f"  key    {where_from(key_source)}",
        f"  look   manyhands status{'' if url == DEFAULT_URL else f' --url {url}'}",
        "  stop   Ctrl-C",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def where_from(key_source: str) -> str:
    """The key's source for people."""
    if key_source == "argument":
        return "as given with --authkey"
    return f"from {key_source}" if os.sep not in key_source else f"this user's own, kept in {key_source}"
