"""What an acknowledgement means at this NATS, from what its servers say of themselves; and which ones are refused. Pure.

The versions before 2.10.23 forget whole streams when servers are killed (Jepsen's analysis of NATS 2.12.1, its note on
2.10.20 to 2.10.22; nats-server issue 6888). `sync_interval` is visible to the system account only; its default of two
minutes loses acknowledged messages when a machine (for three replicas: two of them at once) fails (nats-server issue 7564),
so what cannot be seen is taken to be that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from manyhands.errors import UsageError
from manyhands.model import Durability

LEAST = (2, 10, 23)
_NUMBERS = re.compile(r"(\d+)\.(\d+)\.(\d+)")


class Found(NamedTuple):
    """What was found at opening."""

    version: str
    durability: Durability
    notes: list[str]
    """What the person who looks after it should know."""


def check_version(version: str, text: str) -> None:
    """Refuse servers that lose streams.

    Raises:
        UsageError: it is too old.
    """
    numbers = _NUMBERS.match(version)
    if numbers is None or tuple(map(int, numbers.groups())) < LEAST:
        least = ".".join(map(str, LEAST))
        raise UsageError(
            f"the server at {text} is nats-server {version}; those before {least} can lose a whole stream when they are "
            f"killed: update it to {least} or newer."
        )


def replicas_for(asked: int, cluster_size: int) -> int:
    """How many servers to keep a new stream on.

    Args:
        asked: 0 is three where there are as many.
        cluster_size: servers that the one we talk to knows of, itself included; of some that cannot be seen, 1.
    """
    return asked or (3 if cluster_size >= 3 else 1)


def examine(version: str, config: Mapping[str, Any], asked: int, text: str) -> Found:
    """Judge a stream by its configuration.

    Args:
        config: the stream's, as the server shows it.
        asked: how many replicas the URL asks for; 0 is what there is.

    Raises:
        UsageError: the stream is weaker than what was asked for, or does not keep what is put into it.
    """
    stream, replicas = config.get("name", ""), int(config.get("num_replicas", 1))
    if asked > replicas:
        raise UsageError(
            f"replicas={asked} is asked for, but the stream {stream} at {text} is kept on {replicas}; change it with "
            f"'nats stream edit {stream} --replicas {asked}', or ask for what there is."
        )
    wrong = [
        f"{name} {config.get(name)}"
        for name, right in (("retention", "limits"), ("discard", "new"), ("storage", "file"))
        if config.get(name) != right
    ]
    wrong += [f"{name} {config[name]}" for name in ("max_age", "max_msgs", "max_bytes") if int(config.get(name) or 0) > 0]
    wrong += ["persist_mode async"] if config.get("persist_mode") == "async" else []
    if wrong:
        raise UsageError(
            f"the stream {stream} at {text} would lose what was acknowledged ({', '.join(wrong)}); make it again as "
            "manyhands does, or name another space."
        )
    lazily = "nats-server syncs to disk every 2 minutes unless sync_interval says otherwise, which only its operator can see"
    if replicas > 1:
        durability = Durability(
            "replicated",
            f"on a majority of {replicas} servers before it is acknowledged: survives kill -9 of any of them and the "
            f"failure of a minority of the machines ({lazily})",
        )
        return Found(version, durability, [])
    durability = Durability(
        "process",
        f"one replica: survives the death of any client and kill -9 of nats-server {version}; the machine's failure may "
        f"lose what was not synced ({lazily})",
    )
    note = "one replica: set sync_interval always, or use three servers, if an acknowledged message must survive a machine"
    return Found(version, durability, [note])
