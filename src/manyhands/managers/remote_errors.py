"""What a client raises for something that went wrong in the master's own code."""

from __future__ import annotations

from multiprocessing.managers import RemoteError

from manyhands.errors import TaskFailed


class CallableFailed(TaskFailed, RemoteError):
    """The callable that a typeid is registered with raised. The standard library has a RemoteError for it."""

    def __str__(self) -> str:  # RemoteError would put lines around the sentence
        return str(self.args[0]) if self.args else ""
