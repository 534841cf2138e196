"""``make demo``: two months of every vendor's invoices through Airflow, compared with the truth and sent to Sage."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any, NamedTuple

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox import Sandbox
from airflow_cloudbilling.sandbox.books import Truth
from local_airflow import AIRFLOW, DAG_ID, LOG, STAGING, airflow_env, fail, migrate, say, shown, start_log

STAGED = re.compile(r" (\w+) account (\S+) (\w+) (\S+) committed: (\d+) invoices with (\d+) lines")
KINDS = {  # what the DAG imports
    "twotcloud": ("purchase", "sales"),
    "orange_cloudstore": ("purchase",),
    "cloudonex": ("purchase", "sales"),
    "store365": ("purchase",),
}
SAGE_DAG_ID = "sage_upload"
LINE_SUMS = ("quantity", "unit_price", "discount", "net_amount", "tax_amount")


class Staged(NamedTuple):
    """What the loads of one vendor, kind and month staged; a vendor may have several accounts."""

    provider: str
    kind: str
    period: Period
    seconds: float
    sums: dict[str, Truth]


def main() -> int:
    """Run the demo, and return the exit code."""
    start_log()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Sandbox() as sandbox:
            say(f"The sandbox plays the vendors at {sandbox.url}")
            return run_demo(sandbox)
    except KeyboardInterrupt:
        return 130


def run_demo(sandbox: Sandbox) -> int:
    """Import the last full month and the one before it, then compare what is staged with the truth."""
    for file in STAGING.parent.glob(f"{STAGING.name}*"):
        file.unlink()
    env = airflow_env() | sandbox.environment()
    migrate(env)
    last = sandbox.months[-1]
    say(f"Airflow runs the DAG {DAG_ID} for {last} and looks back one month (airflow dags test)")
    run_dag(env, DAG_ID, {"period": last, "lookback_months": 1})
    staged = list(read_staged())
    print_table(staged)
    wrong = [one for one in staged if one.sums != sandbox.truth(one.provider, one.kind, str(one.period))]
    expected = {(p, kind, month) for p, kinds in KINDS.items() for kind in kinds for month in sandbox.months[-2:]}
    missing = expected - {(one.provider, one.kind, one.period.key) for one in staged}
    if wrong or missing:
        print("\nNOT EQUAL to the vendors' truth:", *(f"{one.provider} {one.kind} {one.period.key}" for one in wrong))
        print("Not staged:", *(" ".join(one) for one in sorted(missing)), sep="\n    ")
        return 1
    print("\nEvery count and every sum equals the vendors' truth, to the last digit.\n")
    sales = sum(truth.invoices for p, kinds in KINDS.items() if "sales" in kinds
                for truth in sandbox.truth(p, "sales", last).values())  # fmt: skip
    if not send_to_sage(env, sales):
        return 1
    print_next_steps()
    return 0


def send_to_sage(env: dict[str, str], sales: int) -> bool:
    """Send the last month's sales invoices to Sage, and show what became of each; whether all were accepted, once."""
    say(f"Airflow runs the DAG {SAGE_DAG_ID}: the month's sales invoices go to Sage, and the results come back")
    run_dag(env, SAGE_DAG_ID, {})
    with sqlite3.connect(STAGING) as connection:
        uploads = connection.execute("SELECT scope, status, tracking_id FROM cloudbilling_upload").fetchall()
        items = "SELECT status, COUNT(*), COUNT(DISTINCT invoice_id) FROM cloudbilling_upload_item GROUP BY status"
        results = connection.execute(items).fetchall()
    for scope, status, tracking_id in uploads:
        print(f"    {scope} {tracking_id}: {status}; " + ", ".join(f"{n} invoices {what}" for what, n, _ in results))
    if results == [("accepted", sales, sales)]:
        print(f"\nSage accepted each of the {sales} sales invoices, and none twice.")
        return True
    print(f"\nNOT as expected: {sales} invoices accepted, each once.")
    return False


def run_dag(env: dict[str, str], dag_id: str, conf: dict[str, Any]) -> None:
    """Let Airflow run a DAG; its log goes to a file, each slice staged is shown."""
    command = [*AIRFLOW, "dags", "test", dag_id, "--conf", json.dumps(conf)]
    with (
        LOG.open("a") as log,
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as airflow,
    ):
        failed = False
        for line in airflow.stdout or ():
            log.write(line)
            if found := STAGED.search(line):
                print("    {} {}: {} {}: {} invoices, {} lines".format(*found.groups()), flush=True)
            failed = failed or "Task failed with exception" in line
            if failed and "[DAG TEST] end task" in line:
                airflow.kill()  # it would wait minutes for the task's next try, whatever else it is told
                break
    if failed or airflow.returncode:
        fail("A task of the DAG failed." if failed else f"Airflow ended with exit code {airflow.returncode}.")


def read_staged() -> Iterator[Staged]:
    """Read what the committed loads staged: for each slice its counts and the exact sums of every amount column."""
    with sqlite3.connect(STAGING) as connection:
        loads = connection.execute(
            "SELECT provider, kind, period, SUM((julianday(ended_at) - julianday(started_at)) * 86400) FROM"
            " cloudbilling_load WHERE status = 'committed' GROUP BY provider, kind, period ORDER BY 1, 2, 3"
        ).fetchall()
        for provider, kind, period, seconds in loads:
            key = {"provider": provider, "kind": kind, "slice_period": period}
            yield Staged(provider, kind, Period.parse(period), seconds, sums_of(connection, key))


def sums_of(connection: sqlite3.Connection, key: dict[str, str]) -> dict[str, Truth]:
    """Return currency → counts and sums of a slice; the amounts are added up as decimals, not by SQLite."""
    where = "WHERE i.provider = :provider AND i.kind = :kind AND i.slice_period = :slice_period"
    invoices = f"SELECT currency, net_amount, tax_amount, gross_amount FROM cloudbilling_invoice i {where}"
    lines = (
        f"SELECT currency, {', '.join(f'l.{name}' for name in LINE_SUMS)} FROM cloudbilling_invoice i "
        f"JOIN cloudbilling_invoice_line l USING (provider, account, kind, invoice_id) {where}"
    )
    headers, details = (add_up(connection.execute(sql, key)) for sql in (invoices, lines))
    return {
        currency: Truth(count, details[currency][0], *sums, *details[currency][1])
        for currency, (count, sums) in sorted(headers.items())
    }


def add_up(rows: sqlite3.Cursor) -> dict[str, tuple[int, list[Decimal]]]:
    """Return currency → number of rows and the sum of each amount column."""
    sums: dict[str, tuple[int, list[Decimal]]] = {}
    with localcontext() as exact:
        exact.prec = 100
        for currency, *amounts in rows:
            count, so_far = sums.get(currency, (0, [Decimal(0)] * len(amounts)))
            sums[currency] = (count + 1, [a + Decimal(b or 0) for a, b in zip(so_far, amounts, strict=True)])
    return sums


def print_table(staged: list[Staged]) -> None:
    """Print one block for each slice, with a line for each currency."""
    row = "{:18} {:9} {:8} {:>8} {:>6}  {:8} {:>16} {:>14} {:>16} {:>7}"
    print()
    print(row.format("vendor", "kind", "month", "invoices", "lines", "currency", "net", "tax", "gross", "time"))
    for one in staged:
        invoices, lines = (sum(getattr(s, name) for s in one.sums.values()) for name in ("invoices", "lines"))
        head = [one.provider, one.kind, one.period.key, invoices, lines]
        took = f"{one.seconds:.2f} s"
        for currency, s in one.sums.items():
            print(row.format(*head, currency, *aligned(s.net, s.tax, s.gross), took).rstrip())
            head, took = [""] * len(head), ""


def aligned(*amounts: Decimal) -> list[str]:
    """Write amounts with all their decimals, and equally many."""
    scale = max(-int(amount.as_tuple().exponent) for amount in amounts)
    return [f"{amount:,.{max(scale, 0)}f}" for amount in amounts]


def print_next_steps() -> None:
    """Say how to look at the data and how to go on."""
    query = "SELECT invoice_number, issue_date, currency, gross_amount FROM cloudbilling_invoice LIMIT 5"
    code = f"import sqlite3; [print(*row) for row in sqlite3.connect('{shown(STAGING)}').execute('{query}')]"
    print(f"""
Look at the data:
  sqlite3 -box {shown(STAGING)} "{query}"
  {shown(Path(sys.executable))} -c "{code}"
See it in Airflow's UI:     make ui
Write your own DAG:         docs/quick-start.md
What Airflow said of it:    {shown(LOG)}""")


if __name__ == "__main__":
    sys.exit(main())
