"""`@mh.task` and `.submit`: where a task meets a client. Light, for every worker imports it with the tasks' module."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from manyhands.tasks import REGISTRY, Task, TaskOptions, home
from manyhands.tasks.options import BACKOFF_CAP_S, BACKOFF_S, KEEP_RESULT_S
from manyhands.tasks.task import changed

if TYPE_CHECKING:
    from manyhands.client import Client

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class RegisteredTask(Task[P, R]):
    """What `@mh.task` makes of a function: calling it runs it here, `submit` sends it to the workers."""

    @overload
    def submit(self: RegisteredTask[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """Send a call to the workers, through the client of `default_client`; client.submit(task, …) uses another.

        Returns:
            A future with `.id`, by which any client finds the result (`client.result`).

        Raises:
            WrongArguments, PayloadNotEncodable: an argument is not what its hint says, or no plain data; nothing was sent.
            ServerUnavailable: nobody answers.
        """
        if _default is None:
            self.pack(args, kwargs)  # what is wrong with the call is said before a server is looked for
        return default_client().submit(self, *args, **kwargs)


@overload
def task(function: Callable[P, R], /) -> RegisteredTask[P, R]: ...
@overload
def task(
    *,
    name: str = "",
    queue: str = "default",
    priority: int = 0,
    max_attempts: int = 1,
    max_deliveries: int = 0,
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = (Exception,),
    backoff_s: float = BACKOFF_S,
    backoff_cap_s: float = BACKOFF_CAP_S,
    timeout_s: float = 0.0,
    delay_s: float = 0.0,
    eta: datetime | float | None = None,
    expires_s: float = 0.0,
    keep_result_s: float = KEEP_RESULT_S,
    dedupe_key: str | Callable[..., str] | None = None,
    tags: tuple[str, ...] | list[str] = (),
) -> Callable[[Callable[P, R]], RegisteredTask[P, R]]: ...
def task(function: Callable[..., Any] | None = None, /, *, name: str = "", **options: Any) -> Any:
    """Make a function a task: known to workers by its module and name, and sent to them by `.submit(…)`.

    Args:
        name: under which workers know it, instead of module:qualname.
        options: see `tasks.TaskOptions`; `.options(…)` changes them for some calls.

    Raises:
        UsageError: an option cannot be meant, or another task has that name.
    """
    settings = changed(TaskOptions(), options)

    def register(function: Callable[..., Any]) -> RegisteredTask[..., Any]:
        made = RegisteredTask(function, settings, name)
        REGISTRY.add(made)
        return made

    return register if function is None else register(function)


# -- the client of whoever did not say which -----------------------------------------------------------------------

_lock = threading.Lock()
_default: Client | None = None


def default_client() -> Client:
    """The client behind `.submit(…)`, connected when it is first needed, and again once it was closed.

    In a worker it leads to the server that it works for, elsewhere to the one that `mh.connect()` finds.

    Raises:
        ServerUnavailable, AuthenticationFailed: see connect.
    """
    global _default
    with _lock:
        if _default is None or _default.is_closed:
            from manyhands.client.connecting import connect  # 20 ms that a worker which submits nothing does not need

            server = home()
            _default = connect() if server is None else connect(server.url, server.authkey)
        return _default


@contextmanager
def submitting_through(client: Client) -> Iterator[None]:
    """Within the block, in every thread, tasks are submitted through this client."""
    global _default
    with _lock:
        before, _default = _default, client
    try:
        yield
    finally:
        with _lock:
            _default = before
