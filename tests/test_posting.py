"""Posted is posted, until it is released."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from staged import OCTOBER, Erp, dump, ids, invoice, invoices, load, open_staging, rows

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.operators.reconcile import MarkPostedOperator
from airflow_cloudbilling.staging.findings import accept, open_ones
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.posting import InvoiceKey, Posting
from airflow_cloudbilling.staging.uploads_sending import sending

pytestmark = pytest.mark.each_database


@pytest.fixture
def staging(erp: Erp) -> Staging:
    staging = open_staging(erp)
    load(staging, invoices(range(12)))
    return staging


def keys(*numbers: int) -> list[InvoiceKey]:
    return [InvoiceKey(*OCTOBER[:3], f"INV-{n}") for n in numbers]


def mark(**arguments: Any) -> dict[str, int]:
    arguments = {"staging_conn_id": "erp_staging", "reference": "FI-2026-10", **arguments}
    return MarkPostedOperator(task_id="mark", **arguments).execute({})


def test_a_period_is_marked_once(staging: Staging, erp: Erp) -> None:
    assert mark(period="2026-10") == {"invoices": 12, "marked": 12}
    posted = rows(erp, "invoice", "invoice_id, posted_at, posted_reference")
    assert {r[2] for r in posted} == {"FI-2026-10"}
    assert mark(period="2026-10") == {"invoices": 12, "marked": 0}
    assert rows(erp, "invoice", "invoice_id, posted_at, posted_reference") == posted
    assert load(staging, invoices(range(12))).merged.unchanged == 12
    assert rows(erp, "invoice", "invoice_id, posted_at, posted_reference") == posted


def test_invoices_are_named_by_their_key(staging: Staging, erp: Erp) -> None:
    named = [keys(1)[0]._asdict(), list(keys(2)[0])]
    assert mark(invoices=named) == {"invoices": 2, "marked": 2}
    assert len(rows(erp, "invoice", "invoice_id", "posted_at IS NOT NULL")) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "either invoices or a period"),
        ({"period": "2026-10", "invoices": [{}]}, "either invoices or a period"),
        ({"invoices": [{"invoice_id": "INV-1"}]}, "provider, account, kind, invoice_id"),
        ({"invoices": ""}, "'' is no list of keys"),
        ({"period": "2026-01"}, "nothing is staged of 2026-01"),
        ({"period": "2026-10", "reference": ""}, "reference.*is empty"),
        ({"invoices": [[*OCTOBER[:3], "INV-1"], [*OCTOBER[:3], "INV-77"]]}, "INV-77"),
    ],
)
def test_what_cannot_be_marked_is_named_and_nothing_is_marked(
    staging: Staging, erp: Erp, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(AirflowFailException, match=said):
        mark(**arguments)
    assert rows(erp, "invoice", "invoice_id", "posted_at IS NOT NULL") == []


def test_a_posted_invoice_stays_until_it_is_released(staging: Staging, erp: Erp) -> None:
    posting = Posting(staging)
    posting.mark(keys(1, 2, 3), "FI-1")
    before = dump(erp)
    changed = [*invoice(1, net="11"), *invoices(n for n in range(12) if n not in (1, 2))]
    loaded = load(staging, changed)
    assert (loaded.merged.frozen, loaded.merged.changed, loaded.merged.removed) == (1, 0, 0)
    assert dump(erp)["invoice"] == before["invoice"]
    assert loaded.merged.invoices == 12
    assert posting.release(keys(1, 2), "A. Controller", "booked by mistake") == 2
    findings = rows(erp, "finding", "rule, invoice_id, accepted_by, accept_reason", "resolved_at IS NOT NULL")
    decided = [("changed-after-posting", "INV-1"), ("released", "INV-1"), ("released", "INV-2")]
    decided += [("withdrawn-after-posting", "INV-2")]
    assert findings == [(*one, "A. Controller", "booked by mistake") for one in decided]
    merged = load(staging, changed).merged
    assert (merged.changed, merged.removed) == (1, 1)
    assert ids(erp) == set(map(str, range(12))) - {"2"}
    assert rows(erp, "invoice", "net_amount", "invoice_id = 'INV-1'") == [("11",)]
    assert len(rows(erp, "invoice", "invoice_id", "posted_at IS NOT NULL")) == 1


def told(erp: Erp) -> list[tuple[str, str]]:
    """Return what a person has yet to decide about posted invoices."""
    return rows(erp, "finding", "rule, actual", "resolved_at IS NULL AND accepted_at IS NULL")


def test_the_same_change_is_told_again_when_it_comes_back(staging: Staging, erp: Erp) -> None:
    Posting(staging).mark(keys(1), "FI-1")
    others = list(invoices(n for n in range(12) if n != 1))
    changed, withdrawn = [*invoice(1, net="11"), *others], others
    for items, finding in (
        (changed, ("changed-after-posting", "13.1 EUR")),
        (withdrawn, ("withdrawn-after-posting", "withdrawn")),
    ):
        for _ in range(2):  # and in between the vendor has it as it was posted
            load(staging, items)
            assert told(erp) == [finding]
            load(staging, items)
            assert told(erp) == [finding]
            load(staging, invoices(range(12)))
            assert told(erp) == []
    assert rows(erp, "invoice_revision", "revision, reason") == [(1, "changed"), (2, "withdrawn")]


def test_a_change_that_was_accepted_stays_quiet_until_the_invoice_is_released(staging: Staging, erp: Erp) -> None:
    posting, as_posted = Posting(staging), list(invoices(range(12)))
    changed = [*invoice(1, net="11"), *invoices(n for n in range(12) if n != 1)]
    posting.mark(keys(1), "FI-1")
    load(staging, changed)
    accept(
        staging, open_ones(staging, OCTOBER.period, "changed-after-posting"), "A. Controller", "a correction follows"
    )
    for items in (changed, as_posted, changed):
        load(staging, items)
        assert told(erp) == []
    posting.release(keys(1), "A. Controller", "booked anew")
    load(staging, as_posted)
    posting.mark(keys(1), "FI-2")  # nobody has said that this posting may differ
    load(staging, changed)
    assert told(erp) == [("changed-after-posting", "13.1 EUR")]


def test_an_open_upload_freezes_too_and_release_ends_it(staging: Staging, erp: Erp) -> None:
    erp.execute(
        "INSERT INTO cloudbilling_upload_item (upload_id, provider, account, kind, invoice_id, status) "
        "VALUES ('u1', 'twotcloud', '10001', 'purchase', 'INV-1', 'intent')"
    )
    changed = [*invoice(1, net="11"), *invoices(range(2, 12)), *invoices([0])]
    assert load(staging, changed).merged.frozen == 1
    Posting(staging).release(keys(1), "A. Controller", "never sent")
    assert rows(erp, "upload_item", "status") == [("released",)]
    assert load(staging, changed).merged.changed == 1


def test_what_is_on_its_way_to_sage_is_not_released(staging: Staging, erp: Erp) -> None:
    erp.execute(
        "INSERT INTO cloudbilling_upload_item (upload_id, provider, account, kind, invoice_id, status) "
        "VALUES ('u1', 'twotcloud', '10001', 'purchase', 'INV-1', 'intent')"
    )
    with sending(staging.engine, "u1"), pytest.raises(ConfigurationError, match="upload u1"):
        Posting(staging).release(keys(1), "A. Controller", "in a hurry")
    erp.execute("UPDATE cloudbilling_upload_item SET status = 'submitted'")
    with pytest.raises(ConfigurationError, match="'INV-1' is on its way"):
        Posting(staging).release(keys(1), "A. Controller", "in a hurry")
    assert rows(erp, "upload_item", "status") == [("submitted",)]


def test_many_invoices_are_marked_in_chunks(staging: Staging, erp: Erp) -> None:
    load(staging, invoices(range(1200)))
    assert mark(period="2026-10")["marked"] == 1200


def test_one_that_is_not_staged_cannot_be_released(staging: Staging) -> None:
    with pytest.raises(ConfigurationError, match="INV-77"):
        Posting(staging).release(keys(77), "A. Controller", "")
