"""A program's two connections: one for its steps, one on which it hears what others' steps bring about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from manyhands.engines.redis.checks import parse_info
from manyhands.engines.redis.copies import ASKED_OF_DISKS, Copies
from manyhands.engines.redis.driver import Driver, Refusal, Wire
from manyhands.engines.redis.listener import Listener


class Lines:
    """Opened and closed together.

    Args:
        channel: what to hear.
        news: takes one message's bytes, in the listener's thread.
        broke: called once when the listening one ends by itself.
    """

    def __init__(
        self, driver: Driver, channel: bytes, news: Callable[[bytes], None], broke: Callable[[Listener], None]
    ) -> None:
        self.listener: Listener | None = None
        self._driver = driver
        self._channel = channel
        self._news = news
        self._broke = broke
        self._wire: Wire | None = None

    @property
    def is_open(self) -> bool:
        return self._wire is not None

    def open(self) -> None:
        """Both; nobody is told of a program that does not hear yet.

        Raises:
            Unreachable, Denied: as the driver says; neither is open then.
        """
        wire = self._driver.open()
        try:
            news = self._driver.open(is_patient=True)
            try:
                news.subscribe(self._channel)
            except BaseException:
                news.close()
                raise
        except BaseException:
            wire.close()
            raise
        self._wire = wire
        self.listener = Listener(news, self._news, self._broke)

    def run(self, args: Sequence[bytes], *, is_relief: bool, copies: Copies | None) -> tuple[list[Any], Any]:
        """One step, and what WAIT or WAITAOF said of it; see `Wire.run`.

        A replica says at once what it has in memory, in the same trip. What it has on disk it says as of the moment in
        which it is asked: it is asked behind the step, and again soon.
        """
        assert self._wire is not None
        then = copies.command if copies and not copies.is_on_disk else ()
        answer, confirmed = self._wire.run(self._driver.prefix, args, is_relief=is_relief, then=then)
        if copies and copies.is_on_disk:
            for _ in range(ASKED_OF_DISKS):
                try:
                    confirmed = self._wire.ask(*copies.command)
                except Refusal as refusal:
                    return answer, refusal
                if copies.is_enough(confirmed):
                    break
        return answer, confirmed

    def run_id(self) -> str:
        """Changes with every start of the server."""
        assert self._wire is not None
        return parse_info(self._wire.ask("INFO", "server")).get("run_id", "")

    def close(self) -> None:
        """Both, if they are open; when this returns nothing more is heard."""
        if self.listener is not None:
            self.listener.stop()
            self.listener = None
        if self._wire is not None:
            self._wire.close()
            self._wire = None
