"""Purchase against sales: every line once, no currency netted, and what costs money named."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from importing import stage
from staged import OCTOBER, Erp, load, open_staging

from airflow_cloudbilling.exact import exact_sum
from airflow_cloudbilling.model import Invoice, InvoiceLine, Period
from airflow_cloudbilling.operators.margin import MarginReportOperator

pytestmark = pytest.mark.each_database

SALES = OCTOBER._replace(kind="sales")
BIG = "12345678901234567890123456.000000000001"


def line(net: str, key: str | None = None, **more: Any) -> InvoiceLine:
    return InvoiceLine(net_amount=net, match_key=key, **{"customer_id": "77", "customer_name": "Zoë", **more})


def bill(invoice_id: str, *lines: InvoiceLine, currency: str = "EUR") -> list[Any]:
    total = str(exact_sum(*(Decimal(one.net_amount or 0) for one in lines)))
    return [*lines, Invoice(invoice_id, currency=currency, net_amount=total, gross_amount=total)]


def fill(erp: Erp) -> None:
    """Load a month: pairs, doubled keys, subscriptions, currencies, and what has no partner."""
    staging, item = open_staging(erp), {"subscription_id": "sub", "item_code": "sku"}
    bought = [
        *bill("P1", line("10", "a"), line("5", "b"), line("5", "b"), line("9", "low"), line("-3", "back")),
        *bill("P2", line("4", None, **item), line("2", None, **item), line("7", "lonely", customer_id="88")),
        *bill("P3", line("100", "fx"), currency="USD"),
        *bill("P4", line(BIG, "big", customer_id="99")),
        *bill("P5", line("1", "Case"), line("1", None, subscription_id="other", item_code="x")),
    ]
    sold = [
        *bill("S1", line("12", "a"), line("6", "b"), line("8", "low"), line("-4", "back")),
        *bill("S2", line("8", None, **item), line("3", "sold-only", customer_id="88")),
        *bill("S3", line("90", "fx")),
        *bill("S4", line(BIG, "big", customer_id="99"), line("6", "b")),
        *bill("S5", line("2", "CASE"), line("2", None, subscription_id="other", item_code="x"), currency="GBP"),
    ]
    load(staging, bought)
    load(staging, sold, SALES)
    consolidated = OCTOBER._replace(kind="consolidated")
    load(staging, bill("C1", line("10", "a")), consolidated)


def report(**arguments: Any) -> dict[str, Any]:
    arguments = {"staging_conn_id": "erp_staging", "period": "2026-10", **arguments}
    result: dict[str, Any] = MarginReportOperator(task_id="margin", **arguments).execute({})
    return result


def charges(result: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path(result["charges"]["uri"].removeprefix("file://")).read_text())))


def test_every_line_counts_once_in_its_own_currency(erp: Erp, tmp_path: Path) -> None:
    fill(erp)
    result = report(destination=str(tmp_path))
    for side, kind in (("purchase", "purchase"), ("sales", "sales")):
        staged: dict[str, Decimal] = defaultdict(Decimal)
        query = ("SELECT i.currency, l.net_amount FROM cloudbilling_invoice_line AS l JOIN cloudbilling_invoice AS i"
                 " USING (provider, account, kind, invoice_id) WHERE kind = :kind")  # fmt: skip
        for currency, net in erp.query(query, kind=kind):
            staged[currency] = exact_sum(staged[currency], Decimal(net))
        names = {"purchase": ("purchase", "bought_only", "bought_otherwise"),
                 "sales": ("sales", "sold_only", "sold_otherwise")}[side]  # fmt: skip
        told = {c: exact_sum(*(Decimal(sums[name]) for name in names)) for c, sums in result["totals"].items()}
        assert {c: total for c, total in told.items() if total} == dict(staged)
        in_file: dict[str, Decimal] = defaultdict(Decimal)
        for row in charges(result):
            if row[f"{side}_amount"]:
                currency = row[f"{side}_currency"]
                in_file[currency] = exact_sum(in_file[currency], Decimal(row[f"{side}_amount"]))
        assert dict(in_file) == dict(staged)


def test_what_costs_money_is_named(erp: Erp, tmp_path: Path) -> None:
    fill(erp)
    result = report(destination=str(tmp_path))
    assert result["not_issued"] == 0
    assert result["states"] == {"matched": 7, "currencies differ": 2, "bought only": 2, "sold only": 2}
    assert result["below_cost"] == 1  # 'low'; the credits of 'back' mirror a profit
    assert result["totals"]["GBP"]["margin"] == "0"
    euro = result["totals"]["EUR"]
    assert (euro["bought_only"], euro["sold_only"], euro["sold_otherwise"]) == ("8", "3", "90")
    assert euro["margin"] == "4"  # a 2, b 1 + 1, low -1, back -1, subscription 2, big 0
    assert result["totals"]["USD"]["bought_otherwise"] == "100"
    rows = charges(result)
    by_item = [r for r in rows if r["matched_by"] == "subscription and item" and r["state"] == "matched"]
    assert [(r["subscription_id"], r["purchase_amount"], r["sales_amount"], r["margin"]) for r in by_item] == [
        ("sub", "6", "8", "2")
    ]
    page = Path(result["report"]["uri"].removeprefix("file://")).read_text()
    for words in ("## Sold below cost", "## Bought only", "## Sold only", "## Currencies differ", "Zoë (77)"):
        assert words in page
    assert "| 2026-10 | Zoë (88) |  |  | 7 EUR |  |  |" in page


def test_a_key_that_comes_twice_pairs_its_lines_one_by_one(erp: Erp) -> None:
    fill(erp)
    pairs = erp.query(
        "SELECT purchase_invoice_id, purchase_line_number, sales_invoice_id, sales_line_number"
        " FROM cloudbilling_margin WHERE match_key = 'b' ORDER BY purchase_line_number"
    )
    assert pairs == [("P1", 2, "S1", 2), ("P1", 3, "S4", 2)]
    states = Counter(state for (state,) in erp.query("SELECT state FROM cloudbilling_margin"))
    assert states == {"matched": 7, "bought only": 5, "sold only": 4}
    lines = erp.query("SELECT COUNT(*) FROM cloudbilling_invoice_line WHERE kind <> 'consolidated'")[0][0]
    assert 2 * states["matched"] + states["bought only"] + states["sold only"] == lines


def test_a_credit_note_is_no_invoices_partner(erp: Erp) -> None:
    staging = open_staging(erp)
    credit = [line("-10", "a"), Invoice("C1", currency="EUR", document_type="credit_note", gross_amount="-10")]
    load(staging, [*bill("P1", line("10", "a")), *credit])  # C1 sorts before P1
    load(staging, bill("S1", line("12", "a")), SALES)
    result = report()
    expected = {"purchase": "10", "sales": "12", "margin": "2", "bought_only": "-10"}
    assert {name: result["totals"]["EUR"][name] for name in expected} == expected
    assert result["states"] == {"matched": 1, "bought only": 1}


def test_what_nobody_owes_counts_and_is_told(erp: Erp, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    staging = open_staging(erp)
    *lines, bought = bill("P1", line("10", "a"), line("1", "b"))
    load(staging, [*lines, bought._replace(status="Draft"), *bill("P2", line("3", "c"))])
    *lines, sold = bill("S1", line("12", "a"))
    load(staging, [*lines, sold._replace(status="Cancelled")], SALES)
    result = report(destination=str(tmp_path))
    assert (result["not_issued"], result["totals"]["EUR"]["margin"]) == (2, "2")
    words = "2 of the invoices are drafts, or the vendor cancelled them; their lines count here all the same."
    assert words in Path(result["report"]["uri"].removeprefix("file://")).read_text()
    assert words in capsys.readouterr().out


def test_keys_compare_by_byte(erp: Erp) -> None:
    fill(erp)
    found = erp.query("SELECT match_key, state FROM cloudbilling_margin WHERE match_key IN ('Case', 'CASE')")
    assert sorted(found) == [("CASE", "sold only"), ("Case", "bought only")]


def test_a_charge_is_of_the_month_in_which_it_was_bought(erp: Erp) -> None:
    staging = open_staging(erp)
    november = Period.parse("2026-11")
    load(staging, bill("P1", line("10", "a")))
    load(staging, bill("S1", line("12", "a"), line("1", "b")), SALES._replace(period=november))
    assert report()["totals"]["EUR"]["margin"] == "2"
    later = report(period="2026-11")
    assert (later["states"], later["totals"]["EUR"]["sold_only"]) == ({"sold only": 1}, "1")
    both = report(period="2026-11", months=2)
    assert (both["totals"]["EUR"]["margin"], both["totals"]["EUR"]["sold_only"]) == ("2", "1")
    assert both["periods"] == ["2026-10-01/2026-11-01", "2026-11-01/2026-12-01"]


def test_the_page_shows_no_vendors_markup(staging: Path, tmp_path: Path) -> None:
    erp = Erp("sqlite", tmp_path)
    erp.connection["host"] = str(staging)
    evil = line("1", "k", customer_name="<script>|x|\n# y", description="=cmd()")
    load(open_staging(erp), bill("P1", evil))
    result = report(destination=str(tmp_path))
    page = Path(result["report"]["uri"].removeprefix("file://")).read_text()
    assert "<script>" not in page
    assert "&lt;script>\\|x\\| # y (77)" in page
    assert charges(result)[0]["description"] == "'=cmd()"


def test_without_a_destination_there_is_only_the_result(vendor: Any, staging: Path) -> None:
    month = vendor.months[-1]
    for kind in ("purchase", "sales"):
        stage(month, kind=kind)
    result = report(period=month)
    assert (result["report"], result["charges"]) == (None, None)
    bought = {c: t.line_net for c, t in vendor.truth("twotcloud", "purchase", month).items()}
    names = ("purchase", "bought_only", "bought_otherwise")
    found = {c: sum(Decimal(sums[n]) for n in names) for c, sums in result["totals"].items()}
    assert {c: amount for c, amount in found.items() if amount} == bought


@pytest.mark.parametrize("months", ["0", "x", -1])
def test_a_wrong_number_of_months_is_named(staging: Path, months: Any) -> None:
    with pytest.raises(AirflowFailException, match="no number of months"):
        report(months=months)


def test_an_empty_month_is_told_as_one(erp: Erp, tmp_path: Path) -> None:
    result = report(destination=str(tmp_path))
    assert (result["states"], result["totals"], charges(result)) == ({}, {}, [])
    assert "Nothing." in Path(result["report"]["uri"].removeprefix("file://")).read_text()
