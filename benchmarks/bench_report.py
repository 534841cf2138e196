"""What ``bench.py`` says: a table for the terminal and one for the README, with machine and versions."""

from __future__ import annotations

import subprocess
from typing import Any

from bench_task import CLOUDBILLING, CONTENDERS, DLT
from measuring import Result, aligned, marked_down
from report import machine, processor_line

HEAD = (
    "vendor", "database", "latency", "work", "who", "seconds", "rows/s", "× ours", "rows right", "sums", "twice",
    "requests", "connections", "CPU s", "peak MB", "dead", "log MB",
)  # fmt: skip
WORK = {"first": "first load", "again": "identical re-run", "changed": "1 % changed"}


def table(found: dict[str, Any]) -> str:
    """Return the results as aligned text."""
    return aligned([HEAD, *_rows(found)])


def markdown(found: dict[str, Any]) -> str:
    """Return the results as a Markdown table, with machine and meanings below it."""
    return "\n".join([marked_down([HEAD, *_rows(found)]), "", _about(found), ""])


def machine_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return where the numbers come from; dlt's version is asked of its own environment."""
    own = machine()
    if any(one["contender"].startswith(DLT) for one in found["results"]):
        from bench import dlt_python

        asked = [dlt_python(), "-c", "import importlib.metadata; print(importlib.metadata.version('dlt'))"]
        own["packages"]["dlt"] = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    return own


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    places = list(dict.fromkeys(map(_place, found["results"])))  # as they were measured
    works, names = list(WORK), list(CONTENDERS)

    def order(one: Result) -> tuple[int, ...]:
        return places.index(_place(one)), works.index(one["scenario"]), names.index(one["contender"])

    results = sorted(found["results"], key=order)
    ours = {(_place(one), one["scenario"]): one for one in results if one["contender"] == CLOUDBILLING}
    return [_row(one, ours.get((_place(one), one["scenario"])), found["servers"]) for one in results]


def _place(one: Result) -> tuple[str, str, float]:
    return one["vendor"], one["database"], one["latency"]


def _row(one: Result, ours: Result | None, servers: dict[str, str]) -> tuple[str, ...]:
    where = (one["vendor"], servers[one["database"]], f"{one['latency'] * 1000:g} ms", WORK[one["scenario"]])
    if one["failed"]:
        return (*where, one["contender"], one["failed"], *[""] * 11)
    times = f"{one['seconds'] / ours['seconds']:.1f}" if ours and not ours["failed"] else ""
    return (
        *where,
        one["contender"],
        f"{one['seconds']:.2f} ({one['fastest']:.2f}–{one['slowest']:.2f})",
        f"{one['rows_per_second']:,}",
        times,
        "all" if one["correct"] == one["rows"] else f"{one['correct']:,} of {one['rows']:,}",
        "exact" if one["exact"] else "WRONG",
        f"{one['duplicates']:,}",
        f"{one['requests']:,}",
        f"{one['connections']:,}",
        f"{one['processor_seconds']:.1f}",
        f"{one['peak_bytes'] / 1e6:,.0f}",
        "–" if one["dead_tuples"] is None else f"{one['dead_tuples']:,}",
        "–" if one["log_bytes"] is None else f"{one['log_bytes'] / 1e6:,.1f}",
    )


def _about(found: dict[str, Any]) -> str:
    served = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in found["served_bytes"].items())
    absent = " ".join(f"Left out: {name} ({why})." for name, why in found["absent"].items())
    turns = [number for one in found["results"] for number in one.get("turns", ())]
    bases = sorted(
        one["base_bytes"] for one in found["results"] if one["contender"] == CLOUDBILLING and not one["failed"]
    )
    base = f" ({bases[0] / 1e6:.0f} MB)" if bases else ""
    invoices = found["pages"] * 100
    rounds = sorted({one["rounds"] for one in found["results"] if not one["failed"]})
    medians = f"{' or '.join(map(str, rounds))} {'rounds that took turns' if rounds[-1:] > [1] else 'round'}"
    return (
        f"{invoices:,} invoices with {invoices * 5:,} lines in {found['pages']} pages of JSON ({served}) from a server "
        f"whose answers are ready bytes; seconds are the median of {medians} (fastest–slowest), from the first request "
        f"to the commit. Sums are the database's own, by currency; WRONG means that they are not the vendor's to the "
        f"last digit, so that the time does not count. CPU is the task's, without the database's; the log is the whole "
        f"server's. Memory counts above a bare task{base}, a process that imported airflow.sdk and ran an operator "
        f"that does nothing, with all that is imported for the work; dlt's above bare Python. The machine was shared: "
        f"{min(turns, default=0)} to {max(turns, default=0)} million turns of an empty loop a second. {absent} "
        f"{processor_line(found['machine'])}"
    )
