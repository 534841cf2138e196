"""How fast, how big, how much written: loading a month of invoices into each database, beside what users would take.

Each measurement runs in a process of its own; contenders take turns (A-B-A-B), and the median of the rounds counts.
Servers are named in CLOUDBILLING_TEST_POSTGRES and CLOUDBILLING_TEST_MYSQL, e.g.
``postgresql://postgres@127.0.0.1:5432/test``; a database ``cloudbilling_bench_…`` is made there, and removed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from measuring import Result, in_process, memory, since, tell, turns

HERE = Path(__file__).parent
SCENARIOS = ("first", "again", "changed")


def main() -> None:
    """Measure, print the table, and write it down."""
    options = _options()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    from report import machine, markdown, table

    with tempfile.TemporaryDirectory(prefix="cloudbilling-bench-") as folder:
        versions, results = run(options, Path(folder))
    found = {
        "machine": {**machine(), "servers": versions},
        "invoices": options.invoices,
        "rounds": options.rounds,
        "results": results,
    }
    print(table(found))
    print("\n".join(shares(results)))
    if options.output:
        output = Path(options.output)
        output.mkdir(parents=True, exist_ok=True)
        (output / "loader.json").write_text(json.dumps(found, indent=1) + "\n")
        (output / "loader.md").write_text(markdown(found))


def run(options: argparse.Namespace, folder: Path) -> tuple[dict[str, str], list[Result]]:
    """Measure every contender on every database, and sum the rounds up; return the databases' versions too."""
    from database import Bench

    versions, results = {}, []
    for kind in options.databases:
        bench = Bench(kind, folder)
        try:
            bench.renew()
            versions[kind] = bench.version()
            for keep_raw in options.keep_raw:
                results += _rounds(options, bench, folder, keep_raw)
        finally:
            bench.drop()
    return versions, results


def _rounds(options: argparse.Namespace, bench: Any, folder: Path, keep_raw: bool) -> list[Result]:
    from contenders import contenders

    found: dict[tuple[str, str], list[Result]] = {}
    names = [name for name in contenders(bench.kind) if not options.contenders or name in options.contenders]
    for turn in range(options.rounds):
        for name in names:
            bench.renew()
            for scenario in SCENARIOS:
                one = _measured(options, bench.kind, folder, name, scenario, keep_raw, streamed=False)
                found.setdefault((name, scenario), []).append(one)
                tell(f"{bench.kind}, {name}, {scenario}, keep_raw {keep_raw}, round {turn + 1}: {_in_words(one)}")
    return [_summed(options, bench, folder, keep_raw, name, found) for name in names]


def _summed(
    options: argparse.Namespace, bench: Any, folder: Path, keep_raw: bool, name: str, found: dict[Any, list[Result]]
) -> Result:
    """Return medians of the rounds, and the peak memory of a further first load whose invoices come as a stream."""
    bench.renew()
    streamed = _measured(options, bench.kind, folder, name, "first", keep_raw, streamed=True)
    summed: Result = {"database": bench.kind, "contender": name, "keep_raw": keep_raw}
    for scenario in SCENARIOS:
        ones = found[name, scenario]
        speeds = [one["rows"] / one["seconds"] for one in ones]
        summed[scenario] = {
            "rows_per_second": round(statistics.median(speeds)),
            "slowest": round(min(speeds)),
            "fastest": round(max(speeds)),
            "log_bytes": ones[-1]["log_bytes"],
            "dead_tuples": ones[-1]["dead_tuples"],
            "load_average": max(one["load_average"] for one in ones),
            "turns": [round(one["turns"]) for one in ones],
        }
    return {**summed, "peak_bytes": streamed["peak_bytes"]}


def shares(results: list[Result]) -> list[str]:
    """Return what share of the limit's speed this package reaches: machines differ, and with them both."""
    from contenders import LIMIT

    lines = []
    for limit in (one for one in results if one["contender"] == LIMIT):
        own = {"contender": "cloudbilling", "database": limit["database"], "keep_raw": limit["keep_raw"]}
        for one in (one for one in results if own.items() <= one.items()):
            reached = (one[scenario]["rows_per_second"] / limit[scenario]["rows_per_second"] for scenario in SCENARIOS)
            parts = ", ".join(f"{name} {share:.0%}" for name, share in zip(SCENARIOS, reached, strict=True))
            lines.append(f"Of {LIMIT}, keep_raw {'on' if limit['keep_raw'] else 'off'}: {parts}")
    return lines


def _measured(
    options: argparse.Namespace, kind: str, folder: Path, name: str, scenario: str, keep_raw: bool, streamed: bool
) -> Result:
    own: Result = {"kind": kind, "folder": str(folder), "contender": name, "scenario": scenario, "keep_raw": keep_raw}
    own |= {"invoices": options.invoices, "streamed": streamed}
    return in_process(__file__, own, AIRFLOW_HOME=str(folder / "airflow"))


def measure(
    kind: str, folder: str, contender: str, scenario: str, invoices: int, keep_raw: bool, streamed: bool
) -> Result:
    """Measure one load in this process.

    :param scenario: ``first``, ``again`` (identical) or ``changed`` (one invoice in a hundred).
    :param streamed: make the invoices while they are loaded, to see what memory the load itself takes.
    :raises SystemExit: when the tables do not hold afterwards what was loaded.
    """
    from books import ROWS, items
    from contenders import CONTENDERS
    from database import Bench

    def source() -> Any:
        return items(invoices, keep_raw=keep_raw, changed=scenario == "changed")

    bench, all_items = Bench(kind, Path(folder)), [] if streamed else list(source())
    work = CONTENDERS[contender](bench, source if streamed else lambda: all_items, scenario != "first")
    bench.settle()
    dead, log = bench.dead_tuples(), bench.log_position()
    speed = turns()
    gc.collect()
    gc.freeze()  # a real source does not hold the month; do not let the collector walk it again and again
    baseline = memory("VmRSS", reset=True)
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    peak = memory("VmHWM") - baseline
    found: Result = {
        "seconds": seconds,
        "rows": invoices * ROWS,
        "peak_bytes": peak,
        "load_average": os.getloadavg()[0],
    }
    found |= {"log_bytes": since(log, bench.log_position()), "dead_tuples": since(dead, bench.dead_tuples())}
    _check(bench, source(), invoices)
    return {**found, "turns": speed}


def _check(bench: Any, source: Any, invoices: int) -> None:
    lines = [Decimal(item.net_amount) for item in source if hasattr(item, "line_id")]
    expected = (invoices, len(lines), f"{sum(lines):.2f}")
    if bench.staged() != expected:
        raise SystemExit(f"expected {expected} in the tables, found {bench.staged()}")


def _in_words(one: Result) -> str:
    return f"{one['rows'] / one['seconds']:,.0f} rows/s, load average {one['load_average']:.1f}, {one['turns']:.0f}"


def _options() -> argparse.Namespace:
    from database import KINDS, SERVERS

    named = [kind for kind in KINDS if kind not in SERVERS or os.environ.get(SERVERS[kind])]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=named)
    parser.add_argument("--invoices", type=int, default=50_000, help="of five lines each [50000]")
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help="only these, by the names in the table")
    parser.add_argument("--keep-raw", nargs="+", type=lambda text: text == "on", default=[False, True], help="on, off")
    parser.add_argument("--output", default=str(HERE / "results"), help="folder of loader.json and loader.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
