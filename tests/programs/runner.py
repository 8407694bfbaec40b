"""Runs one program as `python program.py` would, under a chosen start method, and can kill it at an exact line.

    python runner.py METHOD held|free PROGRAM [LINE_TEXT NTH]

When held, it makes the file PROGRAM.held and waits for a line on its standard input, so that several can begin at the same
moment. With LINE_TEXT, the process is killed (SIGKILL) the NTH time it is about to run the program's line that contains
that text: between two statements there is no moment that another process could hit from outside.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from types import FrameType
from typing import Any


def _kill_at(program: str, line_text: str, nth: int) -> None:
    with open(program, encoding="utf-8") as file:
        deadly = {number for number, line in enumerate(file, 1) if line_text in line}
    left = nth

    def on_line(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if event == "line" and frame.f_lineno in deadly:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: FrameType, _event: str, _argument: Any) -> Any:
        return on_line if frame.f_code.co_filename == program else None

    sys.settrace(on_call)


def main() -> None:
    method, hold, program, *deadly = sys.argv[1:]
    multiprocessing.set_start_method(method)
    sys.argv = [program]
    sys.path[0] = os.path.dirname(program)
    if deadly:
        _kill_at(program, deadly[0], int(deadly[1]))
    if hold == "held":
        with open(program + ".held", "w", encoding="ascii"):
            pass
        sys.stdin.readline()
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
