"""Records for users of an API: exact numbers, nothing dropped slips through, envelopes off; JSON and PHP forms back."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import pytest

from airflow_cloudbilling.parse import Malformed, Unreadable
from airflow_cloudbilling.parse.json_whole import LARGEST
from airflow_cloudbilling.parse.record_lists import Records
from airflow_cloudbilling.parse.records import (
    form_encoded,
    json_text,
    listed,
    read_value,
    source_text,
    unwrapped,
)
from airflow_cloudbilling.parse.xml_values import camelled


def value(text: str, *dropped: str) -> Any:
    return read_value(io.BytesIO(text.encode()), dropped)


def records(text: str, *dropped: str) -> tuple[list[Any], dict[str, Any]]:
    found = Records(io.BytesIO(text.encode()), ("data", "invoices"), ("id", "invoice"), dropped)
    return list(found), found.around


def test_numbers_are_exact_and_never_floats() -> None:
    found = value("[1, 1.50, 1e-7, -0.0, 123456789012345678901234567890.10]")
    assert [type(each) for each in found] == [int, *[Decimal] * 4]
    assert json_text(found) == "[1, 1.50, 1E-7, -0.0, 123456789012345678901234567890.10]"


def test_dropped_members_are_nowhere_and_the_last_of_two_counts() -> None:
    text = '{"a": 1, "A": {"PassWord": "x", "b": [{"token": 1, "c": null}]}, "a": 2, "token": {"deep": true}}'
    assert value(text, "password", "token") == {"a": 2, "A": {"b": [{"c": None}]}}
    kept, around = records('{"data": [{"id": 1, "token": 2}], "TOKEN": 3, "meta": {"token": 4}}', "token")
    assert (kept, around) == ([{"id": 1}], {"meta": {}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "an empty body"),
        (" \n", "an empty body"),
        ('{"a": 1', "breaks off"),
        ('{"a": 1} x', "expected the end"),
        ("[NaN]", "NaN is no number within bounds"),
        ("[-Infinity]", "no number within bounds"),
        ("[1e99999999999999999999]", "no number within bounds"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 150 + "]" * 150, "nested more than 100 levels deep"),
        ("<a><b></a>", "the XML breaks off"),
        ("<!DOCTYPE a><a/>", "document type"),
        ("<a>" * 150 + "</a>" * 150, "nested more than 100 levels deep"),
    ],
)
def test_what_is_no_record_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        value(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"id": 1}]', [{"id": 1}]),
        ('{"data": [{"id": 1}, 2]}', [{"id": 1}, 2]),
        ('{"data": {"Invoices": [{"id": 1}], "meta": {}}}', [{"id": 1}]),
        ('{"data": {"id": 1, "data": [2]}}', [{"id": 1, "data": [2]}]),
        ('{"data": {"0": {"id": 1}, "2": {"id": 3}}}', [{"id": 1}, {"id": 3}]),
        ('{"invoice": {"id": 1}, "items": []}', [{"invoice": {"id": 1}, "items": []}]),
        ("[]", []),
        ('{"data": []}', []),
        ('{"data": {}}', []),
        ('{"data": null}', []),
        ('{"data": {"invoices": null, "meta": 1}}', []),
    ],
)
def test_records_come_out_of_whatever_holds_them(text: str, found: list[Any]) -> None:
    assert records(text)[0] == found


@pytest.mark.parametrize("text", ["{}", '{"success": true}', '{"data": {"foo": 1}}', '"text"', "null", "3", ""])
def test_what_holds_no_list_is_never_an_empty_one(text: str) -> None:
    with pytest.raises(Malformed):
        records(text)


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": 1.50, "Token": 2, "a": [{"token": {"b": 1}, "c": 1e-7}]}, 2, [], null]',
        '{"success": true, "data": [{"id": 1}, {"id": 2, "items": {"token": 1}}], "meta": {"token": 4, "total": 2}}',
        '{"data": {"Invoices": [{"id": 1}], "meta": {}}, "token": 1, "invoices": [2]}',
        '{"data": [{"id": 1}], "message": "", "data": [{"id": 2}]}',
        '{"data": [{"id": 1}], "data": null}',
        '{"data": {"0": {"id": 1}, "2": {"id": 3}}}',
        '{"data": {"id": 1, "data": [2]}, "id": 7}',
        '{"id": 1, "data": [2]}',
        '{"data": {"foo": 1}}',
        '{"data": {"invoices": null, "meta": 1}}',
        '{"data": [{"id": "a\\ud800"}]}',
        '{"data": [{"id": "a\tb"}]}',
        '{"data": [{"id": 1}, {"id": NaN}]}',
    ],
)
def test_a_small_body_is_read_at_once_as_a_large_one_is_in_turn(text: str) -> None:
    def read(text: str) -> Any:
        body = Records(io.BytesIO(text.encode()), ("data", "invoices"), ("id",), ("token",), str)
        try:
            return list(body), body.around
        except Malformed as error:
            return str(error)

    assert read(text) == read(text + " " * LARGEST)


def test_a_large_body_comes_some_at_a_time() -> None:
    body = json.dumps({"data": [{"id": number, "text": "x" * 100} for number in range(20_000)]})
    sizes = [len(some) for some in Records(io.BytesIO(body.encode()), ("data",), ("id",)).some()]
    assert sum(sizes) == 20_000
    assert max(sizes) <= 100


def test_a_number_out_of_bounds_may_be_left_to_its_record() -> None:
    found = Records(io.BytesIO(b'[{"id": NaN}, {"id": 1e99999999999999999999}]'), (), (), constants=str)
    assert list(found) == [{"id": "NaN"}, {"id": "1e99999999999999999999"}]


def test_envelopes_come_off_by_name() -> None:
    assert unwrapped({"Data": {"results": [1]}, "total": 2}, ("data", "results")) == [1]
    assert unwrapped([1], ("data",)) == [1]
    assert [listed(each) for each in (None, "", {}, {"a": 1}, [1], {"1": 2})] == [[], [], [], [{"a": 1}], [1], [2]]


def test_xml_gives_what_the_same_json_would() -> None:
    text = "<Page><Invoices><Invoice><ID>1</ID><VATNumber/></Invoice></Invoices><Token>x</Token><N>1</N><N>2</N></Page>"
    assert value(text, "token") == {"invoices": [{"id": "1", "vatNumber": None}], "n": ["1", "2"]}
    assert [camelled(name) for name in ("InvoiceId", "ID", "VATNumber", "plain")] == [
        "invoiceId",
        "id",
        "vatNumber",
        "plain",
    ]


def test_json_is_written_to_the_last_digit() -> None:
    data = {"a": Decimal("100.00"), "b": [True, None, 'ü"\n', 3], "c": Decimal("1E-7")}
    assert json_text(data) == '{"a": 100.00, "b": [true, null, "ü\\"\\n", 3], "c": 1E-7}'
    assert json.loads(json_text(data), parse_float=Decimal) == data
    for bad in (Decimal("NaN"), 1.5, {1, 2}, b"bytes"):
        with pytest.raises(Unreadable, match=r"expected (what JSON can hold|an exact number)"):
            json_text([bad])


def test_what_came_as_json_is_written_as_anything_else_is() -> None:
    text = r"""{"a": [1, 1.50, 1e-7, -0.0, 12345678901234567890, true, null, {}, [{}]], "ü": "\u0000\n\"\\/é"}"""
    for each in (value(text), "é", 1, Decimal("1E+5"), None, value(r'["\ud800"]')):
        assert source_text(each) == json_text(each)


def test_half_a_surrogate_pair_stays_escaped_and_can_be_written() -> None:
    record = value(r'{"a\ud800": "\ud800 \u00fc", "b": "\u00fc"}')
    assert json_text(record) == '{"a\\ud800": "\\ud800 \\u00fc", "b": "ü"}'
    assert json_text(record).encode()


def test_forms_are_phps() -> None:
    items = [{"description": "A & B", "amount": Decimal("1E+2"), "qty": 1}, {"taxed": True, "note": None}]
    assert form_encoded({"customer_id": 123, "items": items}) == {
        "customer_id": "123",
        "items[0][description]": "A & B",
        "items[0][amount]": "100",
        "items[0][qty]": "1",
        "items[1][taxed]": "1",
    }


def test_a_form_takes_no_float_and_says_where_it_stands() -> None:
    with pytest.raises(Unreadable, match=r"items\[0\]\[amount\]: a float is not exact; give 1.5 as Decimal or as text"):
        form_encoded({"items": [{"amount": 1.5}]})
    with pytest.raises(Unreadable, match="a: expected a text or a number"):
        form_encoded({"a": {1}})
