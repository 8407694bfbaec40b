"""The benchmark's own parts: what it draws, what it writes, and that a wrong result is never a figure."""

from __future__ import annotations

import ast
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from benchmarks import charts, page, side_by_side
from benchmarks.measure import Row
from benchmarks.peers import driver, interface, work
from benchmarks.peers.catalog import BY_NAME, CATALOG, OURS, Entry
from benchmarks.peers.running import PeerFailed, run

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


class Direct(interface.Peer):
    """A peer that runs everything in this process."""

    has_map = True
    configuration = "in this process"

    def start(self, workers: int) -> None:
        pass

    def send(self, function: Any, argument: Any) -> Any:
        return function(argument)

    def value(self, handle: Any) -> Any:
        return handle

    def map(self, function: Any, arguments: Any) -> Any:
        return map(function, arguments)


class Wrong(Direct):
    def value(self, handle: Any) -> Any:
        return 0 if handle == 5 else handle


def drive(peer: type[interface.Peer], plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch, out: Any) -> dict[str, Any]:
    module = type(sys)("benchmarks.peers.planted")
    module.Peer = peer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.peers.planted", module)
    driver.main("planted", {"workers": 1, "started_at": 0.0, **plan})
    return dict(json.loads(out.readouterr().out))


def test_every_measure_of_a_plan_is_made(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plan = {"submit": 100, "many": 100, "sleeps": [0.001] * 3, "mixed": [0.001], "calls": 10, "megabytes": 2}
    found = drive(Direct, plan, monkeypatch, capsys)
    assert found["submit"]["per_s"] > 0
    assert found["many"]["per_s"] > 0
    assert found["sleeps"]["over"] >= 0
    assert found["calls"]["p99"] >= found["calls"]["p50"] > 0
    assert found["megabytes"]["mb_per_s"] > 0
    assert found["configuration"] == "in this process"


def test_a_wrong_result_is_an_error_and_never_a_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = drive(Wrong, {"submit": 100, "calls": 5}, monkeypatch, capsys)
    assert "wrong result" in found["submit"]["error"]
    assert "per_s" not in found["submit"]
    assert found["calls"]["p50"] > 0, "one failure does not spoil the other measures"


def test_bars_are_drawn_best_first_and_longer_for_more() -> None:
    values = {"slow": 10.0, "<fast>": 1000.0, "limit": 100.0, "none": 0.0}
    svg = charts.bars("rate", "tasks/s", values, ours=frozenset({"<fast>"}), limits=frozenset({"limit"}), less=False)
    bars = ET.fromstring(svg).findall(f"{SVG}rect")
    assert [bar.get("class") for bar in bars] == ["ours", "limit", "peer"]
    widths = [float(bar.get("width") or 0) for bar in bars]
    assert widths == sorted(widths, reverse=True)
    less = charts.bars("time", "µs", values, ours=frozenset({"slow"}), limits=frozenset(), less=True)
    assert [bar.get("class") for bar in ET.fromstring(less).findall(f"{SVG}rect")] == ["ours", "peer", "peer"]


def test_lines_rise_where_the_cost_rises() -> None:
    svg = charts.lines("cost", "workers", "µs", {"a": [(1, 10.0), (8, 20.0)], "b": [(1, 5.0), (8, 5.0)]}, log_up=True)
    rising, flat = (path.get("d") for path in ET.fromstring(svg).findall(f"{SVG}path"))
    (y1, y2), (z1, z2) = (
        [float(point.split()[1]) for point in str(d).replace("L", "M").split("M")[1:]] for d in (rising, flat)
    )
    assert y2 < y1, "up is a smaller y"
    assert z1 == z2


def test_a_ratio_says_how_many_times_better_we_are() -> None:
    assert Row("rate", "/s", 200.0, {"peer": 100.0}, "").ratio("peer") == 2.0
    assert Row("time", "s", 2.0, {"peer": 1.0}, "", is_less_better=True).ratio("peer") == 0.5


def test_rows_are_made_of_what_was_found_and_a_failed_measure_is_left_out() -> None:
    memory = {"all": 50e6, "resident": {"server": 40e6, "parent": 41e6, "child": 30e6}}
    turn = {"configuration": "c", "cold": {"seconds": 0.5, "memory": memory}}
    ours = {**turn, "submit": {"per_s": 100.0, "cpu_us": {"client": 4.0}}}
    failed = {**turn, "submit": {"error": "wrong"}, "calls": {"p50": 1e-3, "p99": 2e-3}}
    limit = {"p50": 1e-5, "p99": 2e-5, "mb_per_s": 1000.0}
    limits = {key: [limit] for key in ("one core", "two cores", "hop", "relay")}
    rows = side_by_side.rows_of({OURS: [ours, ours], "process_pool": [failed]}, limits, {"ray": "no wheel\nmore"})
    by_name = {row.name: row for row in rows}
    submit = by_name["submit → result, no-op"]
    assert (submit.ours, submit.others) == (100.0, {})
    assert by_name["one call, p50"].others == {
        "ProcessPoolExecutor": 1e3,
        "raw TCP ping-pong": 10.0,
        "raw TCP ping-pong on one core": 10.0,
        "bare relay": 10.0,
    }
    assert by_name["resident memory of a child"].ours == 30.0
    assert submit.detail["absent"] == {"Ray": "no wheel\nmore"}
    text = page.render(
        {
            "at": "2026-11-24T12:00:00",
            "machine": dict.fromkeys(("cores", "processor", "python", "system"), "x"),
            "rows": [{field: getattr(row, field) for field in row.__dataclass_fields__} for row in rows],
        }
    )["benchmarks.md"]
    assert "* Ray: no wheel\n" in text
    assert "| manyhands | 100 | – |" in text
    assert "| resident memory of a child | 30 MB |" in text


def test_the_benchmarks_page_is_what_the_newest_full_run_says() -> None:
    newest = page.newest()
    wanted = page.render(newest) if newest else {}
    docs = ROOT / "docs"
    there = [*docs.glob("benchmarks.md"), *(docs / "benchmarks").glob("*.svg")]
    assert {str(path.relative_to(docs)).replace("\\", "/") for path in there} == wanted.keys()
    for path, text in wanted.items():
        assert (docs / path).read_text(encoding="utf-8") == text, "run: python -m benchmarks.page"


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.name)
def test_a_peer_s_versions_are_written_down_and_it_imports_nothing_but_itself(entry: Entry) -> None:
    assert all("==" in requirement for requirement in entry.requirements)
    tree = ast.parse((ROOT / "benchmarks" / "peers" / f"{entry.name}.py").read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {name for name in imported if name.partition(".")[0] in ("benchmarks", "manyhands")}
    allowed = {"benchmarks.peers", "benchmarks.peers.processes"}
    if entry.name.startswith(OURS):
        allowed.add("manyhands")
    assert ours <= allowed


@pytest.mark.programs
def test_a_peer_s_program_is_run_and_its_figures_come_back() -> None:
    found = run(BY_NAME["process_pool"], {"workers": 1, "submit": 50, "calls": 5}, timeout_s=60.0)
    assert found["submit"]["per_s"] > 0
    assert found["cold"]["seconds"] > 0


@pytest.mark.programs
def test_a_peer_that_does_not_end_is_ended_and_named() -> None:
    with pytest.raises(PeerFailed, match="did not end within 1 s"):
        run(BY_NAME["process_pool"], {"workers": 1, "sleeps": [30.0]}, timeout_s=1.0)


def test_the_work_is_what_it_says() -> None:
    assert (work.noop(3), work.echo(b"x"), work.sleep(0)) == (3, b"x", 0)
