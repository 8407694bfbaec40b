"""Failures show their values; the run ends with one line for each set-up."""

from __future__ import annotations

import os
from collections import Counter, defaultdict

import pytest

SETUPS = {
    "TestMemory": "memory",
    "TestSqlite": "sqlite",
    "TestValkey": "valkey",
    "TestValkeyCluster": "valkey, cluster of 3",
    "TestNats": "nats",
    "TestNatsCluster": "nats, cluster of 3",
    "TestRemoteMemory": "remote(memory)",
    "TestRemoteSqlite": "remote(sqlite)",
    "TestRemoteValkey": "remote(valkey)",
}
ON_DEMAND = ("TestValkeyCluster", "TestNatsCluster", "TestRemoteValkey")
NOT_OFFERED = "not offered by this engine: "


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many promises each set-up kept, and which it does not make."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            parts = report.nodeid.split("::")
            if len(parts) > 2 and parts[1] in SETUPS:
                reason = str(report.longrepr[2]) if outcome == "skipped" else ""
                _, is_feature, feature = reason.partition(NOT_OFFERED)
                counts[parts[1]][f"not offered ({feature})" if is_feature else outcome] += 1
    if not counts:
        return
    terminalreporter.section("contract")
    for name, setup in SETUPS.items():
        if name in ON_DEMAND and os.environ.get("MANYHANDS_CONTRACT") != "all":
            terminalreporter.write_line(f"{setup:<20} not run: MANYHANDS_CONTRACT=all runs it")
        elif name in counts:
            line = ", ".join(f"{n} {what}" for what, n in sorted(counts[name].items(), key=lambda item: -item[1]))
            terminalreporter.write_line(f"{setup:<20} {sum(counts[name].values())} promises: {line}")
