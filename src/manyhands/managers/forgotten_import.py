"""Lets `except Queue.Empty` work in a program that imported the module as `queue`.

The most copied worker of the tutorial begins with `import queue` and says `except Queue.Empty:`, Python 2's name. Python
looks at that line only when an exception passes it, so the program works until the queue first runs empty; then it ends in
a NameError that hides what happened. Nothing that the drop-in could raise or return there avoids it: a get that found
nothing has to raise.

So, in that case and in no other, the name is supplied. Just before Empty or Full leaves the drop-in, each function it will
pass through is looked at: where the code reads `Queue.Empty` or `Queue.Full`, and `Queue` is defined nowhere that Python
would look, the module's globals get `Queue`, the standard library's `queue` module. A program that defines the name itself
is never touched, and it is said once in the log (docs/adr/0051-the-forgotten-import.md).

A variant has `from multiprocessing import Queue`: then the name is there and is a function without an `Empty`. What stands
behind that method gets the two attributes; nothing in the standard library looks for them there.
"""

from __future__ import annotations

import dis
import itertools
import logging
import queue
from functools import lru_cache
from multiprocessing.context import BaseContext
from types import CodeType, FrameType

_log = logging.getLogger(__name__)

_NAME = "Queue"
_MEANT = {"Empty", "Full"}
# How Python reads a name that is not a local of a function; plain attributes and locals have other opcodes.
_READS_A_NAME = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}


def supply_the_forgotten_name(frame: FrameType | None) -> None:
    """Define `Queue` for those of the frames that would end in a NameError instead of handling Empty or Full.

    Args:
        frame: the innermost frame of the program's own code; its callers are looked at too.
    """
    while frame is not None:
        if not _expects_the_name(frame.f_code):
            pass
        elif _knows_the_name(frame):
            _complete(frame.f_globals.get(_NAME))
        else:
            frame.f_globals[_NAME] = queue
            _log.info(
                "%s:%d says 'except Queue.Empty' but never imports Queue; it was given the module queue. "
                "Write 'except queue.Empty'.",
                frame.f_code.co_filename,
                frame.f_lineno,
            )
        frame = frame.f_back


@lru_cache(maxsize=1024)
def _expects_the_name(code: CodeType) -> bool:
    """Whether the code reads `Queue.Empty` or `Queue.Full` with a `Queue` from outside its own locals."""
    if _NAME not in code.co_names:
        return False
    steps = (step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG")
    return any(
        this.opname in _READS_A_NAME and this.argval == _NAME and after.opname == "LOAD_ATTR" and after.argval in _MEANT
        for this, after in itertools.pairwise(steps)
    )


def _knows_the_name(frame: FrameType) -> bool:
    return any(_NAME in names for names in (frame.f_globals, frame.f_locals, frame.f_builtins))


def _complete(known: object) -> None:
    """Give multiprocessing's own Queue, which is a method of its default context, the two names of the module queue."""
    function = getattr(known, "__func__", None)
    if function is BaseContext.Queue:
        for name in _MEANT:
            setattr(function, name, getattr(queue, name))
