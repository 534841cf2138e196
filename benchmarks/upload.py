"""What it costs to send a month of staged sales invoices to Sage: time and memory, by their number and the database.

All of it: the file is made, the intent written, the file sent, and the result of each record read and written. The
sandbox's Sage runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from books import LINES, OCTOBER, items
from database import KINDS, NAME, Bench
from measuring import bare_task, in_process, marked_down, memory, processor_seconds, tell, turns
from report import machine, processor_line

from airflow_cloudbilling.staging.loader import Staging

HERE = Path(__file__).parent
CONN_ID = "sage_connected_cloud_default"
SALES = OCTOBER._replace(kind="sales")
ADDRESS = {"address1": "Main Street 1", "city": "Antwerp", "postCode": "2000", "telephone1": "+32 1"}
DEFAULTS = {
    "deliveryAddress": ADDRESS,
    "invoiceAddress": ADDRESS,
    "customer.firstName": "-",
    "customer.email": "billing@example.test",
    "currencyRate": 1,
    "paymentMethod": "transfer",
}
SANDBOX = """
import json, sys
from airflow_cloudbilling.sandbox import Sandbox

with Sandbox(months=1, invoices=1) as sandbox:
    sandbox.vendors["sage_connected_cloud"].statuses = ["accepted"]
    print(json.dumps(sandbox.connections()["sage_connected_cloud_default"]), flush=True)
    sys.stdin.read()
"""


def main() -> None:
    """Measure, print the table, and write it down."""
    options = _options()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    sizes = (options.invoices // 10, options.invoices)
    found = [run(kind, size) for kind in options.databases for size in sizes]
    head = ("database", "invoices", "lines", "time", "invoices/s", "processor", "peak memory above a bare task")
    speeds = [one["turns"] for one in found]
    told = f"A machine that made {min(speeds):.0f} to {max(speeds):.0f} million turns of an empty loop a second."
    lines = [marked_down([head, *map(_row, found)]), "", f"{told} {processor_line(machine())}"]
    print("\n".join(lines))
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "upload.md").write_text("\n".join(lines) + "\n")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    count, seconds = one["invoices"], one["seconds"]
    speed, peak = f"{count / seconds:,.0f}", f"{one['bytes'] / 1e6:.0f} MB"
    return one["kind"], f"{count:,}", f"{count * LINES:,}", f"{seconds:.1f} s", speed, f"{one['processor']:.1f} s", peak


def run(kind: str, invoices: int) -> dict[str, Any]:
    """Stage so many invoices, and measure their upload in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="cloudbilling-bench-") as folder:
        bench = Bench(kind, Path(folder))
        bench.renew()
        try:
            with Staging(bench.engine).load(SALES) as load:
                for item in items(invoices, keep_raw=False):
                    load.add(item)
                load.commit()
            bench.settle()
            own = {"invoices": invoices, "staging": bench.fields}
            told = {"AIRFLOW_HOME": folder, "CLOUDBILLING_BENCH_NAME": NAME}
            found = {"kind": kind, "invoices": invoices, **in_process(__file__, own, **told)}
        finally:
            bench.drop()
    tell(", ".join(_row(found)))
    return found


def measure(invoices: int, staging: dict[str, Any]) -> dict[str, Any]:
    """Send what is staged.

    :param staging: the connection of the staging database.
    :raises SystemExit: when Sage has not accepted every invoice.
    """
    vendor = subprocess.Popen([sys.executable, "-c", SANDBOX], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert vendor.stdout
        os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = vendor.stdout.readline()
        os.environ["AIRFLOW_CONN_ERP_STAGING"] = json.dumps(staging)
        os.environ["AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE"] = ""
        bare_task()
        speed = turns()
        before, used, began = memory("VmRSS", reset=True), processor_seconds(), time.perf_counter()
        result = _send()
        seconds = time.perf_counter() - began
        peak, processor = memory("VmHWM") - before, processor_seconds() - used
    finally:
        vendor.communicate()
    if (result["records"], result["accepted"]) != (invoices, invoices):
        raise SystemExit(f"expected {invoices} accepted invoices: {result}")
    return {"seconds": seconds, "bytes": peak, "processor": processor, "turns": speed}


def _send() -> dict[str, Any]:
    from airflow_cloudbilling.operators.sage import SageUploadOperator

    task = SageUploadOperator(
        task_id="upload",
        conn_id=CONN_ID,
        staging_conn_id="erp_staging",
        period="2026-10",
        defaults=DEFAULTS,
        poll_interval=1,
    )
    return task.execute({})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--invoices", type=int, default=100_000, help="that are sent; a tenth first [100,000]")
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=["sqlite", "postgres"])
    parser.add_argument("--output", default=str(HERE / "results"), help="folder of upload.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
