"""``airflow cloudbilling``: the commands as a person types them, and what they leave in staging."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from months import SEPTEMBER, bill, bills, stage
from staged import Erp, ids, rows, statuses

pytestmark = pytest.mark.each_database

VENDOR = ("--conn-id", "twotcloud_default", "--kind", "sales")


@pytest.fixture
def airflow(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs a command as Airflow's command line does, in this process.

    :return: ``run(*arguments, code=0)`` → what it printed; of ``--json`` the value.
    """
    from airflow.cli import cli_parser

    parser = cli_parser.get_parser()

    def run(*arguments: str, code: int = 0) -> Any:
        args = parser.parse_args(["cloudbilling", *arguments])
        capsys.readouterr()
        ended = 0
        try:
            args.func(args)
        except SystemExit as exit_:
            ended = exit_.code
        told = capsys.readouterr()
        assert ended == code, told
        if code == 2:
            return told.err
        return json.loads(told.out) if "--json" in arguments else told.out

    return run


def test_a_month_is_staged_and_told(vendor: Any, erp: Erp, airflow: Any) -> None:
    month = vendor.months[-1]
    (told,) = airflow("stage", *VENDOR, "--period", month, "--json")
    truth = vendor.truth("twotcloud", "sales", month)
    assert told["invoices"] == sum(one.invoices for one in truth.values())
    assert told["totals"].keys() == truth.keys()
    assert statuses(erp) == ["committed"]
    assert "committed" in airflow("stage", *VENDOR, "--period", month)


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_person_at_a_terminal_sees_how_far_an_import_is(
    vendor: Any, erp: Erp, airflow: Any, monkeypatch: pytest.MonkeyPatch, on_terminal: bool
) -> None:
    vendor.inject("drip", rate=20_000, match="/v2/customerinvoices")  # which takes some seconds
    terminal, own = pty.openpty() if on_terminal else os.pipe()
    monkeypatch.setenv("TERM", "xterm")
    shown: list[bytes] = []
    reader = threading.Thread(target=lambda: shown.extend(_until_closed(terminal)))
    reader.start()  # a terminal that nobody reads fills up
    with os.fdopen(own, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        told = airflow("stage", *VENDOR, "--period", vendor.months[-1], "--json")
    reader.join(10)
    assert told[0]["invoices"] > 0  # the result stands alone in what is printed
    text = b"".join(shown).decode()
    assert ("1 requests" in text, "━" in text) == (on_terminal, on_terminal)


def _until_closed(file: int) -> Iterator[bytes]:
    try:
        while part := os.read(file, 1 << 16):
            yield part
    except OSError:  # a terminal whose other end is closed
        pass


def test_a_preview_says_what_would_change_and_writes_nothing(vendor: Any, erp: Erp, airflow: Any) -> None:
    month = vendor.months[-1]
    told = airflow("preview", *VENDOR, "--period", month, "--json")
    assert (told["new"], told["changed"]) == (len(told["changes"]), 0)
    airflow("stage", *VENDOR, "--period", month)
    first, second, third = sorted(row[0] for row in rows(erp, "invoice", "invoice_id"))[:3]
    vendor.change("amount", invoice_id=first)
    vendor.change("withdraw", invoice_id=second)
    vendor.change("amount", invoice_id=third)
    vendor.change("add", kind="sales", month=month)
    erp.execute(f"UPDATE cloudbilling_invoice SET posted_at = '2026-11-01 00:00:00' WHERE invoice_id = '{third}'")
    before = erp.everything()
    told = airflow("preview", *VENDOR, "--period", month, "--json")
    assert {name: told[name] for name in ("new", "changed", "removed", "frozen", "rejected")} == {
        "new": 1, "changed": 1, "removed": 1, "frozen": 1, "rejected": 0,
    }  # fmt: skip
    by_id = {one["invoice_id"]: one for one in told["changes"]}
    assert (by_id[first]["change"], by_id[second]["becomes"], by_id[third]["change"]) == ("changed", None, "frozen")
    assert by_id[first]["was"] != by_id[first]["becomes"]
    assert "Nothing was written" in airflow("preview", *VENDOR, "--period", month)
    assert erp.everything() == before
    (loaded,) = airflow("stage", *VENDOR, "--period", month, "--json")
    assert {name: loaded[name] for name in ("new", "changed", "removed")} == {"new": 1, "changed": 1, "removed": 1}


@pytest.mark.bare
def test_a_preview_makes_no_tables(vendor: Any, erp: Erp, airflow: Any) -> None:
    from sqlalchemy import inspect

    told = airflow("preview", *VENDOR, "--period", vendor.months[-1], "--json")
    assert told["new"] > 0
    assert inspect(erp.engine()).get_table_names() == []


def test_a_month_is_checked_and_its_findings_decided(erp: Erp, airflow: Any) -> None:
    stage(erp, bills([1]), SEPTEMBER)
    stage(erp, bill(1, currency="XXX"))
    told = airflow("reconcile", "--period", "2026-10", "--json", code=1)
    assert told["findings"]["error"] >= 1
    assert "unknown-currency" in airflow("reconcile", "--period", "2026-10", "--fail-on", "never")
    listed = airflow("findings", "list", "--period", "2026-10", "--rule", "unknown-currency", "--json")
    (finding,) = listed
    assert airflow("findings", "accept", finding["finding_id"], "--reason", "a test", "--who", "Ann", "--json") == [
        {"findings": 1, "accepted": 1}
    ]
    assert rows(erp, "finding", "accepted_by, accept_reason", "rule = 'unknown-currency'") == [("Ann", "a test")]
    assert airflow("findings", "list", "--rule", "unknown-currency", "--json") == []


def test_invoices_are_marked_released_and_explained(erp: Erp, airflow: Any) -> None:
    stage(erp, bills([1, 2]))
    invoice = "twotcloud/10001/purchase/INV-1"
    assert airflow("findings", "mark-posted", invoice, "--reference", "FI-1", "--json") == [
        {"invoices": 1, "marked": 1}
    ]
    assert airflow("findings", "mark-posted", "--period", "2026-10", "--reference", "FI-2", "--json") == [
        {"invoices": 2, "marked": 1}
    ]
    assert "as FI-1" in airflow("explain", invoice)
    assert airflow("explain", invoice, "--line", "2", "--json")["line"]["line_number"] == 2
    airflow("findings", "release", invoice, "--reason", "a test")
    assert rows(erp, "invoice", "invoice_id", "posted_at IS NOT NULL") == [("INV-2",)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("explain", "INV-1"), "write provider/account/kind/id"),
        (("explain", "a/b/c/d"), "is not staged"),
        (("reconcile", "--period", "October"), "is not a month"),
        (("findings", "list", "--staging-conn-id", "nowhere"), "nowhere"),
        (("findings", "accept", "--reason", "r"), "give either ids"),
        (("findings", "mark-posted", "--period", "2031-01", "--reference", "r"), "nothing is staged of 2031-01"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(erp: Erp, airflow: Any, arguments: tuple[str, ...], words: str) -> None:
    stage(erp, bills([1]))
    told = airflow(*arguments, code=2)
    assert words in told
    assert "Traceback" not in told
    assert ids(erp) == {"1"}


def test_the_printed_sql_makes_the_tables(staging: Any, airflow: Any) -> None:
    sql = airflow("ddl")
    with sqlite3.connect(staging) as connection:
        connection.executescript(sql)
    assert airflow("findings", "list", "--json") == []  # and nothing is missing


def test_the_sandbox_is_a_command_too() -> None:
    command = [sys.executable, "-m", "airflow", "cloudbilling", "sandbox", "--", "--months", "0"]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 2
    assert "argument --months: 0 is not within 1 and 1000000" in told.stderr
