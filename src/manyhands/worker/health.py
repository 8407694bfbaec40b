"""`/healthz`: whether this worker can work, for those who restart what cannot.

    GET /healthz -> 200 {"status": "ok", …}      the server answered a moment ago, also to each child that waits for work
                    503 {"status": "…", "why": "…"}

Off until an address is given. It says nothing that a stranger may not know: no queue names, no keys, no addresses.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from manyhands.errors import AddressInUse, UsageError
from manyhands.model import HEARTBEAT_S

STALE_HEARTBEATS = 3
"""The server counts as silent after so many heartbeats without an answer."""
_REQUEST_S = 5.0


class Health(msgspec.Struct, frozen=True):
    """What a worker knows of itself at one moment."""

    now: float
    heard_mono: float
    """When the server answered last; 0.0: never."""
    heartbeat_s: float
    wanted: int
    ready: int
    """How many children (or threads, or slots) can work."""
    busy: int
    is_draining: bool = False
    failure: str = ""
    """Why children cannot work."""
    silent_s: float = 0.0
    """For how long a child has waited for work and heard nothing from the server; of several the longest."""

    @property
    def trouble(self) -> str:
        """Why it cannot work now; "" when it can."""
        silent_s = self.now - self.heard_mono
        if not self.heard_mono:
            return "the server has not been reached yet"
        if silent_s > STALE_HEARTBEATS * self.heartbeat_s:
            return f"nothing was heard from the server for {silent_s:.0f} s"
        # A child that waits sends a heartbeat when it has heard nothing for one, so its silence is up to two older.
        if self.silent_s > (STALE_HEARTBEATS + 1) * max(self.heartbeat_s, HEARTBEAT_S):
            return f"a child that waits for work has heard nothing from the server for {self.silent_s:.0f} s"
        if not self.ready and not self.is_draining:
            return "no child can work" if self.failure else "no child is ready yet"
        return ""

    def answer(self) -> tuple[int, dict[str, Any]]:
        """The HTTP status and the document."""
        trouble = self.trouble
        document: dict[str, Any] = {
            "status": "draining" if self.is_draining and not trouble else "failing" if trouble else "ok",
            "heard_s_ago": round(self.now - self.heard_mono, 3) if self.heard_mono else None,
            "children": {"wanted": self.wanted, "ready": self.ready, "busy": self.busy},
        }
        if trouble:
            document["why"] = trouble
        return (503 if trouble else 200), document


def parse_where(text: str) -> tuple[str, int]:
    """Host and port of "8080", ":8080" (this machine only), "0.0.0.0:8080" or "[::]:8080".

    Raises:
        UsageError: it is no such address.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text!r} is no address for /healthz; write 127.0.0.1:8080, or 0.0.0.0:8080 for all interfaces.")
    return host, int(port)


class HealthServer:
    """Answers probes from a thread of its own.

    Args:
        where: see `parse_where`; port 0 is any free one.
        ask: how things are now.

    Raises:
        UsageError: the address cannot be used.
        AddressInUse: another program listens there.
    """

    def __init__(self, where: str, ask: Callable[[], Health]) -> None:
        host, port = parse_where(where)
        handler = type("_Handler", (_Handler,), {"ask": staticmethod(ask)})
        try:
            self._server = _Server((host, port), handler)
        except OSError as error:
            kind = AddressInUse if "in use" in str(error).lower() else UsageError
            raise kind(f"/healthz cannot be served at {host}:{port} ({error.strerror}); choose another address.") from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_address[1]}/healthz"
        self._woken, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="manyhands-healthz", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # Not serve_forever, which looks twice a second whether it shall end.
        with selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while all(key.fileobj is self._server for key, _ in selector.select()):
                self._server.handle_request()

    def close(self) -> None:
        """Stop answering."""
        self._waker.send(b"\0")
        self._thread.join()
        self._server.server_close()
        self._woken.close()
        self._waker.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    timeout = 0.0  # of handle_request, for a connection that was gone again when it was to be accepted

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A probe that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    ask: Callable[[], Health]
    timeout = _REQUEST_S
    server_version, sys_version = "manyhands", ""

    def do_GET(self) -> None:  # the standard library's name
        if self.path.partition("?")[0] != "/healthz":
            self.send_error(404)
            return
        status, document = type(self).ask().answer()
        body = json.dumps(document).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Probes come every few seconds; they are not logged."""
