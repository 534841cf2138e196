"""The import as a DAG author meets it: exact, repeatable, clear when it fails; against the sandbox over real HTTP."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import signal
import threading
import time
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from airflow.sdk.exceptions import AirflowFailException
from importing import connect, stage
from staged import Erp, dump, rows, statuses
from test_staging_kill import THOROUGH, ended_by, in_child

from airflow_cloudbilling.errors import MalformedReplyError, RemovalError, UnavailableError
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.sandbox.server import Sandbox

pytestmark = pytest.mark.each_database

KINDS = ("purchase", "sales", "consolidated")


def test_the_result_is_small_plain_and_complete(vendor: Sandbox, erp: Erp) -> None:
    result = stage(vendor.months[-1])
    assert json.loads(json.dumps(result)) == result
    (one,) = result["slices"]
    wanted = (
        "provider account kind period load_id invoices lines new changed unchanged removed rejected frozen documents"
    )
    assert {*wanted.split(), "totals"} <= set(one)
    assert (one["provider"], one["kind"], one["documents"]) == ("twotcloud", "purchase", 0)
    assert one["totals"] == result["totals"]
    month = vendor.months[-1]
    assert stage(f"{one['period']}")["unchanged"] == result["invoices"], f"{month} and {one['period']} are one slice"


def test_after_changes_at_the_vendor_staging_is_the_vendors_present_truth(vendor: Sandbox, erp: Erp) -> None:
    month = vendor.months[-1]
    stage(month)
    records = [r.invoice_id for r in vendor.records("twotcloud", "purchase", month)]
    vendor.change("amount", invoice_id=records[0])
    vendor.change("withdraw", invoice_id=records[1])
    vendor.change("touch_unknown_field", invoice_id=records[2])
    vendor.change("reorder", invoice_id=records[3])
    added = vendor.change("add", kind="purchase", month=month)
    result = stage(month)
    assert {n: result[n] for n in ("new", "changed", "unchanged", "removed")} == {
        "new": 1,
        "changed": 1,
        "unchanged": len(records) - 2,
        "removed": 1,
    }
    truth = {r.invoice_id: str(r.gross_amount.normalize()) for r in vendor.records("twotcloud", "purchase", month)}
    staged = dict(r[:2] for r in rows(erp, "invoice", "invoice_id, gross_amount"))
    assert {i: Decimal(a) for i, a in staged.items()} == {i: Decimal(a) for i, a in truth.items()}
    assert added in staged


def test_overlapping_windows_in_any_order_end_alike(vendor: Sandbox, erp: Erp, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = vendor.months[-2:]
    windows = [first, second, f"{first}-15/{second}-15"]
    dumps = []
    for n in range(3):
        random.Random(n).shuffle(windows)
        connect(vendor, monkeypatch, account=str(n))
        for window in windows:
            stage(window)
        dumps.append(dump(erp, with_load=False, account=str(n)))
    assert dumps[0] == dumps[1] == dumps[2]
    truth = [r for m in (first, second) for r in vendor.records("twotcloud", "purchase", m)]
    assert len(dumps[0]["invoice"]) == len(truth)


@pytest.mark.parametrize("answer", ['{"Invoices": []}', '{"Invoices": null}', "<InvoiceResponse />"])
def test_an_empty_answer_wipes_nothing(vendor: Sandbox, erp: Erp, answer: str) -> None:
    stage(vendor.months[-1])
    before = dump(erp)
    vendor.serve("/v2/invoices", answer, "application/xml" if answer.startswith("<") else "application/json")
    with pytest.raises(RemovalError, match="allow_removals"):
        stage(vendor.months[-1])
    assert dump(erp) == before
    assert stage("2019-01")["invoices"] == 0
    assert stage(vendor.months[-1], allow_removals=True)["invoices"] == 0


@pytest.mark.parametrize("fault", ["empty", "html"])
def test_what_is_no_answer_is_an_error_that_says_what_came(vendor: Sandbox, erp: Erp, fault: str) -> None:
    stage(vendor.months[-1])
    before = dump(erp)
    vendor.inject(fault, match="/v2/invoices", times=None)
    with pytest.raises(MalformedReplyError, match="twotcloud_default"):
        stage(vendor.months[-1])
    assert dump(erp) == before
    assert statuses(erp)[-1] == "failed"


def test_a_wrong_key_sends_one_request_and_says_both_causes(
    vendor: Sandbox, erp: Erp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect(vendor, monkeypatch, password="wrong-key-that-nobody-may-see")
    with pytest.raises(AirflowFailException, match=r"(?s)header.*IP address") as caught:
        stage(vendor.months[-1])
    assert [r.status for r in vendor.requests] == [403]
    assert "wrong-key-that-nobody-may-see" not in f"{caught.value}{caplog.text}{erp.everything()}"


def broken_answer(vendor: Sandbox) -> str:
    """Return one good and one unreadable invoice as JSON."""
    good = {"Header": {"InvoiceID": "G-1", "Date": "2026-10-05", "Currency": "EUR", "Type": "Invoice"}}
    totals = {"TotalExclVAT": 1, "TotalVAT": 0.21, "TotalInclVAT": 1.21}
    bad = {"Header": {**good["Header"], "InvoiceID": "B-1"}, "Totals": {**totals, "TotalInclVAT": "a lot"}}
    body = json.dumps({"Invoices": [{**good, "Totals": totals}, bad]})
    vendor.serve("/v2/invoices", body)
    return body


def test_a_record_that_cannot_be_read_fails_and_is_found_in_the_reject_table(vendor: Sandbox, erp: Erp) -> None:
    broken_answer(vendor)
    with pytest.raises(AirflowFailException, match=r"1 of 2 records .*'B-1'.*a lot"):
        stage("2026-10")
    assert rows(erp, "invoice") == []
    ((invoice_id, reason, raw, *_),) = rows(erp, "reject", "invoice_id, reason, raw")
    assert invoice_id == "B-1"
    assert "TotalInclVAT" in reason
    assert "a lot" in raw


def test_in_quarantine_the_rest_is_staged(vendor: Sandbox, erp: Erp) -> None:
    broken_answer(vendor)
    result = stage("2026-10", on_reject="quarantine")
    assert (result["invoices"], result["rejected"]) == (1, 1)
    assert stage("2026-10", on_reject="quarantine")["removed"] == 0


@pytest.mark.parametrize(
    "answer",
    [
        '{"success": false, "Invoices": []}',
        '{"Success": "false", "Invoices": null}',
        '{"error": true, "message": "partial", "Invoices": [{"Header": {"InvoiceID": "A", "Currency": "EUR"}}]}',
        "<InvoiceResponse><Success>false</Success></InvoiceResponse>",
    ],
)
def test_a_failure_inside_http_200_is_no_answer(vendor: Sandbox, erp: Erp, answer: str) -> None:
    vendor.serve("/v2/invoices", answer, "application/xml" if answer.startswith("<") else "application/json")
    with pytest.raises(MalformedReplyError, match=r"(?i)success|error"):
        stage("2026-10")
    assert rows(erp, "invoice") == []


def test_a_secret_that_the_vendor_echoes_goes_nowhere(
    vendor: Sandbox, erp: Erp, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    fields = vendor.connections()["twotcloud_default"]
    basic = base64.b64encode(f"{fields['login']}:{fields['password']}".encode()).decode()
    echo = f"{fields['password']} Basic {basic} {quote(fields['password'])}"
    header = {"InvoiceID": "E-1", "Currency": "EUR", "Type": "Invoice", "Description": echo}
    line = {"ExtendedPrice": 1, "VAT": 0, "Description": "x" * 3_000_000 + echo}
    good = {"Header": header, "Customers": [{"Subscriptions": [{"PriceLines": [line]}]}]}
    bad = {"Header": {**header, "InvoiceID": "E-2"}, "Totals": {"TotalExclVAT": f"bad {echo}"}}
    vendor.serve("/v2/invoices", json.dumps({"Invoices": [good, bad]}))
    with pytest.raises(AirflowFailException) as caught:
        stage("2026-10", archive=str(tmp_path / "raw"))
    result = stage("2026-10", archive=str(tmp_path / "raw"), on_reject="quarantine")
    kept = b"".join(gzip.decompress(file.read_bytes()) for file in tmp_path.rglob("*.gz")).decode()
    everything = f"{caught.value}{caplog.text}{erp.everything()}{json.dumps(result)}{kept}"
    assert "***" in everything
    assert fields["password"] not in everything
    assert basic not in everything


def test_the_documented_type_says_what_a_document_is(vendor: Sandbox, erp: Erp) -> None:
    totals = {"TotalExclVAT": 100, "TotalVAT": 21, "TotalInclVAT": 121}
    header = {"InvoiceID": "C-1", "Currency": "EUR", "Type": "Credit", "TypeIdentifier": 380}
    vendor.serve("/v2/invoices", json.dumps({"Invoices": [{"Header": header, "Totals": totals}]}))
    stage("2026-10")
    assert rows(erp, "invoice", "document_type, gross_amount") == [("credit_note", "-121")]


def test_the_window_can_be_shifted_without_moving_the_period(vendor: Sandbox, erp: Erp) -> None:
    result = stage("2026-02", window_shift_days=20)
    assert dict(vendor.requests[-1].query) == {"startDate": "20260221", "endDate": "20260320"}
    assert result["slices"][0]["period"] == "2026-02-01/2026-03-01"


def test_the_request_log_has_every_exchange_and_no_secret(vendor: Sandbox, erp: Erp) -> None:
    vendor.inject("status", status=503, headers={"Retry-After": "0"}, times=1)
    stage(vendor.months[-1])
    statuses_ = [r[1] for r in rows(erp, "request", "sequence, status, url, sha256")]
    assert statuses_ == [503, 200]
    key = vendor.connections()["twotcloud_default"]["password"]
    assert key not in erp.everything()


def test_a_long_wait_gives_the_worker_back_and_goes_on_with_the_same_load(vendor: Sandbox, erp: Erp) -> None:
    from airflow.sdk.exceptions import TaskDeferred

    vendor.inject("status", status=429, headers={"Retry-After": "120"}, times=1)
    began = datetime.now(timezone.utc)
    with pytest.raises(TaskDeferred) as deferred:
        stage(vendor.months[-1])
    _, trigger = deferred.value.trigger.serialize()
    assert 115 < (trigger["moment"] - began).total_seconds() < 125
    assert statuses(erp) == ["waiting"]
    assert (deferred.value.method_name, len(vendor.requests)) == ("resume", 1)
    arguments = {"conn_id": "twotcloud_default", "staging_conn_id": "erp_staging", "period": vendor.months[-1]}
    again = StageInvoicesOperator(task_id="stage", **arguments)
    assert again.resume({})["new"] == len(list(vendor.records("twotcloud", "purchase", vendor.months[-1])))
    assert statuses(erp) == ["committed"]


def test_a_wait_longer_than_max_wait_fails_in_words(vendor: Sandbox, erp: Erp) -> None:
    vendor.inject("status", status=429, headers={"Retry-After": "99999999"}, times=None)
    with pytest.raises(UnavailableError, match="max_wait"):
        stage(vendor.months[-1])
    assert len(vendor.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"period": "2026-13"}, "2026-13"),
        ({"kind": "usage"}, "usage"),
        ({"on_reject": "ignore"}, "on_reject"),
        ({"max_removed": "many"}, "max_removed"),
        ({"window_shift_days": "x"}, "window_shift_days"),
        ({"timezone": "Mars/Olympus", "period": ""}, "timezone"),
        ({"conn_id": "erp_staging"}, "twotcloud"),
        ({"field_map": {"grossamount": "x"}}, "grossamount"),
    ],
)
def test_a_wrong_argument_is_named_before_any_request(
    vendor: Sandbox, erp: Erp, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(AirflowFailException, match=field):
        stage(**{"period": "2026-10", **arguments})
    assert vendor.requests == []


def test_on_kill_before_the_vendor_is_asked_asks_nobody(vendor: Sandbox, erp: Erp) -> None:
    arguments = {"conn_id": "twotcloud_default", "staging_conn_id": "erp_staging", "period": vendor.months[-1]}
    operator = StageInvoicesOperator(task_id="stage", **arguments)
    operator.on_kill()
    with pytest.raises(UnavailableError, match="abort"):
        operator.execute({})
    assert vendor.requests == []
    assert statuses(erp) == []  # no load began


def test_on_kill_ends_the_wait_and_the_load(vendor: Sandbox, erp: Erp) -> None:
    vendor.inject("delay", seconds=30)
    operator = StageInvoicesOperator(
        task_id="stage", conn_id="twotcloud_default", staging_conn_id="erp_staging", period=vendor.months[-1]
    )

    def kill_while_it_waits() -> None:
        while not vendor.requests:
            time.sleep(0.05)
        operator.on_kill()

    threading.Thread(target=kill_while_it_waits, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(Exception, match=r"(?i)abort|killed|stopped"):
        operator.execute({})
    assert time.monotonic() - began < 10
    assert statuses(erp) == ["failed"]


@pytest.mark.thorough
def test_a_worker_killed_at_any_moment_leaves_no_half_slice_and_the_retry_ends_right(
    vendor: Sandbox, erp: Erp, monkeypatch: pytest.MonkeyPatch
) -> None:
    month = vendor.months[-1]
    stage(month)
    records = [r.invoice_id for r in vendor.records("twotcloud", "purchase", month)]
    dice, killed = random.Random(7), 0
    moments = (40 if erp.kind == "sqlite" else 15) if THOROUGH else 10
    for n in range(moments):
        before = dump(erp, with_load=False)
        vendor.change("amount", invoice_id=records[n % len(records)])
        pid = in_child(lambda: stage(month) and None)
        time.sleep(dice.random() * 0.12)
        os.kill(pid, signal.SIGKILL)
        killed += ended_by(pid) == signal.SIGKILL
        left = dump(erp, with_load=False)
        stage(month)
        after = dump(erp, with_load=False)
        assert left in (before, after)
        truth = {r.invoice_id: r.gross_amount for r in vendor.records("twotcloud", "purchase", month)}
        assert {r[0]: Decimal(r[1]) for r in rows(erp, "invoice", "invoice_id, gross_amount")} == truth
    assert killed > 3
    assert set(statuses(erp)) <= {"committed", "abandoned"}
