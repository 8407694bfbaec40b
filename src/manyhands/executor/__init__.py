"""`manyhands.Executor`: concurrent.futures' interface, on this machine's children or on a cluster's.

executor   what callers see: submit, map, shutdown
home       where the calls go: children of this process behind an embedded server (local), or a server (remote)
ending     the end of the program, of the executor object, of the last pending call
progress   the bar of map(progress=True)
"""

from __future__ import annotations

from manyhands.executor.executor import Executor as Executor

__all__ = ["Executor"]
