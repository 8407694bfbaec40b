"""What deploy/ holds is what our programs and the stores take: commands, ports, grace times, names of keys, settings."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main
import yaml

import nats_server
import redis_server
from manyhands.address import parse_address, scheme_of
from manyhands.cli.app import app
from manyhands.engines.nats.where import parse as nats_url
from manyhands.engines.redis.checks import examine, parse_info
from manyhands.engines.redis.where import parse as redis_url
from redis_server import RedisServer

DEPLOY = Path(__file__).parents[1] / "deploy"
MANIFESTS = sorted(DEPLOY.rglob("*.yaml"))
UNITS = sorted(DEPLOY.rglob("*.service"))
SETTLES_S = 10.0
"""What a worker needs after --grace to end its children and give the rest back."""
DEFAULT_GRACE_S = 30.0
SECRET = "/run/secrets/manyhands-key"


class Program(NamedTuple):
    """One way in which our program is started."""

    where: str
    words: list[str]
    stops_within_s: float
    key_folder: str
    """Where its key's file is to be found."""
    ports: set[int]
    """That are open to others."""

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)[:60]}"

    def option(self, name: str, default: str = "") -> str:
        return self.words[self.words.index(name) + 1] if name in self.words else default


def documents() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield path, document


def kinds(*names: str) -> list[dict[str, Any]]:
    return [document for _, document in documents() if document.get("kind") in names]


def pods() -> list[dict[str, Any]]:
    return [each["spec"]["template"]["spec"] for each in kinds("Deployment", "StatefulSet")]


def services() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.name}: {name}", service)
        for path, document in documents()
        for name, service in document.get("services", {}).items()
    ]


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1.0, "m": 60.0}[unit]


def settings_of(unit: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit, encoding="utf-8")
    return dict(parser["Service"])


def programs() -> list[Program]:
    found = []
    for where, service in services():
        if service["image"] == "manyhands":
            inside = {int(each.rpartition(":")[2]) for each in service.get("ports", [])}
            found.append(Program(where, service["command"], seconds(service["stop_grace_period"]), SECRET, inside))
    for pod in pods():
        for container in pod["containers"]:
            if container["image"] == "manyhands":
                mount = next(each for each in container["volumeMounts"] if each["name"] == "key")
                ports = {each["containerPort"] for each in container["ports"]}
                within_s = float(pod["terminationGracePeriodSeconds"])
                found.append(Program(container["name"], container["args"], within_s, f"{mount['mountPath']}/key", ports))
    for unit in UNITS:
        settings = settings_of(unit)
        _, *words = shlex.split(settings["ExecStart"])
        found.append(Program(unit.name, words, float(settings["TimeoutStopSec"]), "${CREDENTIALS_DIRECTORY}/key", set()))
    return found


PROGRAMS = programs()


def test_every_file_is_looked_at() -> None:
    assert len(MANIFESTS) == 5
    assert len(UNITS) == 2
    assert len(PROGRAMS) == 7


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_our_command_line_takes_it(program: Program) -> None:
    command: Any = typer.main.get_command(app)
    name, *rest = program.words
    context = command.commands[name].make_context(name, rest)  # reads and checks, and runs nothing
    for each in [context.params.get("url"), context.params.get("store")]:
        if each:
            {"redis": redis_url, "nats": nats_url, "tcp": parse_address, "sqlite": scheme_of}[scheme_of(each)](each)
    assert program.option("--authkey") == f"@{program.key_folder}"


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_it_is_killed_only_after_the_grace_that_it_was_promised(program: Program) -> None:
    grace_s = float(program.option("--grace", str(DEFAULT_GRACE_S))) if program.words[0] == "worker" else 0.0
    assert program.stops_within_s >= grace_s + SETTLES_S


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_the_ports_that_are_named_are_those_that_it_opens(program: Program) -> None:
    opened = [program.option("--healthz")] if program.words[0] == "worker" else [program.words[1]]
    assert all(opened)
    if program.ports:
        assert program.ports == {int(each.rpartition(":")[2]) for each in opened}


def test_workers_are_probed_at_healthz() -> None:
    (worker,) = [c for pod in pods() for c in pod["containers"] if c["image"] == "manyhands" and c["args"][0] == "worker"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert worker[probe]["httpGet"] == {"path": "/healthz", "port": "healthz"}
    for name, service in services():
        if service["image"] == "manyhands" and service["command"][0] == "worker":
            _, _, port = service["command"][service["command"].index("--healthz") + 1].rpartition(":")
            assert f"http://127.0.0.1:{port}/healthz" in service["healthcheck"]["test"][-1], name


def test_no_pod_is_root_or_without_bounds() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        named = {each["name"] for each in pod.get("volumes", [])}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"]["memory"]
            assert container["readinessProbe"]
            ports = {each["name"] for each in container["ports"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                how = container.get(probe, {})
                assert {how[kind]["port"] for kind in ("httpGet", "tcpSocket") if kind in how} <= ports
            assert {each["name"] for each in container["volumeMounts"]} - named <= {"data"}, "a volume that is not there"


def test_budgets_services_and_pods_mean_each_other() -> None:
    running = {each["metadata"]["name"]: each for each in kinds("Deployment", "StatefulSet")}
    for each in running.values():
        assert each["spec"]["selector"]["matchLabels"] == each["spec"]["template"]["metadata"]["labels"]
    labels = [each["spec"]["selector"]["matchLabels"] for each in running.values()]
    budgets = [each["spec"]["selector"]["matchLabels"] for each in kinds("PodDisruptionBudget")]
    assert sorted(map(str, budgets)) == sorted(map(str, labels)), "one budget for each"
    for service in kinds("Service"):
        assert service["spec"]["selector"] in labels
        own = running[service["metadata"]["name"]]["spec"]["template"]["spec"]["containers"][0]["ports"]
        assert {port["port"] for port in service["spec"]["ports"]} <= {port["containerPort"] for port in own}


def test_stores_are_found_where_they_are() -> None:
    names = {name for _, document in documents() for name in document.get("services", {})}
    names |= {each["metadata"]["name"] for each in kinds("Service")}
    for program in PROGRAMS:
        for word in program.words:
            if word.startswith(("redis://", "nats://")):
                hosts = word.partition("://")[2].partition("?")[0].split(",")
                assert {host.partition(":")[0].rpartition(".")[2] for host in hosts} <= names


def valkeys() -> list[list[str]]:
    found = [service["command"] for _, service in services() if service["image"].startswith("valkey/")]
    return found + [c["args"] for pod in pods() for c in pod["containers"] if c["image"].startswith("valkey/")]


@pytest.mark.parametrize("arguments", valkeys(), ids=["compose", "kubernetes"])
def test_the_valkey_keeps_what_it_acknowledges(arguments: list[str], tmp_path: Path) -> None:
    redis_server.binary()
    settings = arguments[1:]
    if "--dir" in settings:
        del settings[settings.index("--dir") : settings.index("--dir") + 2]
    server = RedisServer(tmp_path)
    server.start_with(*settings, "--port", str(server.port), "--bind", "127.0.0.1", "--dir", str(tmp_path))
    try:
        info = {
            name: value
            for section in ("server", "replication", "persistence", "memory")
            for name, value in parse_info(server.command("INFO", section).encode()).items()
        }
        fsync = server.command("CONFIG", "GET", "appendfsync").split("\r\n")[-2]
        found = examine(info, {"appendfsync": fsync}, "here")
    finally:
        server.stop()
    assert found.durability.level == "disk"
    assert found.notes == []


def nats_settings() -> list[str]:
    in_cluster = [each["data"]["nats.conf"] for each in kinds("ConfigMap")]
    return [(DEPLOY / "compose" / "nats.conf").read_text(encoding="utf-8"), *in_cluster]


@pytest.mark.parametrize("settings", nats_settings(), ids=["compose", "kubernetes"])
def test_nats_takes_its_settings(settings: str, tmp_path: Path) -> None:
    path = tmp_path / "nats.conf"
    path.write_text(settings.replace("/data", str(tmp_path)), encoding="utf-8")
    named = {"NATS_NAME": "nats-1", "POD_NAME": "nats-0"}
    done = subprocess.run(
        [nats_server.binary(), "-t", "-c", str(path)], env=named, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"sync_interval: always", settings)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_service_restarts_stops_in_order_and_has_no_rights(unit: Path) -> None:
    settings = settings_of(unit)
    expected = {"Restart": "on-failure", "KillSignal": "SIGTERM", "DynamicUser": "yes", "ProtectSystem": "strict"}
    assert expected.items() <= settings.items()
    assert settings["CapabilityBoundingSet"] == ""


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong_with_it(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze here")
    copy = tmp_path / unit.name
    text = unit.read_text(encoding="utf-8").replace("/opt/manyhands/bin/manyhands", sys.executable)
    copy.write_text(text, encoding="utf-8")
    command = [analyze, "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    about = [line for line in done.stderr.splitlines() if unit.stem in line or str(copy) in line]
    assert about == []
    if done.returncode and not about:
        pytest.skip(f"systemd-analyze cannot work here: {done.stderr.strip()[:200]}")


def test_the_image_installs_what_there_is_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    extras = re.search(r'"/src\[([\w,]+)\]"', text)
    project = (DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert extras is not None
    assert all(f"\n{extra} = [" in project for extra in extras[1].split(","))
    assert re.search(r"^USER (?!0)\d+", text, re.MULTILINE)
    kept = (DEPLOY.parent / ".dockerignore").read_text(encoding="utf-8").split()
    assert {"!src", "!pyproject.toml", "!README.md", "!LICENSE", "!examples/tutorial"} <= set(kept), "the build needs them"
