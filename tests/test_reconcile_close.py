"""What was approved is what is sent: the same state is the same close, and a stale one is neither shown nor taken."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from months import SEPTEMBER, bill, bills, check, stage
from staged import OCTOBER, Erp, open_staging, rows

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.reconcile.approval import approve, reject, summary_of
from airflow_cloudbilling.reconcile.closes import read
from airflow_cloudbilling.reconcile.report import question, report, screen
from airflow_cloudbilling.staging.posting import InvoiceKey, Posting
from airflow_cloudbilling.staging.uploads_selection import Selection, approved

pytestmark = pytest.mark.each_database

SALES = OCTOBER._replace(kind="sales")


@pytest.fixture
def month(erp: Erp) -> Erp:
    """Stage what was bought and what was sold."""
    stage(erp, bills([3, 1, 2, "ö-4"]))
    stage(erp, bills([1], seller_name="Us"), SALES)
    return erp


def send(erp: Erp, close_id: str, status: str = "accepted") -> None:
    columns = "(upload_id, conn_id, scope, close_id, content_sha256, status)"
    erp.execute(f"INSERT INTO cloudbilling_upload {columns} VALUES ('u1', 's', 'O', '{close_id}', '0', '{status}')")


def test_a_close_says_what_it_is_and_anybody_can_check_it(month: Erp) -> None:
    close = check(month).close
    ((period, totals, digest),) = rows(month, "close", "period, totals, sha256")
    own = f"close_id = '{close.close_id}'"
    members = rows(month, "close_invoice", "provider, account, kind, invoice_id, content_hash", own)
    invoices = ",".join(sorted(json.dumps(row, separators=(",", ":")) for row in members))
    assert digest == close.sha256 == sha256(f"{period}\n[{invoices}]\n{totals}".encode()).hexdigest()
    assert members == rows(month, "invoice", "provider, account, kind, invoice_id, content_hash")
    assert rows(month, "close_slice", "provider, account, kind", own) == [OCTOBER[:3], SALES[:3]]
    assert json.loads(totals) == {"EUR": {"net": "500", "tax": "105", "gross": "605"}}
    assert rows(month, "close", "status, approved_by, approved_at") == [("open", None, None)]


def test_the_same_state_is_the_same_close_on_every_database_and_however_it_came_about(month: Erp) -> None:
    close = check(month).close
    assert check(month).close == close
    stage(month, bills([3, 1]))
    other = check(month).close
    assert other.close_id != close.close_id
    stage(month, bills([1, "ö-4", 2, 3]))
    Posting(open_staging(month)).mark([InvoiceKey(*SALES[:3], "INV-1")], "FI-1")  # is sent, is what it was
    assert check(month).close == close
    assert {row[0] for row in rows(month, "close", "close_id")} == {close.close_id, other.close_id}
    assert close.close_id == "d7a04fd3-0872-5d99-8455-1267d31db4d0"


def test_what_is_approved_may_be_sent(month: Erp) -> None:
    staging, close_id = open_staging(month), check(month).close.close_id
    with pytest.raises(ConfigurationError, match="nobody has approved"):
        approved(staging, close_id)
    first = approve(staging, close_id, "A. Controller")
    assert (first.status, first.approved_by, first.approved_at is not None) == ("approved", "A. Controller", True)
    assert approve(staging, close_id, "B. Controller") == first
    assert check(month).close == first
    hashes = approved(staging, close_id).hashes
    assert {key.kind for key in hashes} == {"purchase", "sales"}
    assert sorted(hashes.values()) == sorted(h for (h,) in rows(month, "invoice", "content_hash"))


def test_what_is_rejected_is_not_sent_until_it_is_approved(month: Erp) -> None:
    staging, close_id = open_staging(month), check(month).close.close_id
    approve(staging, close_id, "A. Controller")
    close = reject(staging, close_id, "B. Controller")
    assert (close.status, close.approved_by, close.approved_at) == ("rejected", "B. Controller", None)
    with pytest.raises(ConfigurationError, match="is rejected"):
        approved(staging, close_id)
    assert check(month).close == close
    assert approve(staging, close_id, "B. Controller").status == "approved"
    assert len(approved(staging, close_id).hashes) == 5


def test_what_was_posted_meanwhile_is_known_once_the_month_is_reconciled_and_approved_again(month: Erp) -> None:
    staging, close_id = open_staging(month), check(month).close.close_id

    def posted_before() -> int:
        with staging.engine.connect() as connection:
            return Selection(staging, None, approved=approved(staging, close_id)).survey(connection).before

    Posting(staging).mark([InvoiceKey(*SALES[:3], "INV-1")], "FI-1")
    assert check(month).close.close_id == close_id  # the same state
    first = approve(staging, close_id, "A. Controller")
    assert posted_before() == 1
    assert check(month).close == first
    Posting(staging).mark([InvoiceKey(*OCTOBER[:3], "INV-2")], "FI-2")
    assert posted_before() == 1
    assert check(month).close == first._replace(status="open", approved_by=None, approved_at=None)
    approve(staging, close_id, "B. Controller")
    assert posted_before() == 2


def test_what_a_close_itself_has_sent_opens_it_no_more(month: Erp) -> None:
    staging, close_id = open_staging(month), check(month).close.close_id
    first = approve(staging, close_id, "A. Controller")
    send(month, close_id)
    Posting(staging).mark([InvoiceKey(*SALES[:3], "INV-1")], "Sage T-1")
    created = rows(month, "close", "created_at")
    assert check(month).close == first
    assert rows(month, "close", "created_at") == created


def test_what_is_on_its_way_cannot_be_rejected(month: Erp) -> None:
    staging, close_id = open_staging(month), check(month).close.close_id
    approve(staging, close_id, "A. Controller")
    send(month, close_id, "failed")
    reject(staging, close_id, "A. Controller")
    approve(staging, close_id, "A. Controller")
    month.execute("UPDATE cloudbilling_upload SET status = 'submitted'")
    with pytest.raises(ConfigurationError, match="upload u1"):
        reject(staging, close_id, "A. Controller")
    assert read(staging, close_id).status == "approved"


def test_a_close_that_is_not_what_is_staged_is_neither_shown_nor_approved(month: Erp) -> None:
    staging, close_id = open_staging(month), check(month).close.close_id
    stage(month, [*bills([3, 1]), *bill(2, ["1"])])
    for use in (lambda: approve(staging, close_id, "A. Controller"), lambda: summary_of(staging, close_id)):
        with pytest.raises(ConfigurationError, match="INV-2 was changed; INV-ö-4 is no longer staged"):
            use()
    assert read(staging, close_id).status == "open"


def test_a_decision_needs_a_close_and_a_person(month: Erp) -> None:
    staging, close_id = open_staging(month), check(month).close.close_id
    for decide in (approve, reject):
        with pytest.raises(ConfigurationError, match="say who decides"):
            decide(staging, close_id, " ")
        with pytest.raises(ConfigurationError, match="no close 'C-9'"):
            decide(staging, "C-9", "A. Controller")


def test_a_month_without_anything_is_a_close_too(erp: Erp) -> None:
    open_staging(erp)
    close = check(erp).close
    assert rows(erp, "close", "totals") == [("{}",)]
    assert rows(erp, "close_invoice") == []
    assert approve(open_staging(erp), close.close_id, "A. Controller").status == "approved"


# In words

in_a_file = pytest.mark.parametrize("erp", ["sqlite"], indirect=True)


@in_a_file
def test_the_question_shows_exactly_what_is_in_the_close(month: Erp) -> None:
    Posting(open_staging(month)).mark([InvoiceKey(*SALES[:3], "INV-1")], "FI-1")
    summary = check(month)
    shown = question(summary_of(open_staging(month), summary.close.close_id))
    assert shown == question(summary)
    assert "**2026-10**: no findings" in shown
    assert "| twotcloud | purchase | EUR | 4 | 8 | 400.00 | 84.00 | 484.00 | 0 |" in shown
    assert "| twotcloud | sales | EUR | 1 | 2 | 100.00 | 21.00 | 121.00 | 1 |" in shown
    assert summary.close.close_id in shown
    assert summary.close.sha256 in shown


@in_a_file
def test_a_question_stays_within_its_length_and_says_what_is_left_out(erp: Erp) -> None:
    off = {"gross_amount": "122", "payable_amount": "122"}
    stage(erp, bills((f"{n:0100}" for n in range(300)), **off))
    for currency in ("USD", "JPY"):
        stage(erp, bills([currency], currency=currency, customer="*_|<b>"), OCTOBER._replace(account=currency))
    shown = question(check(erp))
    assert len(shown) <= 4000
    assert "300 errors" in shown
    assert "error `BR-CO-15`: 300" in shown
    short = question(check(erp), 700)
    assert len(short) <= 700
    assert "lines more" in short


@in_a_file
def test_the_screen_names_totals_findings_and_what_to_do(erp: Erp) -> None:
    stage(erp, bills([1]), SEPTEMBER)
    stage(erp, [*bill(1), *bill(2, ["1234567"], "JPY", "10", gross_amount="1", payable_amount="1")])
    text = screen(check(erp))
    lines = text.splitlines()
    assert len(lines) < 40
    assert lines[1].split() == ["vendor", "kind", "currency", "invoices", "lines", "net", "tax", "gross", "posted"]
    assert [line.split() for line in lines[2:4]] == [
        ["twotcloud", "purchase", "EUR", "1", "2", "100.00", "21.00", "121.00", "0"],
        ["twotcloud", "purchase", "JPY", "1", "1", "1234567", "123457", "1", "0"],
    ]
    assert "error    BR-CO-15: 1" in lines
    assert "INV-2: expected 1358024 JPY, is 1 JPY" in text
    assert "AcceptFindingOperator" in lines[-1]


@in_a_file
def test_reports_tell_every_finding_and_break_nothing(erp: Erp) -> None:
    from airflow_cloudbilling.reconcile.findings import OpenFindings

    stage(erp, bills(["<b>|*1*", *range(30)], gross_amount="122", payable_amount="122"))
    summary, staging = check(erp), open_staging(erp)
    told = {}
    with staging.engine.connect() as connection:
        for suffix in ("md", "html"):
            listed = OpenFindings(connection, staging.tables, OCTOBER.period).listed()
            told[suffix] = "".join(report(summary, listed, f"s3://a@b/close.{suffix}"))
        with pytest.raises(ConfigurationError, match=r"neither in \.md nor in \.html"):
            report(summary, (), "close.pdf")
    for text in told.values():
        assert text.count("BR-CO-15") == 31
        assert summary.close.sha256 in text
        assert "121.00 EUR" in text
        assert "<b>" not in text.replace("\\<b\\>", "")
    assert "&lt;b&gt;|*1*" in told["html"]
    assert told["html"].endswith("</html>\n")
