"""Lines of invoices that are staged as they came are not sent, and are there all the same when they are needed."""

from __future__ import annotations

from staged import OCTOBER, Erp, dump, invoices, load, open_staging, rows

from airflow_cloudbilling.model import Invoice
from airflow_cloudbilling.staging.temporary import BATCH_ROWS

MANY = range(BATCH_ROWS)  # two lines each: the first batches are sent while the vendor is read


def test_what_an_older_reading_changed_meanwhile_is_put_right_with_its_lines(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, invoices(MANY))
    before = dump(erp, with_load=False)
    with staging.load(OCTOBER) as older, staging.load(OCTOBER) as newer:
        for item in invoices(MANY):
            newer.add(item)
        for item in invoices(MANY, net="99"):
            older.add(item)
        assert older.commit().merged.changed == len(MANY)
        assert newer.commit().merged.changed == len(MANY)
    assert dump(erp, with_load=False) == before


def test_what_an_older_reading_took_away_meanwhile_comes_back_with_its_lines(erp: Erp) -> None:
    staging = open_staging(erp)
    credit = {"document_type": "credit_note", "sign": -1}
    load(staging, invoices(MANY, **credit))
    before = dump(erp, with_load=False)
    with staging.load(OCTOBER) as older, staging.load(OCTOBER) as newer:
        for item in invoices(MANY, **credit):
            newer.add(item)
        older.rules = older.rules._replace(allow_removals=True)
        older.add(Invoice("INV-other"))
        assert older.commit().merged.removed == len(MANY)
        assert newer.commit().merged.new == len(MANY)
    assert dump(erp, with_load=False) == before


def test_a_large_invoice_that_did_not_change_may_lie_in_many_batches(erp: Erp) -> None:
    staging = open_staging(erp)
    items = [*invoices([1], lines=BATCH_ROWS * 2 + 5), *invoices([2], lines=3)]
    load(staging, items)
    before = dump(erp)
    assert load(staging, items).merged.unchanged == 2
    assert dump(erp) == before
    assert load(staging, [*items[:-4], *invoices([2], lines=4)]).merged.changed == 1
    assert len(rows(erp, "invoice_line")) == BATCH_ROWS * 2 + 5 + 4


def test_a_credit_note_across_two_batches_is_turned_once(erp: Erp) -> None:
    staging = open_staging(erp)
    credit = {"document_type": "credit_note", "sign": -1}
    items = [*invoices([0], lines=BATCH_ROWS - 2), *invoices([1], lines=6, **credit), *invoices([2], lines=BATCH_ROWS)]
    load(staging, items)
    before = dump(erp, with_load=False)
    with staging.load(OCTOBER) as older, staging.load(OCTOBER) as newer:
        for item in items:
            newer.add(item)
        for item in [*items[: BATCH_ROWS - 1], *invoices([1], net="99", **credit), *items[-BATCH_ROWS - 1 :]]:
            older.add(item)
        assert older.commit().merged.changed == 1
        assert newer.commit().merged.changed == 1
    assert dump(erp, with_load=False) == before
