"""The loader benchmark runs, small: that it measures what it says; how fast, it says itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "loader.py"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the benchmark; it fails when the tables do not hold afterwards, to the cent, what was loaded."""
    folder = tmp_path_factory.mktemp("results")
    size = [
        "--invoices",
        "200",
        "--rounds",
        "1",
        "--databases",
        "sqlite",
        "--contenders",
        "cloudbilling",
        "executemany",
    ]
    subprocess.run([sys.executable, SCRIPT, *size, "--output", folder], check=True, capture_output=True)
    return folder


def test_every_loader_is_measured_with_and_without_the_verbatim_text(output: Path) -> None:
    results = json.loads((output / "loader.json").read_text())["results"]
    runs = [(one["contender"], one["keep_raw"]) for one in results]
    assert runs == [(name, raw) for raw in (False, True) for name in ("cloudbilling", "executemany")]
    speeds = [one[scenario]["rows_per_second"] for one in results for scenario in ("first", "again", "changed")]
    assert min(speeds) > 0


def test_the_table_for_the_readme_names_the_machine_and_the_versions(output: Path) -> None:
    text = (output / "loader.md").read_text()
    assert "200 invoices with 1,000 lines" in text
    assert f"Python {sys.version.split()[0]}" in text
    assert text.splitlines()[0].startswith("| database | loader |")
