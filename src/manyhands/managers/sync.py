"""`SyncManager`: everything that the standard library's `multiprocessing.Manager()` offers."""

from __future__ import annotations

import threading
from multiprocessing import managers, pool
from queue import Queue

from manyhands.managers import standard_proxies as proxies
from manyhands.managers import stdlib
from manyhands.managers.base import BaseManager
from manyhands.managers.object_proxy import as_ours


class SyncManager(BaseManager):
    """Drop-in for `multiprocessing.managers.SyncManager`: shared dicts, lists, locks, events, and queues of the engine.

    A lock that a dead process held is released; a queue's item that a dead process had in hand goes back. All of it lives in
    the master's process, in memory.
    """


for _name, _callable, _proxy in (
    ("Queue", Queue, None),
    ("JoinableQueue", Queue, None),
    ("Event", threading.Event, proxies.EventProxy),
    ("Lock", threading.Lock, proxies.AcquirerProxy),
    ("RLock", threading.RLock, proxies.AcquirerProxy),
    ("Semaphore", threading.Semaphore, proxies.AcquirerProxy),
    ("BoundedSemaphore", threading.BoundedSemaphore, proxies.AcquirerProxy),
    ("Condition", threading.Condition, proxies.ConditionProxy),
    ("Barrier", threading.Barrier, proxies.BarrierProxy),
    ("Pool", pool.Pool, proxies.PoolProxy),
    ("list", list, proxies.ListProxy),
    ("dict", dict, proxies.DictProxy),
    ("Value", stdlib.Value, proxies.ValueProxy),
    ("Array", stdlib.Array, proxies.ArrayProxy),
    ("Namespace", managers.Namespace, proxies.NamespaceProxy),
):
    SyncManager.register(_name, _callable, _proxy)

SyncManager.register("Iterator", proxytype=proxies.IteratorProxy, create_method=False)
SyncManager.register("AsyncResult", create_method=False)

# What a newer standard library offers besides (a set, since 3.14), as it is registered there.
for _name, (_callable, _exposed, _results, _proxy) in stdlib.SyncManager._registry.items():
    if _name not in SyncManager._registry:
        SyncManager.register(_name, _callable, as_ours(_proxy), _exposed, _results, hasattr(stdlib.SyncManager, _name))
