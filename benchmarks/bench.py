"""The whole import, from the vendor's pages to committed rows, beside what users would take instead, in one run.

Every measurement is a process of its own against a server whose answers are ready bytes; contenders take turns
(A-B-A-B) and the median counts. What the tables hold is compared with the truth row by row, and the sums to the last
digit: a time with wrong totals is marked, and wrong totals of this package fail the run. Databases are named as for
``loader.py``. dlt is looked for in BENCH_DLT_PYTHON [.venv-bench-dlt/bin/python]; who cannot take part is said.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from bench_task import CLOUDBILLING, CONTENDERS, DLT
from measuring import Result, in_process, since, tell
from vendor_server import TOKEN, Vendor

HERE = Path(__file__).parent
SCENARIOS = ("first", "again", "changed")
AIRFLOW_OWN = "HttpOperator + insert_rows"
EVERYTHING = f"{CLOUDBILLING}, raw + archive"
VENDORS = ("store365", "cloudonex")
PATIENCE = 1800.0  # seconds for one measurement


class Case(NamedTuple):
    """What is measured under one vendor, database and latency.

    :param latency: seconds before each answer.
    """

    vendor: str
    database: str
    latency: float
    scenarios: tuple[str, ...]
    contenders: list[str]


def main() -> int:
    """Measure, print the table, write it down; 1 when this package was wrong or failed."""
    options = _options()
    from bench_report import machine_of, markdown, table

    output = Path(options.output)
    earlier = json.loads((output / "bench.json").read_text()) if options.add else None
    if earlier and earlier["pages"] != options.pages:
        raise SystemExit(f"The earlier results are of {earlier['pages']} pages; give --pages or leave --add out.")
    absent = _absent()
    for name, why in absent.items():
        tell(f"Left out: {name}: {why}")
    with tempfile.TemporaryDirectory(prefix="cloudbilling-bench-") as folder:
        found = {**Run(options, Path(folder), absent).all(), "absent": absent, "pages": options.pages}
    output.mkdir(parents=True, exist_ok=True)
    if earlier:
        found = _beside(earlier, found)
    found |= {"machine": machine_of(found)}
    print(table(found))
    (output / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
    (output / "bench.md").write_text(markdown(found))
    _draw(found, output / "bench.svg")
    own = [one for one in found["results"] if one["contender"].startswith(CLOUDBILLING)]
    return int(any(one["failed"] or not one["exact"] or one["correct"] != one["rows"] for one in own))


def plan(options: argparse.Namespace, absent: dict[str, str]) -> Iterator[Case]:
    """Yield what is to be measured: everybody on PostgreSQL (or the first database), fewer elsewhere.

    Of every latency but the first only the first load into that database is measured.
    """
    everybody = [name for name in CONTENDERS if name not in absent and name in (options.contenders or CONTENDERS)]
    peers = [name for name in everybody if not name.startswith(CLOUDBILLING)]
    few = [name for name in everybody if name in (CLOUDBILLING, EVERYTHING)] + peers
    two = [name for name in few if name in (CLOUDBILLING, EVERYTHING, AIRFLOW_OWN)]
    scenarios = tuple(one for one in SCENARIOS if one in options.scenarios)
    near, *further = options.latencies
    main, *others = sorted(options.databases, key=lambda one: one != "postgres")
    if "store365" in options.vendors:
        yield Case("store365", main, near / 1000, scenarios, everybody)
        yield from (Case("store365", main, latency / 1000, scenarios[:1], few) for latency in further)
        yield from (Case("store365", database, near / 1000, scenarios, few) for database in others)
    for database in (main, *others) if "cloudonex" in options.vendors else ():
        if database != "postgres":
            yield Case("cloudonex", database, near / 1000, scenarios, two)


class Run:
    """All measurements of one call.

    :param folder: for everything that is left behind.
    :param absent: contenders that cannot take part.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, absent: dict[str, str]) -> None:
        self.options, self.folder = options, folder
        self.cases = list(plan(options, absent))

    def all(self) -> dict[str, Any]:
        """Return the results, the size of what was served, and the databases' versions."""
        from database import Bench

        results: list[Result] = []
        versions: dict[str, str] = {}
        with ExitStack() as stack:
            names = dict.fromkeys(case.vendor for case in self.cases)
            vendors = {name: stack.enter_context(Vendor(name, self.options.pages, self.folder)) for name in names}
            for case in self.cases:
                bench = Bench(case.database, self.folder)
                try:
                    results += self._case(case, bench, vendors[case.vendor])
                    versions[case.database] = bench.version()
                finally:
                    bench.drop()
            served = {name: vendor.bytes for name, vendor in vendors.items()}
        return {"results": results, "served_bytes": served, "servers": versions}

    def _case(self, case: Case, bench: Any, vendor: Vendor) -> list[Result]:
        found: dict[tuple[str, str], list[Result]] = {}
        for turn in range(self.options.rounds):
            for name in case.contenders:
                self._renew(bench)
                for scenario in case.scenarios:
                    one = self._one(case, bench, vendor, name, scenario)
                    found.setdefault((name, scenario), []).append(one)
                    tell(f"{case.vendor}, {case.database}, {case.latency * 1000:g} ms, {name}, {scenario}, "
                         f"round {turn + 1}: {one['failed'] or _in_words(one)}")  # fmt: skip
                    if one["failed"]:
                        break
        own = {"vendor": case.vendor, "database": case.database, "latency": case.latency}
        return [
            {**own, "contender": name, "scenario": scenario, **summed(ones)} for (name, scenario), ones in found.items()
        ]

    def _renew(self, bench: Any) -> None:
        from checking import create_plain

        for name in ("dlt", "archive"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        bench.renew()
        create_plain(bench.engine)

    def _one(self, case: Case, bench: Any, vendor: Vendor, name: str, scenario: str) -> Result:
        """Measure one import, and look at what it left."""
        state = "changed" if scenario == "changed" else "present"
        bench.settle()
        vendor.begin(state, case.latency)
        dead, log = bench.dead_tuples(), bench.log_position()
        try:
            found = self._in_process(bench, vendor, name, scenario)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            return {"failed": _why(error)}
        found |= vendor.counted()
        found |= {"log_bytes": since(log, bench.log_position()), "dead_tuples": since(dead, bench.dead_tuples())}
        return {"failed": "", **found, **self._checked(bench, vendor, name, state)}

    def _in_process(self, bench: Any, vendor: Vendor, name: str, scenario: str) -> Result:
        job = {"contender": name, "vendor": vendor.name, "url": vendor.url, "token": TOKEN, "kind": bench.kind}
        job |= {"fields": bench.fields, "folder": str(self.folder), "again": scenario != "first"}
        job |= {"count_statements": self.options.count_statements}
        connections = {
            "BENCH": bench.fields,
            "BENCH_VENDOR": vendor.connection(self.options.connections),
            "BENCH_HTTP": {"conn_type": "http", "host": vendor.url},
        }
        environment = {f"AIRFLOW_CONN_{name}": json.dumps(one) for name, one in connections.items()}
        environment |= {"AIRFLOW_HOME": str(self.folder / "airflow"), "PYTHONWARNINGS": "ignore"}
        environment["RUNTIME__DLTHUB_TELEMETRY"] = "false"
        python = dlt_python() if name.startswith(DLT) else sys.executable
        return in_process(HERE / "bench_task.py", job, python=python, timeout=PATIENCE, **environment)

    def _checked(self, bench: Any, vendor: Vendor, name: str, state: str) -> Result:
        from checking import Truth, check, where

        own = where(name, vendor.name, bench.engine)
        truth = Truth(self.folder / f"{vendor.name}-{state}.json", staged=own.staged)
        return check(bench.engine, own, truth)._asdict()


def _beside(earlier: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found together with what an earlier run of as many pages found of other cases."""
    again = set(map(_case_of, found["results"]))
    kept = [one for one in earlier["results"] if _case_of(one) not in again]
    both = {name: {**earlier[name], **found[name]} for name in ("served_bytes", "servers", "absent")}
    return {**found, **both, "results": kept + found["results"]}


def _case_of(one: Result) -> tuple[Any, ...]:
    return tuple(one[name] for name in ("vendor", "database", "latency", "scenario", "contender"))


def summed(ones: list[Result]) -> Result:
    """Return the median of the rounds, how far they lie apart, and the worst of what must be right."""
    if failed := next((one["failed"] for one in ones if one["failed"]), ""):
        return {"failed": failed}
    seconds = [one["seconds"] for one in ones]
    middle = statistics.median(seconds)
    last = {
        name: ones[-1][name] for name in ("rows", "requests", "connections", "log_bytes", "dead_tuples", "statements")
    }
    return {
        "failed": "",
        "rounds": len(ones),
        "seconds": round(middle, 3),
        "fastest": round(min(seconds), 3),
        "slowest": round(max(seconds), 3),
        "rows_per_second": round(last["rows"] / middle),
        "correct": min(one["correct"] for one in ones),
        "exact": all(one["exact"] for one in ones),
        "duplicates": max(one["duplicates"] for one in ones),
        "processor_seconds": round(statistics.median(one["processor_seconds"] for one in ones), 2),
        "peak_bytes": max(one["peak_bytes"] for one in ones),
        "base_bytes": ones[-1]["base_bytes"],
        "turns": [round(one["turns"]) for one in ones],
        **last,
    }


def dlt_python() -> str:
    """Return the Python that dlt is installed for."""
    return os.environ.get("BENCH_DLT_PYTHON", str(HERE.parent / ".venv-bench-dlt" / "bin" / "python"))


def _absent() -> dict[str, str]:
    """Return who cannot take part, and why."""
    absent = {}
    probe = [dlt_python(), "-c", "import dlt, dlt.sources.rest_api"]
    if not Path(probe[0]).exists() or subprocess.run(probe, capture_output=True).returncode:
        absent |= {name: "dlt is not installed" for name in CONTENDERS if name.startswith(DLT)}
    providers = ("http", "postgres", "mysql", "sqlite")
    if missing := [name for name in providers if find_spec(f"airflow.providers.{name}") is None]:
        absent[AIRFLOW_OWN] = f"Airflow's provider packages are not installed: {', '.join(missing)}"
    return absent


def _draw(found: dict[str, Any], path: Path) -> None:
    if find_spec("matplotlib") is None:
        tell("No chart: matplotlib is not installed.")
        return
    from chart import draw

    draw(found, path)


def _why(error: subprocess.SubprocessError) -> str:
    """Return why there is no measurement; the process has said more on the terminal."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"failed: no end after {error.timeout:g} s"
    return f"failed: exit code {getattr(error, 'returncode', '?')}"


def _in_words(one: Result) -> str:
    right = "exact" if one["exact"] else "WRONG TOTALS"
    speed = f"{one['rows'] / one['seconds']:,.0f} rows/s, {one['correct']:,} of {one['rows']:,} rows right, {right}"
    return f"{one['seconds']:.2f} s, {speed}, {one['peak_bytes'] / 1e6:.0f} MB"


def _options() -> argparse.Namespace:
    from database import KINDS, SERVERS

    named = [kind for kind in KINDS if kind not in SERVERS or os.environ.get(SERVERS[kind])]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", choices=named, default=named, help="those that are named")
    parser.add_argument("--vendors", nargs="+", choices=VENDORS, default=VENDORS)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--latencies", nargs="+", type=float, default=[0, 50, 100], help="ms [0 50 100]")
    parser.add_argument("--pages", type=int, default=500, help="of 100 invoices with 5 lines each [500]")
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    parser.add_argument("--add", action="store_true", help="keep what the output folder has of other cases")
    parser.add_argument("--connections", type=int, default=8, help="of this package's Airflow connection [8]")
    parser.add_argument("--count-statements", action="store_true", help="count statements too, which costs time")
    parser.add_argument("--output", default=str(HERE / "results"), help="folder of bench.json, bench.md and bench.svg")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
