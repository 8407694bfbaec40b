"""From a typeid to the object that its callable returns, and an error that says which callable failed and where."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from manyhands.errors import ManyhandsError, TaskFailed, UsageError
from manyhands.managers.registry import Entry, Registry, names_of

_log = logging.getLogger(__name__)


def offered(entries: Registry, typeid: str) -> Entry:
    """What is registered under typeid with a callable.

    Raises:
        UsageError: nothing is; facts: offered.
    """
    entry = entries.get(typeid)
    if entry is None or entry.callable is None:
        names = names_of(entries, offered=True)
        raise UsageError(
            f"The master offers no {typeid!r}; it offers: {', '.join(names) or 'nothing'}. "
            f"Register it with a callable on the master, under the same name as in the worker.",
            offered=names,
        )
    return entry


def make(entry: Entry, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
    """What the callable returns.

    Raises:
        TaskFailed: it raised; the sentence says what and where, the master's log has the whole traceback.
    """
    assert entry.callable is not None
    try:
        return entry.callable(*args, **kwds)
    except ManyhandsError:
        raise
    except Exception as error:
        _log.warning("the callable of %r raised", typeid, exc_info=True)
        text = "".join(traceback.format_exception_only(error)).strip()
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise TaskFailed(
            f"The master's callable for {typeid!r} raised {text} (in {where.name}, {where.filename}:{where.lineno}); "
            f"its whole traceback is in the master's log.",
            typeid=typeid,
        ) from error


def label(typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> str:
    """The typeid, and the arguments as they print if there are any: the name of what was made with them."""
    if not args and not kwds:
        return typeid
    return f"{typeid}({', '.join([*map(repr, args), *(f'{key}={value!r}' for key, value in sorted(kwds.items()))])})"
