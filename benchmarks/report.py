"""What the loader benchmark says: a table for the terminal and one for the README, with machine and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from measuring import aligned, marked_down

MEGABYTE = 1 << 20
SCENARIOS = ("first", "again", "changed")
HEAD = ("database", "loader", "raw", "first", "again", "1 % changed", "log MB", "again", "dead", "peak MB")
PACKAGES = (
    "apache-airflow",
    "apache-airflow-providers-common-sql",
    "apache-airflow-providers-http",
    "apache-airflow-providers-postgres",
    "apache-airflow-providers-mysql",
    "apache-airflow-providers-sqlite",
    "SQLAlchemy",
    "psycopg",
    "PyMySQL",
    "mysql-connector-python",
    "httpx",
    "msgspec",
    "atheris",
)


def machine() -> dict[str, Any]:
    """Return where the numbers come from: processor, memory, versions."""
    packages = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(pages / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "day": time.strftime("%Y-%m-%d"),
        "packages": packages,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def table(found: dict[str, Any]) -> str:
    """Return the results as aligned text."""
    return aligned([HEAD, *_rows(found)])


def markdown(found: dict[str, Any]) -> str:
    """Return the results as a Markdown table, with a sentence on the machine below it."""
    head = ("database", "loader", "`raw`", "first load", "identical re-run", "1 % changed")
    head = (*head, "log, first load", "log, re-run", "dead tuples, re-run", "peak memory")
    return "\n".join([marked_down([head, *_rows(found)]), "", _about(found), ""])


def processor_line(own: dict[str, Any]) -> str:
    """Return the machine and the versions in a sentence."""
    packages = ", ".join(f"{name} {version}" for name, version in own["packages"].items())
    return (
        f"{own['processor']}, {own['cores']} cores shared with the server, {own['memory_gb']} GB; {own['system']}, "
        f"Python {own['python']}, {packages}; {own['day']}."
    )


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    servers = found["machine"]["servers"]
    return [
        (
            servers[one["database"]],
            one["contender"],
            "on" if one["keep_raw"] else "off",
            *(_speed(one[scenario]) for scenario in SCENARIOS),
            _megabytes(one["first"]["log_bytes"]),
            _megabytes(one["again"]["log_bytes"]),
            "–" if one["again"]["dead_tuples"] is None else f"{one['again']['dead_tuples']:,}",
            _megabytes(one["peak_bytes"]),
        )
        for one in found["results"]
    ]


def _speed(one: dict[str, Any]) -> str:
    """Return the median, and how far the rounds lie apart."""
    return f"{one['rows_per_second']:,} ({one['slowest'] / 1000:.0f}–{one['fastest'] / 1000:.0f}k)"


def _megabytes(number: int | None) -> str:
    return "–" if number is None else f"{number / MEGABYTE:,.1f}"


def _about(found: dict[str, Any]) -> str:
    own, invoices = found["machine"], found["invoices"]
    turns = [number for one in found["results"] for scenario in SCENARIOS for number in one[scenario]["turns"]]
    return (
        f"{invoices:,} invoices with {invoices * 5:,} lines from memory; rows per second, median of {found['rounds']} "
        f"rounds that took turns (slowest–fastest in thousands); log (WAL, redo) and memory in MB, memory above what "
        f"the process held before. The machine was shared: {min(turns)} to {max(turns)} million turns of an empty "
        f"loop a second. {processor_line(own)}"
    )
