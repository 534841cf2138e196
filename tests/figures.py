"""What long tests saw: ``record_property`` in a test is a line of ``benchmarks/results/torture.md`` once it passed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "torture.json"


def write(passed: Iterable[pytest.TestReport]) -> None:
    """Add the figures of tests that passed to those of earlier runs."""
    new = {one.nodeid: dict(one.user_properties) for one in passed if one.when == "call" and one.user_properties}
    if not new:
        return
    sys.path.append(str(RESULTS.parents[1]))
    from report import machine, processor_line

    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"tests": {}}
    found = {"machine": machine(), "tests": {**found["tests"], **new}}
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    lines = [f"| {what} | {_shown(figures)} |" for what, figures in sorted(_added(found["tests"]).items())]
    head = ["| what `make torture` shows | seen |", "| --- | --- |"]
    RESULTS.with_suffix(".md").write_text("\n".join([*head, *lines, "", processor_line(found["machine"]), ""]))


def _added(tests: dict[str, dict[str, int]]) -> dict[str, Counter[str]]:
    """Return the figures of each test, added up over its cases."""
    added: dict[str, Counter[str]] = {}
    for name, figures in tests.items():
        test = name.partition("::")[2].partition("[")[0].removeprefix("test_").replace("_", " ")
        added.setdefault(test, Counter()).update({"cases": 1, **figures})
    return added


def _shown(figures: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in figures.items() if (what, count) != ("cases", 1))
