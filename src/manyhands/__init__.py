"""Many hands make light work: the queues of a program, shared by many processes and machines, with nothing lost.

    import manyhands as mh

    server = mh.serve()                      # here, in a background thread
    tasks = server.queue("tasks")            # queue.Queue's interface
    worker = mh.connect()                    # in any other process of yours on this machine
    task = worker.queue("tasks").get()       # goes back to the queue if this process dies with it

Names are imported when they are first used, so that importing the package itself costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from manyhands._version import __version__ as __version__

if TYPE_CHECKING:
    from manyhands import aio as aio
    from manyhands import managers as managers
    from manyhands.client import Client as Client
    from manyhands.client import Queue as Queue
    from manyhands.client.connecting import connect as connect
    from manyhands.config import serve as serve
    from manyhands.errors import AddressInUse as AddressInUse
    from manyhands.errors import AuthenticationFailed as AuthenticationFailed
    from manyhands.errors import EngineBusy as EngineBusy
    from manyhands.errors import EngineCorrupt as EngineCorrupt
    from manyhands.errors import EngineError as EngineError
    from manyhands.errors import EngineUnavailable as EngineUnavailable
    from manyhands.errors import GiveUp as GiveUp
    from manyhands.errors import LeaseLost as LeaseLost
    from manyhands.errors import ManyhandsError as ManyhandsError
    from manyhands.errors import PayloadNotEncodable as PayloadNotEncodable
    from manyhands.errors import PayloadTooLarge as PayloadTooLarge
    from manyhands.errors import ProtocolError as ProtocolError
    from manyhands.errors import ServerGone as ServerGone
    from manyhands.errors import ServerUnavailable as ServerUnavailable
    from manyhands.errors import ShutDown as ShutDown
    from manyhands.errors import TaskCancelled as TaskCancelled
    from manyhands.errors import TaskError as TaskError
    from manyhands.errors import TaskFailed as TaskFailed
    from manyhands.errors import TaskMoved as TaskMoved
    from manyhands.errors import TaskTimedOut as TaskTimedOut
    from manyhands.errors import TryAgain as TryAgain
    from manyhands.errors import UnknownId as UnknownId
    from manyhands.errors import UnknownTask as UnknownTask
    from manyhands.errors import UnsupportedFeature as UnsupportedFeature
    from manyhands.errors import UsageError as UsageError
    from manyhands.errors import WireError as WireError
    from manyhands.errors import WorkerCrashed as WorkerCrashed
    from manyhands.errors import WrongArguments as WrongArguments
    from manyhands.executor import Executor as Executor
    from manyhands.serving import Server as Server
    from manyhands.submitting import task as task
    from manyhands.tasks import current as current
    from manyhands.worker.worker import Worker as Worker

_MODULES = ("aio", "managers")
_HOMES = {
    "connect": "client.connecting",
    "serve": "config",
    "Client": "client",
    "Executor": "executor",
    "Queue": "client",
    "Server": "serving",
    "Worker": "worker.worker",
    "task": "submitting",
    "current": "tasks",
}

__all__ = [
    "AddressInUse",
    "AuthenticationFailed",
    "Client",
    "EngineBusy",
    "EngineCorrupt",
    "EngineError",
    "EngineUnavailable",
    "Executor",
    "GiveUp",
    "LeaseLost",
    "ManyhandsError",
    "PayloadNotEncodable",
    "PayloadTooLarge",
    "ProtocolError",
    "Queue",
    "Server",
    "ServerGone",
    "ServerUnavailable",
    "ShutDown",
    "TaskCancelled",
    "TaskError",
    "TaskFailed",
    "TaskMoved",
    "TaskTimedOut",
    "TryAgain",
    "UnknownId",
    "UnknownTask",
    "UnsupportedFeature",
    "UsageError",
    "WireError",
    "Worker",
    "WorkerCrashed",
    "WrongArguments",
    "__version__",
    "aio",
    "connect",
    "current",
    "managers",
    "serve",
    "task",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"manyhands.{name}")  # which also makes it an attribute here
    if name not in __all__:
        raise AttributeError(f"module 'manyhands' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"manyhands.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
