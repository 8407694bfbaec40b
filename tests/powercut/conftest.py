"""The shim is built once; a machine where power cuts cannot be simulated says so where everybody reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from powercut import tracing


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    reason = tracing.cannot_run()
    if reason:
        pytest.skip(f"POWER CUTS ARE NOT PROVEN HERE: {reason}")
    return tracing.compile_shim(tmp_path_factory.mktemp("shim"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reason = tracing.cannot_run()
    if reason and any("powercut" in report.nodeid for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.section("POWER CUTS ARE NOT PROVEN HERE")
        terminalreporter.write_line(f"The simulated power cuts did not run: {reason}.")
