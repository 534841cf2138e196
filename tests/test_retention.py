"""Retention: names and raw text go, figures stay, nothing that is open, nothing that somebody still needs."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from importing import stage
from staged import OCTOBER, Erp, document, dump, load, open_staging, rows

from airflow_cloudbilling.archive import Archive
from airflow_cloudbilling.errors import ArchiveError
from airflow_cloudbilling.model import Invoice, InvoiceLine, Period, Reject
from airflow_cloudbilling.operators.reconcile import ReconcileInvoicesOperator
from airflow_cloudbilling.operators.restage import RestageInvoicesOperator
from airflow_cloudbilling.operators.retention import ApplyRetentionOperator
from airflow_cloudbilling.reconcile.approval import approve, reject
from airflow_cloudbilling.staging.findings import accept, open_ones
from airflow_cloudbilling.staging.posting import InvoiceKey, Posting

pytestmark = pytest.mark.each_database

LATER = datetime(2028, 11, 20, tzinfo=timezone.utc)
NOVEMBER = OCTOBER._replace(period=Period.parse("2026-11"))


def apply(months: Any = 24, now: datetime = LATER, **arguments: Any) -> dict[str, Any]:
    arguments = {"staging_conn_id": "erp_staging", "keep_months": months, **arguments}
    context: Any = {"logical_date": now}
    result: dict[str, Any] = ApplyRetentionOperator(task_id="apply", **arguments).execute(context)
    return result


def bill(number: int, net: str = "10", name: str = "Zoë d'Arc") -> list[Any]:
    line = InvoiceLine(net_amount=net, customer_id="77", customer_name=name, description="Seats", raw='{"who": "Zoë"}')
    more: Any = {"buyer_id": "B", "buyer_name": name, "buyer_vat_id": "NL1", "seller_name": "Seller", "currency": "EUR"}
    return [line, Invoice(f"INV-{number}", net_amount=net, gross_amount=net, raw='{"a": "Zoë"}', **more)]


def fill(erp: Erp) -> Any:
    """Load two invoices of October and one of November; one of each month is posted."""
    staging = open_staging(erp)
    load(staging, [*bill(1), *bill(2)])
    load(staging, bill(3), NOVEMBER)
    keys = [InvoiceKey("twotcloud", "10001", "purchase", f"INV-{n}") for n in (1, 3)]
    Posting(staging).mark(keys, "FI-1")
    return staging


def personal(erp: Erp) -> set[str]:
    """Return the invoices that still have a name, a customer's name or raw text."""
    invoices = rows(erp, "invoice", "invoice_id", "raw IS NOT NULL OR buyer_name IS NOT NULL")
    lines = rows(erp, "invoice_line", "invoice_id", "raw IS NOT NULL OR customer_name IS NOT NULL")
    return {invoice_id for (invoice_id,) in (*invoices, *lines)}


STAYING = "invoice_id, net_amount, gross_amount, buyer_id, buyer_vat_id, seller_name, content_hash, load_id, posted_at"
STAYING_OF_LINES = "invoice_id, net_amount, description, customer_id"


def test_old_and_closed_is_erased_and_figures_stay(erp: Erp) -> None:
    fill(erp)
    before = rows(erp, "invoice", STAYING), rows(erp, "invoice_line", STAYING_OF_LINES)
    expected = {"invoices": 1, "lines": 1, "revisions": 0, "rejects": 0, "bodies": 0, "elsewhere": 0, "kept": 1}
    assert apply(dry_run=True) == {"before": "2026-11-01", "dry_run": True, **expected}
    assert personal(erp) == {"INV-1", "INV-2", "INV-3"}
    assert apply() == {"before": "2026-11-01", "dry_run": False, **expected}
    assert personal(erp) == {"INV-2", "INV-3"}  # 2 is not closed, 3 not old enough
    after = rows(erp, "invoice", STAYING), rows(erp, "invoice_line", STAYING_OF_LINES)
    assert after == before
    assert apply()["invoices"] == apply()["lines"] == 0
    assert apply(months=23)["invoices"] == 1
    assert personal(erp) == {"INV-2"}


def test_what_is_not_closed_goes_when_told_and_what_is_under_way_at_sage_never(erp: Erp) -> None:
    fill(erp)
    key = "'twotcloud', '10001', 'purchase'"
    erp.execute("INSERT INTO cloudbilling_upload_item (upload_id, provider, account, kind, invoice_id, status)"
                f" VALUES ('u', {key}, 'INV-2', 'unknown'), ('u', {key}, 'INV-1', 'submitted')")  # fmt: skip
    assert apply(include_open=True)["kept"] == 2
    assert personal(erp) == {"INV-1", "INV-2", "INV-3"}
    erp.execute("UPDATE cloudbilling_upload_item SET status = 'accepted'")
    assert apply()["kept"] == 1
    assert apply(include_open=True)["invoices"] == 1
    assert personal(erp) == {"INV-3"}


def close(**scope: Any) -> str:
    """Reconcile October, and return the close."""
    arguments: dict[str, Any] = {"staging_conn_id": "erp_staging", "period": "2026-10", "fail_on": "never", **scope}
    found: str = ReconcileInvoicesOperator(task_id="reconcile", **arguments).execute({})["close_id"]
    return found


def test_an_approved_close_closes_a_month(erp: Erp) -> None:
    staging = fill(erp)
    close_id = close()
    assert apply()["kept"] == 1
    approve(staging, close_id, "Jo")
    reject(staging, close_id, "Jo")
    assert apply()["kept"] == 1
    approve(staging, close_id, "Jo")
    assert apply()["kept"] == 0
    assert personal(erp) == {"INV-3"}


def test_a_close_of_some_vendors_closes_the_month_for_these_and_their_usage(erp: Erp) -> None:
    staging = fill(erp)
    load(staging, bill(7), OCTOBER._replace(kind="usage"))
    load(staging, bill(8), OCTOBER._replace(provider="store365"))
    load(staging, bill(9), OCTOBER._replace(provider="store365", kind="usage"))
    approve(staging, close(providers=["twotcloud"]), "Jo")
    assert apply()["kept"] == 2
    assert personal(erp) == {"INV-3", "INV-8", "INV-9"}
    approve(staging, close(providers="store365"), "Jo")
    assert apply()["kept"] == 0


def test_what_came_or_changed_after_a_month_was_reconciled_is_not_in_its_close(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, [*bill(1), *bill(2)])
    approve(staging, close(), "Jo")
    load(staging, [*bill(1), *bill(2, net="11"), *bill(3)])
    assert apply(dry_run=True)["kept"] == apply()["kept"] == 2
    assert personal(erp) == {"INV-2", "INV-3"}


def test_the_same_data_again_writes_nothing_and_other_data_is_written_anew(erp: Erp) -> None:
    staging = fill(erp)
    apply(include_open=True)
    erased = dump(erp)
    loaded = load(staging, [*bill(1), *bill(2)])
    assert (loaded.merged.unchanged, loaded.merged.changed) == (2, 0)
    assert dump(erp) == erased
    assert load(staging, [*bill(1), *bill(2, "11")]).merged.changed == 1
    assert personal(erp) == {"INV-2", "INV-3"}


def test_either_may_be_erased_alone_and_of_which_fields(erp: Erp) -> None:
    fill(erp)
    apply(erase="personal", include_open=True, personal_fields=["customer_name", "buyer_vat_id"])
    assert rows(erp, "invoice", "buyer_name, buyer_vat_id, raw", "invoice_id = 'INV-1'") == [
        ("Zoë d'Arc", None, '{"a": "Zoë"}')
    ]
    assert rows(erp, "invoice_line", "customer_name, raw", "invoice_id = 'INV-1'") == [(None, '{"who": "Zoë"}')]
    apply(erase=["raw"], include_open=True)
    assert rows(erp, "invoice", "buyer_name, raw", "invoice_id = 'INV-1'") == [("Zoë d'Arc", None)]


def test_revisions_and_rejects_go_too(erp: Erp) -> None:
    staging = fill(erp)
    load(staging, [*bill(1, "12"), *bill(2), Reject("no amount", '{"who": "Zoë"}', "INV-9")], quarantine=True)
    assert rows(erp, "invoice_revision", "buyer_name") == [("Zoë d'Arc",)]
    result = apply(include_open=True)
    assert (result["revisions"], result["rejects"]) == (2, 1)
    for table in ("invoice_revision", "invoice_line_revision", "reject"):
        assert rows(erp, table, "raw") == [(None,)]
    assert rows(erp, "invoice_revision", "buyer_name, gross_amount") == [(None, "12")]


def test_what_a_person_has_yet_to_decide_about_stays(erp: Erp) -> None:
    staging = fill(erp)
    load(staging, [*bill(1, "12"), *bill(2)])  # 1 is posted
    assert apply()["kept"] == 2
    assert rows(erp, "invoice_revision", "buyer_name, raw") == [("Zoë d'Arc", '{"a": "Zoë"}')]
    accept(staging, open_ones(staging, Period.parse("2026-10"), "changed-after-posting"), "Jo", "a credit note follows")
    assert (apply()["revisions"], personal(erp)) == (2, {"INV-2", "INV-3"})


def test_thousands_go_batch_by_batch(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, (item for number in range(450) for item in bill(number)))
    begun: list[str] = []
    from sqlalchemy import event

    event.listen(staging.engine, "commit", lambda connection: begun.append("commit"))
    from airflow_cloudbilling.staging.retention import Retention, cutoff

    erased = Retention(staging, cutoff(LATER.date(), 24), include_open=True).run()
    assert (erased.invoices, erased.lines) == (450, 450)
    assert len(begun) >= 4
    assert personal(erp) == set()


def test_bodies_go_when_nothing_else_needs_them(vendor: Any, erp: Erp, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    first, last = vendor.months[0], vendor.months[-1]
    for month in (first, last):
        stage(month, archive=str(folder))
    old, kept = (
        {sha for (sha,) in rows(erp, "invoice", "source_sha256", f"slice_period LIKE '{month}%'")}
        for month in (first, last)
    )
    now = datetime.fromisoformat(f"{last}-20T00:00:00+00:00")
    totals = rows(erp, "invoice", "invoice_id, gross_amount, source_sha256")
    result = apply(months=1, now=now, archive=str(folder), include_open=True, dry_run=True)
    assert result["bodies"] == len(old) == 1
    assert len(list(folder.rglob("*.gz"))) == 2
    assert apply(months=1, now=now, archive=str(folder), include_open=True)["bodies"] == 1
    archive = Archive(str(folder))
    for sha256 in old:
        with pytest.raises(ArchiveError, match="no body"):
            archive.open(sha256)
    for sha256 in kept:
        archive.open(sha256).close()
    assert rows(erp, "invoice", "invoice_id, gross_amount, source_sha256") == totals
    assert apply(months=1, now=now, archive=str(folder), include_open=True)["bodies"] == 0
    again = {"conn_id": "twotcloud_default", "staging_conn_id": "erp_staging", "archive": str(folder)}
    replay = RestageInvoicesOperator(task_id="again", period=first, kind="purchase", **again)
    with pytest.raises(AirflowFailException, match=r"recorded no answer that is still kept: retention"):
        replay.execute({})


def test_a_mistyped_archive_forgets_nothing_of_the_right_one(vendor: Any, erp: Erp, tmp_path: Path) -> None:
    folder, month = tmp_path / "raw", vendor.months[0]
    stage(month, archive=str(folder))
    now = datetime.fromisoformat(f"{vendor.months[-1]}-20T00:00:00+00:00")
    request = rows(erp, "request", "sha256, request_key")
    arguments: dict[str, Any] = {"months": 1, "now": now, "include_open": True}
    wrong = apply(**arguments, archive=str(tmp_path / "row"))
    assert (wrong["bodies"], wrong["elsewhere"]) == (0, 1)
    assert rows(erp, "request", "sha256, request_key") == request
    right = apply(**arguments, archive=str(folder))
    assert (right["bodies"], right["elsewhere"]) == (1, 0)
    assert {key for _, key in rows(erp, "request", "sha256, request_key")} == {None}


def test_a_file_says_in_which_archive_it_is(erp: Erp, tmp_path: Path) -> None:
    file = document("D-1", "INV-1")
    with open_staging(erp).load(OCTOBER) as one:
        for item in [*bill(1), file]:
            one.add(item)
        one.exchanged("https://vendor.example/D-1", 200, file.sha256)
        one.answered("GET", "{}", "0" * 64)
        one.archived(file.sha256, (tmp_path / "other" / "x.gz").as_uri())
        one.commit()
    arguments: dict[str, Any] = {"include_open": True, "months": 1}
    assert apply(archive=str(tmp_path / "one"), **arguments)["elsewhere"] == 1
    assert rows(erp, "document", "uri IS NULL") == rows(erp, "request", "request_key IS NULL") == [(0,)]
    assert apply(archive=str(tmp_path / "other"), **arguments)["elsewhere"] == 0  # where it is no more
    assert rows(erp, "document", "uri IS NULL") == rows(erp, "request", "request_key IS NULL") == [(1,)]


def test_a_body_that_an_open_invoice_came_in_stays(vendor: Any, staging: Path, tmp_path: Path) -> None:
    erp = Erp("sqlite", tmp_path)
    erp.connection["host"] = str(staging)
    folder, month = tmp_path / "raw", vendor.months[0]
    stage(month, archive=str(folder))
    now = datetime.fromisoformat(f"{vendor.months[-1]}-20T00:00:00+00:00")
    opened = open_staging(erp)
    ids = sorted(invoice_id for (invoice_id,) in rows(erp, "invoice", "invoice_id"))
    account = rows(erp, "invoice", "account")[0][0]
    keys = [InvoiceKey("twotcloud", account, "purchase", invoice_id) for invoice_id in ids]
    Posting(opened).mark(keys[1:], "FI")
    assert apply(months=1, now=now, archive=str(folder))["bodies"] == 0
    Posting(opened).mark(keys[:1], "FI")
    assert apply(months=1, now=now, archive=str(folder))["bodies"] == 1
    assert list(folder.rglob("*.gz")) == []


def test_bodies_kept_without_secrets_go_with_their_notes(
    cloudbilling_sandbox: Any, staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cloudbilling_sandbox.environment().items():
        monkeypatch.setenv(name, value)
    folder, months = tmp_path / "raw", cloudbilling_sandbox.months
    stage(months[0], conn_id="cloudonex_default", kind="sales", archive=str(folder))
    now = datetime.fromisoformat(f"{months[-1]}-20T00:00:00+00:00")
    there = len(list(folder.rglob("*.gz")))
    assert there > 0
    result = apply(months=1, now=now, archive=str(folder), include_open=True)
    assert result["bodies"] == there
    assert list(folder.rglob("*.gz")) == list(folder.rglob("*.cleaned")) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"keep_months": "soon"}, "no number of months"),
        ({"keep_months": 0}, "no number of months"),
        ({"erase": ["everything"]}, "none of raw, personal"),
        ({"personal_fields": ["net_amount"]}, "has no net_amount; it may be buyer_name"),
    ],
)
def test_a_wrong_argument_is_named(staging: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(AirflowFailException, match=said):
        apply(**{"months": wrong.pop("keep_months", 24), **wrong})


def test_amounts_do_not_move_by_a_digit(erp: Erp) -> None:
    staging = open_staging(erp)
    big = "12345678901234567890123456.123456789012"
    load(staging, bill(1, big))
    apply(include_open=True)
    assert rows(erp, "invoice_line", "net_amount") == [(big,)]
    assert Decimal(rows(erp, "invoice", "gross_amount")[0][0]) == Decimal(big)
