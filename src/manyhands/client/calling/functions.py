"""Calls of functions through a call session: each function's group, and its arguments as they are from now on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from manyhands.calls import bodies
from manyhands.calls.functions import Functions
from manyhands.client.calling.futures import CallFuture
from manyhands.client.calling.session import CallSession
from manyhands.client.calling.state import Group
from manyhands.codec.pickles import PLAIN_TYPES

PYTHON = "{}.{}".format(*sys.version_info)
"""This interpreter's minor version: only the same one runs code that is sent by value."""
_SCALARS = PLAIN_TYPES - {str, bytes}


class FunctionCalls:
    """Submits calls of functions to one queue.

    Args:
        queue: the engine's name of it.
        setup: what a child runs before its first call.
    """

    def __init__(
        self, session: CallSession, queue: str, *, keep_result_s: float = 0.0, setup: bodies.Setup | None = None
    ) -> None:
        self.session = session
        self._queue = queue
        self._keep_result_s = keep_result_s
        self._functions: Functions[Group] = Functions(PYTHON, self._group, setup=setup)

    def _group(self, head: bodies.Head) -> Group:
        return Group(self._queue, head, PYTHON, keep_result_s=self._keep_result_s)

    def group(self, function: Callable[..., Any]) -> tuple[Group, tuple[Any, ...]]:
        """The group of a function's calls, and what goes before the caller's arguments; raises as `submit`."""
        return self._functions.get(function)

    def submit(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CallFuture[Any]:
        """Send one call.

        Raises:
            PayloadNotEncodable, PayloadTooLarge: what is to be sent cannot be; nothing was.
            Whatever the session refuses more calls with.
        """
        group, before = self._functions.get(function)
        if kwargs or before:
            argument = bodies.argument(before + args, kwargs)
        else:
            for one in args:  # bodies.argument in line, for what most calls are
                if type(one) not in _SCALARS:
                    argument = bodies.argument(args, kwargs)
                    break
            else:
                argument = args
        return self.session.submit(group, argument)
