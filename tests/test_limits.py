"""The benchmark of limits runs, small: it stages what is exact, and a body ten times as large takes no more memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "limits.py"
ALIKE = 20_000_000  # bytes: what buffers of a fixed size take once they fill; 9 MB more of records would take some 60
BOUND = 120_000_000


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Run the benchmark; it fails when what is staged is not, to the cent, the vendor's truth."""
    folder = tmp_path_factory.mktemp("results")
    size = ["--megabytes", "10", "--files", "6", "--forms", "pdf", "xml", "--databases", "sqlite"]
    command = [sys.executable, SCRIPT, "--parts", "body", "files", *size, "--output", folder]
    subprocess.run(command, check=True, capture_output=True)
    found: list[dict[str, Any]] = json.loads((folder / "limits.json").read_text())["tasks"]
    return found


def test_a_body_ten_times_as_large_takes_no_more_memory(tasks):
    small_json, json_, small_xml, xml, *_ = (task["peak_bytes"] for task in tasks)
    assert json_ < small_json + ALIKE
    assert xml < small_xml + ALIKE


def test_every_kind_of_task_stays_far_below_the_bound(tasks):
    assert [task["what"].partition(",")[0] for task in tasks] == ["2tCloud"] * 4 + ["Orange"] * 2
    assert max(task["peak_bytes"] for task in tasks) < BOUND
