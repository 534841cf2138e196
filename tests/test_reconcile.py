"""Every planted defect is found by the rule that is for it, by it alone, once; and told no more when it is mended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from months import SEPTEMBER, bill, bills, check, found, rules, stage
from staged import OCTOBER, Erp, document, open_staging, rows

from airflow_cloudbilling.errors import ConfigurationError, IncompleteError
from airflow_cloudbilling.model import Finding, InvoiceLine, InvoiceTax, Outside, Period, Reject, Stated
from airflow_cloudbilling.reconcile.currencies import DECIMALS, rounded
from airflow_cloudbilling.reconcile.history import Limits
from airflow_cloudbilling.staging.findings import accept, open_ones
from airflow_cloudbilling.staging.posting import InvoiceKey, Posting

pytestmark = pytest.mark.each_database

ORANGE = OCTOBER._replace(provider="orange_cloudstore", account="OCB1")
GOOD = [
    bill(1),
    bill(2, ["-60", "-40"], document_type="credit_note", preceding_invoice="F-1", invoice_number="F-2"),
    bill(3, ["1.230", "0.001"], "KWD", "5"),  # 0.06155: three decimals
    bill(4, ["1235"], "JPY", "10"),  # 123.5: none
    bill(5, ["0.333333", "0.333333", "0.333333"], net_amount="1", tax_amount="0.21", gross_amount="1.21",
         payable_amount="1.21", taxes=()),  # finer lines than the currency, rounded together
    bill(6, ["0.006", "0.006"], net_amount="0.02", tax_amount="0", gross_amount="0.02", payable_amount="0.02",
         taxes=()),  # … and each by itself: 0.01 + 0.01
    bill(7, ["100"], line={"tax_amount": "20.995"}, taxes=()),
    bill(8, ["90", "20"], allowance_total="15", charge_total="5", net_amount="100", tax_amount="21",
         gross_amount="121", payable_amount="100.99", paid_amount="20", rounding_amount="-0.01", taxes=()),
    bill(9, line={"net_amount": None}),  # lines that nobody states say nothing
    bill(10, payable_amount="0"),  # settled, and it is not said how
    bill(11, tax_amount=None, gross_amount=None, payable_amount=None, taxes=()),
    [InvoiceLine("1", net_amount="12345678901234567890123456.123456789012"),
     *bill("big", ["12345678901234567890123456.123456789012"], rate="0", totals_origin="computed")[1:]],
]  # fmt: skip


@pytest.fixture
def clean(erp: Erp) -> Erp:
    """Stage two months that are alike, of two vendors."""
    for slice_ in (SEPTEMBER, OCTOBER):
        items = [item for one in GOOD for item in one]
        if slice_ is SEPTEMBER:
            items = [i if isinstance(i, InvoiceLine) else i._replace(invoice_id=f"{i.invoice_id}-9",
                     invoice_number=f"{i.invoice_number}-9", preceding_invoice=None) for i in items]  # fmt: skip
        stage(erp, items, slice_)
        key = {"provider": "orange_cloudstore", "account": "OCB1"}
        stage(erp, bills([f"O{slice_.period.key}"]), slice_._replace(**key))
    return erp


def october(*changed: list[Any]) -> list[Any]:
    """Return October's invoices with some of them otherwise, or more."""
    new = {one[-1].invoice_id: one for one in changed}
    kept = [new.pop(one[-1].invoice_id, one) for one in GOOD]
    return [item for one in (*kept, *new.values()) for item in one]


def test_a_clean_month_gives_no_finding(clean: Erp) -> None:
    summary = check(clean)
    assert (dict(summary.counts), summary.first) == ({}, [])
    assert rows(clean, "finding") == []
    assert summary.sums["twotcloud", "purchase", "KWD"].gross == Decimal("1.293")
    assert summary.sums["twotcloud", "purchase", "EUR"].invoices == 10


WITHOUT = {"taxes": ()}
DEFECTS: list[tuple[str, list[Any], tuple[Any, ...]]] = [
    ("a net amount off by 0.01", bill(1, net_amount="100.01", gross_amount="121.01", payable_amount="121.01"),
     ("BR-CO-10", "error", "INV-1", "100.00 EUR", "100.01 EUR (+0.01)")),
    ("the last digit of many", bill("big", ["12345678901234567890123456.123456789012"], rate="0", taxes=(),
                                   totals_origin="computed",
                                   line={"net_amount": "12345678901234567890123456.123456789011"}),
     ("BR-CO-10", "error", "INV-big", "12345678901234567890123456.123456789011 EUR",
      "12345678901234567890123456.123456789012 EUR (+0.000000000001)")),
    ("fine lines that round to something else", bill(5, ["0.333333", "0.333333"], net_amount="0.65", tax_amount="0",
                                                     gross_amount="0.65", payable_amount="0.65", taxes=()),
     ("BR-CO-10", "error", "INV-5", "0.666666 EUR", "0.65 EUR (-0.016666)")),
    ("a credit note whose lines have another sign", bill(2, ["60", "40"], document_type="credit_note",
        net_amount="-100", tax_amount="-21", gross_amount="-121", payable_amount="-121", taxes=()),
     ("BR-CO-10", "error", "INV-2", "100.00 EUR", "-100.00 EUR (-200.00)")),
    ("an allowance that was not taken off", bill(1, allowance_total="10"),
     ("BR-CO-13", "error", "INV-1", "90.00 EUR", "100.00 EUR (+10.00)")),
    ("VAT that is not the breakdown's", bill(1, tax_amount="21.01", gross_amount="121.01", payable_amount="121.01"),
     ("BR-CO-14", "error", "INV-1", "21.00 EUR", "21.01 EUR (+0.01)")),
    ("VAT that is not the lines'", bill(7, ["100"], line={"tax_amount": "20.98"}, taxes=()),
     ("BR-CO-14", "error", "INV-7", "20.98 EUR", "21.00 EUR (+0.02)")),
    ("VAT that the lines' rates do not make", bill(1, ["100"], tax_amount="21.01", gross_amount="121.01",
        payable_amount="121.01", taxes=()),
     ("BR-S-09", "warning", "INV-1", "21.00 EUR", "21.01 EUR (+0.01)")),
    ("VAT that is the lines' and not their rates'", bill(1, ["100"], line={"tax_amount": "22"}, tax_amount="22",
        gross_amount="122", payable_amount="122", taxes=()),
     ("BR-S-09", "warning", "INV-1", "21.00 EUR", "22.00 EUR (+1.00)")),
    ("KWD's VAT rounded to two decimals", bill(3, ["1.231"], "KWD", "5", tax_amount="0.06", gross_amount="1.291",
        payable_amount="1.291", taxes=()),
     ("BR-S-09", "warning", "INV-3", "0.062 KWD", "0.060 KWD (-0.002)")),
    ("a gross amount off by 0.01", bill(1, gross_amount="121.01", payable_amount="121.01"),
     ("BR-CO-15", "error", "INV-1", "121.00 EUR", "121.01 EUR (+0.01)")),
    ("an amount due off by 0.01", bill(8, ["100"], payable_amount="121.01", paid_amount="0"),
     ("BR-CO-16", "error", "INV-8", "121.00 EUR", "121.01 EUR (+0.01)")),
    ("KWD rounded to two decimals", bill(3, ["1.230"], "KWD", "5", tax_amount="0.06", gross_amount="1.29",
        payable_amount="1.29", taxes=(InvoiceTax("S", "5", "1.23", "0.06"),)),
     ("BR-CO-17", "error", "INV-3", "0.062 KWD", "0.060 KWD (-0.002) at 5 %")),
    ("JPY rounded down", bill(4, ["1235"], "JPY", "10", tax_amount="123", gross_amount="1358",
        payable_amount="1358", taxes=(InvoiceTax("S", "10", "1235", "123"),)),
     ("BR-CO-17", "error", "INV-4", "124 JPY", "123 JPY (-1) at 10 %")),
    ("JPY with decimals", bill(4, ["1235"], "JPY", "10", tax_amount="123.5", gross_amount="1358.5",
        payable_amount="1358.5", taxes=()),
     ("BR-DEC", "warning", "INV-4", "at most 0 decimals of JPY", "VAT 123.5, gross 1358.5, due 1358.5")),
    ("VAT that nobody states", bill(1, tax_amount=None, taxes=()),
     ("BR-CO-15", "error", "INV-1", "100.00 EUR", "121.00 EUR (+21.00)")),
    ("taxable amounts that lack some", bill(1, tax_amount="18.9", gross_amount="118.9",
        payable_amount="118.9", taxes=(InvoiceTax("S", "21", "90", "18.9"), InvoiceTax("S", "0", "9", "0"))),
     ("BR-S-08", "warning", "INV-1", "100.00 EUR", "99.00 EUR (-1.00)")),
    ("taxable amounts without VAT for a reason", bill(1, rate="0", taxes=(InvoiceTax("AE", "0", "90", "0"),)),
     ("BR-AE-08", "warning", "INV-1", "100.00 EUR", "90.00 EUR (-10.00)")),
    ("a row of the breakdown without VAT", bill(1, taxes=(InvoiceTax("S", "21", "100", None),)),
     ("BR-46", "error", "INV-1", "VAT of each row of the VAT breakdown", "none at 21 %")),
    ("an unknown currency", bill(1, currency="ZZZ"),
     ("unknown-currency", "error", "INV-1", "a currency of ISO 4217", "ZZZ")),
    ("no amounts", bill(12, [], **dict.fromkeys(("net_amount", "tax_amount", "gross_amount", "payable_amount")),
                        totals_origin="none", taxes=()),
     ("unreadable-amounts", "warning", "INV-12", "a net or a gross amount", "no amount")),
    ("a number twice", bill(13, invoice_number="F-1"),
     ("duplicate-number", "error", "INV-13", "F-1 once", "F-1 of INV-1 again")),
    ("September's invoice again", bill(14, invoice_number="F-1-9"),
     ("duplicate-number", "error", "INV-14", "F-1-9 once", "F-1-9 of INV-1-9 again")),
    ("a credit note without its invoice", bill(2, ["-60", "-40"], document_type="credit_note",
        preceding_invoice="F-77", invoice_number="F-2"),
     ("credit-without-invoice", "warning", "INV-2", "invoice F-77", "F-77 is not staged")),
]  # fmt: skip


@pytest.mark.parametrize("erp", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("items", "expected"), [d[1:] for d in DEFECTS], ids=[d[0] for d in DEFECTS])
def test_a_defect_of_an_invoice_is_found_by_its_rule_alone(
    clean: Erp, items: list[Any], expected: tuple[Any, ...]
) -> None:
    stage(clean, october(items))
    no_drift = Limits(drift=None)  # some of them change what the month comes to, too
    assert check(clean, limits=no_drift).found(expected[1]) == 1
    assert found(clean) == [expected]
    before = rows(clean, "finding")
    check(clean, limits=no_drift)
    assert rows(clean, "finding") == before
    stage(clean, october())
    assert check(clean, limits=no_drift).counts == {}
    assert rows(clean, "finding", "rule", "resolved_at IS NULL") == []


def test_all_of_them_at_once_are_told_once_and_mended_on_every_database(clean: Erp) -> None:
    planted, expected = [], []
    for nth, (_, items, told) in enumerate(DEFECTS):
        *lines, last = items
        own = last.invoice_number == last.invoice_id.replace("INV", "F")
        renamed = last._replace(invoice_id=f"INV-X{nth}", **({"invoice_number": f"F-X{nth}"} if own else {}))
        planted.append([*lines, renamed])
        expected.append((*told[:2], renamed.invoice_id, *told[3:]))
    stage(clean, october(*planted))
    no_drift = Limits(drift=None)
    for _ in range(2):
        check(clean, limits=no_drift)
        assert found(clean) == sorted(expected, key=repr)
        assert len(rows(clean, "finding")) == len(DEFECTS)
    stage(clean, october())
    assert check(clean, limits=no_drift).counts == {}


def test_a_number_that_another_seller_or_another_year_has_is_none(clean: Erp) -> None:
    more = [bill(13, invoice_number="F-1", seller_name="Another"), bill(14, ["7"], invoice_number="F-1-9")]
    stage(clean, october(*more))
    check(clean, limits=Limits(drift=None))
    assert found(clean) == []


def test_a_number_three_times_is_told_of_two(clean: Erp) -> None:
    stage(clean, october(bill(13, invoice_number="F-1"), bill(14, invoice_number="F-1")))
    check(clean, limits=Limits(drift=None))
    assert found(clean, "invoice_id, actual") == [
        ("INV-13", "F-1 of INV-1 again"),
        ("INV-14", "F-1 of INV-1 again"),
    ]


def test_a_credit_note_may_name_its_invoice_by_id_and_of_another_month(clean: Erp) -> None:
    credit = {"document_type": "credit_note"}
    named = [bill(20 + n, ["-1"], preceding_invoice=name, **credit) for n, name in enumerate(["INV-1", "F-1-9"])]
    stage(clean, october(*named))
    check(clean, limits=Limits(drift=None))
    assert found(clean) == []


def test_a_credit_note_with_the_number_of_its_invoice_is_not_that_invoice(erp: Erp) -> None:
    note = bill(2, ["-1"], document_type="credit_note", preceding_invoice="F-1", invoice_number="F-1")
    stage(erp, note)
    assert check(erp).counts == {("warning", "credit-without-invoice"): 1}
    stage(erp, [*note, *bill(1)])
    assert check(erp).counts == {}


# The vendors' counts, and the month before


def delete_lines(erp: Erp) -> None:
    erp.execute("DELETE FROM cloudbilling_invoice_line WHERE invoice_id = 'INV-1' AND line_number = 2")


def delete_invoice(erp: Erp) -> None:
    for table in ("invoice", "invoice_line", "invoice_tax", "slice_invoice"):
        erp.execute(f"DELETE FROM cloudbilling_{table} WHERE invoice_id = 'INV-3'")


def count_more(erp: Erp) -> None:
    erp.execute("UPDATE cloudbilling_load SET stated_count = 20 WHERE account = '10001'")


def lose_a_page(erp: Erp) -> None:
    with pytest.raises(IncompleteError):
        stage(erp, [*october(), Stated(20)])


def quarantine(erp: Erp) -> None:
    stage(erp, [*october(), Reject("unreadable", "{}", "INV-99")], quarantine=True)


def lose_a_vendor(erp: Erp) -> None:
    erp.execute("DELETE FROM cloudbilling_load WHERE period = '2026-10-01/2026-11-01' AND account = 'OCB1'")


def bill_nothing(erp: Erp) -> None:
    stage(erp, [], ORANGE)


def bill_ten_times(erp: Erp) -> None:
    stage(erp, bills([f"O{n}" for n in range(10)]), ORANGE)


def bill_more(erp: Erp) -> None:
    items = bill("O2026-10", ["90", "61"])
    stage(erp, items, ORANGE)


SLICES: list[tuple[Callable[[Erp], None], list[tuple[Any, ...]]]] = [
    (delete_lines, [("count-mismatch", "error", "INV-1", "2 lines", "1 lines (-1)")]),
    (delete_invoice, [("count-mismatch", "error", None, "12 invoices", "11 invoices (-1)")]),
    (count_more, [("count-mismatch", "error", None, "20 records", "12 records (-8)")]),
    (lose_a_page, [("count-mismatch", "error", None, "20 records", "12 records came (-8)")]),
    (quarantine, [("count-mismatch", "error", None, "every record staged", "1 records in quarantine (5bb8df6e)")]),
    (lose_a_vendor, [("missing-slice", "error", None, "a committed load of orange_cloudstore OCB1 purchase", "none")]),
    (bill_nothing, [("zero-invoices", "error", None, "about 1 invoices", "0 invoices")]),
    (bill_ten_times, [("volume-drift", "warning", None, "about 1 invoices", "10 invoices")]),
    (
        bill_more,
        [
            ("amount-drift", "warning", None, "customer C-1: 100.00 EUR", "customer C-1: 151.00 EUR"),
            ("amount-drift", "warning", None, "item item-2: 40.00 EUR", "item item-2: 61.00 EUR"),
        ],
    ),
]


@pytest.mark.parametrize(("plant", "expected"), SLICES, ids=[plant.__name__ for plant, _ in SLICES])
def test_a_defect_of_a_slice_is_found_by_its_rule_alone(
    clean: Erp, plant: Callable[[Erp], None], expected: list[tuple[Any, ...]]
) -> None:
    plant(clean)
    no_drift = Limits(drift=Decimal("0.5") if plant is bill_more else None)
    check(clean, limits=no_drift)
    assert found(clean) == expected
    before = rows(clean, "finding")
    check(clean, limits=no_drift)
    assert rows(clean, "finding") == before
    stage(clean, october())
    stage(clean, bills(["O2026-10"]), ORANGE)
    if plant is delete_lines:  # the invoice came as it is staged, by its hash
        clean.execute("DELETE FROM cloudbilling_invoice WHERE invoice_id = 'INV-1'")
        clean.execute("DELETE FROM cloudbilling_invoice_line WHERE invoice_id = 'INV-1'")
        clean.execute("DELETE FROM cloudbilling_invoice_tax WHERE invoice_id = 'INV-1'")
        stage(clean, october())
    assert check(clean, limits=no_drift).counts == {}


def test_what_a_drift_is_can_be_said(clean: Erp) -> None:
    bill_more(clean)
    for limits in (Limits(drift=Decimal("0.6")), Limits(drift_minimum=Decimal(60)), Limits(drift=None)):
        assert check(clean, limits=limits).counts == {}
    assert check(clean).counts == {("warning", "amount-drift"): 2}
    assert check(clean, limits=Limits(drift=Decimal("0.51"))).counts == {("warning", "amount-drift"): 1}
    bill_ten_times(clean)
    assert check(clean, limits=Limits(volume=Decimal(11), drift=None)).counts == {}


def test_a_customer_that_is_gone_comes_to_nothing_and_a_new_one_is_none(clean: Erp) -> None:
    stage(clean, bills(["O2026-10"], customer="C-2"), ORANGE)
    check(clean)
    assert found(clean, "expected, actual") == [("customer C-1: 100.00 EUR", "customer C-1: 0.00 EUR")]


def test_an_invoice_without_lines_drifts_with_its_buyer(erp: Erp) -> None:
    for slice_, net in ((SEPTEMBER, "100"), (OCTOBER, "300")):
        amounts = {"net_amount": net, "tax_amount": "0", "gross_amount": net, "payable_amount": net, "taxes": ()}
        stage(erp, bill(f"{slice_.period.key}", [], **amounts), slice_)
    check(erp)
    assert found(erp, "rule, actual") == [("amount-drift", "customer B-1: 300.00 EUR")]


def test_what_must_be_there_can_be_said(clean: Erp) -> None:
    sales = {"provider": "twotcloud", "account": "10001", "kind": "sales"}
    check(clean, expected=[sales, {"provider": "store365"}, {"kind": "purchase"}])
    assert found(clean, "rule, provider, account, kind") == [
        ("missing-slice", "store365", "", ""),
        ("missing-slice", "twotcloud", "10001", "sales"),
    ]
    lose_a_vendor(clean)
    check(clean, expected=[])
    assert found(clean) == []
    for wrong in ({}, {"vendor": "twotcloud"}):
        with pytest.raises(ConfigurationError, match="expected"):
            check(clean, expected=[wrong])


def test_a_first_month_without_invoices_is_a_warning_and_two_such_are_none(erp: Erp) -> None:
    stage(erp, [Outside("INV-1")])
    assert check(erp).counts == {("warning", "zero-invoices"): 1}
    stage(erp, [], SEPTEMBER)
    assert check(erp).counts == {}


def test_a_slice_that_failed_says_why(clean: Erp) -> None:
    lose_a_vendor(clean)
    with pytest.raises(RuntimeError, match="busy"), open_staging(clean).load(ORANGE):
        raise RuntimeError("the vendor is busy")
    check(clean)
    assert found(clean, "rule, message") == [
        ("missing-slice", "Its last load failed: RuntimeError: the vendor is busy")
    ]


def test_an_import_that_failed_after_one_that_went_well_leaves_no_clean_month(clean: Erp) -> None:
    with pytest.raises(RuntimeError, match="busy"), open_staging(clean).load(ORANGE):
        raise RuntimeError("the vendor is busy")
    assert check(clean).counts == {("error", "missing-slice"): 1}
    assert "the vendor is busy" in found(clean, "message")[0][0]
    stage(clean, bills(["O2026-10"]), ORANGE)
    assert check(clean).counts == {}


def test_a_first_month_whose_import_failed_is_no_clean_one(erp: Erp) -> None:
    with pytest.raises(RuntimeError, match="busy"), open_staging(erp).load(ORANGE):
        raise RuntimeError("the vendor is busy")
    assert check(erp, expected=[]).counts == {}  # a person says so
    assert check(erp).counts == {("error", "missing-slice"): 1}


def test_a_lost_page_of_a_slice_that_was_never_loaded_is_told_by_its_count(clean: Erp) -> None:
    lose_a_vendor(clean)
    with pytest.raises(IncompleteError):
        stage(clean, [Stated(9), *bills(["O2026-10"])], ORANGE)
    check(clean)
    assert found(clean, "rule, actual") == [("count-mismatch", "1 records came (-8)")]


def test_a_month_of_which_nothing_was_imported_is_no_clean_one(erp: Erp) -> None:
    assert check(erp).counts == {("error", "zero-invoices"): 1}
    assert found(erp) == [("zero-invoices", "error", None, "an import of 2026-10", "none")]
    assert check(erp, expected=[]).counts == {}  # a person says so
    stage(erp, bills([1]))
    assert check(erp).counts == {}
    assert check(erp, providers=["store365"]).counts == {("error", "zero-invoices"): 1}
    assert found(erp, "provider, expected") == [("store365", "an import of 2026-10 of store365")]


def test_what_overlaps_a_month_of_which_nothing_was_imported_is_named(erp: Erp) -> None:
    for days in ("2026-09-16/2026-10-01", "2026-10-01/2026-10-16", "2026-10-16/2026-11-01", "2026-11"):
        stage(erp, bill(days), OCTOBER._replace(period=Period.parse(days)))
    assert check(erp).sums == {}
    of_account = "of twotcloud 10001 purchase"
    told = f"only 2026-10-01/2026-10-16 {of_account}, 2026-10-16/2026-11-01 {of_account}"
    assert found(erp, "rule, actual") == [("zero-invoices", told)]


def test_a_slice_that_was_imported_by_halves_is_missing_as_a_whole(clean: Erp) -> None:
    lose_a_vendor(clean)
    stage(clean, bills(["H"]), ORANGE._replace(period=Period.parse("2026-10-01/2026-10-16")))
    check(clean)
    assert found(clean, "rule, actual") == [("missing-slice", "only 2026-10-01/2026-10-16")]


@pytest.mark.parametrize(
    ("read_at", "told"),
    [
        ("2026-10-31 09:59:59", "one of 2026-10-31"),
        ("2026-10-31 10:00:00", None),  # when November begins on Kiritimati
        ("2026-11-01 00:00:01", None),
        ("2026-09-30 12:00:00", "one of 2026-09-30"),
    ],
)
def test_an_import_that_was_read_before_the_month_was_over_is_a_warning(
    clean: Erp, read_at: str, told: str | None
) -> None:
    october = "provider = 'orange_cloudstore' AND period = '2026-10-01/2026-11-01'"
    clean.execute(f"UPDATE cloudbilling_load SET fetch_started_at = '{read_at}' WHERE {october}")
    check(clean)
    expected = [("loaded-early", "warning", None, "an import after 2026-10-31", told)] if told else []
    assert found(clean) == expected
    stage(clean, bills(["O2026-10"]), ORANGE)
    assert check(clean).counts == {}


def test_drafts_and_cancelled_invoices_are_named_once(clean: Erp) -> None:
    stage(clean, october(bill(1, status="Draft"), bill(3, ["1.230", "0.001"], "KWD", "5", status="cancelled")))
    summary = check(clean)
    told = ("not-issued", "warning", None, "issued invoices", "INV-1 (Draft), INV-3 (cancelled)")
    assert found(clean) == [told]
    assert summary.sums["twotcloud", "purchase", "KWD"].gross == Decimal("1.293")
    accept(open_staging(clean), open_ones(open_staging(clean), OCTOBER.period, "not-issued"), "A. Controller", "counts")
    assert check(clean).counts == {}
    stage(clean, october(*(bill(n, status="draft") for n in range(100, 120))))
    check(clean, limits=Limits(drift=None))
    ((actual,),) = found(clean, "actual")
    assert actual.startswith("INV-100 (draft), INV-101 (draft), ")
    assert " and 10 more (" in actual


def test_an_invoice_that_the_vendor_moved_to_another_month_is_told_until_both_are_imported_again(erp: Erp) -> None:
    stage(erp, bills([1, 2], issue_date="2026-10-31"))
    stage(erp, bills([2], issue_date="2026-09-30"), SEPTEMBER)
    weeks = OCTOBER._replace(period=Period.parse("2026-10-25/2026-11-01"))  # has it too, and rightly so
    stage(erp, bills([1, 2], issue_date="2026-10-31"), weeks)
    assert check(erp, limits=Limits(drift=None)).counts == {("warning", "in-two-periods"): 1}
    assert found(erp) == [("in-two-periods", "warning", None, "invoices of this period alone", "INV-2 (2026-09)")]
    stage(erp, bills([3]), SEPTEMBER)
    assert check(erp, limits=Limits(drift=None)).counts == {}


def test_usage_counts_in_no_sum_but_must_be_there(clean: Erp) -> None:
    usage = ORANGE._replace(kind="usage")
    for slice_ in (usage._replace(period=SEPTEMBER.period), usage):
        stage(clean, bills(["R"], net_amount="1", currency="ZZZ"), slice_)
    summary = check(clean)
    assert summary.counts == {}
    assert {kind for _, kind, _ in summary.sums} == {"purchase"}
    clean.execute("DELETE FROM cloudbilling_load WHERE kind = 'usage' AND period = '2026-10-01/2026-11-01'")
    check(clean)
    assert rules(clean) == ["missing-slice"]


def test_periods_that_are_no_months_are_compared_with_the_span_before(erp: Erp) -> None:
    for days, net in (("2026-10-08/2026-10-15", "100"), ("2026-10-15/2026-10-22", "300")):
        stage(erp, bill(days, [net]), OCTOBER._replace(period=Period.parse(days)))
    from airflow_cloudbilling.reconcile.month import Scope, reconcile

    reconcile(open_staging(erp), Scope(Period.parse("2026-10-15/2026-10-22")))
    assert rules(erp) == ["amount-drift", "amount-drift"]


# What a person says, and what loads say


def test_an_accepted_finding_stays_quiet_until_its_actual_value_changes(clean: Erp) -> None:
    def off_by(cents: str) -> list[Any]:
        return october(bill(1, gross_amount=cents, payable_amount=cents))

    stage(clean, off_by("121.01"))
    assert check(clean).found("error") == 1
    staging = open_staging(clean)
    ids = open_ones(staging, OCTOBER.period, "BR-CO-15")
    assert accept(staging, ids, "A. Controller", "a cent") == 1
    assert accept(staging, ids, "B. Controller", "again") == 0
    for _ in range(2):
        assert check(clean).counts == {}
    stage(clean, off_by("121.02"))
    assert check(clean).found("error") == 1
    assert found(clean, "actual") == [("121.02 EUR (+0.02)",)]
    stage(clean, off_by("121.01"))
    assert check(clean).counts == {}
    assert rows(clean, "finding", "accepted_by, accept_reason", "accepted_at IS NOT NULL") == [
        ("A. Controller", "a cent")
    ]
    with pytest.raises(ConfigurationError, match="no finding 'F-9'"):
        accept(staging, [*ids, "F-9"], "A. Controller", "no")


def test_another_difference_with_the_same_amount_is_told_again(erp: Erp) -> None:
    off: dict[str, Any] = {"net_amount": "100.01", "tax_amount": "0", "gross_amount": "100.01", "payable_amount": None}
    stage(erp, bill(1, taxes=(), **off))
    check(erp)
    accept(open_staging(erp), open_ones(open_staging(erp), OCTOBER.period, "BR-CO-10"), "A. Controller", "a cent")
    assert check(erp).counts == {}
    stage(erp, bill(1, ["20", "30"], taxes=(), **off))
    check(erp)
    assert found(erp, "expected, actual") == [("50.00 EUR", "100.01 EUR (+50.01)")]
    stage(erp, bill(1, taxes=(), **off))
    assert check(erp).counts == {}


def test_other_records_in_quarantine_are_told_again_and_the_same_are_not(erp: Erp) -> None:
    def rejecting(reason: str) -> tuple[str, str]:
        stage(erp, [*bill(1), Reject(reason, "{}", "INV-9")], quarantine=True)
        check(erp)
        return next(iter(found(erp, "actual, message")), ("", ""))

    (first, words), (again, later) = rejecting("no date"), rejecting("no date")
    assert first == again
    assert words != later  # which names the last load
    assert len(rows(erp, "finding")) == 1
    accept(open_staging(erp), open_ones(open_staging(erp), OCTOBER.period, "count-mismatch"), "A. Controller", "known")
    accepted = rows(erp, "finding")
    assert rejecting("no date") == ("", "")
    assert rows(erp, "finding") == accepted
    assert rejecting("no amount")[0] not in ("", first)


def test_what_is_expected_is_said_anew_when_it_changes(clean: Erp) -> None:
    for before, expected in (("2026-09", "about 1 invoices"), ("2026-09", "about 2 invoices")):
        stage(clean, bills(range(100, 100 + int(expected[6]))), ORANGE._replace(period=Period.parse(before)))
        stage(clean, [], ORANGE)
        check(clean, limits=Limits(drift=None))
        assert found(clean, "expected, actual") == [(expected, "0 invoices")]
    assert len(rows(clean, "finding")) == 1


def test_what_a_load_has_told_is_not_told_again_and_stays_the_loads(clean: Erp) -> None:
    unread = bill("O1", [], **dict.fromkeys(("net_amount", "tax_amount", "gross_amount", "payable_amount")), taxes=())
    told = Finding("INV-O1", "unreadable-amounts", "warning", "an e-invoice", "a PDF", "Enter it.")
    stage(clean, [*bills(["O2026-10"]), told, *unread, document("O1", "INV-O1")], ORANGE)
    for _ in range(2):
        assert check(clean).counts == {("warning", "unreadable-amounts"): 1}
        assert found(clean, "actual") == [("a PDF",)]
    stage(clean, [*bills(["O2026-10"]), *unread], ORANGE)  # which says it no more
    for _ in range(2):
        assert check(clean).counts == {("warning", "unreadable-amounts"): 1}
        assert found(clean, "actual") == [("no amount",)]
        stage(clean, [*bills(["O2026-10"]), *unread], ORANGE)  # resolves nothing that it did not tell
    assert len(rows(clean, "finding")) == 2


def test_a_posted_invoice_that_changed_is_a_finding_of_the_month(clean: Erp) -> None:
    Posting(open_staging(clean)).mark([InvoiceKey(*OCTOBER[:3], "INV-1")], "FI-1")
    stage(clean, october(bill(1, ["61", "40"])))
    summary = check(clean)
    assert summary.counts == {("error", "changed-after-posting"): 1}
    assert summary.sums["twotcloud", "purchase", "EUR"].frozen == 1
    Posting(open_staging(clean)).release([InvoiceKey(*OCTOBER[:3], "INV-1")], "A. Controller", "wrong")
    stage(clean, october(bill(1, ["61", "40"])))
    assert check(clean).counts == {}


def test_other_providers_are_left_alone(clean: Erp) -> None:
    stage(clean, october(bill(1, gross_amount="122", payable_amount="122")))
    stage(clean, bill("O2026-10", gross_amount="122", payable_amount="122"), ORANGE)
    assert check(clean).found("error") == 2
    stage(clean, october())
    stage(clean, bills(["O2026-10"]), ORANGE)
    summary = check(clean, providers=["twotcloud"])
    assert (summary.counts, {provider for provider, _, _ in summary.sums}) == ({}, {"twotcloud"})
    assert found(clean, "provider") == [("orange_cloudstore",)]
    lose_a_vendor(clean)
    assert check(clean, providers=["twotcloud"]).counts == {}


def test_two_at_once_end_as_one(clean: Erp) -> None:
    stage(clean, october(bill(1, gross_amount="122", payable_amount="122"), bill(13, invoice_number="F-1")))
    summaries: list[Any] = []
    threads = [threading.Thread(target=lambda: summaries.append(check(clean))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({str(one) for one in summaries}) == 1
    assert len(summaries) == 4
    assert sorted(rules(clean)) == sorted(r for (r,) in rows(clean, "finding", "rule"))
    assert len(rows(clean, "close")) == 1


def test_a_load_meanwhile_is_seen_wholly_or_not_at_all(clean: Erp) -> None:
    from sqlalchemy import event

    from airflow_cloudbilling.reconcile.month import Scope, reconcile

    staging, loaded = open_staging(clean), []

    def load_between(_conn: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if "FROM cloudbilling_invoice_line" in statement and not loaded:
            loaded.append(stage(clean, october(bill(1, ["1", "2"]))))

    event.listen(staging.engine, "before_cursor_execute", load_between)
    reconcile(staging, Scope(OCTOBER.period))
    assert loaded[0].merged.changed == 1
    assert found(clean) == []


def test_a_reconciliation_that_another_has_overtaken_looks_again(clean: Erp, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_cloudbilling.reconcile import month

    look, overtaking = month._Month.look, [True]

    def look_slowly(self: Any) -> None:
        look(self)
        if overtaking:
            overtaking.clear()
            stage(clean, october(bill(1, gross_amount="122", payable_amount="122")))
            assert check(clean).found("error") == 1

    monkeypatch.setattr(month._Month, "look", look_slowly)
    assert check(clean).found("error") == 1
    assert rules(clean) == ["BR-CO-15"]


def test_many_findings_are_written_and_resolved_in_batches(erp: Erp) -> None:
    stage(erp, bills(range(1203), gross_amount="122", payable_amount="122"))
    assert check(erp).counts == {("error", "BR-CO-15"): 1203}
    assert check(erp).counts == {("error", "BR-CO-15"): 1203}
    stage(erp, bills(range(1203)))
    close = check(erp)
    assert close.counts == {}
    assert len(rows(erp, "finding", "finding_id")) == 1203
    members = rows(erp, "close_invoice", "invoice_id, content_hash", f"close_id = '{close.close.close_id}'")
    assert members == rows(erp, "invoice", "invoice_id, content_hash")


def test_the_currencies_are_those_of_iso_4217() -> None:
    assert {DECIMALS[code] for code in ("JPY", "KRW", "ISK")} == {0}
    assert {DECIMALS[code] for code in ("KWD", "BHD", "TND", "IQD")} == {3}
    assert {DECIMALS[code] for code in ("EUR", "USD", "HUF", "XCG")} == {2}
    assert not {"XXX", "XTS", "XAU", ""} & DECIMALS.keys()
    assert str(rounded(Decimal("-0.0615"), "KWD")) == "-0.062"
