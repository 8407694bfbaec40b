"""Drop-in for `multiprocessing.managers`: change the import line, keep the program.

from manyhands.managers import BaseManager

Every name that programs take from the standard library's module is here too: where it carries calls it is our own, the rest
(Token, RemoteError, Value, Array, SharedMemoryManager, …) is the standard library's.
"""

from multiprocessing.managers import Namespace, RemoteError, SharedMemoryManager

from manyhands.managers.base import BaseManager
from manyhands.managers.object_proxy import AutoProxy, MakeProxyType
from manyhands.managers.object_proxy import ObjectProxy as BaseProxy
from manyhands.managers.proxies import QueueProxy
from manyhands.managers.serving import Server
from manyhands.managers.standard_proxies import (
    AcquirerProxy,
    ArrayProxy,
    BarrierProxy,
    BaseListProxy,
    BasePoolProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    IteratorProxy,
    ListProxy,
    NamespaceProxy,
    PoolProxy,
    ValueProxy,
)
from manyhands.managers.stdlib import (
    Array,
    ProcessLocalSet,
    State,
    Token,
    Value,
    all_methods,
    convert_to_error,
    public_methods,
)
from manyhands.managers.sync import SyncManager

__all__ = [
    "AcquirerProxy",
    "Array",
    "ArrayProxy",
    "AutoProxy",
    "BarrierProxy",
    "BaseListProxy",
    "BaseManager",
    "BasePoolProxy",
    "BaseProxy",
    "ConditionProxy",
    "DictProxy",
    "EventProxy",
    "IteratorProxy",
    "ListProxy",
    "MakeProxyType",
    "Namespace",
    "NamespaceProxy",
    "PoolProxy",
    "ProcessLocalSet",
    "QueueProxy",
    "RemoteError",
    "Server",
    "SharedMemoryManager",
    "State",
    "SyncManager",
    "Token",
    "Value",
    "ValueProxy",
    "all_methods",
    "convert_to_error",
    "public_methods",
]
