"""What callers see of an Executor."""

from __future__ import annotations

import concurrent.futures
import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, Literal, TypeVar

from manyhands.client.calling.futures import CallFuture
from manyhands.client.calling.mapping import Mapping
from manyhands.errors import UsageError
from manyhands.executor import ending
from manyhands.executor.home import Home, Terms, open_home

T = TypeVar("T")


class Executor(concurrent.futures.Executor):
    """Runs calls in other processes: children of this one, or the workers of a cluster. Called as ProcessPoolExecutor is.

    Args:
        max_workers: how many children; as many as this process has processors, if not given. With url=: how many workers
            there are does not depend on it.
        mp_context: how children are started, spawn or forkserver of multiprocessing; None: as fresh interpreters, for which
            a program needs no `if __name__ == "__main__"`.
        initializer: called with initargs in each child before its first call; with url=, once in each child of the cluster.
        max_tasks_per_child: a child is replaced after so many calls.
        url: the server whose workers run the calls; None: children of this process.
        authkey: the server's key, found as by `manyhands.connect`.
        store: where calls wait that are run by children of this process; `sqlite:///jobs.db` to outlive it. None: in memory.
        queue: the queue in which they wait; workers are started for queues by name.
        keep_result_s: how long results are kept for `Client.result(id)`, also when this program has died. 0: until received.

    Raises:
        ValueError, TypeError: as ProcessPoolExecutor's own.
        UsageError: arguments that cannot be had together; the sentence says which.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        url: str | None = None,
        authkey: str | bytes | None = None,
        store: str | None = None,
        queue: str = "default",
        keep_result_s: float = 0.0,
    ) -> None:
        _check(max_workers, mp_context, initializer, max_tasks_per_child, url, store)
        self._max_workers = max_workers or _processors()
        self._terms = Terms(
            self._max_workers,
            mp_context,
            initializer,
            initargs,
            max_tasks_per_child or 0,
            url,
            authkey,
            store,
            queue,
            keep_result_s,
        )
        self._opening = threading.Lock()
        self._home: Home | None = None
        self._is_shut_down = False

    # -- calls ---------------------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> CallFuture[T]:
        """Run fn(*args, **kwargs) in a worker.

        Returns:
            A concurrent.futures.Future, with the call's `id`.

        Raises:
            PayloadNotEncodable, PayloadTooLarge: what is to be sent cannot be; nothing was.
            BrokenProcessPool: the initializer failed.
            RuntimeError: the executor was shut down.
        """
        home = self._home or self.open()
        future = home.calls.submit(fn, args, kwargs)
        if not home.is_full:
            home.grow()
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        progress: bool = False,
    ) -> Iterator[T]:
        """fn over the iterables, as the built-in map, in order, with the calls run by workers.

        Arguments are taken as there is room for them, so iterables may be endless. Calls share messages by how long they
        are measured to take; nothing needs to be tuned.

        Args:
            timeout: seconds from now for the whole of it.
            chunksize: how many calls share a message; None measures.
            buffersize: how many calls may be under way or wait for their result to be taken; None for about 500 messages.
            progress: whether to show a bar with rate and time left, in a terminal or a notebook.

        Raises:
            As `submit`. The iterator raises what a call raised, in its place, and TimeoutError.
        """
        mapping = self.mapping(fn, iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize)
        if progress:
            from manyhands.executor.progress import with_bar

            return with_bar(mapping.results(), mapping.length, getattr(fn, "__name__", "map"))
        return mapping.results()

    def mapping(
        self,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        *,
        timeout: float | None,
        chunksize: int | None,
        buffersize: int | None,
    ) -> Mapping:
        """What `map` takes its results from; the first calls are under way. Arguments and errors as `map`'s."""
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        home = self._home or self.open()
        if home.session.refusal is not None:
            raise home.session.refusal
        group, before = home.calls.group(fn)
        is_single = len(iterables) == 1
        return Mapping(
            home.session,
            group,
            before,
            iterables[0] if is_single else zip(*iterables, strict=False),
            is_single=is_single,
            length=_length(iterables),
            chunksize=chunksize,
            buffersize=buffersize,
            timeout_s=timeout,
            on_feed=home.grow,
        )

    # -- the end -------------------------------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; end the children when the pending ones have ended.

        Args:
            wait: whether to return only then.
            cancel_futures: cancel what nobody has begun.
        """
        with self._opening:
            self._is_shut_down = True
            home = self._home
        if home is not None:
            home.shut_down(wait=wait, cancel_futures=cancel_futures)

    def break_off(self) -> None:
        """End now: cancel what waits, stop what runs, and wait for neither. What Ctrl-C does in a `with` block.

        With url= and keep_result_s, calls go on at the workers, for whoever asks for their results.
        """
        with self._opening:
            self._is_shut_down = True
            home = self._home
        if home is not None:
            home.break_off()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.break_off()
        else:
            self.shutdown()
        return False

    # -- opening -------------------------------------------------------------------------------------------------------

    def open(self) -> Home:
        """Connect, or start the embedded server, if that was not done yet; the first call does it by itself.

        Raises:
            RuntimeError: the executor was shut down.
            UsageError, ServerUnavailable, AuthenticationFailed, EngineBusy, …: as connecting or opening the store does.
        """
        with self._opening:
            if self._home is None:
                if self._is_shut_down:
                    raise RuntimeError("cannot schedule new futures after shutdown")
                if ending.is_ending():
                    raise RuntimeError("cannot schedule new futures after interpreter shutdown")
                home = self._home = open_home(self._terms)
                weakref.finalize(self, home.forsake).atexit = False
            return self._home

    @property
    def _broken(self) -> str | bool:
        """As ProcessPoolExecutor's: why no call can be run, or False. Only a failed initializer breaks an executor."""
        home = self._home
        return str(home.broken) if home is not None and home.broken is not None else False

    def __repr__(self) -> str:
        where = self._terms.url or f"{self._max_workers} children"
        return f"<manyhands.Executor on {where}>"


def _check(
    max_workers: int | None,
    mp_context: BaseContext | None,
    initializer: Callable[..., object] | None,
    max_tasks_per_child: int | None,
    url: str | None,
    store: str | None,
) -> None:
    if max_workers is not None and max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if max_tasks_per_child is not None:
        if not isinstance(max_tasks_per_child, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks_per_child <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")
    if url is not None:
        given = {"mp_context": mp_context, "max_tasks_per_child": max_tasks_per_child, "store": store}
        for name, value in given.items():
            if value is not None:
                raise UsageError(
                    f"{name} is about children of this process, and with url= the calls are run by the workers of "
                    f"{url}; leave it out, or give it where those are started."
                )
    if mp_context is not None and mp_context.get_start_method() == "fork":
        raise UsageError(
            "mp_context is fork, and a copy of a process with threads may hang at a lock that one of them held; leave it "
            "out, or pass multiprocessing.get_context('forkserver') or 'spawn'."
        )


def _processors() -> int:
    found = getattr(os, "process_cpu_count", os.cpu_count)()
    return found or 1


def _length(iterables: tuple[Any, ...]) -> int | None:
    """How many calls a map makes, where one of its iterables knows."""
    lengths = []
    for one in iterables:
        try:
            lengths.append(len(one))
        except TypeError:
            hint = operator.length_hint(one, -1) if type(one).__module__ in ("builtins", "itertools") else -1
            if hint >= 0:
                lengths.append(hint)
    if not iterables:
        return 0
    return min(lengths) if lengths else None
