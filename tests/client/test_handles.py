"""A queue in a message: which of the receiver's clients it belongs to."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from manyhands.client.handles import choose
from manyhands.errors import UsageError


class Known(NamedTuple):
    """A client as `choose` sees it."""

    url: str


HERE, THERE, OTHER = Known("tcp://127.0.0.1:5000"), Known("tcp://192.0.2.7:5000"), Known("tcp://192.0.2.8:6000")


@pytest.mark.parametrize(
    ("url", "clients", "chosen"),
    [
        ("tcp://192.0.2.7:5000", [THERE, OTHER], THERE),  # the very address
        ("tcp://127.0.0.1:5000", [THERE, OTHER], THERE),  # written by the master itself, read by a worker elsewhere
        ("tcp://192.0.2.7:5000", [HERE, OTHER], HERE),  # written by a worker elsewhere, read by the master
        ("tcp://127.0.0.1:5000", [HERE, THERE], HERE),  # the very address comes first
        ("tcp://192.0.2.9:5000", [THERE, OTHER], None),  # nobody's: to be dialled
        ("tcp://127.0.0.1:7000", [THERE, OTHER, Known("")], None),
    ],
)
def test_a_queue_in_a_message_uses_the_receivers_own_client(url: str, clients: list[Any], chosen: Any) -> None:
    assert choose(url, clients) is chosen


def test_where_several_clients_may_be_meant_none_is_guessed() -> None:
    clients: list[Any] = [THERE, Known("tcp://192.0.2.8:5000")]
    with pytest.raises(UsageError, match="connected to several servers on that port"):
        choose("tcp://127.0.0.1:5000", clients)
