"""Single values, look-up by alias, and the two readers of nested lists."""

from __future__ import annotations

import io
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from conversations import Dribble

from airflow_cloudbilling.errors import ConfigurationError, RecordError
from airflow_cloudbilling.model import Invoice, InvoiceLine, Period, Reject
from airflow_cloudbilling.parse import (
    Fields,
    InvoiceReader,
    Malformed,
    Names,
    RunningSum,
    Shape,
    Spill,
    Unreadable,
    Wanted,
    amount,
    clean,
    country,
    day,
    flatten,
    read,
    refuse_failure,
    text,
)
from airflow_cloudbilling.parse.names import LINE_NAMES

SHAPE = Shape(lists=("Orders", "Boxes", "Parts"), marks=("Header",), root="order")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        (" \t", None),
        (0, "0"),
        (-5, "-5"),
        (Decimal("1.500"), "1.5"),
        (Decimal("1E+3"), "1000"),
        ("12.50", "12.5"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("0e999999999999", "0"),
        ("+1.5", "1.5"),
        ("007", "7"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1e-06", "0.000001"),
        ("1.5E+3", "1500"),
        ("-16.50", "-16.5"),
        ("12,50", "12.5"),
        ("0,125", "0.125"),
        ("1234,567", "1234.567"),
        ("1.234,56", "1234.56"),
        ("1,234.56", "1234.56"),
        ("1 234,56", "1234.56"),
        ("1\u00a0234\u00a0567", "1234567"),
        ("-1\u202f234,5", "-1234.5"),
        ("1,234,567", "1234567"),
        ("1.234.567", "1234567"),
        ("9" * 26 + "." + "9" * 12, "9" * 26 + "." + "9" * 12),
        ("0.1234567890120000", "0.123456789012"),
        ("0." + "0" * 11 + "1", "0." + "0" * 11 + "1"),
    ],
)
def test_amounts_become_canonical(value: Any, expected: str | None) -> None:
    assert amount(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "1,234",
        "-1,234",
        "1,23,456",
        "1.234,5,6",
        "1,234,56",
        "NaN",
        "Infinity",
        "-inf",
        "1e400",
        "1e-400",
        "1e99999999999999999999",
        "9" * 27,
        "0." + "0" * 12 + "1",
        10**26,
        10**5000,
        "1_000",
        "١٢",
        "0x1F",
        "1e",
        "-",
        ".",
        "€ 5",
        "5-",
        True,
        1.5,
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("1E+400"),
        [],
        {},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_amount_is_refused_in_words(value: Any) -> None:
    with pytest.raises(Unreadable, match=r"^expected .*, came ") as refused:
        amount(value)
    assert len(str(refused.value)) < 250


def test_canonical_amounts_are_what_decimal_says() -> None:
    draw = random.Random(1)
    for _ in range(2000):
        number = Decimal(draw.randrange(-(10**14), 10**14)).scaleb(-draw.randrange(0, 13))
        canonical = amount(str(number))
        assert canonical is not None
        assert Decimal(canonical) == number
        assert amount(canonical) == canonical


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("20200605", "2020-06-05"),
        (20200605, "2020-06-05"),
        ("2020-06-05", "2020-06-05"),
        (" 2020-06-05T23:59:59.9999999Z ", "2020-06-05"),
        ("2020-06-05T00:30:00+02:00", "2020-06-05"),
        ("2020-06-05 00:00", "2020-06-05"),
        ("2020-06-05Z", "2020-06-05"),
        ("05-06-2020", "2020-06-05"),
        ("2020-02-29", "2020-02-29"),
        ("0001-01-01", None),
        ("0001-01-01T00:00:00", None),
    ],
)
def test_days_become_iso(value: Any, expected: str | None) -> None:
    assert day(value) == expected


@pytest.mark.parametrize(
    "value", ["2021-02-29", "2020-13-01", "20200000", "31-04-2020", "06/05/2020", "soon", 5, True, [], 1.0]
)
def test_what_is_no_day_is_refused(value: Any) -> None:
    with pytest.raises(Unreadable, match="expected a date"):
        day(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("  ", None),
        (" a ", "a"),
        ("a\r\nb\rc\n", "a\nb\nc"),
        ("a\0b\x1fc\ud800d", "a\ufffdb\ufffdc\ufffdd"),
        ("後で 😀", "後で 😀"),
        (1000123, "1000123"),
        (True, "true"),
    ],
)
def test_texts_are_what_json_xml_and_databases_agree_on(value: Any, expected: str | None) -> None:
    assert text(value) == expected


def test_a_list_is_no_text() -> None:
    with pytest.raises(Unreadable, match="expected a text"):
        text(["a"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("nl", "NL"),
        ("NLD", "NLD"),
        ("Netherlands", "NL"),
        ("the netherlands", "NL"),
        ("België", "BE"),
        ("Deutschland", "DE"),
        ("Atlantis", "Atlantis"),
        ("European Union", "European Union"),
        (None, None),
    ],
)
def test_countries_become_codes(value: Any, expected: str | None) -> None:
    assert country(value) == expected


def test_excerpts_are_one_printable_line() -> None:
    assert clean(b"a\r\n\x1b[31mb\0", 300) == "a \\x1b[31mb\\x00"
    assert clean("x" * 400) == "x" * 300 + "…"


def test_the_first_alias_with_a_value_wins_whatever_its_case() -> None:
    fields = Fields([Wanted("id", text, ("Head.Id", "number")), Wanted("price", amount, ("net_price", "Price"))])
    assert fields.read({"Number": "7", "NETPRICE": "", "price": "1.50"}) == ("7", "1.5")
    assert fields.read({"HEAD": {"I_D": "8"}, "number": "7"}) == ("8", None)
    assert fields.read(flatten({"{urn:x}Head": {"{urn:x}Id": "9"}})) == ("9", None)


def test_an_unreadable_value_names_its_field() -> None:
    fields = Fields([Wanted("price", amount, ("Sums.Net",))])
    with pytest.raises(RecordError, match=r"^field price \(Sums\.Net\): expected a decimal amount, came 'abc'$"):
        fields.read({"Sums": {"Net": "abc"}})


@pytest.mark.parametrize("count", [0, 1, 1000, 2500])
def test_a_spill_gives_back_what_it_took(count: int) -> None:
    spill: Spill[tuple[int, str]] = Spill()
    for _ in range(2):
        for number in range(count):
            spill.append((number, "x"))
        assert list(spill.drain()) == [(number, "x") for number in range(count)]
    assert list(spill.drain()) == []


def test_sums_are_exact_over_many_lines() -> None:
    lines = RunningSum()
    for _ in range(2500):
        lines.add(["0.1"], ["0.000000000001"])
    assert lines.complete(None, None, None) == ("250", "0.0000000025", "250.0000000025", "computed")


def test_differences_of_38_digits_are_not_rounded_to_28() -> None:
    net = f"{'1' * 26}.123456789012"
    assert RunningSum().complete(net, None, net) == (net, "0", net, "computed")
    assert RunningSum().complete(None, net, f"{'2' * 26}.246913578024").net == net


def test_a_sum_that_cannot_be_staged_is_a_rejected_record() -> None:
    lines = RunningSum()
    lines.add(["9" * 26], ["1"])
    with pytest.raises(RecordError, match="more than 26 digits"):
        lines.complete(None, None, None)


class Halves(io.BytesIO):
    """A file that gives no more than half of what it still has."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return half of the rest, at most so many bytes."""
        half = (len(self.getbuffer()) - self.tell() + 1) // 2
        return super().read(half if size is None or size < 0 else min(size, half))


def events(body: str | bytes, content_type: str | None = None, dribble: bool = False) -> list[tuple[Any, ...]]:
    """Return a body's events, members and leaves by themselves.

    JSON is read as the stream that large bodies are.
    """
    data = body.encode() if isinstance(body, str) else body
    found: list[tuple[Any, ...]] = []
    for kind, level, members, leaves, raws, *_ in read(Dribble(data) if dribble else Halves(data), content_type, SHAPE):
        if kind in ("open", "close"):
            found.append((kind, level, "", None, ""))
        found += [("member", level, name, value, raws[name]) for name, value in members.items()]
        found += [("leaf", level, "", leaf, raw) for leaf, raw in zip(leaves, raws, strict=False)]
    return found


def test_json_says_what_it_holds_as_it_comes() -> None:
    body = (
        '{"Orders": [{"Boxes": [{"Parts": [{"n": 1.50}, {"n": 1e400}], "Id": 9}], "Header": {"Id": "a"}}], "Count": 1}'
    )
    assert events(body) == [
        ("open", 1, "", None, ""),
        ("open", 2, "", None, ""),
        ("leaf", 3, "", {"n": "1.50"}, '{"n": 1.50}'),
        ("leaf", 3, "", {"n": "1e400"}, '{"n": 1e400}'),
        ("member", 2, "Id", "9", "9"),
        ("close", 2, "", None, ""),
        ("member", 1, "Header", {"Id": "a"}, '{"Id": "a"}'),
        ("close", 1, "", None, ""),
        ("member", 0, "Count", "1", "1"),
    ]


def test_xml_says_the_same() -> None:
    xsi = 'xsi="http://www.w3.org/2001/XMLSchema-instance"'
    body = (
        f"<Orders xmlns:{xsi}><Order><Boxes><Box><Parts><Part><n>1.50</n></Part>"
        '<Part><n xsi:nil="true"/></Part></Parts><Id>9</Id></Box></Boxes><Header><Id>a</Id></Header></Order></Orders>'
    )
    assert events(body) == [
        ("open", 1, "", None, ""),
        ("open", 2, "", None, ""),
        ("leaf", 3, "", {"n": "1.50"}, "<Part><n>1.50</n></Part>"),
        (
            "leaf",
            3,
            "",
            {"n": None},
            '<Part xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><n xsi:nil="true"/></Part>',
        ),
        ("member", 2, "Id", "9", "<Id>9</Id>"),
        ("close", 2, "", None, ""),
        ("member", 1, "Header", {"Id": "a"}, "<Header><Id>a</Id></Header>"),
        ("close", 1, "", None, ""),
    ]


PLAIN = Shape(lists=("Orders", "Parts"), marks=("Header",), root="order")
PARTS = [
    "<n>1</n><m/>",
    "<n>1</n><m />",
    "<n></n><m>R&amp;D &lt;&quot;&apos;&gt;</m>",
    "<n>1</n><m>&#228;&#13;</m>",
    "<n>1</n><m>a<!-- <Part><n>9</n></Part> -->b</m>",
    "<n>1</n><m><![CDATA[</Part>]]></m>",
    "<n>1</n><n>2</n>",
    "\r\n <n>1</n>\t<m>\r\n</m> ",
    "<n><a>1</a></n>",
    "<é>1</é>",
    "",
    "text",
]


@pytest.mark.parametrize("file", [Dribble, Halves, io.BytesIO])
def test_leaves_are_the_same_whether_lxml_reads_them_or_not(file: type[io.BytesIO]) -> None:
    draw = random.Random(file.__name__)
    parts = [draw.choice(PARTS) for _ in range(300)]

    def leaves(attribute: str) -> list[Any]:
        lists = (parts[start : start + 10] for start in range(0, len(parts), 10))
        orders = ("".join(f"<Part{attribute}>{part}</Part>\n" for part in some) for some in lists)
        rest = "".join(f"<Order><Parts>{order}</Parts></Order>" for order in orders)
        body = f"<Orders><Count>{'1' * 70_000}</Count>{rest}</Orders>".encode()  # the beginning is read at once
        return [leaf for event in read(file(body), None, PLAIN) for leaf in event.leaves]

    assert leaves("") == leaves(' of="lxml"')


@pytest.mark.parametrize("between", ["", " " * 70_000], ids=["at once", "much later"])
def test_leaves_in_a_comment_are_none(between: str) -> None:
    part = "<Part><n>1</n></Part>"
    for before, after in (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?xx ", "?>")):
        hidden = f"{before}{between}<Parts>{part}</Part></Parts>{part}{after}"
        body = f"<Orders><Order>{hidden}<Parts>{part}{between}{hidden}{part}</Parts></Order></Orders>"
        found = [leaf for event in read(Halves(body.encode()), None, PLAIN) for leaf in event.leaves]
        assert found == [{"n": "1"}] * 2


@pytest.mark.parametrize("part", ["<n>1</m>", "<n>&b;</n>", "<n>\x01</n>", "<n>a]]></n><", "<1>1</1>", "<n>\ud800</n>"])
def test_a_leaf_that_is_malformed_is_refused_like_anything_else(part: str) -> None:
    body = f"<Orders><Order><Parts><Part><n>1</n></Part><Part>{part}</Part></Parts></Order></Orders>"
    with pytest.raises(Malformed, match=r"breaks off or is malformed after byte \d+: "):
        list(read(Halves(body.encode("utf-8", "surrogatepass")), None, PLAIN))


def test_a_list_further_down_is_found_where_a_level_is_left_out() -> None:
    leaves = [event for event in events('{"Orders": [{"Parts": [{"n": 1}]}]}') if event[0] == "leaf"]
    assert leaves == [("leaf", 3, "", {"n": "1"}, '{"n": 1}')]
    leaves = [event for event in events("<Orders><Order><Part><n>1</n></Part></Order></Orders>") if event[0] == "leaf"]
    assert leaves == [("leaf", 3, "", {"n": "1"}, "<Part><n>1</n></Part>")]


@pytest.mark.parametrize("size", [1, 1000, 262_140, 262_144, 262_150, 600_000])
def test_values_may_be_longer_than_what_is_read_at_once(size: int) -> None:
    long = "é" * size
    record = json.dumps({"Orders": [{"Header": {"a": long, "n": 1234567890}, "Boxes": []}]}, ensure_ascii=False)
    (member,) = (event for event in events(record) if event[2] == "Header")
    assert member[3] == {"a": long, "n": "1234567890"}


def test_numbers_are_whole_wherever_reading_stops() -> None:
    body = '{"Orders": [{"Header": 12.5e10, "B": true, "C": -0.25}]}'
    assert [event[3] for event in events(body, dribble=True) if event[0] == "member"] == ["12.5e10", True, "-0.25"]


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_are_told_by_the_first_bytes(coding: str) -> None:
    for body in ('{"Orders": [{"Id": "é"}]}', "<Orders><Order><Id>é</Id></Order></Orders>"):
        assert [event[3] for event in events(body.encode(coding)) if event[0] == "member"] == ["é"]


def test_a_stated_charset_is_believed() -> None:
    body = '{"Orders": [{"Id": "é"}]}'.encode("cp1252")
    assert events(body, "application/json; charset=Windows-1252")[1][3] == "é"
    body = '<?xml version="1.0" encoding="ISO-8859-1"?><Orders><Order><Id>é</Id></Order></Orders>'.encode("latin-1")
    assert events(body)[1][3] == "é"


LAUGHS = (
    '<!DOCTYPE o [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY a{n} "{"&a;" * 9}">' for n in range(9))
    + "]><Orders>&a9;</Orders>"
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (LAUGHS, "document type"),
        ('<!DOCTYPE o SYSTEM "file:///etc/passwd"><Orders/>', "document type"),
        ("<!-- <Orders/> --> <!doctype html><Orders/>", "document type"),
        (LAUGHS.encode("utf-16"), "document type"),
        ("<?a?>" * 20000 + "<Orders/>", "no root element"),
        ("<!--" + "x" * 70000, "no root element"),
        ("<Orders>" + "<a>" * 300 + "</a>" * 300 + "</Orders>", "malformed"),
        ("<Orders><Order>" + "<Junk>x</Junk>" * 1_300_000, "bytes without an element of"),
        ('{"Orders": [{"Header": ' + "[" * 100_000, "nested too deeply"),
        ('{"Orders": [{"Header": "' + "x" * 20_000_000, "Unterminated string"),
        ('{"Orders": [{"Header": "a\0b"}]}', "zero byte"),
        ('{"Orders": [{"Header": 1}]} x', "expected the end"),
        ('{"Orders": [{"Header": 1,}]}', "expected a name in quotes"),
        ('{"Orders": [{"Header" 1}]}', "expected ':'"),
        ('{"Orders": [1, 2', "the body ends there"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_hostile_and_broken_bodies_are_refused(body: str | bytes, expected: str) -> None:
    with pytest.raises(Malformed, match=expected) as refused:
        events(body)
    assert len(str(refused.value)) < 500


def test_importing_it_brings_in_nothing_heavy() -> None:
    code = (
        "import sys, airflow_cloudbilling.parse, airflow_cloudbilling.sources.twotcloud;"
        "print(*{'lxml', 'babel', 'airflow', 'httpx', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


AWKWARD = {
    "Id": ["1", 1, 10**20, None, True, "", " x ", "é\u00a0", "a\r\nb", "\u0000", "x" * 300],
    "Sum": ["1.50", "1,5", 1, 10**20, None, "", "-0", "1e2", "12.5", "0.000000000001", " 7 "],
    "Day": ["2020-06-05", "20200605", 20200605, None, "", "05-06-2020", "0001-01-01", "2020-06-05T10:00:00Z"],
}


@pytest.mark.parametrize(("name", "reader"), [("Id", text), ("Sum", amount), ("Day", day)])
def test_a_column_reads_as_its_values_do_by_themselves(name: str, reader: Callable[[Any], str | None]) -> None:
    fields = Fields([Wanted("wanted", reader, (name, "Also"))])
    for first, second in itertools.product(AWKWARD[name], repeat=2):
        records = [{name: first}, {name: second}, {"Also": first}, {name: None, "Also": second}]
        assert fields.read_all(records) == [fields.read(record) for record in records]
        assert fields.read_all(records)[0] == (reader(first),)


def test_one_value_that_cannot_be_read_spoils_no_other() -> None:
    fields = Fields([Wanted("sum", amount, ("Sum",))])
    good, bad, last = fields.read_all([{"Sum": "1"}, {"Sum": "many"}, {"Sum": "2"}])
    assert (good, last) == (("1",), ("2",))
    assert isinstance(bad, RecordError)
    assert "'many'" in str(bad)
    assert fields.read_all([]) == []


def test_what_is_held_and_what_is_streamed_say_the_same_of_odd_numbers() -> None:
    numbers = "1e400, 0.10, -0, -0.0, 123456789012345678901234567890, 1E-7, 18446744073709551616, 0.1234567890123456789"
    body = f'{{"Orders": [{{"Id": 1, "Boxes": [{{"Parts": [{{"n": [{numbers}]}}]}}]}}]}}'.encode()
    held, streamed = (
        [leaf for event in read(file, None, SHAPE) for leaf in event.leaves]
        for file in (io.BytesIO(body), Halves(body))
    )
    assert [str(n) for n in held[0]["n"]] == [n.replace("-0", "0") if n == "-0" else n for n in streamed[0]["n"]]
    assert not any(isinstance(n, float) for n in held[0]["n"])


@pytest.mark.parametrize("rest", ["", ", ", "]", "}", ', {"n": 1', ', {"n": 1}}]}'])
def test_a_long_list_that_goes_wrong_is_refused_like_a_short_one(rest: str) -> None:
    leaves = ", ".join(
        f'{{"n": {n}, "text": "}}, {{{"x" * 3000}", "inner": [{{"a": 1}}, {{"b": 2}}]}}' for n in range(400)
    )
    good = f'{{"Orders": [{{"Boxes": [{{"Parts": [{leaves}'
    found = [event[3] for event in events(good + "]}]}]}") if event[0] == "leaf"]
    assert [str(leaf["n"]) for leaf in found] == list(map(str, range(400)))
    with pytest.raises(Malformed):
        events(good + rest + ("" if rest.endswith("}]}") else "]}]}]},"))


@pytest.mark.parametrize("twice", ["Orders", "Boxes", "Parts"])
def test_a_list_that_comes_twice_in_one_record_is_read_twice(twice: str) -> None:
    lists = {
        "Orders": '[{"Boxes": [{"Parts": [{"n": 1}]}]}]',
        "Boxes": '[{"Parts": [{"n": 1}]}]',
        "Parts": '[{"n": 1}]',
    }
    body = f'{{"Orders": {lists["Orders"]}}}'.replace(text := f'"{twice}": {lists[twice]}', f"{text}, {text}").encode()
    for file in (io.BytesIO(body), Halves(body)):
        assert sum(len(event.leaves) for event in read(file, None, SHAPE)) == 2


NAMES = Names(
    Shape(lists=("Bills", "Groups", "Rows"), marks=("Id",), root="bill"),
    {
        **dict.fromkeys(Invoice._fields[: Invoice._fields.index("sign")], (text, ())),
        "invoice_id": (text, ("Id",)),
        "issue_date": (day, ("Day", "Made")),
        "currency": (text, ("Code",)),
        "net_amount": (amount, ("Net",)),
    },
    {**dict.fromkeys(LINE_NAMES, (text, ())), "line_id": (text, ("Id",)), "customer_id": (text, ("Group.Id",))},
    {2: "Group."},
)


def items(body: str, period: Period | None = None) -> list[list[list[InvoiceLine] | Invoice | Reject]]:
    """Return what a body holds when it is read as a whole, and as a stream."""
    found = []
    for file in (io.BytesIO(body.encode()), Halves(body.encode())):
        reader = InvoiceReader(NAMES, keep_raw=True, sha256=None, period=period)
        found.append(list(reader.items(read(file, None, NAMES.shape))))
    return found


def test_a_reject_quotes_what_cannot_be_read_and_not_what_stands_beside_it() -> None:
    group = '{"Other": "beside", "Id": [5], "More": 7, "Rows": [{"Id": 1}]}'
    for (reject,) in items(f'{{"Bills": [{{"Id": "B-1", "Groups": [{group}]}}]}}'):
        assert isinstance(reject, Reject)
        assert reject.raw == '[5]\n{"Id": "B-1"}'


def test_a_record_with_a_nameless_member_is_rejected_under_its_id() -> None:
    for (reject,) in items('{"Bills": [{"Id": "B-1", "": 5, "Code": "EUR"}]}'):
        assert reject == Reject("expected an object of Bills, came '5'", '5\n{"Id": "B-1", "Code": "EUR"}', "B-1")


@pytest.mark.parametrize("file", [io.BytesIO, Halves])
def test_a_message_of_zero_is_one_however_the_body_is_read(file: type[io.BytesIO]) -> None:
    reader = InvoiceReader(NAMES, keep_raw=True, sha256=None)
    assert list(reader.items(read(file(b'{"Message": 0, "Bills": []}'), None, NAMES.shape))) == []
    with pytest.raises(Malformed, match="says that it failed"):
        refuse_failure(reader)


@pytest.mark.parametrize(
    "body",
    [
        '{"Bills": [{"Id": 1, "Code": "EUR", "Net": 1, "Made": "2026-09-30", "Day": "2026-10-05", "Groups": [{"Rows":'
        ' [{"Id": 1}]}]}]}',
        "<Bills><Bill><Id>1</Id><Code>EUR</Code><Net>1</Net><Made>2026-09-30</Made><Day>2026-10-05</Day><Groups><Group>"
        "<Rows><Row><Id>1</Id></Row></Rows></Group></Groups></Bill></Bills>",
    ],
    ids=["json", "xml"],
)
def test_no_line_is_lost_because_of_a_day_that_a_better_one_follows(body: str) -> None:
    for lines, invoice in items(body, Period.parse("2026-10")):
        assert isinstance(lines, list)
        assert [line.line_id for line in lines] == ["1"]
        assert isinstance(invoice, Invoice)


def test_a_reject_whose_text_is_not_kept_can_be_written_down() -> None:
    body = rb'{"Bills": [{"Id": "B-1", "Text": "half \ud800", "Net": 1.50, "Day": 7, "Ok": true}]}'
    for file in (io.BytesIO(body), Halves(body)):
        (reject,) = InvoiceReader(NAMES, keep_raw=False, sha256=None).items(
            read(file, None, NAMES.shape, keep_raw=False)
        )
        assert isinstance(reject, Reject)
        assert reject.raw.encode() == rb'{"Id": "B-1", "Text": "half \ud800", "Net": "1.50", "Day": "7", "Ok": true}'


@pytest.mark.parametrize("keep_raw", [True, False])
def test_leaves_that_are_held_come_some_hundred_at_a_time(keep_raw: bool) -> None:
    parts = [{"n": str(n)} for n in range(3000)]
    body = json.dumps({"Orders": [{"Boxes": [{"Parts": parts}]}]}).encode()
    found = [event for event in read(io.BytesIO(body), None, SHAPE, keep_raw=keep_raw) if event.leaves]
    assert max(len(event.leaves) for event in found) <= 500
    assert [leaf for event in found for leaf in event.leaves] == parts
    assert [json.loads(raw) for event in found for raw in event.raws] == (parts if keep_raw else [])


def test_a_table_of_names_reads_each_value_as_its_name_asks_for():
    names = Names.of(Shape(("Bills", "Rows"), (), ""), {"invoice_id": ("no",), "net_amount": ("sum",)}, {})
    row = {"no": "7", "sum": "1.50", "when": "2026-10-31", "state": "Nederland", "what": "Credit", "in": "eur"}
    mapped = names.mapped(
        {
            "issue_date": "when",
            "buyer_country": "state",
            "document_type": "what",
            "currency": "in",
            "line.quantity": "q",
        },
        "tiny_default",
    )
    found = {name: read(row[paths[0]]) for name, (read, paths) in mapped.head.items() if paths}
    assert found == {
        "invoice_id": "7", "net_amount": "1.5", "issue_date": "2026-10-31", "buyer_country": "NL",
        "document_type": "credit_note", "currency": "EUR",
    }  # fmt: skip
    assert mapped.line["quantity"][0]("2,50") == "2.5"
    with pytest.raises(ConfigurationError, match=r"^total: no canonical name; known are invoice_id, "):
        Names.of(names.shape, {"total": ("sum",)}, {})
