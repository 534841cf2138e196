"""What every source promises, tried on recorded replies: a new vendor adds folders under ``data/``, no code.

After a change that is meant, ``CLOUDBILLING_UPDATE_GOLDENS=1 pytest tests/test_conformance.py`` writes the expected
requests and items anew; read the diff before it is committed.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import tracemalloc
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from conversations import DATA, PASSWORD, Case, cases, settings_of
from parsers import AMOUNT, DAY, texts

from airflow_cloudbilling.errors import MalformedReplyError
from airflow_cloudbilling.found import Item, singly
from airflow_cloudbilling.http.drivers import adrive, drive
from airflow_cloudbilling.model import Invoice, InvoiceLine, Period, Stated
from airflow_cloudbilling.source import Ask, Reply, Request
from airflow_cloudbilling.sources import SOURCES

UPDATE = os.environ.get("CLOUDBILLING_UPDATE_GOLDENS") == "1"
EVERY, GOOD, BROKEN = cases(), cases(broken=False), cases(broken=True)
GROWING = sorted(path for conn_type in SOURCES for path in (DATA / conn_type / "_grow").glob("*"))


def name_of(value: Case | Path) -> str:
    path = value.folder if isinstance(value, Case) else value
    return str(path.relative_to(DATA))


def as_json(found: Request | Item) -> dict[str, Any]:
    """Return what a golden file says of a request or an item: its type and the fields that are set."""
    if isinstance(found, Request):
        return {"method": found.method, "path": found.path, "params": found.params, "headers": found.headers}
    fields = {name: value for name, value in found._asdict().items() if value not in (None, ())}
    return {"item": type(found).__name__, **fields}


def check_golden(path: Path, found: Any) -> None:
    if UPDATE:
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    assert json.loads(json.dumps(found)) == json.loads(path.read_text("utf-8"))  # JSON has no tuples


def normalised(items: list[Item]) -> list[Item]:
    """Return the items without what differs between formats: the text as sent, and its hash."""
    return [
        i._replace(raw=None, source_sha256=None)
        if isinstance(i, Invoice)
        else i._replace(raw=None)
        if isinstance(i, InvoiceLine)
        else i
        for i in items
    ]


def test_every_source_with_invoices_has_cases() -> None:
    assert {case.folder.parent.name for case in EVERY} == {name for name, one in SOURCES.items() if one.kinds}


@pytest.mark.parametrize("case", EVERY, ids=name_of)
def test_asks_what_was_recorded(case: Case) -> None:
    conversation = case.source.invoices(case.ask, case.settings)
    first = next(step for step in conversation if isinstance(step, Request))
    conversation.close()
    check_golden(case.folder / "request-1.json", as_json(first))


@pytest.mark.parametrize("case", GOOD, ids=name_of)
def test_finds_what_was_recorded(case: Case) -> None:
    _, items = case.play()
    check_golden(case.folder / "golden.json", [as_json(item) for item in items])


@pytest.mark.parametrize("case", GOOD, ids=name_of)
def test_values_are_canonical_and_never_floats(case: Case) -> None:
    for item in case.play()[1]:
        assert list(texts(item)) or isinstance(item, Stated)
        for name, value in item._asdict().items():
            if value is not None and (
                name.endswith(("_amount", "_total")) or name in ("quantity", "unit_price", "discount", "tax_rate")
            ):
                assert AMOUNT.fullmatch(value), (name, value)
            if value is not None and (name.endswith("_date") or name.startswith("period_")):
                assert DAY.fullmatch(value), (name, value)


@pytest.mark.parametrize("case", GOOD, ids=name_of)
def test_finds_the_same_again_and_from_a_slow_file(case: Case) -> None:
    _, items = case.play()
    assert case.play()[1] == items
    assert case.play(dribble=True)[1] == items


@pytest.mark.parametrize("case", [case for case in GOOD if "same_as" in case.asked], ids=name_of)
def test_says_the_same_as_its_twin(case: Case) -> None:
    twin = Case(case.folder.parent / case.asked["same_as"])
    assert normalised(case.play()[1]) == normalised(twin.play()[1])


@pytest.mark.parametrize("case", GOOD, ids=name_of)
def test_both_drivers_find_the_same(case: Case) -> None:
    replies: list[Reply] = []

    def ask(request: Request) -> Reply:
        replies.append(case.reply(request, len(replies) + 1))
        return replies[-1]

    async def found() -> list[Item]:
        replies.clear()

        async def aask(request: Request) -> Reply:
            return ask(request)

        conversation = case.source.invoices(case.ask, case.settings)
        return list(singly([item async for item in adrive(conversation, aask, lambda: None)]))

    conversation = case.source.invoices(case.ask, case.settings)
    assert list(singly(drive(conversation, ask, lambda: None))) == case.play()[1] == asyncio.run(found())


@pytest.mark.parametrize("case", GOOD, ids=name_of)
def test_a_cut_answer_is_never_taken_for_less(case: Case) -> None:
    body = case.body()
    _, whole = case.play()
    for length in range(0, len(body), max(1, len(body) // 300)):
        try:
            _, items = case.play(body[:length])
        except MalformedReplyError:
            continue
        assert normalised(items) == normalised(whole), f"cut after {length} bytes"


@pytest.mark.parametrize("case", BROKEN, ids=name_of)
def test_refuses_what_is_no_answer(case: Case) -> None:
    with pytest.raises(MalformedReplyError) as refused:
        case.play()
    message = str(refused.value)
    assert case.asked["error"] in message
    assert case.settings.conn_id in message
    assert len(message) < 700
    assert message.isprintable()


@pytest.mark.parametrize("case", EVERY, ids=name_of)
def test_keeps_secrets_to_the_headers(case: Case) -> None:
    try:
        requests, items = case.play()
        sent = [case.source.authorise(request, case.settings) for request in requests]
        said = f"{requests} {items} {[(r.path, r.params, r.json) for r in sent]}"
    except MalformedReplyError as error:
        said = str(error)
    secrets = case.source.secrets(case.settings)
    assert PASSWORD in secrets
    assert not any(secret in said for secret in secrets)


@pytest.mark.slow
@pytest.mark.parametrize("growing", GROWING, ids=name_of)
def test_a_longer_answer_takes_no_more_memory(growing: Path) -> None:
    peak_of(growing, megabytes=0.05)  # what is imported on first use takes memory too
    assert peak_of(growing, megabytes=2.4) < peak_of(growing, megabytes=1.2) + 2_000_000


def peak_of(growing: Path, megabytes: float) -> int:
    """Return the bytes of memory that reading takes at most: the middle of the file is sent over and over."""
    before, record, after = growing.read_bytes().split(b"\n~~~\n")
    records = int(megabytes * 1e6 / len(record))
    source = SOURCES[growing.parent.parent.name]
    body = io.BytesIO(before + record * records + after)
    conversation = source.invoices(Ask(source.default_kind, Period.parse("2020-06")), settings_of(source))
    request = next(step for step in conversation if isinstance(step, Request))
    tracemalloc.start()
    try:
        found = chain([conversation.send(Reply(request, "", 200, {}, body, 0, ""))], conversation)
        lines = sum(isinstance(item, InvoiceLine) for item in singly(found))
        assert lines >= records
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
