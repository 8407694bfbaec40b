"""The example of three machines, run for real where network namespaces can be made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "machines" / "try_it.sh"


def why_not() -> str:
    """What is missing here to run it; "" when nothing is."""
    if sys.platform != "linux":
        return f"network namespaces are Linux's, and this is {sys.platform}"
    if os.geteuid() != 0:
        return "making network namespaces needs root, and this user is not"
    missing = [command for command in ("ip", "unshare", "mount", "sed") if not shutil.which(command)]
    if missing:
        return f"the commands {', '.join(missing)} are missing (iproute2, util-linux)"
    trial = ["unshare", "--net", "--mount", "sh", "-ec", "mount -t tmpfs none /run; ip netns add a; ip link add x type veth"]
    done = subprocess.run(trial, capture_output=True, text=True, timeout=20, check=False)
    return "" if done.returncode == 0 else f"this system does not let root make them: {done.stderr.strip()}"


@pytest.mark.programs
def test_two_workers_and_a_master_in_three_network_namespaces() -> None:
    if reason := why_not():
        pytest.skip(f"the three machines cannot be made here: {reason}")
    before = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    done = subprocess.run(
        ["sh", str(SCRIPT)],
        env={**os.environ, "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    assert done.stderr == ""
    results = re.findall(r"^master: Result: (\d+) \* \1 = (\d+)$", done.stdout, re.MULTILINE)
    assert len(results) == 10, report
    assert all(int(n) ** 2 == int(square) for n, square in results)
    for worker in ("first", "second"):
        assert f"{worker}: run task" in done.stdout, report
        assert f"{worker}: worker exit." in done.stdout, report
    assert "master: master exit." in done.stdout
    assert "Traceback" not in report
    after = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    assert after == before, "it left namespaces behind"
