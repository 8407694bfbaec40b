"""What processes cost, read from /proc: memory now, processor time so far. Empty where there is no /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def descendants(pid):
    """The processes that pid started, and those that they started; pid itself first."""
    children = {}
    for entry in PROC.glob("[0-9]*/stat") if PROC.is_dir() else ():
        with suppress(OSError, IndexError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found, queue = [], [pid]
    while queue:
        each = queue.pop()
        found.append(each)
        queue += children.get(each, [])
    return found


def cpu_s(pid):
    """Seconds of processor time that a process (all its threads, and children it waited for) used so far."""
    with suppress(OSError, IndexError):
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return sum(int(fields[n]) for n in (11, 12, 13, 14)) / _TICKS
    return 0.0


def memory(pid):
    """(resident bytes, proportional bytes): the latter counts a page that k processes share as 1/k of a page."""
    rss = pss = 0
    with suppress(OSError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                rss = int(line.split()[1]) * 1024
            elif line.startswith("Pss:"):
                pss = int(line.split()[1]) * 1024
    return rss, pss


class Census:
    """Processor time by role between two moments."""

    def __init__(self, peer):
        self._peer = peer
        self._before = {pid: cpu_s(pid) for pid in _pids(peer.roles)}

    def by_role(self, n):
        """Microseconds of processor time for each of n tasks, in each kind of process."""
        used = {}
        roles = self._peer.find_roles()
        for pid in _pids(roles):
            role = role_of(pid, roles)
            used[role] = used.get(role, 0.0) + cpu_s(pid) - self._before.get(pid, 0.0)
        return {role: seconds * 1e6 / n for role, seconds in used.items()}


def _pids(roles):
    return sorted(set(descendants(os.getpid())) | set(roles))


def role_of(pid, roles):
    return "client" if pid == os.getpid() else roles.get(pid, "worker")


def memory_by_role(peer):
    """The processes of this program: for each role the resident bytes of the largest, and the proportional bytes of all."""
    resident, proportional, roles = {}, 0, peer.find_roles()
    for pid in _pids(roles):
        rss, pss = memory(pid)
        role = role_of(pid, roles)
        resident[role] = max(resident.get(role, 0), rss)
        proportional += pss
    return {"resident": resident, "all": proportional}
