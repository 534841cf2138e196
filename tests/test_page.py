"""The page "Cloud billing": what people in finance read, on every database, exact and escaped."""

from __future__ import annotations

import csv
import io
import re
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from fastapi.testclient import TestClient
from months import SEPTEMBER, bill, bills, check, stage
from pages import Reader, links
from staged import OCTOBER, Erp, load, open_staging
from uploading import SALES, Task, upload
from uploading import stage as stage_sales

from airflow_cloudbilling.errors import LoadError
from airflow_cloudbilling.model import Invoice, Period
from airflow_cloudbilling.page.chart import chart
from airflow_cloudbilling.page.ledger import Totals, months_down
from airflow_cloudbilling.page.matrix import Cell, Column, Matrix, Row, matrix
from airflow_cloudbilling.page.render import content_security_policy, money, number
from airflow_cloudbilling.reconcile.approval import approve
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.staging.findings import accept, open_ones
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.posting import Posting

pytestmark = pytest.mark.each_database

OF_OCTOBER = {"period": "2026-10", "provider": "twotcloud", "kind": "purchase"}
INVOICE = {"provider": "twotcloud", "account": "10001", "kind": "purchase"}
BIG = "12345678901234567890123456.000000000001"

# What no database has a say in is shown on one of them.
on_sqlite = pytest.mark.parametrize("erp", ["sqlite"], indirect=True)


def cells(erp: Erp, today: date = date(2026, 11, 22)) -> dict[str, Cell]:
    """Return the cells of the overview: ``10 purchase`` → cell."""
    from airflow_cloudbilling.page.access import Access

    staging = open_staging(erp)
    with staging.engine.connect() as connection:
        found = matrix(connection, staging.tables, Access(set), today)
    return {f"{row.period.key[5:7]} {column.kind}": cell for row in found.rows for column, cell in row.cells.items()}


def states(erp: Erp, **of: Any) -> dict[str, str]:
    return {name: cell.state for name, cell in cells(erp, **of).items() if cell.state}


def test_a_month_without_its_import_is_missing_until_it_comes(erp: Erp) -> None:
    stage(erp, bills([1]), SEPTEMBER)
    assert states(erp) == {"10 purchase": "missing", "09 purchase": "staged"}
    assert states(erp, today=date(2026, 10, 22)) == {"09 purchase": "staged"}
    stage(erp, bills([2]))
    assert states(erp) == {"10 purchase": "staged", "09 purchase": "staged"}


def test_a_month_is_loading_while_a_load_is_open_and_missing_when_it_fails(erp: Erp) -> None:
    staging = open_staging(erp)
    with suppress(LoadError), staging.load(OCTOBER):
        assert states(erp) == {"10 purchase": "loading"}
        raise LoadError("the vendor said nothing")
    assert states(erp) == {"10 purchase": "missing"}
    stage(erp, bills([1]))
    with suppress(LoadError), staging.load(OCTOBER):
        raise LoadError("again")
    assert states(erp) == {"10 purchase": "staged"}
    assert len(cells(erp)["10 purchase"].failed) == 1
    assert "last import failed" in Reader().read()


def test_a_month_has_findings_until_somebody_accepts_them(erp: Erp) -> None:
    stage(erp, bill(1, currency="XXX"))
    check(erp)
    assert states(erp) == {"10 purchase": "findings"}
    assert "1 finding" in Reader().read()
    accept(open_staging(erp), open_ones(open_staging(erp), OCTOBER.period, "unknown-currency"), "Ann", "a test")
    assert states(erp) == {"10 purchase": "staged"}
    accepted = Reader().read("findings", which="accepted")
    assert "Accepted by Ann" in accepted
    assert "Nothing is open" in Reader().read("findings")


def test_a_month_is_approved_as_it_is_and_no_longer_when_it_changes(erp: Erp) -> None:
    stage(erp, bills([1]))
    close = check(erp).close
    assert states(erp) == {"10 purchase": "staged"}
    approve(open_staging(erp), close.close_id, "Ann Accountant")
    assert states(erp) == {"10 purchase": "approved"}
    assert "approved by Ann Accountant" in Reader().read()
    stage(erp, bills([1]))
    assert states(erp) == {"10 purchase": "approved"}
    stage(erp, bills([1, 2]))
    assert states(erp) == {"10 purchase": "staged"}
    assert "approved in part" in Reader().read()


def test_a_month_was_sent_and_accepted_or_rejected(erp: Erp, sage: Sage) -> None:
    stage_sales(erp)
    sage.rejections = {}
    upload(Task(), wait=False)
    assert states(erp) == {"10 sales": "sent"}
    upload(Task())
    assert states(erp) == {"10 sales": "accepted"}
    assert [row[-1] for row in Reader().table("invoices", **{**OF_OCTOBER, "kind": "sales"})] == ["accepted"] * 5
    (file,) = {
        one for one in links(Reader().get("invoices", **{**OF_OCTOBER, "kind": "sales"}).text) if "upload" in one
    }
    assert "Accepted 5" in Reader().read(file.removeprefix("/cloudbilling/"))


def test_a_month_that_an_erp_has_posted_as_a_whole_says_so(erp: Erp) -> None:
    stage(erp, bills([1, 2]))
    stage(erp, bills([3]), SALES)
    posting = Posting(open_staging(erp))
    keys = posting.of_period(OCTOBER.period)
    (sales,) = [one for one in keys if one.kind == "sales"]
    posting.mark([keys[0], sales], "FI-1")
    assert states(erp) == {"10 purchase": "staged", "10 sales": "posted"}
    posting.mark(keys, "FI-2")
    assert states(erp) == {"10 purchase": "posted", "10 sales": "posted"}
    assert "posted 2 invoices" in Reader().read()


def test_totals_are_exact_and_of_each_currency(erp: Erp) -> None:
    stage(erp, [*bill(1, ["0.1", "0.2"]), *bill(2, ["1000"], "JPY"), Invoice("BIG", currency="EUR", net_amount=BIG)])
    assert cells(erp)["10 purchase"].totals["EUR"]["net"] == Decimal(f"{BIG[:26]}.300000000001")
    text = Reader().read()
    assert "3 invoices" in text
    assert "12,345,678,901,234,567,890,123,456.300000000001 EUR" in text
    assert "1,000 JPY" in text
    assert "JPY" in Reader().read(currency="JPY")
    assert "123,456.3" not in Reader().read(currency="JPY")
    assert "123,456.3" not in Reader().read(amount="tax")


def test_what_is_sold_less_what_is_bought_is_shown_by_currency(erp: Erp) -> None:
    stage(erp, [*bill(1, ["70"]), *bill(2, ["5"], "USD")])
    stage(erp, bill(3, ["100.50"]), SALES)
    (row,) = Reader().table()
    assert row[-3:] == ["70.00 EUR 5.00 USD", "100.50 EUR", "30.50 EUR margin"]


def test_an_invoice_leads_to_all_that_is_known_of_it(erp: Erp) -> None:
    load(open_staging(erp), bill(1, buyer_name="Jansen BV", line={"customer_name": "Zoë"}), OCTOBER,
         Run("monthly_invoice_import", "stage", "scheduled__2026-11-03T06:00:00+00:00", 2, 1))  # fmt: skip
    text = Reader().get("invoice", **INVOICE, id="INV-1").text
    for part in ("Jansen BV", "Zoë", "60.00", "121.00", "VAT breakdown", "try 1"):
        assert part in text
    (run,) = (link for link in links(text) if "/dags/" in link)
    assert run == "/dags/monthly_invoice_import/runs/scheduled__2026-11-03T06%3A00%3A00%2B00%3A00/tasks/stage/mapped/2"
    (import_,) = (link for link in links(text) if "/load?" in link)
    assert (
        "2 lines" in (told := Reader().read(import_.removeprefix("/cloudbilling/"))) or "Lines of the slice 2" in told
    )


def test_a_long_list_is_read_a_page_at_a_time_by_its_keys(erp: Erp) -> None:
    stage(erp, bills(f"{n:04}" for n in range(120)))
    seen, address = list[str](), "invoices?period=2026-10&provider=twotcloud&kind=purchase"
    while address:
        text = Reader().get(address).text
        seen += re.findall(r">F-(\d+)</a>", text)
        address = next((a.removeprefix("/cloudbilling/") for a in re.findall(r'rel="next" href="([^"]*)"', text)), "")
        address = address.replace("&amp;", "&")
    assert seen == [f"{n:04}" for n in range(120)]


def test_lines_are_read_a_page_at_a_time(erp: Erp) -> None:
    stage(erp, bill(1, ["1"] * 230))
    first = Reader().get("invoice", **INVOICE, id="INV-1").text
    assert "item-100<" in first
    assert "item-101<" not in first
    assert "item-230<" in Reader().get("invoice", **INVOICE, id="INV-1", after="200").text


def test_only_invoices_with_findings_when_one_asks_for_them(erp: Erp) -> None:
    stage(erp, [*bill(1), *bill(2, currency="XXX")])
    check(erp)
    assert [row[0] for row in Reader().table("invoices", **OF_OCTOBER, only="findings")] == ["F-2"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("f-12", ["F-12"]), ("JANSEN", ["F-12", "F-7"]), ("inv-7", ["F-7"]), ("c%_", []), ("b-9", ["F-7"]), ("x", [])],
)
def test_a_search_is_by_number_and_by_customer(erp: Erp, text: str, numbers: list[str]) -> None:
    stage(erp, [*bill(12, buyer_name="Jansen BV"), *bill(7, buyer_name="Peeters & jansen", buyer_id="B-9"), *bill(8)])
    assert [row[0] for row in Reader().table("search", q=text)] == numbers


def test_a_search_goes_on_where_its_page_ends(erp: Erp) -> None:
    stage(erp, bills(f"{n:03}" for n in range(60)))
    text = Reader().get("search", q="F-0").text
    (more,) = re.findall(r'rel="next" href="([^"]*)"', text)
    rest = Reader().get(more.replace("&amp;", "&").removeprefix("/cloudbilling/")).text
    assert re.findall(r">F-(\d+)</a>", text) + re.findall(r">F-(\d+)</a>", rest) == [f"{n:03}" for n in range(60)]


def test_several_accounts_of_a_vendor_are_named_first(erp: Erp) -> None:
    stage(erp, bills([1, 2]))
    stage(erp, bills([3]), OCTOBER._replace(account="20002"))
    assert [row[:3] for row in Reader().table("invoices", **OF_OCTOBER)] == [
        ["10001", "committed", "2"],
        ["20002", "committed", "1"],
    ]
    assert [row[0] for row in Reader().table("invoices", **OF_OCTOBER, account="20002")] == ["F-3"]


def test_a_margin_is_by_customer(erp: Erp) -> None:
    stage(erp, bill(1, ["70"], customer="C-1", line={"subscription_id": "s", "item_code": "i", "customer_name": "Zoë"}))
    stage(erp, bill(2, ["100"], customer="C-1", line={"subscription_id": "s", "item_code": "i"}), SALES)
    text = Reader().read("margin", period="2026-10")
    assert "Zoë C-1 EUR 70.00 100.00 30.00" in text
    stage(erp, [*bill(2, ["100"], customer="C-1", line={"subscription_id": "s", "item_code": "i"}), *bill(3)], SALES)
    assert "Zoë C-1 EUR 70.00 100.00 30.00 – 100.00" in Reader().read("margin")


EVIL = """<script>alert(1)</script>"><img src=x onerror=alert(2)>' {{ 7 * 7 }}"""


@on_sqlite
def test_what_a_vendor_writes_is_text_and_nothing_else(erp: Erp) -> None:
    evil = bill("<b>1", buyer_name=EVIL, invoice_number=EVIL, currency="<i>", line={"description": EVIL}, status=EVIL)
    stage(erp, evil)
    check(erp)
    for view, params in (
        ("", {}),
        ("invoices", OF_OCTOBER),
        ("invoice", {**INVOICE, "id": "INV-<b>1"}),
        ("findings", {}),
        ("search", {"q": EVIL[:40]}),
        ("search", {"q": "<b>"}),
    ):
        text = Reader().get(view, **params).text
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "<b>1" not in text
        assert "<i>" not in text.replace("<i class", "")
        assert "49" not in re.findall(r"' (\S+)", text)


@on_sqlite
def test_a_parameter_that_nobody_knows_changes_nothing(erp: Erp) -> None:
    stage(erp, bills([1]))
    assert Reader().get("", name="x", airflow="y", params="z", amount="net").status_code == 200


@on_sqlite
@pytest.mark.parametrize("text", ["' OR '1'='1", "'; DROP TABLE cloudbilling_invoice; --", "%", "_", "\\"])
def test_no_parameter_is_sql(erp: Erp, text: str) -> None:
    stage(erp, bills([1, 2]))
    everything = erp.everything()
    for view in ("", "invoices", "invoice", "findings", "load", "upload", "margin", "search", "findings.csv"):
        for name in ("period", "provider", "account", "kind", "id", "after", "q", "until", "which", "only", "staging"):
            answer = Reader().get(view, **{**OF_OCTOBER, "account": "10001", "id": "INV-1", name: text})
            assert answer.status_code in (200, 400, 404), (view, name)
    assert erp.everything() == everything


@on_sqlite
def test_every_answer_forbids_what_the_page_does_not_need(erp: Erp) -> None:
    stage(erp, bills([1]))
    for answer in (Reader().get(), Reader().get("nothing"), Reader(None).get(), Reader().get("findings.csv")):
        policy = answer.headers["content-security-policy"]
        assert policy == content_security_policy()
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
    text = Reader().get().text
    assert " style=" not in text
    assert not re.findall(r"<[^>]+ on\w+=", text)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', text)


def test_files_hold_exact_amounts_and_no_formula(erp: Erp) -> None:
    stage(erp, [*bill(1, ["0.000000000001"], buyer_name="=HYPERLINK(1)"), *bill(2, ["-5"], buyer_name="+1")])
    answer = Reader().get("invoices.csv", **OF_OCTOBER, account="10001")
    assert answer.headers["content-disposition"] == 'attachment; filename="twotcloud-purchase-2026-10.csv"'
    assert answer.content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [(row["net_amount"], row["buyer_name"]) for row in rows] == [
        ("0.000000000001", "'=HYPERLINK(1)"),
        ("-5", "'+1"),
    ]
    months = csv.DictReader(io.StringIO(Reader().get("overview.csv").content.decode("utf-8-sig")))
    (own,) = (row for row in months if row["state"] == "staged")
    assert (own["account"], own["invoices"], own["net"]) == ("10001", "2", "-4.999999999999")


@on_sqlite
def test_a_file_of_many_rows_is_complete(erp: Erp) -> None:
    stage(erp, bills(f"{n:05}" for n in range(1203)))
    lines = Reader().get("invoices.csv", **OF_OCTOBER, account="10001").text.splitlines()
    assert len(lines) == 1204


@pytest.mark.bare
def test_a_database_without_tables_is_not_given_any(erp: Erp) -> None:
    from sqlalchemy import inspect

    answer = Reader().get()
    assert answer.status_code == 404
    for words in ("Nothing is staged yet", "the first import into it makes them", "airflow cloudbilling stage"):
        assert words in answer.text
    assert inspect(erp.engine()).get_table_names() == []


def test_who_has_just_installed_it_is_told_which_connection_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_ERP_STAGING", raising=False)
    answer = Reader().get()
    assert answer.status_code == 404
    for words in ("There is no staging database yet", "erp_staging", "isn&#39;t defined", "staging_conn_ids"):
        assert words in answer.text


def test_a_database_that_does_not_answer_is_named_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", "postgres://ann:opensesame@127.0.0.1:1/erp")
    answer = Reader().get()
    assert answer.status_code == 503
    assert "&#39;erp_staging&#39; does not answer" in answer.text
    assert "opensesame" not in answer.text


def test_months_without_a_load_are_rows_too() -> None:
    march, july = Period.parse("2026-03"), Period.parse("2026-07")
    assert [one.key for one in months_down([march], july, 12)] == [
        "2026-07",
        "2026-06",
        "2026-05",
        "2026-04",
        "2026-03",
    ]
    assert [one.key for one in months_down([march], july, 2)] == ["2026-07", "2026-06"]


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("1234567.8", "EUR", "1,234,567.80"),
        ("-0.5", "EUR", "−0.50"),
        ("1000", "JPY", "1,000"),
        ("1.23456", "KWD", "1.23456"),
    ],
)
def test_money_is_written_as_people_do(amount: str, currency: str, text: str) -> None:
    assert money(Decimal(amount), currency) == text
    assert number(Decimal("1234.500000")) == "1,234.500000"
    assert money(None) == "–"


def test_a_chart_has_room_for_credit_notes() -> None:
    column, period = Column("twotcloud", "purchase"), Period.parse("2026-10")

    class Drawn(Cell):
        @property
        def totals(self) -> Totals:
            return {"EUR": {"net": Decimal(-30), "tax": None, "gross": None}}

    drawn = chart(Matrix([column], [Row(period, {column: Drawn(period, column)})]), "EUR", "purchase", "net")
    (bar,) = drawn.bars
    zero = next(tick.y for tick in drawn.ticks if tick.amount == 0)
    assert bar.y == zero
    assert bar.height > 0
    assert drawn.ticks[0].amount <= -30


@on_sqlite
def test_links_keep_the_path_that_airflow_is_served_below(erp: Erp) -> None:
    stage(erp, bills([1]))
    reader = Reader()
    below = TestClient(reader.client.app, root_path="/airflow", headers=reader.client.headers)
    answer = below.get("/airflow/cloudbilling/invoices", params=OF_OCTOBER)
    assert answer.status_code == 200
    assert {link.partition("/cloudbilling")[0] for link in links(answer.text)} == {"/airflow"}
    sent = TestClient(reader.client.app, root_path="/airflow", headers={"Accept": "text/html"}, follow_redirects=False)
    location = sent.get("/airflow/cloudbilling/margin").headers["location"]
    assert location == "/airflow/api/v2/auth/login?next=%2Fairflow%2Fcloudbilling%2Fmargin"
