"""What is used of `multiprocessing.managers` and is not described by its type hints."""

from __future__ import annotations

from multiprocessing import managers, process
from multiprocessing.context import get_spawning_popen
from multiprocessing.pool import RemoteTraceback  # type: ignore[attr-defined]
from typing import Any

theirs: Any = managers
"""The whole module."""
_process: Any = process

AuthenticationString: Any = _process.AuthenticationString
Array: Any = theirs.Array
ProcessLocalSet: Any = theirs.ProcessLocalSet
State: Any = theirs.State
Token: Any = theirs.Token
Value: Any = theirs.Value
all_methods: Any = theirs.all_methods
convert_to_error: Any = theirs.convert_to_error
public_methods: Any = theirs.public_methods

AutoProxy: Any = theirs.AutoProxy
BaseManager: Any = theirs.BaseManager
BaseProxy: Any = theirs.BaseProxy
SyncManager: Any = theirs.SyncManager

__all__ = [
    "Array",
    "AuthenticationString",
    "AutoProxy",
    "BaseManager",
    "BaseProxy",
    "ProcessLocalSet",
    "RemoteTraceback",
    "State",
    "SyncManager",
    "Token",
    "Value",
    "all_methods",
    "convert_to_error",
    "get_spawning_popen",
    "public_methods",
    "theirs",
]
