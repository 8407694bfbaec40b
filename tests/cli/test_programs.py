"""The commands that are processes of their own: serve until it is told to stop, demo, and `python -m manyhands`."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

import manyhands as mh
from conftest import Start

pytestmark = pytest.mark.programs


def port_of(text: str) -> int:
    found = re.search(r"tcp://127\.0\.0\.1:(\d+)", text)
    assert found, text
    return int(found[1])


@pytest.mark.skipif(os.name != "posix", reason="Windows sends a console event to a group, which the test would be part of")
@pytest.mark.parametrize("stop", ["SIGTERM", "SIGINT"])
def test_serve_stops_in_order_and_ends_with_0(start: Start, stop: str) -> None:
    server = start("serve", "-m", "manyhands", "serve", "tcp://127.0.0.1:0")
    server.prints("Ctrl-C")
    with mh.connect(f"tcp://127.0.0.1:{port_of(server.out)}") as client:
        client.queue("tasks").put("kept until the end")
        server.process.send_signal(getattr(signal, stop))
        server.ends_quietly()
        assert "stopped" in server.out
        with pytest.raises(mh.ServerGone):
            client.queue("tasks").get(timeout=0.2)


def test_serve_says_what_programs_need_and_never_the_key(start: Start, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a secret of sixteen bytes\n")
    server = start("serve", "-m", "manyhands", "serve", "tcp://127.0.0.1:0", "--json", "--authkey", f"@{tmp_path / 'key'}")
    server.prints("\n")
    said = json.loads(server.out)
    assert said["pid"] == server.process.pid
    assert said["key"] == "argument"
    assert "a secret" not in server.out + server.err
    with mh.connect(said["url"], "a secret of sixteen bytes") as client:
        assert client.stats().queues == []


def test_serve_with_a_file_keeps_messages_through_kill_and_restart(start: Start, tmp_path: Path) -> None:
    words = ("-m", "manyhands", "serve", "tcp://127.0.0.1:0", "--store", "sqlite:///jobs.db")
    first = start("first", *words)
    first.prints("Ctrl-C")
    with mh.connect(f"tcp://127.0.0.1:{port_of(first.out)}") as client:
        client.queue("tasks").put_many(range(5))
        first.kill()
        second = start("second", *words)
        second.prints("Ctrl-C")
        with mh.connect(f"tcp://127.0.0.1:{port_of(second.out)}") as again:
            assert again.queue("tasks").get_many(10, timeout=10) == list(range(5))


def test_a_second_server_for_one_file_names_the_owner(start: Start) -> None:
    words = ("-m", "manyhands", "serve", "tcp://127.0.0.1:0", "--store", "sqlite:///jobs.db")
    owner = start("owner", *words)
    owner.prints("Ctrl-C")
    second = start("second", *words)
    assert second.ends() == 6
    assert str(owner.process.pid) in second.err
    assert "Traceback" not in second.err


def test_the_demo_runs_the_tutorial_to_its_last_result(start: Start) -> None:
    demo = start("demo", "-m", "manyhands", "demo")
    demo.ends_quietly()
    lines = demo.out.splitlines()
    assert sum("Put task" in line for line in lines) == 10
    assert sum("Result: " in line for line in lines) == 10
    assert sum("worker exit." in line for line in lines) == 2
    assert any("master exit." in line for line in lines)
    assert lines[-1] == "10 of 10 results from 3 processes (worker 1: 5, worker 2: 5)."


def test_the_demo_in_json_is_one_document_a_line(start: Start) -> None:
    demo = start("demo", "-m", "manyhands", "demo", "--json", "--workers", "1")
    demo.ends_quietly()
    documents = [json.loads(line) for line in demo.out.splitlines()]
    assert documents[-1] == {"results": 10, "tasks": 10, "shares": [10]}


def test_a_demo_that_is_out_of_time_says_so_and_leaves_nothing_behind(start: Start) -> None:
    demo = start("demo", "-m", "manyhands", "demo", "--timeout", "1")
    assert demo.ends() == 1
    assert "not done in time" in demo.err
    assert "Traceback" not in demo.err


@pytest.mark.skipif(os.name != "posix", reason="Windows sends a console event to a group, which the test would be part of")
@pytest.mark.parametrize("words", [["--json"], []])
def test_watching_ends_with_ctrl_c_and_0(start: Start, words: list[str]) -> None:
    with mh.serve("tcp://127.0.0.1:0") as server:
        server.queue("tasks").put(1)
        watching = start("status", "-m", "manyhands", "status", "--watch", "--interval", "0.05", "--url", server.url, *words)
        watching.prints("tasks", times=2 if words else 1)
        watching.process.send_signal(signal.SIGINT)
        watching.ends_quietly()


@pytest.mark.skipif(sys.platform == "win32", reason="the shells that Windows has complete through PowerShell")
def test_the_shell_can_complete_commands(start: Start) -> None:
    completing = start(
        "complete",
        "-m",
        "manyhands",
        env={"_MANYHANDS_COMPLETE": "complete_bash", "COMP_WORDS": "manyhands st", "COMP_CWORD": "1"},
    )
    completing.ends_quietly()
    assert "status" in completing.out.split()
