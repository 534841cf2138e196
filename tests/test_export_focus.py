"""FOCUS as files: exact, whole or not at all, the same bytes again, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
import tracemalloc
from collections import defaultdict
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from importing import stage
from pyarrow import parquet
from staged import NAMED, OCTOBER, Erp, invoice, load, open_staging
from test_focus import specimens

from airflow_cloudbilling.errors import ArchiveError, StagingError
from airflow_cloudbilling.exact import canonical, exact_sum
from airflow_cloudbilling.model import Invoice, InvoiceLine, Period
from airflow_cloudbilling.operators.export import ExportFocusOperator
from airflow_cloudbilling.staging.focus_rows import FocusColumn, FocusRows
from airflow_cloudbilling.staging.reading import snapshot
from airflow_cloudbilling.tabular import write_csv, write_parquet

pytestmark = pytest.mark.each_database


def export(folder: Path, **arguments: Any) -> dict[str, Any]:
    arguments = {"staging_conn_id": "erp_staging", "destination": str(folder), "period": "2026-10", **arguments}
    result: dict[str, Any] = ExportFocusOperator(task_id="export", **arguments).execute({})
    return result


def csv_rows(result: dict[str, Any], dataset: str = "InvoiceDetail") -> list[dict[str, str]]:
    body = Path(result["datasets"][dataset]["uri"].removeprefix("file://")).read_bytes()
    kept = result["datasets"][dataset]
    assert (kept["bytes"], kept["sha256"]) == (len(body), sha256(body).hexdigest())
    found = list(csv.DictReader(io.StringIO(body.decode())))
    assert len(found) == kept["rows"]
    return found


def by_currency(rows: list[dict[str, str]]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        sums[row["BillingCurrency"]] = exact_sum(sums[row["BillingCurrency"]], Decimal(row["BilledCost"]))
    return dict(sums)


def staged_sums(erp: Erp, where: str) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    names = "payable_amount, gross_amount, net_amount, paid_amount, rounding_amount"
    for currency, payable, gross, net, paid, rounding in erp.query(
        f"SELECT currency, {names} FROM cloudbilling_invoice WHERE {where}"
    ):
        due = exact_sum(Decimal(gross or net or 0), -Decimal(paid or 0), Decimal(rounding or 0))
        sums[currency] = exact_sum(sums[currency], due if payable is None else Decimal(payable))
    return dict(sums)


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_sums_are_the_staged_ones_to_the_last_digit(erp: Erp, tmp_path: Path, format_: str) -> None:
    load(open_staging(erp), specimens())
    result = export(tmp_path, format=format_)
    expected = staged_sums(erp, "kind = 'purchase'")
    assert {c: Decimal(total) for c, total in result["totals"].items()} == expected
    if format_ == "csv":
        assert by_currency(csv_rows(result)) == expected
        return
    table = parquet.read_table(result["datasets"]["InvoiceDetail"]["uri"].removeprefix("file://"))
    types = {name: str(table.schema.field(name).type) for name in ("BilledCost", "BillingPeriodStart", "x_LineNumber")}
    assert types == {
        "BilledCost": "decimal128(38, 12)",
        "BillingPeriodStart": "timestamp[us, tz=UTC]",
        "x_LineNumber": "int64",
    }
    rows = [{"BillingCurrency": r["BillingCurrency"], "BilledCost": str(r["BilledCost"])} for r in table.to_pylist()]
    assert by_currency(rows) == expected
    assert table.num_rows == result["datasets"]["InvoiceDetail"]["rows"]


def test_the_whole_of_a_vendor_adds_up(vendor: Any, erp: Erp, tmp_path: Path) -> None:
    month = vendor.months[-1]
    totals = {}
    for kind in ("purchase", "sales"):
        stage(month, kind=kind)
        result = export(tmp_path, period=month, kind=kind)
        totals[kind] = {c: truth.gross for c, truth in vendor.truth("twotcloud", kind, month).items()}
        assert by_currency(csv_rows(result)) == totals[kind]
        assert {c: Decimal(t) for c, t in result["totals"].items()} == totals[kind]
    both = by_currency(csv_rows(export(tmp_path, period=month, kind="")))
    assert both == {c: totals["purchase"].get(c, 0) + totals["sales"].get(c, 0) for c in both}


@pytest.mark.parametrize(
    ("provider", "kinds"),
    [("orange_cloudstore", ["purchase"]), ("cloudonex", ["purchase", "sales"]), ("store365", ["purchase"])],
)
def test_so_does_the_whole_of_every_other(
    cloudbilling_sandbox: Any,
    erp: Erp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    kinds: list[str],
) -> None:
    for name, value in cloudbilling_sandbox.environment().items():
        monkeypatch.setenv(name, value)
    month = cloudbilling_sandbox.months[-1]
    for kind in kinds:
        stage(month, conn_id=f"{provider}_default", kind=kind)
        result = export(tmp_path, period=month, kind=kind)
        truth = {c: one.gross for c, one in cloudbilling_sandbox.truth(provider, kind, month).items()}
        assert by_currency(csv_rows(result)) == truth == staged_sums(erp, f"kind = '{kind}'")


def test_an_invoice_without_a_currency_is_told(erp: Erp, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(open_staging(erp), [*invoice(1, currency=None), *invoice(2)])
    result = export(tmp_path)
    assert (result["without_currency"], result["totals"]) == (1, {"": "12.1", "EUR": "12.1"})
    assert "1 invoices name no currency" in capsys.readouterr().out


def test_an_invoice_whose_lines_have_no_amount_counts_as_a_whole(erp: Erp, tmp_path: Path) -> None:
    line = InvoiceLine(quantity="1", description="Seat")
    more = [Invoice("B", currency="EUR", tax_amount="0", gross_amount="7")]
    load(open_staging(erp), [line, Invoice("A", currency="EUR", net_amount="100", gross_amount="100"), *more])
    result = export(tmp_path)
    assert result["totals"] == {"EUR": "107"}
    found = [(row["x_InvoiceId"], row["BilledCost"], row["ChargeCategory"]) for row in csv_rows(result)]
    assert found == [("A", "100", "Purchase"), ("B", "7", "Purchase")]


def test_an_invoice_of_which_nobody_states_a_total_is_what_its_rows_come_to(erp: Erp, tmp_path: Path) -> None:
    bare = {"currency": "EUR", "totals_origin": "none"}
    items = [
        InvoiceLine(net_amount="5"),
        Invoice("A", **bare),
        Invoice("B", tax_amount="2", **bare),
        Invoice("C", **bare),
    ]
    load(open_staging(erp), [*items, *invoice(1)])
    result = export(tmp_path)
    assert result["totals"] == {"EUR": "19.1"}
    assert by_currency(csv_rows(result)) == {"EUR": Decimal("19.1")}


def test_lines_that_do_not_add_up_get_a_row_for_the_rest(erp: Erp, tmp_path: Path) -> None:
    load(open_staging(erp), specimens())
    rows = csv_rows(export(tmp_path))
    rest, paid = [row for row in rows if row["InvoiceDetailId"].endswith("/difference")]
    assert (rest["x_InvoiceId"], rest["BilledCost"], rest["ChargeCategory"]) == ("INV-4", "0.02", "Adjustment")
    assert (paid["x_InvoiceId"], paid["BilledCost"], paid["x_PayableAmount"]) == ("INV-9", "-3", "0")
    assert rest["x_Quantity"] == rest["x_LineNumber"] == ""
    assert rest["x_InvoiceStatus"] == "Void"
    ids = [(row["InvoiceIssuerName"], row["InvoiceId"], row["InvoiceDetailId"]) for row in rows]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_the_same_rows_are_the_same_bytes_in_whatever_order_they_were_loaded(
    erp: Erp, tmp_path: Path, format_: str
) -> None:
    staging = open_staging(erp)
    load(staging, specimens())
    first = export(tmp_path / "a", format=format_)["datasets"]["InvoiceDetail"]
    with staging.engine.begin() as connection:  # the same rows, moved about in the tables
        connection.exec_driver_sql("UPDATE cloudbilling_invoice_line SET raw = 'x' WHERE line_number = 1")
        connection.exec_driver_sql("UPDATE cloudbilling_invoice SET raw = 'x' WHERE invoice_id < 'INV-4'")
    again = export(tmp_path / "b", format=format_)["datasets"]["InvoiceDetail"]
    assert again["sha256"] == first["sha256"]


def test_files_of_all_databases_are_alike(tmp_path: Path) -> None:
    found = set()
    for kind in ("sqlite", *NAMED):
        erp = Erp(kind, tmp_path)
        try:
            staging = open_staging(erp)
            load(staging, specimens())
            with snapshot(staging.engine) as connection:
                rows = FocusRows(connection, staging.tables, Period.parse("2026-10"), "purchase")
                moments = ("InvoiceDetailCreated", "InvoiceDetailLastUpdated")
                body = io.BytesIO()
                columns = [c for c in rows.columns["InvoiceDetail"] if c.name not in moments]
                write_csv(body, columns, rows.rows("InvoiceDetail"))
                found.add(body.getvalue())
        finally:
            erp.drop()
    assert len(found) == 1


def test_no_text_is_a_formula(tmp_path: Path, staging: Path) -> None:

    erp = Erp("sqlite", tmp_path)
    erp.connection["host"] = str(staging)
    evil = ["=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\t=1", "＝1", 'harmless, "quoted"\nline']
    lines = [InvoiceLine(description=text, net_amount="-1") for text in evil]
    total = {"net_amount": "-7", "gross_amount": "-7", "currency": "EUR"}
    load(open_staging(erp), [*lines, Invoice("=INV", seller_name="=S", **total)])
    rows = csv_rows(export(tmp_path / "out"))
    assert [row["InvoiceDetailDescription"] for row in rows] == [*(f"'{text}" for text in evil[:-1]), evil[-1]]
    assert {row["BilledCost"] for row in rows} == {"-1"}  # an amount is none
    assert {row["InvoiceIssuerName"] for row in rows} == {"'=S"}


def test_a_failure_leaves_the_file_as_it_was(erp: Erp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(open_staging(erp), specimens())
    uri = Path(export(tmp_path)["datasets"]["InvoiceDetail"]["uri"].removeprefix("file://"))
    before = uri.read_bytes()
    monkeypatch.setattr(FocusRows, "staged", lambda self: {"EUR": Decimal(1)})
    with pytest.raises(StagingError, match="nothing was written"):
        export(tmp_path)
    assert uri.read_bytes() == before
    assert [path.name for path in uri.parent.iterdir()] == [uri.name]


def test_a_place_that_cannot_be_written_is_named(erp: Erp, tmp_path: Path) -> None:
    open_staging(erp)
    (tmp_path / "InvoiceDetail").write_text("no folder")
    with pytest.raises(ArchiveError, match="destination"):
        export(tmp_path)


def test_an_empty_period_is_a_file_with_a_header(erp: Erp, tmp_path: Path) -> None:
    result = export(tmp_path, period="2026-10-01/2026-10-15")
    assert csv_rows(result) == csv_rows(result, "BillingPeriod") == []
    assert result["datasets"]["InvoiceDetail"]["uri"].endswith("/InvoiceDetail/purchase-2026-10-01_2026-10-15.csv")


def test_periods_are_told_with_their_issuers(erp: Erp, tmp_path: Path) -> None:
    load(open_staging(erp), specimens())
    rows = csv_rows(export(tmp_path), "BillingPeriod")
    assert [(row["InvoiceIssuerName"], row["BillingPeriodStatus"]) for row in rows] == [
        ("Seller B.V.", "Open"),
        ("twotcloud", "Open"),
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"format": "xlsx"}, "neither 'csv' nor"),
        ({"kind": "usage"}, "neither purchase nor sales"),
        ({"destination": ""}, "destination.*is empty; name a folder"),  # which would be where the worker stands
        ({"destination": "None"}, "destination.*is empty; name a folder"),
    ],
)
def test_a_wrong_argument_is_named(staging: Path, tmp_path: Path, wrong: dict[str, str], said: str) -> None:
    with pytest.raises(AirflowFailException, match=said):
        export(tmp_path, **wrong)


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_memory_does_not_grow_with_the_rows(write: Any, tmp_path: Path) -> None:
    columns = [FocusColumn("cost", "amount"), FocusColumn("text", "text")]

    def peak(count: int) -> int:
        with (tmp_path / "file").open("wb") as file:
            tracemalloc.start()
            write(file, columns, ({"cost": Decimal(n), "text": f"line {n}"} for n in range(count)))
            size = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return size

    peak(100)  # imports
    assert peak(60_000) < 1.5 * peak(20_000)


def test_an_amount_of_38_digits_survives_parquet(tmp_path: Path) -> None:
    amount = Decimal("12345678901234567890123456.123456789012")
    with (tmp_path / "f.parquet").open("wb") as file:
        rows = [{"cost": cost} for cost in (amount, amount.copy_negate(), None)]
        write_parquet(file, [FocusColumn("cost", "amount")], rows)
    found = parquet.read_table(tmp_path / "f.parquet").column("cost").to_pylist()
    assert [value and canonical(value) for value in found] == [str(amount), f"-{amount}", None]


def test_october_is_what_is_exported(erp: Erp, tmp_path: Path) -> None:
    staging = open_staging(erp)
    load(staging, specimens())
    load(staging, [InvoiceLine(net_amount="1"), Invoice("LATE", net_amount="1", gross_amount="1", currency="EUR")],
         OCTOBER._replace(period=Period.parse("2026-11")))  # fmt: skip
    assert "LATE" not in {row["x_InvoiceId"] for row in csv_rows(export(tmp_path))}
    assert {row["x_InvoiceId"] for row in csv_rows(export(tmp_path, period="2026-11"))} == {"LATE"}
