"""Files that come with invoices: staged once, changed one by one, gone with their invoices."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from staged import OCTOBER, Erp, document, dump, invoice, invoices, load, of, open_staging, rows

from airflow_cloudbilling.errors import RemovalError
from airflow_cloudbilling.model import Document, Invoice, Outside, Reject, Slice
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.loader import Loaded, Staging
from airflow_cloudbilling.staging.posting import InvoiceKey, Posting
from airflow_cloudbilling.staging.temporary import BATCH_ROWS

pytestmark = pytest.mark.each_database

NOVEMBER = of("2026-10-15/2026-11-15")


@pytest.fixture
def staging(erp: Erp) -> Staging:
    return open_staging(erp)


def both(numbers: Iterable[int], **changed: object) -> list[object]:
    """Return invoices as a source of files yields them: each followed by its file."""
    return [item for n in numbers for item in (*invoice(n), document(f"D-{n}", f"INV-{n}", **changed))]


def archived(staging: Staging, items: Iterable[object], where: str, slice_: Slice = OCTOBER) -> Loaded:
    """Load with an archive that keeps every body."""
    with staging.load(slice_) as one:
        for item in items:
            if isinstance(item, Document):
                one.archived(item.sha256, f"{where}/{item.sha256}")
            one.add(item)
        return one.commit()


def documents(erp: Erp, columns: str = "document_id, invoice_id") -> list[tuple[object, ...]]:
    return rows(erp, "document", columns)


def test_a_file_is_staged_with_all_that_is_known_of_it(staging: Staging, erp: Erp) -> None:
    file = Document("D-1", "INV-1", "comsumptionRatedReports", "é 😀.csv", "text/csv", 3 << 40, "a" * 64)
    result = load(staging, [file, *invoice(1), Document("D-2", "INV-1")])
    assert (result.merged.documents, result.received) == (2, 1)
    names = ", ".join(Document._fields)
    assert rows(erp, "document", names) == [(*file,), ("D-2", "INV-1", None, None, None, 0, None)]
    assert rows(erp, "load", "document_count, received_count") == [(2, 1)]


def test_the_same_again_writes_no_row(staging: Staging, erp: Erp) -> None:
    load(staging, both(range(20)))
    before = dump(erp)
    assert load(staging, both(reversed(range(20)))).merged.documents == 20
    assert dump(erp) == before


@pytest.mark.parametrize(
    "changed",
    [{"body": "other"}, {"filename": "d-1.pdf"}, {"content_type": None}, {"size": 5}, {"document_type": "Invoices"}],
)
def test_a_changed_file_rewrites_its_row_alone(staging: Staging, erp: Erp, changed: dict[str, object]) -> None:
    first = load(staging, both(range(3))).load_id
    items = [*both([0]), *invoice(1), document("D-1", "INV-1", **changed), *both([2])]
    result = load(staging, items)
    assert result.merged.unchanged == 3
    loads = dict(row[:2] for row in documents(erp, "document_id, load_id"))
    assert loads == {"D-0": first, "D-1": result.load_id, "D-2": first}
    after = dump(erp)
    load(staging, items)
    assert dump(erp) == after


def test_a_changed_invoice_leaves_its_file_as_it_was(staging: Staging, erp: Erp) -> None:
    archived(staging, both([1, 2]), "s3://one")
    before = documents(erp, "*")
    assert load(staging, [*invoice(1, net="11"), document("D-1", "INV-1"), *both([2])]).merged.changed == 1
    assert documents(erp, "*") == before


def test_files_go_when_the_vendor_lists_them_no_more(staging: Staging, erp: Erp) -> None:
    load(staging, [*both([1, 2, 3]), document("more", "INV-2")])
    result = load(staging, [*both([1]), *invoice(2), document("more", "INV-2"), *invoice(3)])
    assert documents(erp) == [("D-1", "INV-1"), ("more", "INV-2")]
    assert result.merged.documents == 2
    assert load(staging, [*invoices([1, 2, 3])]).merged.documents == 0


def test_files_go_with_their_invoices_and_not_before(staging: Staging, erp: Erp) -> None:
    load(staging, both([1, 2]))
    load(staging, both([2, 3]), NOVEMBER)
    assert load(staging, both([1])).merged.documents == 1
    assert documents(erp) == [("D-1", "INV-1"), ("D-2", "INV-2"), ("D-3", "INV-3")]
    load(staging, both([3]), NOVEMBER)
    assert documents(erp) == [("D-1", "INV-1"), ("D-3", "INV-3")]


def test_a_file_moves_to_another_invoice(staging: Staging, erp: Erp) -> None:
    load(staging, [*invoices([1, 2]), document("D", "INV-1")])
    assert load(staging, [*invoices([1, 2]), document("D", "INV-2")]).merged.documents == 1
    assert documents(erp) == [("D", "INV-2")]


def test_a_file_that_comes_twice_is_staged_as_it_came_last(staging: Staging, erp: Erp) -> None:
    same, other = document("D", "INV-1"), document("D", "INV-1", body="other")
    load(staging, [*invoice(1), same, other, same])
    before = documents(erp, "*")
    assert load(staging, [*invoice(1), same, same]).merged.documents == 1
    assert documents(erp, "*") == before


def test_files_of_invoices_that_are_not_staged_are_left_out(staging: Staging, erp: Erp) -> None:
    load(staging, both([1]))
    items = [Outside("INV-7"), document("D-7", "INV-7"), Reject("broken", "{}", "INV-1"), document("X", "INV-1")]
    result = load(staging, items, quarantine=True)
    assert (result.received, result.outside, result.rejected, result.merged.documents) == (2, 1, 1, 1)
    assert documents(erp) == [("D-1", "INV-1")]


def test_the_archive_is_where_a_file_is_found(staging: Staging, erp: Erp) -> None:
    archived(staging, both([1]), "s3://one")
    kept = document("").sha256
    assert documents(erp, "uri") == [(f"s3://one/{kept}",)]
    before = dump(erp)
    load(staging, both([1]))  # without an archive
    archived(staging, both([1]), "s3://one")
    assert dump(erp) == before
    archived(staging, both([1]), "s3://two")
    assert documents(erp, "uri") == [(f"s3://two/{kept}",)]
    load(staging, both([1], body="other"))
    assert documents(erp, "uri") == [(None,)]
    archived(staging, both([1], body="other"), "s3://one")
    assert documents(erp, "uri")[0][0] != f"s3://one/{kept}"


def test_a_posted_invoice_keeps_the_files_with_which_it_was_posted(staging: Staging, erp: Erp) -> None:
    load(staging, [*both(range(12)), document("more", "INV-2")])
    Posting(staging).mark([InvoiceKey(*OCTOBER[:3], f"INV-{n}") for n in range(4)], "FI-1")
    before = documents(erp, "*")
    changed = [*invoice(0, net="11"), document("D-0", "INV-0", body="changed"), *invoice(1)]
    changed += [*both([2], body="changed"), document("added", "INV-2")]
    changed += [*both(range(4, 12)), document("more", "INV-5")]  # INV-3 is withdrawn
    result = load(staging, changed)
    assert (result.merged.frozen, result.merged.documents) == (1, 13)
    assert documents(erp, "*") == before
    Posting(staging).release([InvoiceKey(*OCTOBER[:3], f"INV-{n}") for n in range(4)], "A. Controller", "mistake")
    assert load(staging, changed).merged.documents == 2 + 8 + 2
    assert ("more", "INV-5") in documents(erp)


def test_a_file_without_an_invoice_belongs_to_the_slice_that_lists_it(staging: Staging, erp: Erp) -> None:
    notes = [document("terms"), document("prices")]
    assert load(staging, [*both([1]), *notes]).merged.documents == 3
    before = dump(erp)
    assert load(staging, [*both([1]), *notes]).merged.documents == 3
    assert load(staging, [*both([2]), document("faq")], NOVEMBER).merged.documents == 2
    assert load(staging, [*both([1]), Reject("?", "")], quarantine=True).merged.documents == 3
    assert [row for row in documents(erp, "*") if row in before["document"]] == before["document"]
    assert load(staging, [*both([1]), notes[0]]).merged.documents == 2
    assert documents(erp, "document_id") == [("D-1",), ("D-2",), ("faq",), ("terms",)]


def test_an_older_reading_does_not_take_a_file_back(staging: Staging, erp: Erp) -> None:
    with staging.load(NOVEMBER) as stale:
        load(staging, [*invoice(1, net="11"), document("D-1", "INV-1", body="newer")])
        before = documents(erp, "*")
        for item in both([1]):
            stale.add(item)
        assert stale.commit().merged.documents == 1
    assert documents(erp, "*") == before


def test_a_failed_load_changes_no_file(staging: Staging, erp: Erp) -> None:
    load(staging, both(range(20)))
    before = dump(erp)
    with pytest.raises(RemovalError):
        load(staging, both([1], body="other"))
    assert dump(erp) == before


def test_many_files_are_sent_in_batches(staging: Staging, erp: Erp) -> None:
    many = [*both([1]), *(document(f"D-{n}", "INV-1") for n in range(2 * BATCH_ROWS + 5))]
    assert load(staging, many, run=Run("dag", "task")).merged.documents == 2 * BATCH_ROWS + 5
    before = dump(erp)
    assert load(staging, many).merged.documents == 2 * BATCH_ROWS + 5
    assert dump(erp) == before


def test_ids_that_do_not_fit_are_told(staging: Staging, erp: Erp) -> None:
    told: list[str] = []
    with staging.load(OCTOBER) as one:
        one.notices = told.append
        for item in (
            *invoice(1),
            document("x" * 256, "INV-1"),
            document("😀" * 255, "INV-1"),
            document("y", "y" * 256),
        ):
            one.add(item)
        assert one.commit().merged.documents == 1
    assert len(told) == 2


def test_an_invoice_of_which_only_the_file_is_known_is_staged(staging: Staging, erp: Erp) -> None:
    items = [Invoice("D-1", totals_origin="none"), document("D-1", "D-1")]
    merged = load(staging, items).merged
    assert (merged.invoices, merged.documents, merged.totals) == (1, 1, {})
    assert rows(erp, "invoice", "currency, net_amount, gross_amount, totals_origin") == [(None, None, None, "none")]
    before = dump(erp)
    assert load(staging, items).merged.unchanged == 1
    assert dump(erp) == before
    Posting(staging).mark([InvoiceKey(*OCTOBER[:3], "D-1")], "FI-1")
    amounts = {"currency": "EUR", "net_amount": "1", "gross_amount": "1"}
    assert load(staging, [Invoice("D-1", **amounts)]).merged.frozen == 1
    assert rows(erp, "finding", "expected, actual") == [("no amount", "1 EUR")]
