"""Every example, run as its reader would: each program a process of its own, with only an address given."""

from __future__ import annotations

import json
import os
import re
import socket
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

import manyhands as mh
from conftest import Start
from programs.interpreters import Absent, bare_python
from programs.lab import Program, until

EXAMPLES = Path(__file__).parents[2] / "examples"
SQUARE = re.compile(r"Result: (\d+) \* \1 = (\d+)")

pytestmark = pytest.mark.programs


def address_in(text: str, before: str) -> str:
    found = re.search(rf"{before} (\S+)", text)
    assert found, text
    return found[1]


@pytest.mark.parametrize(("folder", "listen"), [("tutorial", "127.0.0.1:0"), ("native", "tcp://127.0.0.1:0")])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_tutorial_s_task_is_done_by_any_number_of_workers(start: Start, folder: str, listen: str, workers: int) -> None:
    master = start("master", EXAMPLES / folder / "master.py", listen)
    master.prints("Workers can connect to")
    address = address_in(master.out, "connect to")
    hands = [start(f"worker{n}", EXAMPLES / folder / "worker.py", address) for n in range(workers)]
    for program in (master, *hands):
        program.ends_quietly()
    results = SQUARE.findall(master.out)
    assert len(results) == 10
    assert all(int(n) ** 2 == int(square) for n, square in results)
    assert "master exit." in master.out
    assert all("worker exit." in hand.out for hand in hands)
    assert sum(hand.out.count("run task") for hand in hands) == 10


@pytest.mark.faults
@pytest.mark.parametrize(("folder", "listen"), [("tutorial", "127.0.0.1:0"), ("native", "tcp://127.0.0.1:0")])
def test_a_worker_killed_in_the_middle_of_a_task_loses_nothing(start: Start, folder: str, listen: str) -> None:
    master = start("master", EXAMPLES / folder / "master.py", listen)
    master.prints("Workers can connect to")
    address = address_in(master.out, "connect to")
    doomed = start("doomed", EXAMPLES / folder / "worker.py", address)
    doomed.prints("run task")
    doomed.kill()
    worker = start("worker", EXAMPLES / folder / "worker.py", address)
    master.ends_quietly()
    worker.ends_quietly()
    assert len(SQUARE.findall(master.out)) == 10


def test_the_wrong_key_does_not_get_in(start: Start) -> None:
    master = start("master", EXAMPLES / "tutorial" / "master.py", "127.0.0.1:0")
    master.prints("Workers can connect to")
    worker = start(
        "worker",
        EXAMPLES / "tutorial" / "worker.py",
        address_in(master.out, "connect to"),
        env={"MANYHANDS_AUTHKEY": "wrong"},
    )
    assert worker.ends() != 0
    assert "AuthenticationFailed" in worker.err.splitlines()[-1]
    assert "run task" not in worker.out


def write_logs(folder: Path, files: int) -> Counter[str]:
    """Log files with a known number of lines of each level."""
    totals: Counter[str] = Counter()
    for number in range(files):
        levels = ["INFO"] * (number + 3) + ["WARNING"] * (number % 3) + ["ERROR"] * (number % 2)
        totals.update(levels)
        text = "".join(
            f"2026-11-22 12:00:{n % 60:02} {level} something happened, not an INFO by itself\n"
            for n, level in enumerate(levels)
        )
        (folder / f"machine{number}.log").write_text(text)
    return totals


def test_the_logs_of_a_shared_folder_are_counted(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    totals = write_logs(folder, 12)
    collector = start("collector", EXAMPLES / "logs" / "collector.py", "12", "tcp://127.0.0.1:0")
    collector.prints("Listening on")
    url = address_in(collector.out, "Listening on")
    workers = [start(f"worker{n}", EXAMPLES / "logs" / "worker.py", url) for n in range(2)]
    for worker in workers:
        worker.prints("ready")  # else one may count everything, and the collector be gone, before the other has started
    producer = start("producer", EXAMPLES / "logs" / "producer.py", str(folder), url)
    for program in (producer, collector, *workers):
        program.ends_quietly()
    assert json.loads(collector.out.splitlines()[-1]) == dict(totals)
    assert sum(worker.out.count("counted ") for worker in workers) == 12


@pytest.mark.faults
def test_a_log_worker_killed_half_way_through_a_file_costs_nothing(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    totals = write_logs(folder, 6)
    collector = start("collector", EXAMPLES / "logs" / "collector.py", "6", "tcp://127.0.0.1:0")
    collector.prints("Listening on")
    url = address_in(collector.out, "Listening on")
    producer = start("producer", EXAMPLES / "logs" / "producer.py", str(folder), url)
    producer.ends_quietly()
    # A worker that never gets further than having a file in hand.
    stuck = tmp_path / "stuck.py"
    stuck.write_text(
        "import sys, time, manyhands as mh\n"
        "with mh.connect(sys.argv[1]).queue('files').receive() as delivery:\n"
        "    print('has', delivery.value); time.sleep(600)\n"
    )
    doomed = start("doomed", stuck, url)
    doomed.prints("has")
    doomed.kill()
    worker = start("worker", EXAMPLES / "logs" / "worker.py", url)
    collector.ends_quietly()
    worker.ends_quietly()
    assert json.loads(collector.out.splitlines()[-1]) == dict(totals)


def test_mails_are_sent_later_and_retried_and_given_up_as_the_mail_server_says(start: Start) -> None:
    smtp = start("smtp", Path(__file__).with_name("mail_server.py"))
    smtp.prints("SMTP on port")
    web = start("web", EXAMPLES / "mail" / "web.py", "0", "tcp://127.0.0.1:0")
    web.prints("queue at")
    site, url = address_in(web.out, "Web at"), address_in(web.out, "queue at")
    smtp_port = address_in(smtp.out, "port")
    for name in ("ada", "busy", "nobody", "grace", "ada"):
        request = urllib.request.Request(f"{site}/signup", data=f"{name}@example.org".encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 202  # although nobody sends yet
    workers = [start(f"worker{n}", EXAMPLES / "mail" / "worker.py", "127.0.0.1", smtp_port, url, "0.3") for n in range(2)]
    smtp.prints("taken", 3)
    smtp.prints("550 nobody@example.org")
    with mh.connect(url) as client:
        until(lambda: len(client.dead("mail").list()) == 1, "the refused mail is a dead letter")
        (letter,) = client.dead("mail").list()
    assert "550 5.1.1 no such user" in letter.reason
    assert web.process.stdin is not None
    web.process.stdin.close()
    for program in (*workers, web):
        program.ends_quietly()
    taken = re.findall(r"^taken (\w+)@example.org <welcome.\1.example.org@example.org>$", smtp.out, re.MULTILINE)
    assert sorted(taken) == ["ada", "busy", "grace"], "each once, although ada clicked twice"
    assert smtp.out.count("451 busy") == 1
    said = "".join(worker.out for worker in workers)
    assert "later to busy@example.org: 451 4.7.1 greylisted" in said
    assert "never to nobody@example.org: 550" in said


def test_mails_wait_for_a_mail_server_that_is_away(start: Start, tmp_path: Path) -> None:
    web = start("web", EXAMPLES / "mail" / "web.py", "0", "tcp://127.0.0.1:0")
    web.prints("queue at")
    site, url = address_in(web.out, "Web at"), address_in(web.out, "queue at")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = str(nobody.getsockname()[1])  # nobody listens there once this is closed
    worker = start("worker", EXAMPLES / "mail" / "worker.py", "127.0.0.1", port, url, "600")
    request = urllib.request.Request(f"{site}/signup", data=b"ada@example.org", method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 202
    worker.prints("later to ada@example.org")
    with mh.connect(url) as client:
        until(lambda: client.stats("mail").queues[0].delayed == 1, "it is tried again in ten minutes")


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_a_worker_of_the_standard_library_works_beside_ours(start: Start, tmp_path: Path, version: str) -> None:
    try:
        python = bare_python(version)
    except Absent as absence:
        pytest.skip(str(absence))
    master = start("master", EXAMPLES / "tutorial" / "master.py", "127.0.0.1:0")
    master.prints("Workers can connect to")
    address = address_in(master.out, "connect to")
    ours = start("ours", EXAMPLES / "tutorial" / "worker.py", address)
    stock = Program("stock", [str(python), str(EXAMPLES / "mixed" / "worker.py"), address], tmp_path, dict(os.environ))
    try:
        for program in (master, ours, stock):
            program.ends_quietly()
    finally:
        stock.sweep()
    assert len(SQUARE.findall(master.out)) == 10
    assert "run task" in ours.out
    assert "run task" in stock.out
    assert ours.out.count("run task") + stock.out.count("run task") == 10
    assert "worker exit." in stock.out


def test_settings_and_a_lock_are_shared_and_a_killed_holder_stops_nobody(start: Start, tmp_path: Path) -> None:
    master = start("master", EXAMPLES / "settings" / "master.py", "127.0.0.1:0")
    master.prints("Workers can connect to")
    address = address_in(master.out, "connect to")
    worker = EXAMPLES / "settings" / "worker.py"
    # One that never gets further than having the lock.
    text = worker.read_text(encoding="utf-8")
    assert text.count('number = settings["sent"] + 1') == 1
    (tmp_path / "stuck.py").write_text(text.replace('number = settings["sent"] + 1', "print('has the lock'); input()"))
    doomed = start("doomed", tmp_path / "stuck.py", "nobody", address)
    doomed.prints("has the lock")
    workers = [start(f"worker{n}", worker, f"worker{n}", address, "20") for n in range(3)]
    doomed.kill()
    for each in workers:
        each.ends_quietly()
    master.say("greeting Good morning")
    master.prints("greeting is now")
    late = start("late", worker, "late", address, "1")
    late.ends_quietly()
    assert late.out == "61 Good morning, late!\n"
    numbers = [int(line.split()[0]) for each in workers for line in each.out.splitlines()]
    assert sorted(numbers) == list(range(1, 61)), "every number once: the lock was held"
    master.say("")
    master.ends_quietly()
    assert "61 greetings were sent" in master.out


def test_webhooks_are_delivered_and_retried_and_given_up_as_their_servers_say(start: Start) -> None:
    http = start("http", Path(__file__).with_name("hook_server.py"))
    http.prints("HTTP on port")
    base = f"http://127.0.0.1:{address_in(http.out, 'port')}"
    server = start("server", "-m", "manyhands", "serve", "tcp://127.0.0.1:0")
    server.prints("serves tcp")
    url = address_in(server.out, "serves")
    env = {"MANYHANDS_URL": url, "PYTHONPATH": str(EXAMPLES / "webhooks")}
    worker = start("worker", "-m", "manyhands", "worker", "--queues", "webhooks", "--import", "hooks", "-c", "2", env=env)
    hooks = ("ok", "flaky", "busy", "gone")
    sender = start("sender", EXAMPLES / "webhooks" / "send.py", *(f"{base}/{name}" for name in hooks), env=env)
    sender.ends_quietly()
    assert sorted(sender.out.splitlines()) == [
        "event 1: 200",
        "event 2: 204",
        "event 3: 200",
        f"event 4: GiveUp: {base}/gone says 404 Not Found",
    ]
    seen = Counter(line.split()[0] for line in http.out.splitlines()[1:])
    assert seen == {"/ok": 1, "/flaky": 2, "/busy": 2, "/gone": 1}
    assert len({line.split()[2] for line in http.out.splitlines()[1:]}) == 4, "an event has one id in all its attempts"
    with mh.connect(url) as client:
        (letter,) = client.dead("webhooks").list()
        told = client.dead("webhooks").call(letter.message.id)
    assert told is not None
    assert (told.name, letter.reason) == ("hooks:deliver", f"GiveUp: {base}/gone says 404 Not Found")
    for program in (worker, server):
        program.process.terminate()
        program.ends_quietly()
