"""A real SMTP server for the mail example: python mail_server.py

It takes a mail for anybody but: busy@… is told 451 the first time, nobody@… 550 always. Prints a line for each command.
"""

from __future__ import annotations

import asyncio
from email import message_from_bytes
from typing import Any

from aiosmtpd.smtp import SMTP


class Handler:
    """The answers to RCPT and DATA."""

    def __init__(self) -> None:
        self._was_busy: set[str] = set()

    async def handle_RCPT(self, _: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        if address.startswith("nobody@"):
            print("550", address, flush=True)
            return "550 5.1.1 no such user"
        if address.startswith("busy@") and address not in self._was_busy:
            self._was_busy.add(address)
            print("451", address, flush=True)
            return "451 4.7.1 greylisted, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        mail = message_from_bytes(envelope.content)
        print("taken", mail["To"], mail["Message-ID"], flush=True)
        return "250 OK"


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, hostname="localhost"), "127.0.0.1", 0)
    print("SMTP on port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


handler = Handler()
asyncio.run(main())
