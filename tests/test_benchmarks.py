"""The benchmarks run, small: that they measure what they say, and that fast paths are taken; how fast, they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import staged
from sqlalchemy import column as named
from sqlalchemy import create_engine, insert, table, text

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OURS, BY_HAND, FLOOR = "cloudbilling", "httpx + executemany", "the floor"
PAGES = 10
ROWS = PAGES * 100 * 6  # invoices with five lines each


def run(script: str, output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark; it fails when this package did not load, to the cent, what the vendor has."""
    command = [sys.executable, BENCHMARKS / script, *arguments, "--rounds", "1", "--output", output]
    environment = {**os.environ, "BENCH_DLT_PYTHON": "nowhere"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the loader's benchmark."""
    folder = tmp_path_factory.mktemp("loader")
    run("loader.py", folder, "--invoices", "200", "--databases", "sqlite", "--contenders", OURS, "executemany")
    return folder


def test_every_loader_is_measured_with_and_without_the_verbatim_text(loader: Path) -> None:
    results = json.loads((loader / "loader.json").read_text())["results"]
    runs = [(one["contender"], one["keep_raw"]) for one in results]
    assert runs == [(name, raw) for raw in (False, True) for name in (OURS, "executemany")]
    speeds = [one[scenario]["rows_per_second"] for one in results for scenario in ("first", "again", "changed")]
    assert min(speeds) > 0


def test_the_table_for_the_readme_names_the_machine_and_the_versions(loader: Path) -> None:
    words = (loader / "loader.md").read_text()
    assert "200 invoices with 1,000 lines" in words
    assert f"Python {sys.version.split()[0]}" in words
    assert words.splitlines()[0].startswith("| database | loader |")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the whole import's benchmark with those who need nothing more; return its folder and what it told."""
    folder = tmp_path_factory.mktemp("bench")
    size = ["--pages", str(PAGES), "--latencies", "20", "--databases", "sqlite", "--scenarios", "first"]
    run("bench.py", folder, *size, "--contenders", OURS, BY_HAND)
    done = run("bench.py", folder, *size, "--contenders", FLOOR, "--vendors", "store365", "--add")
    return folder, done.stderr


@pytest.fixture(scope="module")
def results(whole: tuple[Path, str]) -> list[dict[str, Any]]:
    """Return what was measured."""
    found: list[dict[str, Any]] = json.loads((whole[0] / "bench.json").read_text())["results"]
    return found


def test_everybody_imports_every_row_once_with_exact_sums(results: list[dict[str, Any]]) -> None:
    found = [(one["vendor"], one["contender"]) for one in results]
    assert found == [("store365", OURS), ("store365", BY_HAND), ("cloudonex", OURS), ("store365", FLOOR)]
    assert {(one["rows"], one["correct"], one["duplicates"], one["exact"]) for one in results} == {
        (ROWS, ROWS, 0, True)
    }


def test_eight_connections_are_used_when_the_pages_are_announced(results: list[dict[str, Any]]) -> None:
    own = results[0]
    assert own["connections"] == 8
    assert own["requests"] == PAGES + 1  # and the token's


def test_who_does_not_take_part_is_said(whole: tuple[Path, str]) -> None:
    folder, told = whole
    assert "Left out: dlt rest_api, merge: dlt is not installed" in told
    assert "Left out: dlt rest_api, merge (dlt is not installed)." in (folder / "bench.md").read_text()


@pytest.fixture(scope="module", params=staged.NAMED)
def statements(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Return a server's kind, and the statements that a first load and one of changed data sent to it."""
    folder = tmp_path_factory.mktemp("statements")
    size = ["--pages", str(PAGES), "--latencies", "0", "--databases", request.param, "--scenarios", "first", "changed"]
    run("bench.py", folder, *size, "--vendors", "store365", "--contenders", OURS, "--count-statements")
    found = json.loads((folder / "bench.json").read_text())["results"]
    return request.param, {one["scenario"]: one["statements"] for one in found}


def test_no_statement_is_sent_for_each_row(statements: tuple[str, dict[str, Any]]) -> None:
    kind, sent = statements
    assert max(sum(counts.values()) for counts in sent.values()) < ROWS / 10
    copied = [counts.get("COPY", 0) for counts in sent.values()]
    assert min(copied) > 0 if kind == "postgres" else copied == [0, 0]


def test_a_wrong_amount_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from checking import Truth, check, create_plain, where
    from peers.tables import INVOICE, LINE, of_store365
    from vendor_books import Month

    month, file = Month("store365", 1), tmp_path / "truth.json"
    file.write_text(json.dumps(month.truth("present")))
    engine = create_engine(f"sqlite:///{tmp_path / 'plain.db'}")
    create_plain(engine)
    page = json.loads(next(month.bodies("present")), parse_float=str)
    with engine.begin() as connection:
        for plain, rows in zip((INVOICE, LINE), of_store365(page["results"]), strict=True):
            into = table(plain.name, *map(named, plain.columns))
            connection.execute(insert(into), [dict(zip(plain.columns, row, strict=True)) for row in rows])
    here, truth = where(BY_HAND, "store365", engine), Truth(file, staged=False)
    assert check(engine, here, truth) == (600, 600, 0, True)
    one = "invoice_id = 'SB-202610-00007' AND line_number = 1"
    with engine.begin() as connection:
        connection.execute(text("UPDATE plain_invoice_line SET net_amount = '0.01' WHERE " + one))
    assert check(engine, here, truth) == (599, 600, 0, False)


def test_an_upload_is_measured_to_its_end(tmp_path: Path) -> None:
    command = [
        sys.executable,
        BENCHMARKS / "upload.py",
        "--invoices",
        "20",
        "--databases",
        "sqlite",
        "--output",
        tmp_path,
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    head, _, *found = (tmp_path / "upload.md").read_text().splitlines()[:4]
    assert head.startswith("| database | invoices | lines | time |")
    assert [row.split(" | ")[:3] for row in found] == [["| sqlite", "2", "10"], ["| sqlite", "20", "100"]]
