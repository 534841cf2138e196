"""What holds, always, when a slice is loaded: idempotent, atomic, never backwards, complete, no silent wipe."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from decimal import Decimal

import pytest
from staged import OCTOBER, Erp, dump, ids, invoice, invoices, load, of, open_staging, rows, statuses

from airflow_cloudbilling.errors import IncompleteError, RejectedRecordsError, RemovalError
from airflow_cloudbilling.model import Invoice, InvoiceLine, InvoiceTax, Outside, Reject, Stated
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.loader import Staging


@pytest.fixture
def staging(erp: Erp) -> Staging:
    return open_staging(erp)


def test_the_same_again_writes_no_business_row(staging: Staging, erp: Erp) -> None:
    first = load(staging, invoices(range(50))).merged
    before = dump(erp)
    second = load(staging, invoices(range(50))).merged
    assert (first.new, first.unchanged, second.new, second.unchanged) == (50, 0, 0, 50)
    assert dump(erp) == before


def test_changes_are_counted_and_staged(staging: Staging, erp: Erp) -> None:
    load(staging, invoices(range(20)))
    merged = load(staging, [*invoices(range(18)), *invoice(18, net="11"), *invoice(99)]).merged
    assert (merged.new, merged.changed, merged.unchanged, merged.removed) == (1, 1, 18, 1)
    assert ids(erp) == {*map(str, range(19)), "99"}
    assert rows(erp, "invoice_line", "net_amount", "invoice_id = 'INV-18'") == [("11",)] * 2
    assert merged.totals == {"EUR": {"net": "201", "tax": "42", "gross": "243"}}


def test_the_order_of_lines_and_the_verbatim_text_are_no_change(staging: Staging, erp: Erp) -> None:
    *lines, header = invoice(1, lines=3)
    load(staging, [*lines, header])
    before = dump(erp)
    again = [line._replace(raw='{"new_field": 1}') for line in reversed(lines) if isinstance(line, InvoiceLine)]
    assert isinstance(header, Invoice)
    assert load(staging, [*again, header._replace(raw="other")]).merged.unchanged == 1
    assert dump(erp) == before


def test_a_line_that_comes_twice_is_two_lines(staging: Staging, erp: Erp) -> None:
    line, header = InvoiceLine(net_amount="1"), Invoice("INV-1", currency="EUR")
    load(staging, [line, line, header])
    assert load(staging, [line, header]).merged.changed == 1
    assert len(rows(erp, "invoice_line")) == 1


def test_overlapping_windows_end_alike_in_any_order(staging: Staging, erp: Erp) -> None:
    windows = {"2026-10": range(10), "2026-10-15/2026-11-15": range(5, 15), "2026-11": range(10, 20)}
    dumps = []
    for n, order in enumerate(itertools.permutations(windows)):
        for period in order:
            load(staging, invoices(windows[period]), of(period)._replace(account=str(n)))
        dumps.append(dump(erp, with_load=False, account=str(n)))
    assert all(one == dumps[0] for one in dumps)
    assert len(dumps[0]["invoice"]) == 20


def test_an_invoice_leaves_when_no_slice_returns_it(staging: Staging, erp: Erp) -> None:
    load(staging, invoices([1, 2]))
    load(staging, invoices([2, 3]), of("2026-10-15/2026-11-15"))
    assert load(staging, invoices([1])).merged.removed == 1
    assert ids(erp) == {"1", "2", "3"}
    load(staging, invoices([3]), of("2026-10-15/2026-11-15"))
    assert ids(erp) == {"1", "3"}


def test_slice_period_is_the_greatest_among_an_invoices_slices(staging: Staging, erp: Erp) -> None:
    november = of("2026-11")
    load(staging, invoices([1, 2]), november)
    load(staging, invoices([1, 2]))
    assert {r[0] for r in rows(erp, "invoice", "slice_period")} == {str(november.period)}
    load(staging, invoices([2]), november)
    periods = dict(r[:2] for r in rows(erp, "invoice", "invoice_id, slice_period"))
    assert periods == {"INV-1": str(OCTOBER.period), "INV-2": str(november.period)}


def test_a_sudden_drop_wipes_nothing(staging: Staging, erp: Erp) -> None:
    load(staging, invoices(range(20)))
    before = dump(erp)
    for left in (0, 17):
        with pytest.raises(RemovalError, match=f"{20 - left} of the 20 staged invoices"):
            load(staging, invoices(range(left)))
    assert dump(erp) == before
    assert statuses(erp)[-1] == "failed"
    assert load(staging, invoices(range(18))).merged.removed == 2
    assert load(staging, [], max_removed=Decimal(1)).merged.removed == 18


def test_one_invoice_may_always_go_and_all_with_a_persons_word(staging: Staging, erp: Erp) -> None:
    load(staging, invoices([1, 2]))
    assert load(staging, invoices([1])).merged.removed == 1
    load(staging, invoices(range(20)))
    assert load(staging, [], allow_removals=True).merged.removed == 20
    assert ids(erp) == set()


def test_a_record_that_cannot_be_read_fails_the_load(staging: Staging, erp: Erp) -> None:
    load(staging, invoices([1]))
    before = dump(erp)
    with pytest.raises(RejectedRecordsError, match=r"1 of 3 records .* Totals\.Net is 'x'"):
        load(staging, [*invoices([1]), Reject("Totals.Net is 'x'", '{"a": "x"}', "INV-7"), *invoices([2])])
    assert dump(erp) == before
    assert rows(erp, "reject", "invoice_id, reason, raw") == [("INV-7", "Totals.Net is 'x'", '{"a": "x"}')]


def test_in_quarantine_the_rest_is_staged_and_nothing_counts_as_withdrawn(staging: Staging, erp: Erp) -> None:
    load(staging, invoices(range(10)))
    result = load(staging, [*invoices(range(9)), Reject("broken", "{}", "INV-9")], quarantine=True)
    assert (result.rejected, result.merged.removed, result.merged.unchanged) == (1, 0, 9)
    nameless = load(staging, [*invoices(range(8)), Reject("no id", "{}")], quarantine=True)
    assert nameless.merged.removed == 0
    assert ids(erp) == set(map(str, range(10)))


def test_lines_before_a_rejected_or_outside_record_are_dropped(staging: Staging, erp: Erp) -> None:
    orphan = InvoiceLine(net_amount="99")
    items = [orphan, Reject("broken", "{}", "INV-8"), orphan, Outside("INV-9"), *invoice(1, lines=1)]
    result = load(staging, items, quarantine=True)
    assert (result.received, result.outside, result.rejected) == (3, 1, 1)
    assert rows(erp, "invoice_line", "invoice_id, line_number, net_amount") == [("INV-1", 1, "10")]


def test_a_stated_count_that_differs_fails(staging: Staging, erp: Erp) -> None:
    with pytest.raises(IncompleteError, match=r"states 3 records .* 2 distinct ones came"):
        load(staging, [Stated(3), *invoices([1, 2, 2])])
    assert ids(erp) == set()
    assert load(staging, [Stated(2), *invoices([1, 2])]).merged.new == 2


def test_an_invoice_that_comes_twice_is_staged_once(staging: Staging, erp: Erp) -> None:
    assert load(staging, invoices([1, 1, 2])).merged.invoices == 2
    with pytest.raises(RejectedRecordsError, match="came 2 times with different content"):
        load(staging, [*invoices([1, 2]), *invoice(1, net="11")])
    result = load(staging, [*invoices([2]), *invoice(1), *invoice(1, net="11")], quarantine=True)
    assert (result.received, result.rejected, result.merged.removed) == (2, 1, 0)


def test_what_was_received_is_what_the_ledger_accounts_for(staging: Staging, erp: Erp) -> None:
    load(staging, [*invoices([1, 2]), Outside("INV-3"), Reject("broken", "{}", "INV-4")], quarantine=True)
    columns = "received_count, staged_count, outside_count, rejected_count, frozen_count"
    assert rows(erp, "load", columns) == [(4, 2, 1, 1, 0)]


def test_a_load_that_began_earlier_and_commits_last_is_superseded(staging: Staging, erp: Erp) -> None:
    with staging.load(OCTOBER) as stale:
        load(staging, invoices([1, 2]))
        before = dump(erp)
        for item in invoices([1]):
            stale.add(item)
        result = stale.commit()
    assert (result.status, result.merged.invoices, result.merged.removed) == ("superseded", 2, 0)
    assert dump(erp) == before
    assert statuses(erp) == ["superseded", "committed"]


def test_an_older_reading_of_another_slice_does_not_take_an_invoice_back(staging: Staging, erp: Erp) -> None:
    with staging.load(of("2026-10-15/2026-11-15")) as stale:
        load(staging, invoice(1, net="11"))
        for item in [*invoice(1, net="10"), *invoice(2)]:
            stale.add(item)
        stale.commit()
    amounts = dict(r[:2] for r in rows(erp, "invoice", "invoice_id, net_amount"))
    assert amounts == {"INV-1": "11", "INV-2": "10"}


def test_a_dead_load_is_marked_abandoned_by_the_next(staging: Staging, erp: Erp) -> None:
    first = staging.load(OCTOBER, Run("dag", "task", "run", -1, 1))
    first.__enter__()
    load(staging, invoices([1]), run=Run("dag", "task", "run", -1, 2))
    staging.ledger.begin(OCTOBER, Run("dag", "task", "other run", -1, 1))
    assert statuses(erp) == ["abandoned", "committed", "running"]
    load(staging, invoices([1]))
    assert statuses(erp) == ["abandoned", "committed", "abandoned", "committed"]


def test_credit_notes_stated_as_positive_are_negated_as_a_whole(staging: Staging, erp: Erp) -> None:
    line = InvoiceLine(quantity="2", unit_price="5", discount="0", net_amount="10", tax_rate="21", tax_amount="2.1")
    tax = InvoiceTax("S", "21", "10", "2.1")
    amounts = {"currency": "EUR", "net_amount": "10", "tax_amount": "2.1", "gross_amount": "12.1"}
    credit = Invoice("INV-1", document_type="credit_note", sign=-1, taxes=(tax,), **amounts)
    merged = load(staging, [line, line._replace(net_amount="-3", quantity=None), credit]).merged
    assert merged.totals == {"EUR": {"net": "-10", "tax": "-2.1", "gross": "-12.1"}}
    columns = "quantity, unit_price, discount, net_amount, tax_rate, tax_amount"
    assert rows(erp, "invoice_line", columns) == [
        ("-2", "5", "0", "-10", "21", "-2.1"),
        (None, "5", "0", "3", "21", "-2.1"),
    ]
    assert rows(erp, "invoice_tax", "category, rate, taxable_amount, tax_amount") == [("S", "21", "-10", "-2.1")]


def test_amounts_come_back_to_the_last_digit(staging: Staging, erp: Erp) -> None:
    widest = "9" * 26 + "." + "9" * 12
    amounts = [widest, f"-{widest}", "0.000000000001", "0.1", "0.2", "123456789012345678901234.5"]
    load(staging, itertools.chain.from_iterable(invoice(n, net=a, gross_amount=a) for n, a in enumerate(amounts)))
    assert sorted(r[0] for r in rows(erp, "invoice", "net_amount")) == sorted(amounts)
    assert load(staging, invoices([]), allow_removals=True).merged.totals == {}


def test_a_frozen_invoice_stays_as_posted(staging: Staging, erp: Erp) -> None:
    load(staging, invoices(range(12)))
    erp.execute("UPDATE cloudbilling_invoice SET posted_at = '2026-11-05' WHERE invoice_id IN ('INV-1', 'INV-2')")
    before = dump(erp)["invoice"]
    changed = [*invoice(1, net="11"), *invoices(n for n in range(12) if n not in (1, 2))]
    for _ in range(2):  # the second time nothing is new, so nothing is written
        merged = load(staging, changed).merged
    assert merged.unchanged == 10
    assert dump(erp)["invoice"] == before
    columns = "invoice_id, revision, reason, net_amount"
    assert rows(erp, "invoice_revision", columns) == [
        ("INV-1", 1, "changed", "11"),
        ("INV-2", 1, "withdrawn", "10"),
    ]
    assert len(rows(erp, "invoice_line_revision")) == 4
    findings = rows(erp, "finding", "invoice_id, rule, resolved_at, expected, actual")
    assert [f[:2] for f in findings] == [("INV-1", "changed-after-posting"), ("INV-2", "withdrawn-after-posting")]
    load(staging, invoices(range(12)))
    assert all(r[0] for r in rows(erp, "finding", "resolved_at"))


def test_others_can_read_and_write_while_a_vendor_is_awaited(staging: Staging, erp: Erp) -> None:
    with staging.load(OCTOBER) as slow:
        for item in invoices(range(3000)):
            slow.add(item)
        erp.execute("CREATE TABLE other_work (a INTEGER)")
        erp.execute("DELETE FROM cloudbilling_slice_invoice")
        assert rows(erp, "invoice") == []
        assert slow.commit().merged.invoices == 3000


def test_what_texts_hold_is_kept_to_the_character(staging: Staging, erp: Erp) -> None:
    names = [
        "Zoë d'Arc",
        "😀 emoji",
        "עברית",
        "tab\tand\nline",
        "back\\slash \\N \\.",
        "=cmd()",
        "%s %(x)s :y",
        '"quoted"',
    ]
    load(staging, [item for n, name in enumerate(names) for item in invoice(n, seller_name=name, lines=1)])
    assert {r[0] for r in rows(erp, "invoice", "seller_name")} == set(names)


def test_characters_that_separate_values_on_the_way_end_neither_value_nor_row(staging: Staging, erp: Erp) -> None:
    texts = ["\x1d'", "'\x1d'", "a\x1db", "\\\x1d", "", None]
    lines = [InvoiceLine(line_id=text, raw=text) for text in texts]
    load(staging, [*lines, Invoice("INV-1", seller_name="'\x1d")])
    assert rows(erp, "invoice_line", "line_number, line_id, raw") == [(n, t, t) for n, t in enumerate(texts, 1)]
    load(staging, [InvoiceLine(line_id="a\x1fb"), InvoiceLine(raw="a\x1eb\0c"), Invoice("INV-1", status="\x1f")])
    assert rows(erp, "invoice_line", "line_number, line_id, raw") == [
        (1, "a\ufffdb", None),
        (2, None, "a\ufffdb\ufffdc"),
    ]
    assert rows(erp, "invoice", "status") == [("\ufffd",)]


def test_keys_compare_by_byte(staging: Staging, erp: Erp) -> None:
    names = ["a", "A", "ä", "a\u0308", "ａ", "ß", "ss"]
    load(staging, [Invoice(name, currency="EUR") for name in names])
    assert load(staging, [Invoice(name, currency="EUR") for name in names]).merged.unchanged == len(names)
    assert {r[0] for r in rows(erp, "invoice", "invoice_id")} == set(names)


def test_the_longest_keys_fit(staging: Staging, erp: Erp) -> None:
    slice_ = OCTOBER._replace(account="😀" * 128)
    load(staging, [Invoice("😀" * 255, currency="EUR")], slice_)
    with pytest.raises(RejectedRecordsError, match="longer than 255"):
        load(staging, [Invoice("x" * 256, currency="EUR")], slice_)
    assert len(rows(erp, "slice_invoice")) == 1


@pytest.mark.parametrize("error", [ValueError("the vendor's"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_a_load_that_ends_while_rows_are_on_their_way_says_why_and_leaves_nothing(
    staging: Staging, erp: Erp, error: BaseException
) -> None:
    def ending() -> Iterator[object]:
        yield from invoices(range(1100))  # more lines than are sent at once
        raise error

    load(staging, invoices([1]))
    before = dump(erp)
    with pytest.raises(type(error)) as told:
        load(staging, ending())
    assert told.value is error
    assert error.__context__ is None
    assert dump(erp) == before
    assert statuses(erp) == ["committed", "failed"]
    assert load(staging, invoices([1])).merged.unchanged == 1


def test_nothing_is_open_in_the_database_while_the_vendor_is_waited_for(staging: Staging) -> None:
    with staging.load(OCTOBER) as opened:
        for item in invoices(range(1200)):
            opened.add(item)
        opened.settle()
        assert not opened.incoming._sender._connection.in_transaction()
        opened.commit()
