"""What sources state about invoices: told once, quiet once accepted, resolved when it is stated no more."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from staged import OCTOBER, Erp, invoice, invoices, load, of, open_staging, rows

from airflow_cloudbilling.errors import IncompleteError
from airflow_cloudbilling.model import Finding, Outside, Stated
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.posting import InvoiceKey, Posting
from airflow_cloudbilling.staging.temporary import BATCH_ROWS

NOVEMBER = of("2026-10-15/2026-11-15")


@pytest.fixture
def staging(erp: Erp) -> Staging:
    return open_staging(erp)


def unreadable(number: int, actual: str = "a PDF without XML") -> Finding:
    message = "Enter the amounts by hand; 😀 'quoted'."
    return Finding(f"INV-{number}", "unreadable-amounts", "warning", "an e-invoice", actual, message)


def stated(numbers: Iterable[int], *findings: Finding) -> list[object]:
    return [*findings, *invoices(numbers)]


def open_findings(erp: Erp, columns: str = "invoice_id, actual") -> list[tuple[object, ...]]:
    return rows(erp, "finding", columns, "resolved_at IS NULL AND accepted_at IS NULL")


def accept(erp: Erp) -> None:
    erp.execute("UPDATE cloudbilling_finding SET accepted_at = '2026-11-05', accepted_by = 'A. Controller'")


def test_a_finding_is_told_with_its_load_and_invoice(staging: Staging, erp: Erp) -> None:
    result = load(staging, stated([1, 2], unreadable(1)))
    columns = "load_id, provider, account, kind, period, invoice_id, rule, severity, expected, actual, message"
    provider, account, kind, period = OCTOBER
    found = (result.load_id, provider, account, kind, str(period), *unreadable(1))
    assert rows(erp, "finding", columns) == [found]
    assert rows(erp, "finding", "created_at", "created_at IS NOT NULL AND resolved_at IS NULL")
    assert result.received == 2


def test_the_same_again_is_not_repeated(staging: Staging, erp: Erp) -> None:
    load(staging, stated([1, 2], unreadable(1), unreadable(1), unreadable(2)))
    before = rows(erp, "finding")
    load(staging, stated([1, 2], unreadable(2), unreadable(1)))
    assert rows(erp, "finding") == before
    assert len(before) == 2


def test_it_is_resolved_when_it_is_stated_no_more(staging: Staging, erp: Erp) -> None:
    load(staging, stated([1, 2], unreadable(1), unreadable(2)))
    load(staging, stated([1, 2], unreadable(2)))
    assert open_findings(erp, "invoice_id") == [("INV-2",)]
    load(staging, stated([1, 2]))
    assert open_findings(erp) == []
    load(staging, stated([1, 2], unreadable(1)))
    assert open_findings(erp, "invoice_id") == [("INV-1",)]
    assert len(rows(erp, "finding")) == 3


def test_another_value_is_another_finding(staging: Staging, erp: Erp) -> None:
    load(staging, stated([1], unreadable(1, "a pdf")))
    load(staging, stated([1], unreadable(1, "a PDF")))
    assert open_findings(erp) == [("INV-1", "a PDF")]
    load(staging, stated([1], unreadable(1, "a PDF"), unreadable(1, "a scan")))
    assert open_findings(erp) == [("INV-1", "a PDF"), ("INV-1", "a scan")]


def test_an_accepted_one_stays_quiet_until_its_value_changes(staging: Staging, erp: Erp) -> None:
    load(staging, stated([1], unreadable(1)))
    accept(erp)
    for _ in range(2):
        load(staging, stated([1], unreadable(1)))
        assert open_findings(erp) == []
    load(staging, stated([1], unreadable(1, "a scan")))
    assert open_findings(erp) == [("INV-1", "a scan")]
    load(staging, stated([1], unreadable(1)))
    assert open_findings(erp) == []
    assert len(rows(erp, "finding")) == 2


def test_findings_of_invoices_that_did_not_come_stay_and_those_of_withdrawn_ones_end(
    staging: Staging, erp: Erp
) -> None:
    load(staging, stated([1, 2, 3], *map(unreadable, (1, 2, 3))))
    load(staging, stated([2], unreadable(2)), NOVEMBER)
    load(staging, stated([4]), OCTOBER._replace(account="another"))
    assert len(open_findings(erp)) == 3
    load(staging, stated([1, 3], unreadable(1), unreadable(3)))  # another slice still returns INV-2
    assert len(open_findings(erp)) == 3
    load(staging, stated([1], unreadable(1)))
    assert open_findings(erp, "invoice_id") == [("INV-1",), ("INV-2",)]


def test_what_is_not_staged_has_no_finding(staging: Staging, erp: Erp) -> None:
    load(staging, [Outside("INV-7"), unreadable(7), *invoices([1])])
    with pytest.raises(IncompleteError):
        load(staging, [Stated(9), *stated([1], unreadable(1))])
    assert rows(erp, "finding") == []


def test_a_posted_invoice_that_changed_is_told_by_its_own_rule_alone(staging: Staging, erp: Erp) -> None:
    load(staging, stated([1, 2], unreadable(1)))
    Posting(staging).mark([InvoiceKey(*OCTOBER[:3], f"INV-{n}") for n in (1, 2)], "FI-1")
    load(staging, [*invoice(1, net="11"), *invoice(2, net="11"), unreadable(2)])
    found = open_findings(erp, "invoice_id, rule")
    rules = [("INV-1", "changed-after-posting"), ("INV-1", "unreadable-amounts"), ("INV-2", "changed-after-posting")]
    assert found == rules


def test_a_rule_that_nothing_would_resolve_is_refused(staging: Staging) -> None:
    with pytest.raises(ValueError, match="no-such-rule"), staging.load(OCTOBER) as one:
        one.add(unreadable(1)._replace(rule="no-such-rule"))


def test_many_findings_are_sent_in_batches(staging: Staging, erp: Erp) -> None:
    numbers = range(BATCH_ROWS + 5)
    items = [*stated(numbers, *map(unreadable, numbers))]
    for _ in range(2):
        load(staging, items)
        assert len(rows(erp, "finding", "finding_id")) == BATCH_ROWS + 5
