"""The files of the sandbox's Orange around their contents: PDF with attachment, ZIP, workbook, usage report."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator
from decimal import Decimal

from airflow_cloudbilling.sandbox.bills import Bill, Charge

HEADER = (  # of a consumption report, in the order that real callers rely on (vendor facts 2b)
    "BillingMode;BeginDate;EndDate;ServiceID;TenantLabel;Country;Region;ServiceCloud;CodeLabel;ChargeLabel;IdResource;"
    "Project;Tags;Quantity;BillingUnit;UnitPrice;Amount;VolumeDiscount;DiscountedAmount;Currency;SubsChargeType;"
    "SubsBeginDate;SubsEndDate;SubsUpfront;SubsUpfrontDiscounted;SubsFlavor;SubsDuration"
)
_PAGE = b"BT /F1 12 Tf 72 760 Td (The invoice is attached as factur-x.xml.) Tj ET"
_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:pdfaid="http://www.aiim.org/pdfa/ns/id/" pdfaid:part="3"'
    b' pdfaid:conformance="B"/></rdf:RDF></x:xmpmeta>'
)


def pdf(attachment: bytes | None, padding: int = 0) -> bytes:
    """Return a PDF of one page, the way Factur-X carries its XML.

    :param attachment: the content of ``factur-x.xml``; None for a PDF without.
    :param padding: bytes of a stream that nothing shows.
    """
    names = b"/Names << /EmbeddedFiles << /Names [(factur-x.xml) 6 0 R] >> >> /AF [6 0 R]" if attachment else b""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /Metadata 8 0 R " + names + b" >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        _stream(b"", _PAGE),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Filespec /F (factur-x.xml) /UF (factur-x.xml) /AFRelationship /Alternative"
        b" /EF << /F 7 0 R /UF 7 0 R >> >>",
        _stream(b"/Type /EmbeddedFile /Subtype /text#2Fxml /Filter /FlateDecode", zlib.compress(attachment or b"")),
        _stream(b"/Type /Metadata /Subtype /XML", _XMP),
        _stream(b"", b"\0" * padding),
    ]
    body, places = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(body))
    return body + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + trailer


def _stream(entries: bytes, data: bytes) -> bytes:
    return b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(data), entries, data)


def zipped(**contents: bytes) -> bytes:
    """Return a ZIP of files; ``__`` in a name stands for its point."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name.replace("__", ".")), data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def workbook(*cells: str) -> bytes:
    """Return an XLSX with a sheet "Billing Report" of one row, the way ``bills`` came to real callers."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    row = "".join(f'<c t="inlineStr"><is><t>{cell}</t></is></c>' for cell in cells)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels"'
        ' ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override'
        f' PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/><Override'
        f' PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1"'
        f' Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets><sheet name="Billing Report"'
        ' sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1"'
        f' Type="{relations}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData><row>{row}</row></sheetData></worksheet>',
    }
    return zipped(**{name: f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode() for name, text in parts.items()})


def report(bill: Bill, contract: str) -> Iterator[str]:
    """Yield a consumption report row by row: ``;`` between fields, decimal comma, quotes where they are needed."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=";", lineterminator="\r\n")
    yield f"{HEADER}\r\n"
    for share in bill.shares:
        for subscription in share.subscriptions:
            for charge in subscription.charges:
                writer.writerow(_row(charge, bill, contract, share.customer.name, subscription.number))
                yield file.getvalue()
                file.seek(0)
                file.truncate()


def _row(charge: Charge, bill: Bill, contract: str, tenant: str, number: int) -> list[str]:
    product = charge.product
    full = charge.net + charge.discount
    listed = [
        "PAYG", str(charge.start), str(charge.end), contract, tenant, "FR", "eu-west-0", product.category, product.sku,
        product.name, f"res-{number}", "default", f"env=prod,line={charge.line}", _comma(charge.quantity), product.unit,
        _comma(charge.unit_price), _comma(full), "5" if charge.discount else "0",
    ]  # fmt: skip
    discounted = "" if not charge.discount and charge.line % 2 else _comma(charge.net)  # then Amount counts alone
    return [*listed, discounted, bill.currency.code, *[""] * 7]


def _comma(value: Decimal) -> str:
    return f"{value:f}".replace(".", ",")
