"""How long Store365's pages take with 100 ms latency: one after the other, and several at once; and in what memory.

The whole import runs, through the operator into SQLite, each time in a process of its own against a sandbox in another
one. What is staged is compared with the sandbox's truth.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from measuring import in_process, marked_down, memory, tell

HERE = Path(__file__).parent


def main() -> None:
    """Measure, print the table, and write it down."""
    options = _options()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    from report import machine, processor_line

    found = [run(options, pages, connections) for pages, connections in _plan(options)]
    lines = [
        marked_down([("pages", "connections", "time", "per page", "peak memory above the imports"), *map(_row, found)]),
        "",
        f"{options.invoices} invoices a page, {options.latency * 1000:g} ms latency. {processor_line(machine())}",
    ]
    print("\n".join(lines))
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "pages.md").write_text("\n".join(lines) + "\n")


def _plan(options: argparse.Namespace) -> list[tuple[int, int]]:
    few, many = options.pages // 10, options.pages
    return [(many, 1), (many, 8), (few, 8)]


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    per_page = one["seconds"] / one["pages"] * 1000
    peak = one["peak_bytes"] / 1e6
    return str(one["pages"]), str(one["connections"]), f"{one['seconds']:.1f} s", f"{per_page:.0f} ms", f"{peak:.0f} MB"


def run(options: argparse.Namespace, pages: int, connections: int) -> dict[str, Any]:
    """Measure one import in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="cloudbilling-bench-") as folder:
        own = {"pages": pages, "connections": connections, "invoices": options.invoices, "latency": options.latency}
        staging = json.dumps({"conn_type": "sqlite", "host": str(Path(folder) / "erp.db")})
        measured = in_process(__file__, own, AIRFLOW_HOME=folder, AIRFLOW_CONN_ERP_STAGING=staging)
    found: dict[str, Any] = {**own, **measured}
    tell(", ".join(_row(found)))
    return found


def measure(pages: int, connections: int, invoices: int, latency: float) -> dict[str, Any]:
    """Import one month in this process.

    :param latency: seconds before each answer begins.
    :raises SystemExit: when what is staged is not the truth.
    """
    from airflow_cloudbilling.operators.invoices import StageInvoicesOperator

    month, total = "2026-10", pages * invoices
    program = (
        "import sys, datetime, json; from airflow_cloudbilling.sandbox import Sandbox\n"
        f"data = {{'invoices': {total}, 'distinct_invoices': {min(total, 500)}}}\n"
        "with Sandbox(months=1, last_month=datetime.date(2026, 10, 1), **data) as s:\n"
        f"    s.inject('delay', seconds={latency}, match='pageNumber', times=None)\n"
        "    truth = {c: str(t.gross) for c, t in s.truth('store365', 'purchase', '2026-10').items()}\n"
        "    print(json.dumps([s.connections()['store365_default'], truth]), flush=True); sys.stdin.read()\n"
    )
    vendor = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert vendor.stdout
        connection, truth = json.loads(vendor.stdout.readline())
        connection["extra"] |= {"page_size": invoices, "max_connections": connections}
        os.environ["AIRFLOW_CONN_STORE365_DEFAULT"] = json.dumps(connection)
        arguments = {"conn_id": "store365_default", "staging_conn_id": "erp_staging", "keep_raw": False}
        operator = StageInvoicesOperator(task_id="stage", period=month, **arguments)
        before, began = memory("VmRSS", reset=True), time.perf_counter()
        result = operator.execute({})
        seconds = time.perf_counter() - began
        peak = memory("VmHWM") - before
    finally:
        vendor.communicate()
    staged = {currency: Decimal(sums["gross"]) for currency, sums in result["totals"].items()}
    if staged != {currency: Decimal(gross) for currency, gross in truth.items()} or result["invoices"] != total:
        raise SystemExit(f"expected {total} invoices, {truth}; staged were {result['invoices']}, {result['totals']}")
    return {"seconds": seconds, "peak_bytes": peak}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=500, help="[500]")
    parser.add_argument("--invoices", type=int, default=10, help="in each page [10]")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds [0.1]")
    parser.add_argument("--output", default=str(HERE / "results"), help="folder of pages.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
