"""The benchmark of limits runs, small: what is staged is exact, and a body is never held as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "limits.py"
MEGABYTES = 20  # of the body; its records alone would take more than a hundred
STREAMED = 70_000_000  # bytes of the whole task, modules that are imported on first use included
BOUND = 120_000_000


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Run the benchmark; it fails when what is staged is not, to the cent, the vendor's truth."""
    folder = tmp_path_factory.mktemp("results")
    size = ["--megabytes", str(MEGABYTES), "--files", "6", "--forms", "pdf", "xml", "--databases", "sqlite"]
    command = [sys.executable, SCRIPT, "--parts", "body", "files", *size, "--output", folder]
    subprocess.run(command, check=True, capture_output=True)
    found: list[dict[str, Any]] = json.loads((folder / "limits.json").read_text())["tasks"]
    return found


def test_a_body_is_never_held_as_a_whole(tasks):
    large = [task["peak_bytes"] for task in tasks if f"{MEGABYTES} MB" in task["what"]]
    assert len(large) == 2  # JSON and XML
    assert max(large) < STREAMED


def test_every_kind_of_task_stays_far_below_the_bound(tasks):
    assert [task["what"].partition(",")[0] for task in tasks] == ["2tCloud"] * 4 + ["Orange"] * 2
    assert max(task["peak_bytes"] for task in tasks) < BOUND
