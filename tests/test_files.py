"""Vendors' files: what they are, safe names, ZIPs that are bombs, and consumption reports of any length."""

from __future__ import annotations

import io
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from typing import IO, cast

import pytest
from conversations import Dribble

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.parse import Unreadable
from airflow_cloudbilling.parse.files import (
    CSV,
    HTML,
    JSON,
    OTHER,
    PDF,
    TEXT,
    XLSX,
    XML,
    ZIP,
    FileType,
    disposition_name,
    members,
    safe_name,
    sniff,
)
from airflow_cloudbilling.parse.usage import UsageReader
from airflow_cloudbilling.parse.usage_rows import COLUMNS, ColumnsError, comma_amount
from airflow_cloudbilling.sandbox.orange_files import HEADER, pdf, workbook, zipped

ROW = "PAYG;2026-10-01;2026-10-31;OCB1;acme;FR;eu;ECS;s3;Compute;r;d;;744,00;hour;0,0312;23,21;0;23,21;EUR;;;;;;;\r\n"


def spooled(data: bytes) -> IO[bytes]:
    """Return a body as the client hands it over."""
    body = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=1000))  # noqa: SIM115 - unnamed, and outlives this
    body.write(data)
    body.seek(0)
    return body


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (pdf(None), PDF), (b"junk\n%PDF-1.4", PDF), (workbook("a"), XLSX), (zipped(a__csv=b"a;b"), ZIP),
        (b"PK\x05\x06" + b"\0" * 18, ZIP), (b"PK\x03\x04 cut off", ZIP), (b"\xef\xbb\xbf<?xml?><a/>", XML),
        (" <a/>".encode("utf-16"), XML), (b"<!DOCTYPE HTML><p>", HTML), (b'{"code": 1}', JSON), (b"a;b\n1;2\n", CSV),
        ("a;b".encode("utf-16"), CSV), (b"plain", TEXT), (b"\x89PNG\0\0;", OTHER), (b"", TEXT),
    ],
)  # fmt: skip
def test_a_file_is_what_it_begins_with(data: bytes, kind: FileType) -> None:
    for body in (io.BytesIO(data), spooled(data), Dribble(data)):
        assert sniff(body) is kind
        assert body.tell() == 0


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("INV_202610.pdf", "INV_202610.pdf"), ("../../etc/passwd", "passwd"), ("C:\\x\\y.pdf", "y.pdf"),
        ("a\0b\r\n.pdf", "ab__.pdf"), ("\u202efdp.exe", "_fdp.exe"), ("..", "d-1.pdf"), ("", "d-1.pdf"),
        (None, "d-1.pdf"), ("/", "d-1.pdf"), ('a<b>"c|?*:.pdf', "a_b__c____.pdf"),
        ("é" * 4096 + ".pdf", "é" * 88 + ".pdf"),
        ("x" * 4096, "x" * 180), (".hidden", "hidden"), ("Rechnung \ud800.pdf", "Rechnung _.pdf"),
    ],
)  # fmt: skip
def test_names_lead_nowhere(given: str | None, safe: str) -> None:
    assert safe_name(given, "d-1.pdf") == safe
    assert len(safe.encode()) <= 180


def test_a_fallback_is_made_safe_too() -> None:
    assert safe_name(None, "../..") == "file"
    assert safe_name(None, "../x.pdf") == "x.pdf"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="a b.pdf"', "a b.pdf"), ("attachment; filename*=UTF-8''%C3%A9.pdf", "é.pdf"),
        ("inline", None), (None, None), ("attachment; filename*=nope''x", "x"),
        ('attachment; filename="a\r\nb"', "a  b"),
    ],
)  # fmt: skip
def test_a_name_may_come_in_the_header(header: str | None, name: str | None) -> None:
    assert disposition_name(header) == name


# ZIPs


def bomb(name: str = "a.csv", size: int = 64 * 1024 * 1024) -> bytes:
    return zipped(**{name: b"\0" * size})


def flagged(data: bytes, local: bytes, central: bytes) -> bytes:
    """Return a ZIP with other bytes from flags to method, in both headers of its one file."""
    at, listed = data.find(b"PK\x03\x04") + 6, data.find(b"PK\x01\x02") + 8
    changed = data[:at] + local + data[at + len(local) :]
    return changed[:listed] + central + changed[listed + len(central) :]


def many(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(str(number)), b"")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bomb(), "unpacks to 67108864 bytes, more than 200 times"),
        (zipped(a=b"x" * 2000, b=b"y" * 2000), "unpacks to at most 3000 bytes"),
        (many(1001), "at most 1000 files"),
        (many(70_000), "at most 1000 files"),
        (flagged(zipped(a=b"x"), b"\1\0", b"\1\0"), "'a' in the ZIP is encrypted"),
        (flagged(zipped(a=b"x"), b"\0\0\x0e\0", b"\0\0\x0e\0"), r"uncommon way \(method 14\)"),
        (zipped(a=b"x")[:-10], "the ZIP is damaged"),
        (b"PK\x03\x04" + b"x" * 100, "the ZIP is damaged"),
        (zipped(a=b"x").replace(b"PK\x01\x02", b"PK\x01\x03"), "the ZIP is damaged"),
    ],
)
def test_a_hostile_zip_is_refused_before_anything_is_unpacked(data: bytes, words: str) -> None:
    body = spooled(data)
    largest = 3000 if "3000" in words else 2**31
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match=words):
            list(members(body, largest))
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_zip_gives_its_files() -> None:
    body = spooled(zipped(**{"folder/": b"", "folder/a.csv": b"a;b", "../b.xml": b"<b/>"}))
    found = []
    for member in members(body, 1000):
        with member.open() as opened:
            found.append((member.name, member.size, opened.read()))
    assert found == [("folder/a.csv", 3, b"a;b"), ("../b.xml", 4, b"<b/>")]


# Consumption reports


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("744,00", "744"), ("0,0312", "0.0312"), ("1,234", "1.234"), ("1.234,56", "1234.56"), ("1 234,5", "1234.5"),
        ("1\u202f234\u202f567,5", "1234567.5"), ("-12,5", "-12.5"), ("12,", "12"), (",5", "0.5"), ("7", "7"),
        ("23.21", "23.21"), ("0.031", "0.031"), ("1,5E-06", "0.0000015"), (" 3 ", "3"), ("", None), ("-0,00", "0"),
    ],
)  # fmt: skip
def test_the_comma_is_the_decimal_mark(text: str, value: str | None) -> None:
    assert comma_amount(text) == value


@pytest.mark.parametrize(
    "text", ["1.234", "12.345.678", "many", "1,2,3", "1.23,4", "--1", "NaN", "1,0000000000001", "9" * 27]
)
def test_what_is_no_amount_or_may_be_two_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        comma_amount(text)


def test_the_columns_are_the_vendors() -> None:
    assert ";".join(COLUMNS) == HEADER


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("", RecordError, "of 27 columns, nothing came"),
        ("a;b\n", ColumnsError, "of 27 columns with ';' between them, came 2: 'a;b'"),
        (HEADER.replace(";", ","), ColumnsError, "came 1"),
        (f"{HEADER}\n{ROW}{ROW}x\n", RecordError, "row 4: expected 27 columns, came 1"),
        (f"{HEADER}\n\n{ROW.replace('2026-10-31', '31 Oct')}", RecordError, r"row 3: field period_end \(EndDate\)"),
        (f"{HEADER}\n{ROW}{ROW.replace('EUR', 'Euro')}", RecordError, r"row 3: field currency \(Currency\)"),
        (HEADER.replace("Amount;Vol", "Region;Vol"), RecordError, "row 1: column Amount is not in the header"),
        (f"{HEADER}\n" + "x" * 1_100_000, RecordError, "text line 2: .*more than 1048576 characters"),
        (f'{HEADER}\n"{"x" * 200_000}"', RecordError, "text line 3: .*field larger than field limit"),
    ],
)
def test_a_report_that_cannot_be_read_says_where(content: str, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        list(UsageReader().lines(spooled(content.encode())))


@pytest.mark.parametrize(("was", "now"), [("EUR", ""), (";23,21;0;23,21;", ";;0;;")])
def test_amounts_without_a_currency_or_rows_without_amounts_have_no_sum(was: str, now: str) -> None:
    reader = UsageReader()
    assert len(next(reader.lines(spooled((HEADER + "\n" + ROW.replace(was, now)).encode())))) == 1
    with pytest.raises(RecordError, match=r"field (currency|net_amount)"):
        reader.totals()


def test_a_discount_of_too_many_digits_is_a_reject() -> None:
    row = ROW.replace(";23,21;0;23,21;", f";{'9' * 26};0;-{'9' * 26};")
    with pytest.raises(RecordError, match=r"field discount: .* more than 26 digits"):
        list(UsageReader().lines(spooled((HEADER + "\n" + row).encode())))


@pytest.mark.parametrize("blank", ["", "\r\n"])
def test_rows_have_their_numbers_however_many_are_read_at_once(blank: str) -> None:
    rows = [ROW.strip()] * 250
    rows[230] = rows[230].replace("23,21", "much")
    with pytest.raises(RecordError, match=rf"^row {233 if blank else 232}: field \w+ \(\w+\): .*'much'"):
        list(UsageReader().lines(spooled((HEADER + "\r\n" + blank + "\r\n".join(rows)).encode())))


class Endless(io.RawIOBase):
    """A report of many rows that nobody holds."""

    def __init__(self, rows: int) -> None:
        self._rows, self._pieces, self._left = rows, iter(()), b""
        self.seek(0)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        block = ROW.encode() * 1000
        self._pieces = self._all(block)
        self._left = b""
        return 0

    def _all(self, block: bytes) -> Iterator[bytes]:
        yield HEADER.encode() + b"\r\n"
        yield from (block for _ in range(self._rows // 1000))

    def tell(self) -> int:
        return 0

    def read(self, size: int = -1, /) -> bytes:
        self._left = self._left or next(self._pieces, b"")
        data, self._left = self._left[:size], self._left[size:]
        return data


def test_a_long_report_takes_no_more_memory_and_its_sum_is_exact() -> None:
    peaks = []
    for rows in (3_000, 9_000):
        reader = UsageReader()
        tracemalloc.start()
        try:
            assert sum(len(some) for some in reader.lines(cast("IO[bytes]", Endless(rows)))) == rows
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert reader.totals() == (
            f"{rows * 2321 // 100}" + ("" if rows * 2321 % 100 == 0 else "?"),
            None,
            None,
            "computed",
        )
    assert peaks[1] < peaks[0] + 300_000
