"""E-invoices by EN 16931: published ones, ones made by another library, and hostile ones."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import facturx
import pytest
from conversations import DATA, Dribble
from pypdf import PdfReader, PdfWriter
from pypdf.generic import EncodedStreamObject, NameObject

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.model import Invoice, InvoiceLine
from airflow_cloudbilling.parse import Malformed
from airflow_cloudbilling.parse.einvoice import read_einvoice, worth_trying

SAMPLES = sorted((DATA / "einvoice").glob("*.xml"))
UBL, CII = "ubl-2.1", "factur-x"
AMOUNTS = {"allowance_total": 107, "charge_total": 108, "net_amount": 109, "tax_amount": 110, "gross_amount": 112,
           "paid_amount": 113, "rounding_amount": 114, "payable_amount": 115}  # fmt: skip
LINE_AMOUNTS = {"quantity": 129, "net_amount": 131, "unit_price": 146, "tax_rate": 152}


def items(
    body: bytes, keep_raw: bool = False, file: type[io.BytesIO] = io.BytesIO
) -> list[InvoiceLine | Invoice] | None:
    found = read_einvoice(file(body), invoice_id="D-1", keep_raw=keep_raw, sha256="5a")
    return None if found is None else [one for item in found for one in (item if isinstance(item, list) else [item])]


def parts(body: bytes, keep_raw: bool = False) -> tuple[list[InvoiceLine], Invoice]:
    *lines, invoice = items(body, keep_raw) or []
    assert isinstance(invoice, Invoice)
    return [line for line in lines if isinstance(line, InvoiceLine)], invoice


def only(body: bytes) -> InvoiceLine:
    return parts(body)[0][0]


def sample(name: str) -> bytes:
    return (DATA / "einvoice" / name).read_bytes()


def number(text: Any) -> Decimal | None:
    return None if text is None else Decimal(text)


def agree(body: bytes, terms: dict[str, Any]) -> None:
    """Compare what is read with the same in another library's words: by the numbers of the business terms."""
    lines, invoice = parts(body)
    for name, term in AMOUNTS.items():
        if name != "tax_amount" or f"BT-{term}" in terms:
            assert number(getattr(invoice, name)) == number(terms.get(f"BT-{term}")), name
    seller, buyer = terms["BG-4"], terms["BG-7"]
    assert (invoice.invoice_number, invoice.issue_date, invoice.currency) == (
        terms["BT-1"], str(terms["BT-2"]), terms["BT-5"])  # fmt: skip
    assert [invoice.due_date, invoice.period_start, invoice.period_end] == [
        str(terms[term]) if term in terms else None for term in ("BT-9", "BT-73", "BT-74")
    ]
    assert invoice.preceding_invoice == terms.get("BG-3", [{}])[0].get("BT-25")
    assert (invoice.seller_name, invoice.seller_vat_id, invoice.seller_country) == (
        seller["name"], seller.get("vat_identifier"), seller.get("country_code"))  # fmt: skip
    assert (invoice.buyer_name, invoice.buyer_vat_id, invoice.buyer_country) == (
        buyer["name"], buyer.get("vat_identifier"), buyer.get("country_code"))  # fmt: skip
    assert [(tax.category, number(tax.rate), number(tax.taxable_amount), number(tax.tax_amount))
            for tax in invoice.taxes] == [
        (row["BT-118"], number(row.get("BT-119")), Decimal(row["BT-116"]), Decimal(row["BT-117"]))
        for row in terms.get("BG-23", [])]  # fmt: skip
    assert len(lines) == len(terms.get("BG-25", []))
    for line, row in zip(lines, terms.get("BG-25", []), strict=True):
        agree_on_line(line, row)


def agree_on_line(line: InvoiceLine, row: dict[str, Any]) -> None:
    for name, term in LINE_AMOUNTS.items():
        base = Decimal(row.get("BT-149", 1)) if name == "unit_price" else 1
        stated = number(row.get(f"BT-{term}"))
        assert number(getattr(line, name)) == (stated if stated is None else stated / base), name
    assert (line.line_id, line.description, line.unit) == (row["BT-126"], row["BT-153"], row["BT-130"])
    assert line.item_code == row.get("BT-155", row.get("BT-157"))
    assert [line.period_start, line.period_end] == [str(row[t]) if t in row else None for t in ("BT-134", "BT-135")]
    off = [Decimal(each["amount"]) for each in row.get("BG-27", [])]
    on = [Decimal(each["amount"]) for each in row.get("BG-28", [])]
    assert number(line.discount) == (sum(off) - sum(on) if off or on else None)


def invoice_terms(**changes: Any) -> dict[str, Any]:
    """Return an invoice in business terms, as factur-x writes it."""
    line = {"BT-126": "1", "BT-153": "Machine virtuelle «Ω»", "BT-155": "VM-1", "BT-146": "0.0375", "BT-129": "720",
            "BT-130": "HUR", "BT-151": "S", "BT-152": "20.00", "BT-131": "22.00", "BT-134": date(2026, 10, 1),
            "BT-135": date(2026, 10, 31), "BG-27": [{"amount": "6.25", "reason": "remise"}],
            "BG-28": [{"amount": "1.25", "reason": "frais"}]}  # fmt: skip
    other = {"BT-126": "2", "BT-153": "Avoir", "BT-146": "3.10", "BT-129": "-1", "BT-130": "C62", "BT-151": "S",
             "BT-152": "5.50", "BT-131": "-3.10"}  # fmt: skip
    party = {"country_code": "FR", "city": "Lyon", "postcode": "69001", "addr_l1": "1 rue A"}
    return {
        "BT-1": "F-2026-10/7", "BT-2": date(2026, 11, 3), "BT-3": "380", "BT-5": "EUR", "BT-6": "USD",
        "BT-9": date(2026, 12, 3), "BT-23": "S1", "BT-72": date(2026, 10, 31),
        "BT-73": date(2026, 10, 1), "BT-74": date(2026, 10, 31),
        "BG-3": [{"BT-25": "F-2026-09/1"}, {"BT-25": "F-2026-09/2"}],
        "BG-4": {"name": "Nuage SA", "vat_identifier": "FR11999999998", "legal_identifier": "999999998",
                 "legal_identifier_schemeid": "0002", "tax_identifier": "LOC1", **party},
        "BG-7": {"name": "Client SARL", "vat_identifier": "FR19787878784", "identifiers": {"0009": "78787878400018"},
                 "legal_identifier": "787878784", "legal_identifier_schemeid": "0002", **party},
        "BT-81": "30", "BT-84": "FR2012421242124212421242124",
        "BG-23": [{"BT-116": "22.00", "BT-117": "4.40", "BT-118": "S", "BT-119": "20.00"},
                  {"BT-116": "-3.10", "BT-117": "-0.17", "BT-118": "S", "BT-119": "5.50"}],
        "BT-106": "18.90", "BT-109": "18.90", "BT-110": "4.23", "BT-111": "3.90", "BT-112": "23.13",
        "BT-113": "3.00", "BT-114": "-0.03", "BT-115": "20.10", "BG-25": [line, other], **changes,
    }  # fmt: skip


def made(flavor: str, **changes: Any) -> bytes:
    """Return an invoice as factur-x writes it, checked by the schemas that it brings."""
    xml = facturx.generate_xml(invoice_terms(**changes), flavor=flavor, level="en16931", check_schematron=False)
    assert isinstance(xml, bytes)
    return xml


def pdf(xml: bytes | None) -> bytes:
    """Return one blank page, with an invoice inside as factur-x puts it there."""
    blank, writer = io.BytesIO(), PdfWriter()
    writer.add_blank_page(200, 200)
    writer.write(blank)
    return blank.getvalue() if xml is None else bytes(facturx.generate_from_binary(blank.getvalue(), xml))


def attached(files: dict[str, bytes], raw: bytes = b"") -> bytes:
    """Return a PDF with files; ``raw`` replaces the last one's, and is said to be compressed."""
    out, writer = io.BytesIO(), PdfWriter()
    writer.add_blank_page(200, 200)
    for name, data in files.items():
        file = writer.add_attachment(name, data)
    if raw:
        stream = EncodedStreamObject()
        stream._data = raw
        stream[NameObject("/Filter")] = NameObject("/FlateDecode")
        file.pdf_object["/EF"][NameObject("/F")] = writer._add_object(stream)
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.stem)
def test_a_published_invoice_reads_as_another_library_reads_it(file: Path) -> None:
    agree(file.read_bytes(), facturx.parse_ubl_cii_xml(file.read_bytes(), check_xsd=False, float_as="string"))


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.stem)
def test_a_published_invoice_adds_up(file: Path) -> None:
    lines, invoice = parts(file.read_bytes())
    total = sum(Decimal(line.net_amount or 0) for line in lines)
    between = Decimal(invoice.charge_total or 0) - Decimal(invoice.allowance_total or 0)
    assert not lines or total + between == Decimal(invoice.net_amount or "NaN")
    assert sum(Decimal(tax.tax_amount or 0) for tax in invoice.taxes) in (Decimal(invoice.tax_amount or 0), 0)
    assert Decimal(invoice.net_amount or 0) + Decimal(invoice.tax_amount or 0) == Decimal(invoice.gross_amount or 0)
    assert invoice.totals_origin == "stated"


@pytest.mark.parametrize("flavor", [UBL, CII])
def test_an_invoice_that_another_library_wrote_reads_to_the_last_digit(flavor: str) -> None:
    agree(made(flavor), invoice_terms())
    invoice = parts(made(flavor))[1]
    assert (invoice.invoice_id, invoice.source_sha256, invoice.buyer_id) == ("D-1", "5a", "78787878400018")
    assert (invoice.document_type, invoice.sign, invoice.totals_origin) == ("invoice", 1, "stated")
    assert invoice.tax_amount == "4.23"  # BT-110, not BT-111's dollars


@pytest.mark.parametrize("flavor", [UBL, CII])
@pytest.mark.parametrize("code", ["381", "396", "261", "503"])
def test_a_credit_note_states_positive_amounts_that_are_turned(flavor: str, code: str) -> None:
    invoice = parts(made(flavor, **{"BT-3": code}))[1]
    assert (invoice.document_type, invoice.sign, invoice.gross_amount) == ("credit_note", -1, "23.13")


def test_a_credit_note_of_negative_amounts_stays_as_it_is() -> None:
    body = made(CII, **{"BT-3": "381"}).replace(b">18.90<", b">-18.90<").replace(b">23.13<", b">-23.13<")
    assert (parts(body)[1].sign, parts(body)[1].net_amount) == (1, "-18.9")
    assert parts(sample("peppol-creditnote.xml"))[1].due_date == "2026-11-01"  # PaymentMeans, as UBL has it


@pytest.mark.parametrize("flavor", [UBL, CII])
@pytest.mark.parametrize(
    ("price", "base", "expected"),
    [
        ("12.00", "8", "1.5"),
        ("386.52", "366", None),  # 1.0560655…: no decimal says it
        ("10", "3", None),
        ("0.0001", "1000000", "0.0000000001"),
        ("1", "1000000000000000", None),  # more decimals than are kept
        ("99999999999999999999999999", "0.5", None),  # more digits
        ("7", "1.000", "7"),
    ],
)
def test_the_price_is_of_one_unit_or_not_said(flavor: str, price: str, base: str, expected: str | None) -> None:
    body = made(flavor, **{"BG-25": [{**invoice_terms()["BG-25"][0], "BT-149": "5"}]}).replace(
        b"0.0375", price.encode()
    )
    body, times = re.subn(rb">5(</cbc:BaseQuantity>|</ram:BasisQuantity>)", rb">" + base.encode() + rb"\1", body)
    assert (times, only(body).unit_price) == (1, expected)


def test_a_price_of_another_unit_is_not_the_price_of_one() -> None:
    body = made(UBL, **{"BG-25": [{**invoice_terms()["BG-25"][0], "BT-149": "1"}]})
    assert only(body).unit_price == "0.0375"
    body = body.replace(b'BaseQuantity unitCode="HUR"', b'BaseQuantity unitCode="MON"')
    assert (only(body).unit_price, only(body).net_amount) == (None, "22")


def test_quantity_times_price_less_discount_is_the_net_amount() -> None:
    line = only(made(UBL))
    quantity, price, off = (Decimal(text or 0) for text in (line.quantity, line.unit_price, line.discount))
    assert quantity * price - off == Decimal(line.net_amount or 0)


@pytest.mark.parametrize(("flavor", "place"), [
    (CII, b"</ram:LineID>|<ram:LineStatusReasonCode>%s</ram:LineStatusReasonCode>"),
    (UBL, b"</cbc:LineExtensionAmount>|<cac:BillingReference><cac:InvoiceDocumentReference><cbc:DocumentStatusCode>%s"
          b"</cbc:DocumentStatusCode></cac:InvoiceDocumentReference></cac:BillingReference>"),
])  # fmt: skip
def test_a_subtotal_among_the_lines_counts_for_nothing(flavor: str, place: bytes) -> None:
    after, what = place.split(b"|")
    lines = made(flavor).partition(b"SupplyChainTradeTransaction>" if flavor == CII else b"LegalMonetaryTotal>")
    for status, net in ((b"GROUP", None), (b"INFORMATION", None), (b"DETAIL", "22")):
        body = b"".join([*lines[:2], lines[2].replace(after, after + what % status, 1 if flavor == CII else 2)])
        line = only(body)
        assert (line.net_amount, line.charge_type) == (net, None if net else status.decode())


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-be", "iso-8859-1"])
def test_any_encoding_in_use(coding: str) -> None:
    text = made(CII, **{"BT-1": "é-1"}).decode().replace("Ω", "")
    text = text.replace("UTF-8", coding.removesuffix("-be").removesuffix("-sig"), 1)
    assert parts(text.encode(coding))[1].invoice_number == "é-1"


def test_what_is_kept_as_received() -> None:
    files = [{"BT-122": "J1", "BT-125": b"x" * 90_000, "BT-125-1": "text/csv", "BT-125-2": "a.csv"}]
    for flavor in (UBL, CII):
        lines, invoice = parts(made(flavor, **{"BG-24": files}), keep_raw=True)
        assert "VM-1" in str(lines[0].raw)
        assert "xmlns:qdt" not in str(lines[0].raw)
        assert "VM-1" not in str(invoice.raw)
        assert "F-2026-10/7" in str(invoice.raw)
        assert "a.csv" in str(invoice.raw)
        assert len(str(invoice.raw)) < 20_000  # without the file that is embedded
        assert parts(made(flavor))[1].raw is None


def test_unknown_parts_change_nothing() -> None:
    strange = b'<x:Odd xmlns:x="urn:x"><x:LineTotalAmount>1</x:LineTotalAmount></x:Odd>'
    body = made(CII).replace(
        b"<ram:IncludedSupplyChainTradeLineItem>", strange.join([b"", b"<ram:IncludedSupplyChainTradeLineItem>"])
    )
    agree(body, invoice_terms())
    body = made(UBL).replace(
        b"<cbc:ID>", b"<ext:UBLExtensions xmlns:ext='urn:e'>" + strange + b"</ext:UBLExtensions><cbc:ID>", 1
    )
    agree(body, invoice_terms())


def test_the_invoice_in_a_pdf_reads_as_the_same_xml() -> None:
    assert items(pdf(made(CII))) == items(made(CII))
    assert items(b"\n" * 900 + pdf(made(CII))) == items(made(CII))


@pytest.mark.parametrize("name", ["factur-x.xml", "ZUGFeRD-invoice.xml", "xrechnung.xml", "facture.XML", "invoice.dat"])
def test_an_attachment_of_any_name_counts(name: str) -> None:
    assert items(attached({"a.csv": b"a;b", "terms.xml": b"<terms/>", name: made(UBL)})) == items(made(UBL))


def test_the_best_known_name_counts_first() -> None:
    files = {"copy.xml": made(UBL, **{"BT-1": "other"}), "factur-x.xml": made(CII)}
    assert parts(attached(files))[1].invoice_number == "F-2026-10/7"


def test_damage_to_other_attachments_does_not_matter() -> None:
    assert items(attached({"factur-x.xml": made(CII), "photo.jpg": b""}, b"no zlib")) == items(made(CII))
    assert items(attached({"photo.jpg": b""}, b"no zlib")) is None


@pytest.mark.parametrize("body", [
    b"", b"a;b\n1;2\n", b'{"Invoice": 1}', b"PK\x03\x04", b"<html><body>urn:x</body></html>", b"<!DOCTYPE html><html/>",
    b"\xff\xfe" + "<Invoice/>".encode("utf-16-le"), b"<Invoice><ID>1</ID></Invoice>", b"%PD-", b"\xfe\xff\xd8\x00\xd8",
    b'<Order xmlns="urn:oasis:names:specification:ubl:schema:xsd:Order-2"/>', pdf(None),
    attached({"order-x.xml": b'<o xmlns="urn:un:unece:uncefact:data:SCRDMCCBDACIOMessageStructure:100"/>'}),
])  # fmt: skip
def test_a_file_without_an_e_invoice_holds_none(body: bytes) -> None:
    assert items(body) is None


def test_what_is_worth_trying() -> None:
    assert worth_trying("application/pdf")
    assert worth_trying("text/xml; charset=utf-8")
    assert worth_trying(None)
    assert not worth_trying("text/csv")
    assert worth_trying("text/csv", made(CII)[:2000])  # what stands there counts more than what is said
    assert worth_trying("text/csv", b"junk %PDF-1.7")
    assert not worth_trying("application/xml", b"<report/>")


BOMB = b"""<!DOCTYPE Invoice [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>
<Invoice xmlns="urn:oasis:names:specification:ubl:schema:xsd:Invoice-2">&b;&c;</Invoice>"""


def swapped(old: bytes, new: bytes, times: int = 1) -> bytes:
    body = made(UBL)
    assert old in body
    return body.replace(old, new, times)


def in_two_transactions() -> bytes:
    transaction = b"rsm:SupplyChainTradeTransaction>"
    other = b"<" + transaction + b"<ram:IncludedSupplyChainTradeLineItem/></" + transaction
    return made(CII).replace(b"</" + transaction, b"</" + transaction + other)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


NOTE, LINE = b"<cbc:Note>x</cbc:Note>", b"<cac:InvoiceLine>"
SHORT = LINE + b"<cbc:ID>1</cbc:ID></cac:InvoiceLine>"
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "entities": (lambda: BOMB, "document type"),
    "entity": (lambda: swapped(b"Client SARL", b"&evil;"), "breaks off or is malformed"),
    "cut": (lambda: made(UBL)[:3000], "breaks off"),
    "cut-utf-16": (lambda: made(UBL).decode().encode("utf-16")[:-5], "breaks off|not utf-16"),
    "deep": (lambda: swapped(b"<cbc:ID>", b"<cbc:x>" * 3000 + b"<cbc:ID>"), "depth"),
    "no-number": (lambda: swapped(b"<cbc:ID>F-2026-10/7</cbc:ID>", b""), r"no number \(BT-1\)"),
    "no-currency": (lambda: swapped(b">EUR</cbc:Doc", b"></cbc:Doc"), r"no currency \(BT-5\)"),
    "ubl-1": (lambda: swapped(b"Invoice-2", b"Invoice-1.0"), "expected an e-invoice by EN 16931"),
    "zugferd-1": (
        lambda: b'<d:CrossIndustryDocument xmlns:d="urn:ferd:CrossIndustryDocument:invoice:1p0"/>',
        "ZUGFeRD 2",
    ),
    "envelope": (
        lambda: re.sub(rb"(<Invoice.*)", rb"<Envelope>\1</Envelope>", made(UBL), flags=re.S),
        "root 'Envelope'",
    ),
    "two-transactions": (in_two_transactions, "alone"),
    "vast-text": (lambda: swapped(b"Client SARL", b"x" * 11_000_000), "huge text|breaks off"),
    "vast-header": (lambda: swapped(LINE, NOTE * 900_000 + LINE), "bytes beside"),
    "vast-header-in-parts": (lambda: swapped(LINE, (SHORT + NOTE * 20_000) * 60 + LINE), "bytes beside"),
    "pdf-cut": (lambda: pdf(made(CII))[:2000], "PDF cannot be read"),
    "pdf-noise": (lambda: b"%PDF-1.7\n" + b"\x00\xff1 0 obj <<" * 5000, "PDF cannot be read"),
    "pdf-bomb": (
        lambda: attached({"factur-x.xml": b""}, zlib.compress(bytes(400_000_000), 1)),
        "factur-x.xml' expands to more than",
    ),
    "pdf-broken-stream": (lambda: attached({"factur-x.xml": b""}, b"no zlib"), "'factur-x.xml' is damaged"),
    "pdf-flipped-bit": (lambda: attached({"a.xml": b""}, flipped(zlib.compress(made(CII)))), "'a.xml' is damaged"),
    "pdf-stream-cut": (lambda: attached({"a.xml": b""}, zlib.compress(made(CII))[:-50]), "'a.xml' is damaged"),
    "pdf-other": (lambda: attached({"Factur-X.xml": b"<order/>"}), "'Factur-X.xml' holds no e-invoice"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_broken_files_are_refused_in_little_memory(name: str) -> None:
    make, says = HOSTILE[name]
    body = make()
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match=says):
            items(body)
        assert tracemalloc.get_traced_memory()[1] < 250_000_000
    finally:
        tracemalloc.stop()


def test_an_encrypted_pdf_is_refused() -> None:
    out, writer = io.BytesIO(), PdfWriter(PdfReader(io.BytesIO(pdf(made(CII)))))
    writer.encrypt("secret", algorithm="AES-256")
    writer.write(out)
    with pytest.raises(Malformed, match="encrypted"):
        items(out.getvalue())


@pytest.mark.parametrize("flavor", [UBL, CII])
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("22.00", "NaN", r"^line 1 \(BT-126 '1'\): BT-131 \(net_amount\): expected a decimal amount, came 'NaN'"),
        ("22.00", "Infinity", "BT-131"),
        ("22.00", "1" * 50, r"BT-131 .*at most 26 digits"),
        ("22.00", "1e999999999", "BT-131"),
        ("-3.10", "1,234", r"line 2 \(BT-126 '2'\)"),
        ("0.0375", "0.0000000000001", "BT-146"),
        ("18.90", "18.90.0", r"^BT-109 \(net_amount\)"),
        ("23.13", "twenty", "BT-112"),
        ("-0.17", "-", "BT-117"),
        ("6.25", "six", "line 1.*BT-136"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(flavor: str, old: str, new: str, says: str) -> None:
    body = re.sub(rf">{re.escape(old)}0*<".encode(), f">{new}<".encode(), made(flavor))
    with pytest.raises(RecordError) as caught:
        items(body)
    assert re.search(says, caught.value.reason)
    assert caught.value.invoice_id == "D-1"


def test_other_values_that_cannot_be_read_are_named() -> None:
    cii, ubl = made(CII), made(UBL)
    cases = [
        (cii.replace(b'format="102">20261103', b'format="616">202645'), "BT-2 .*CCYYMMDD.*'202645'.*'616'"),
        (cii.replace(b">20261103<", b">20261345<"), "BT-2 .*'20261345'"),
        (ubl.replace(b">2026-10-31<", b">2026-02-30<"), "line 1.*BT-135"),
        (cii.replace(b">380<", b"><"), "BT-3"),
        (
            ubl.replace(b'Amount currencyID="EUR">22.00</cbc:LineE', b'Amount currencyID="USD">22.00</cbc:LineE'),
            "line 1: BT-131.*EUR.*'USD'",
        ),
        (ubl.replace(b'InclusiveAmount currencyID="EUR"', b'InclusiveAmount currencyID="USD"'), "BT-112.*EUR.*'USD'"),
        (ubl.replace(b'"USD"', b'"EUR"'), "BT-110.*one amount in EUR, came 2"),
        (ubl.replace(b">false</cbc:ChargeIndicator>", b">maybe</cbc:ChargeIndicator>"), "line 1.*BG-27.*'maybe'"),
        (ubl.replace(b">EUR</cbc:Doc", b">dollars</cbc:Doc"), "BT-5.*three letters"),
        (ubl.replace(b"F-2026-10/7", b"F" * 300), "BT-1 .*255"),
    ]
    for body, says in cases:
        with pytest.raises(RecordError, match=says):
            items(body)


def test_lines_come_before_the_end_is_known() -> None:
    xml = made(UBL)
    broken = xml[: xml.rindex(b"<cac:InvoiceLine>")] + b"<cac:InvoiceLine>"
    found = read_einvoice(io.BytesIO(broken + b" " * 600_000), invoice_id="D-1", keep_raw=False, sha256=None)
    assert found is not None
    assert isinstance(next(found), list)
    with pytest.raises(Malformed):
        next(found)


def test_a_file_that_gives_a_few_bytes_at_a_time() -> None:
    assert items(made(CII), file=Dribble) == items(made(CII))


GROW = """
import io, re, resource, sys
from airflow_cloudbilling.parse.einvoice import read_einvoice
xml, tag = sys.stdin.buffer.read(), sys.argv[1].encode()
begin, end = xml.index(b"<" + tag + b">"), xml.index(b"</" + tag + b">") + len(tag) + 3
class Long(io.RawIOBase):
    def __init__(self, times):
        self.left, self.parts = times, [xml[:begin]]
    def seek(self, place, whence=0):
        self.parts, self.left = ([xml[:begin]], TIMES); return 0
    def read(self, size=-1):
        if self.parts: return self.parts.pop()
        if self.left > 0: self.left -= 100; return xml[begin:end] * 100
        self.left, last = -1, xml[end:] if self.left == 0 else b""
        return last
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
for TIMES in (200, 6_000):
    found = read_einvoice(Long(TIMES), invoice_id="D", keep_raw=True, sha256=None)
    count = sum(len(item) if isinstance(item, list) else 1 for item in found)
    print(count, peak())
assert "pypdf" not in sys.modules
"""


@pytest.mark.parametrize(("flavor", "tag"), [(UBL, "cac:InvoiceLine"), (CII, "ram:IncludedSupplyChainTradeLineItem")])
def test_memory_does_not_grow_with_the_lines(flavor: str, tag: str) -> None:
    done = subprocess.run([sys.executable, "-c", GROW, tag], input=made(flavor), capture_output=True, check=True)
    (few, before), (many, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (few, many) == (202, 6_002)
    assert after - before < 20  # MB
