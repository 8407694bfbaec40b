"""CPython's own tests of managers with our classes in place of the standard library's; run as a program.

    python suite.py fork out.json [names of tests …]

Everything that is replaced is replaced before CPython's test module is imported, here and in every child that this file is
the main program of: its classes are made of ours then. What ran, and how it went, is written to out.json.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.context
import multiprocessing.managers
import os
import sys
import unittest
from typing import Any

import manyhands.managers as ours

METHOD = "manyhands_test_start_method"
"""The environment's name for the start method, for children."""
REPLACED = (
    "BaseManager",
    "SyncManager",
    "BaseProxy",
    "AutoProxy",
    "MakeProxyType",
    "NamespaceProxy",
    "ListProxy",
    "DictProxy",
)


def replace() -> None:
    """Put our classes where CPython's tests look for the standard library's."""
    for name in REPLACED:
        setattr(multiprocessing.managers, name, getattr(ours, name))

    def Manager() -> ours.SyncManager:  # noqa: N802 - the standard library's name
        manager = ours.SyncManager()
        manager.start()
        return manager

    multiprocessing.Manager = Manager  # type: ignore[assignment]


if len(sys.argv) > 2 and __name__ == "__main__":
    os.environ[METHOD] = sys.argv[1]
replace()
from test import _test_multiprocessing as theirs  # type: ignore[import-not-found] # noqa: E402

assert theirs.BaseManager is ours.BaseManager, "CPython's tests were imported before our classes were in place"
assert theirs.BaseProxy is ours.BaseProxy

theirs.install_tests_in_module_dict(globals(), os.environ[METHOD], only_type="manager")


class TestSyncManagerTypes(theirs.TestSyncManagerTypes):  # type: ignore[misc]
    """The same class, where children can find it by name."""


def cases(suite: Any) -> list[unittest.TestCase]:
    """All tests of a suite that use a manager."""
    if isinstance(suite, unittest.TestCase):
        return [suite]
    return [case for part in suite for case in cases(part)]


class Noted(unittest.TestResult):
    """How each test went: "ok", "skipped: why", or the text of what it failed with."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, str] = {}
        self.buffer = False

    def _note(self, test: Any, outcome: str) -> None:
        self.outcomes[str(test.id()).removeprefix("__main__.")] = outcome

    def addSuccess(self, test: Any) -> None:  # noqa: N802
        self._note(test, "ok")

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        self._note(test, f"skipped: {reason}")

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        self._note(test, self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    addError = addFailure  # noqa: N815

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        if err is not None:
            self._note(test, self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    def startTest(self, test: Any) -> None:  # noqa: N802
        super().startTest(test)
        print(test.id(), file=sys.stderr, flush=True)


def main() -> None:
    _, _, out, *names = sys.argv
    loaded = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    chosen = unittest.TestSuite(case for case in cases(loaded) if not names or any(name in case.id() for name in names))
    result = Noted()
    chosen.run(result)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(result.outcomes, file, indent=1)


if __name__ == "__main__":
    main()
