"""What an acknowledgement means at this Redis, read from its settings; and which ones are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from manyhands.errors import EngineUnavailable, UsageError
from manyhands.model import Durability, Features, Limits


class Found(NamedTuple):
    """What the server said of itself."""

    version: str
    """As people know it: "Valkey 8.1.2"."""
    run: str
    """Changes with every start of the server."""
    durability: Durability
    survives_restart: bool
    notes: list[str]
    """What the person who looks after it should know."""


class About:
    """What the engine says of itself in Attached."""

    def __init__(self, found: Found, limits: Limits) -> None:
        self.found = found
        self.limits = limits
        self.features = Features(survives_restart=found.survives_restart, moves=True)


def examine(info: Mapping[str, str], config: Mapping[str, str], text: str) -> Found:
    """Judge a server by its INFO and CONFIG.

    Args:
        config: empty where CONFIG is not allowed (managed services): then what cannot be seen is taken as the weakest.
        text: the server's address for people.

    Raises:
        UsageError: it is too old, a known-bad version, or throws keys away when memory is short.
        EngineUnavailable: it is a replica and takes no writes.
    """
    version = _version(info, text)
    if info.get("role") not in (None, "master"):
        raise EngineUnavailable(
            f"the Redis at {text} is a replica and takes no writes; connect to its master or name its Sentinels"
        )
    policy = config.get("maxmemory-policy") or info.get("maxmemory_policy", "")
    if policy not in ("", "noeviction"):
        raise UsageError(
            f"the Redis at {text} throws keys away when memory is short (maxmemory-policy {policy}), which would lose "
            "messages that were acknowledged; set maxmemory-policy noeviction."
        )
    notes = []
    if not policy:
        notes.append(
            "maxmemory-policy could not be read; it must be noeviction, or messages may be lost when memory is short"
        )
    replicas = int(info.get("connected_slaves", "0"))
    is_logged = info.get("aof_enabled") == "1"
    fsync = config.get("appendfsync", "")
    saves = bool(config.get("save", ""))
    beside = (
        f"; {replicas} {'replica' if replicas == 1 else 'replicas'} follow{'s' if replicas == 1 else ''} a moment later"
        if replicas
        else ""
    )
    if is_logged and fsync == "always":
        durability = Durability("disk", f"appendfsync always: {version} has it on disk before it answers{beside}")
    elif is_logged:
        what = f"appendfsync {fsync}" if fsync else "appendfsync unknown"
        durability = Durability(
            "process",
            f"{what}: survives the death of any client and kill -9 of {version}; the machine's failure may lose the last "
            f"second{beside}",
        )
        notes.append(f"{what}: set it to always if an acknowledged message must survive the machine's failure")
    else:
        since = "but for what came after the last snapshot" if saves else "at all"
        durability = Durability(
            "process", f"no append-only file: survives the death of any client, not that of {version} {since}{beside}"
        )
        notes.append("appendonly is off: what is acknowledged is lost with the server; set appendonly yes")
    return Found(version, info.get("run_id", ""), durability, is_logged, notes)


def _version(info: Mapping[str, str], text: str) -> str:
    is_valkey = "valkey_version" in info
    name, number, least = (
        ("Valkey", info["valkey_version"], (8, 0)) if is_valkey else ("Redis", info.get("redis_version", "0"), (7, 0))
    )
    try:
        parts = tuple(int(part) for part in number.split(".")[:2])
    except ValueError:
        parts = (0, 0)
    if parts < least:
        raise UsageError(f"the server at {text} is {name} {number}; manyhands needs Redis 7 or Valkey 8, or newer.")
    return f"{name} {number}"


def parse_info(text: bytes) -> dict[str, str]:
    """INFO's answer as names and values."""
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, found, value in lines if found and not name.startswith("#")}
