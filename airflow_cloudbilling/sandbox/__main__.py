"""The sandbox's command line: ``python -m airflow_cloudbilling.sandbox``."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading
from dataclasses import fields
from datetime import date
from typing import Any

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox import control, faults
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.twotcloud import EMPTY_SHAPES
from airflow_cloudbilling.sandbox.vendor import Options

SETTINGS = {
    setting.name: setting.default
    for setting in fields(Options)
    if setting.name
    not in ("seed", "months", "invoices", "last_month", "huge_invoice_mb", "strict_versions", "empty_shape")
}
EXAMPLES = """
examples:
  python -m airflow_cloudbilling.sandbox --port 8765 --export
      prints the connections as lines for a shell, and the sums that staging must hold
  python -m airflow_cloudbilling.sandbox --faults status:status=503,times=2
      the first two requests fail; --faults may be given more than once
  python -m airflow_cloudbilling.sandbox --faults '{"fault": "cut", "match": "/v2/invoices", "at": 5000, "times": null}'
      every answer about invoices ends after 5000 bytes
  python -m airflow_cloudbilling.sandbox --set rate_limit=20 --set rate_window=10 --set cloudonex_style=meta
      CloudOnex allows 20 requests in 10 seconds and answers with page counts

while it runs (URL is the printed address):
  curl -d '[{"fault": "status", "status": 429, "headers": {"Retry-After": "3"}}]' URL/_sandbox/faults
  curl -X DELETE URL/_sandbox/faults
  curl -d '{"change": "amount", "invoice_id": "CI-202610-00001"}' URL/_sandbox/change
  curl -d '{"change": "add", "kind": "purchase", "month": "2026-10"}' URL/_sandbox/change
  curl -d '{"vendor": "sage_connected_cloud", "expire_key": true, "rejects": ["CI-202610-00001"]}' URL/_sandbox/steer
  curl -d '{"vendor": "sage_connected_cloud", "consent": "PASSCODE"}' URL/_sandbox/steer
  curl -d '{"vendor": "sage_connected_cloud", "publish": {"Products": [{"id": "P-1"}]}}' URL/_sandbox/steer
      both call the notificationUrl that was registered, on this machine, with the new API key or with the scope
  curl 'URL/_sandbox/state?vendor=sage_connected_cloud'
  curl URL/_sandbox/requests;  curl 'URL/_sandbox/truth?kind=purchase&month=2026-10'

faults: status, html, empty, body, redirect, delay, reset, cut, drip; their settings: see
  airflow_cloudbilling.sandbox.faults.Fault
changes: amount, withdraw, add, touch_unknown_field, reorder
"""


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM, and return 0.

    :param arguments: the command line, by default the process's own.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    stop = threading.Event()
    try:
        sandbox = _sandbox(given)
    except OSError as error:
        taken = f"{given.host}, port {given.port}: {error.strerror}; --port 0 takes any that is free"
        parser.error(str(error) if error.filename else taken)  # a file of faults has a name
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with sandbox:
        _show(sandbox, export=given.export)
        stop.wait()
    return 0


def _sandbox(given: argparse.Namespace) -> Sandbox:
    return Sandbox(
        host=given.host,
        port=given.port,
        faults=[fault for spec in given.faults for fault in faults.parse(spec)],
        seed=given.seed,
        months=given.months,
        invoices=given.invoices,
        last_month=given.last_month,
        huge_invoice_mb=given.huge_invoice_mb,
        strict_versions=not given.allow_mixed_versions,
        empty_shape=given.empty_shape,
        **dict(given.set),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_cloudbilling.sandbox",
        description="Serve the vendors on loopback with a fixed data set, enforce what they enforce, fail on demand.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="loopback address to serve on [%(default)s]")
    add("--port", type=int, default=0, help="port to serve on [0: any free one]")
    add("--seed", type=int, default=1, help="another seed is another data set [%(default)s]")
    add("--months", type=_count, default=6, help="months in the data set [%(default)s]")
    add("--invoices", type=_count, default=12, help="invoices in each month and kind [%(default)s]")
    add("--last-month", type=_month, metavar="YYYY-MM", help="the data set's last month [the last full month]")
    add("--huge-invoice-mb", type=int, default=0, metavar="MB", help="one more invoice of this size in the last month")
    add("--empty-shape", choices=EMPTY_SHAPES, default="list", help="how a month without invoices looks [%(default)s]")
    add("--allow-mixed-versions", action="store_true", help="do not refuse a second version of an API")
    add("--faults", action="append", default=[], metavar="SPEC", help="KIND:key=value,…, JSON, or @FILE with JSON")
    add("--set", action="append", default=[], type=_setting, metavar="NAME=VALUE", help=f"one of {', '.join(SETTINGS)}")
    add("--export", action="store_true", help="print 'export' before each connection")
    return parser


def _show(sandbox: Sandbox, *, export: bool) -> None:
    print(f"# The sandbox serves at {sandbox.url} until Ctrl-C. Connections for Airflow:")
    for name, value in sandbox.environment().items():
        print(f"{'export ' if export else ''}{name}={shlex.quote(value)}")
    print("# What staging must hold, credit notes negative:")
    print(f"# {'vendor':17} {'kind':13} {'month':8} {'invoices':>8} {'lines':>7}  gross by currency", flush=True)
    for row in control.truth_table(sandbox):
        totals = ", ".join(f"{currency} {sums['gross']:f}" for currency, sums in row["totals"].items())
        where = f"{row['vendor']:17} {row['kind']:13} {row['month']:8}"
        print(f"# {where} {row['invoices']:8} {row['lines']:7}  {totals}", flush=True)
    print("# Ready.", flush=True)


def _count(text: str) -> int:
    if not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not within 1 and 1000000")
    return int(text)


def _setting(text: str) -> tuple[str, Any]:
    """Read one of the settings that have no option of their own, in the type of its default."""
    name, _, value = text.partition("=")
    if name not in SETTINGS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SETTINGS)}")
    kind = type(SETTINGS[name])
    try:
        return name, kind(json.loads(value)) if kind in (int, float, bool) else value
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"{name} wants a value such as {json.dumps(SETTINGS[name])}") from None


def _month(text: str) -> date:
    try:
        return Period.parse(text).start
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
