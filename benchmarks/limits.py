"""What an import must reach by itself: huge bodies, thousands of files, memory, the archive, and importing its modules.

Each measurement is a whole task in a process of its own, against a vendor in another one; what is staged is compared
with the vendor's truth. Memory counts above a process that has imported ``airflow.sdk`` and run a bare operator.
PostgreSQL is named in CLOUDBILLING_TEST_POSTGRES, as for the loader.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from measuring import aligned, bare_task, in_process, marked_down, memory, processor_seconds, tell, turns

HERE = Path(__file__).parent
PACKAGE = "airflow_cloudbilling"
MONTH = "2026-10"
CONNECTIONS = 8
LATENCY = 0.05  # seconds, of Orange
REPORTS = "comsumptionRatedReports"  # sic: Orange's own spelling
FORMS = {
    "pdf": "PDFs without amounts",
    "facturx": "PDFs with an e-invoice of a few lines",
    "xml": "e-invoices, nothing but lines",
    "csv": "consumption reports",
}
HEAD = ("work", "database", "lines", "time", "MB/s", "lines/s", "processor", "peak memory", "target", "met")
IMPORT_HEAD = ("module", "time", "target", "met")
IMPORT_MS = 50

Result = dict[str, Any]


class Target(NamedTuple):
    """What a task must reach; 0 asks for nothing."""

    rate: float = 0  # MB/s at least
    seconds: float = 0  # at most
    megabytes: float = 0  # of memory at most

    def __str__(self) -> str:
        parts = ("≥ %g MB/s", self.rate), ("≤ %.3g s", self.seconds), ("≤ %g MB", self.megabytes)
        return ", ".join(words % number for words, number in parts if number) or "–"

    def met(self, one: Result) -> bool:
        """Whether a task has reached it."""
        rate, seconds = one["bytes"] / 1e6 / one["seconds"], self.seconds or one["seconds"]
        megabytes = self.megabytes or one["peak_bytes"]
        return rate >= self.rate and one["seconds"] <= seconds and one["peak_bytes"] <= megabytes * 1e6


class Case(NamedTuple):
    """One task.

    :param options: of the vendor in ``limits_vendor.py``.
    :param arguments: of the operator, beyond connections and period.
    """

    what: str
    vendor: str
    options: dict[str, Any]
    database: str
    target: Target
    arguments: dict[str, Any]


def body(options: argparse.Namespace) -> Iterator[Case]:
    """One answer with one invoice: the memory must not depend on its size."""
    target = Target(rate=30, megabytes=150)
    for database in options.databases:
        for response_format in ("json", "xml"):
            for size in (options.megabytes // 10, options.megabytes):
                what = f"2tCloud, one invoice of {size} MB, {response_format.upper()}"
                own = {"megabytes": size, "response_format": response_format}
                yield Case(what, "twotcloud", own, database, target._replace(rate=30 * (size == options.megabytes)), {})


def files(options: argparse.Namespace) -> Iterator[Case]:
    """Many files, each after a latency."""
    target = Target(seconds=1.5 * options.files / CONNECTIONS * LATENCY)
    for form in options.forms:
        own = {"files": options.files, "kilobytes": 100, "latency": LATENCY, "form": form}
        chosen = {"document_types": [REPORTS]} if form == "csv" else {}
        what = f"Orange, {options.files} files of 100 kB: {FORMS[form]}"
        yield Case(what, "orange_cloudstore", own, options.databases[0], target, chosen)


def pages(options: argparse.Namespace) -> Iterator[Case]:
    """More and more pages, in the same memory; with the archive once."""
    for invoices, numbers in ((10, (50, 500, 5000)), (100, (50, 500))):
        for number in numbers:
            what = f"Store365, {number} pages of {invoices} invoices"
            own = {"pages": number, "invoices": invoices}
            yield Case(what, "store365", own, options.databases[0], Target(megabytes=120), {})
    yield Case(f"{what}, archive on", "store365", own, options.databases[0], Target(megabytes=120), {"archive": True})


PARTS = {"body": body, "files": files, "pages": pages}


def main() -> None:
    """Measure, print the tables, and write them down."""
    options = _options()
    if options.one:
        print(json.dumps(_one(**json.loads(options.one))))
        return
    from report import machine, processor_line

    tasks = [run(case) for part in options.parts if part in PARTS for case in PARTS[part](options)]
    imports = [run_import(name) for name in _modules()] if "imports" in options.parts else []
    tables = [
        [head, *map(row, results)]
        for head, row, results in ((HEAD, _row, tasks), (IMPORT_HEAD, _import_row, imports))
        if results
    ]
    print("\n\n".join(map(aligned, tables)))
    own = machine()
    about = (
        f"Memory above a bare task's; memory and times of one run each, on a machine that made"
        f" {min(one['turns'] for one in tasks or imports):.0f} to {max(one['turns'] for one in tasks or imports):.0f}"
        f" million turns of an empty loop a second. {processor_line(own)}"
    )
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    found = {"machine": own, "tasks": tasks, "imports": imports}
    (output / "limits.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    (output / "limits.md").write_text("\n\n".join([*map(marked_down, tables), about]) + "\n")


def run(case: Case) -> Result:
    """Measure one task in a process of its own, in a database of its own."""
    from database import Bench

    with tempfile.TemporaryDirectory(prefix="cloudbilling-bench-") as folder:
        bench = Bench(case.database, Path(folder))
        bench.renew()
        try:
            placed = {"archive": f"{folder}/archive"} if case.arguments.get("archive") else case.arguments
            own = {"AIRFLOW_HOME": folder, "AIRFLOW_CONN_ERP_STAGING": json.dumps(bench.fields), **_BYTECODE}
            found = in_process(__file__, {"case": case._replace(arguments=placed)}, **own)
        finally:
            bench.drop()
    one = {**case._asdict(), "target": str(case.target), "met": case.target.met(found), **found}
    tell(" | ".join(_row(one)))
    return one


_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}  # modules are compiled once, as where they are installed


def _row(one: Result) -> tuple[str, ...]:
    seconds = one["seconds"]
    return (
        one["what"],
        one["database"],
        f"{one['lines']:,}",
        f"{seconds:.1f} s",
        f"{one['bytes'] / 1e6 / seconds:.1f}",
        f"{one['lines'] / seconds:,.0f}",
        f"{one['processor']:.1f} s",
        f"{one['peak_bytes'] / 1e6:.0f} MB",
        one["target"],
        "yes" if one["met"] else "no",
    )


def run_import(module: str) -> Result:
    """Import a module five times, each in a process of its own, and return the median."""
    above = "" if module.endswith("provider_info") else "airflow.sdk"
    with tempfile.TemporaryDirectory(prefix="cloudbilling-bench-") as folder:
        runs = [
            in_process(__file__, {"module": module, "above": above}, AIRFLOW_HOME=folder, **_BYTECODE) for _ in range(6)
        ]
    taken = statistics.median(one["milliseconds"] for one in runs[1:])  # the first one compiles
    what = f"`{module}`{' above `airflow.sdk`' if above else ' by itself; Airflow imports it at its own start'}"
    one = {"what": what, "milliseconds": taken, "met": taken <= IMPORT_MS, "turns": runs[-1]["turns"]}
    tell(" | ".join(_import_row(one)))
    return one


def _import_row(one: Result) -> tuple[str, ...]:
    return one["what"], f"{one['milliseconds']:.1f} ms", f"≤ {IMPORT_MS} ms", "yes" if one["met"] else "no"


def _modules() -> Iterator[str]:
    yield f"{PACKAGE}.provider_info"
    for group in ("operators", "sensors"):
        for file in sorted((HERE.parent / PACKAGE / group).glob("[a-z]*.py")):
            yield f"{PACKAGE}.{group}.{file.stem}"


def _one(case: list[Any] | None = None, module: str = "", above: str = "") -> Result:
    if case:
        what, vendor, options, database, target, arguments = case
        return measure(Case(what, vendor, options, database, Target(*target), arguments))
    from importlib import import_module

    if above:
        import_module(above)
        from airflow.sdk import DAG, Asset, BaseOperator, BaseSensorOperator  # noqa: F401 - what DAG files import anyway
    began = time.perf_counter()
    import_module(module)
    return {"milliseconds": (time.perf_counter() - began) * 1000, "turns": turns()}


@contextmanager
def vendor_of(case: Case) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Run the vendor in a process of its own, and give its connection and truth."""
    command = [sys.executable, str(HERE / "limits_vendor.py"), case.vendor, json.dumps(case.options)]
    vendor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert vendor.stdout
        yield json.loads(vendor.stdout.readline())
    finally:
        vendor.communicate()


def measure(case: Case) -> Result:
    """Run the task in this process.

    :raises SystemExit: when what is staged is not the vendor's truth.
    """
    with vendor_of(case) as (connection, truth):
        os.environ["AIRFLOW_CONN_VENDOR"] = json.dumps(connection)
        bare_task()
        speed, bare = turns(), memory("VmRSS", reset=True)
        from airflow_cloudbilling.operators.invoices import StageInvoicesOperator

        names = {"conn_id": "vendor", "staging_conn_id": "erp_staging", "period": MONTH}
        operator = StageInvoicesOperator(task_id="stage", **names, **case.arguments)
        began, used = time.perf_counter(), processor_seconds()
        result = operator.execute({})
        seconds, processor = time.perf_counter() - began, processor_seconds() - used
        peak = memory("VmHWM") - bare
    _check(result, truth)
    own = {"lines": result["lines"], "bytes": operator._client.counters.bytes}
    return {"seconds": seconds, "processor": processor, "peak_bytes": peak, "turns": speed, **own}


def _check(result: Result, truth: Result) -> None:
    (slice_,) = result["slices"]  # reports count in their slice's totals alone
    expected = [Decimal(total) for sums in truth["totals"].values() for total in sums.values()]
    totals = slice_["totals"]
    staged = [Decimal(totals[currency][part]) for currency, sums in truth["totals"].items() for part in sums]
    counts = [(one["invoices"], one["lines"]) for one in (result, truth)]
    if staged != expected or totals.keys() != truth["totals"].keys() or counts[0] != counts[1]:
        raise SystemExit(f"expected {truth}; staged were {result}")


def _options() -> argparse.Namespace:
    servers = ["postgres"] if os.environ.get("CLOUDBILLING_TEST_POSTGRES") else []
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=(*PARTS, "imports"), default=[*PARTS, "imports"])
    parser.add_argument("--databases", nargs="+", choices=("postgres", "sqlite"), default=[*servers, "sqlite"])
    parser.add_argument("--megabytes", type=int, default=500, help="of 2tCloud's one invoice, and a tenth of it [500]")
    parser.add_argument("--files", type=int, default=2000, help="of Orange [2000]")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="of Orange's files")
    parser.add_argument("--output", default=str(HERE / "results"), help="folder of limits.json and limits.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
