"""Whatever bytes come: a parser returns records, or refuses them in words; it never breaks, hangs or rounds.

hypothesis edits what vendors sent; ``make torture`` runs each test for 15 seconds (CLOUDBILLING_FUZZ_SECONDS), and
what that found stands as an ``example``. What atheris found (``make fuzz``, ``fuzz.py``) lies in ``data/fuzz``.
"""

from __future__ import annotations

import json
import os
import time
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conversations import DATA, Case, cases
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from parsers import E_INVOICES, ODD, REPORTS, TARGETS, in_words, outcome, read_invoice, read_report
from planted import forms
from tiny import tiny_settings

from airflow_cloudbilling.errors import RefusedError
from airflow_cloudbilling.http import transport
from airflow_cloudbilling.parse import Unreadable, amount, clean, day, text
from airflow_cloudbilling.parse.files import safe_name
from airflow_cloudbilling.parse.json_cut import without_fields
from airflow_cloudbilling.redaction import redact
from airflow_cloudbilling.source import Request
from airflow_cloudbilling.urls import path_part, target

pytestmark = pytest.mark.thorough
THOROUGH = "CLOUDBILLING_TEST_THOROUGH" in os.environ
SECONDS = float(os.environ.get("CLOUDBILLING_FUZZ_SECONDS", 15))  # of each test, when it runs long
CASES = [case for case in cases() if len(case.body()) > 60]
BEST = [case for case in cases(broken=False) if len(case.body()) > 400]


class Fuzz:
    """Counts what was tried, and lets further examples pass once the time is over.

    :param seen: the test's figures.
    """

    def __init__(self, seen: list[tuple[str, object]]) -> None:
        self._seen = seen
        self._tried = 0
        self._end = time.monotonic() + SECONDS

    def __call__(self) -> bool:
        """Whether to try one more."""
        if THOROUGH and time.monotonic() > self._end:
            return False
        self._tried += 1
        self._seen[:] = [("examples", self._tried)]
        return True


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """Return what counts."""
    return Fuzz(request.node.user_properties)


fuzzed = settings(
    max_examples=5_000 if THOROUGH else 40,
    derandomize=not THOROUGH,  # the same examples for everybody, but where time is to find others
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
edit = st.tuples(st.floats(0, 1), st.integers(0, 40), st.one_of(st.binary(max_size=12), st.sampled_from(ODD)))
edits = st.lists(edit, min_size=1, max_size=4)


def edited(body: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Return a body in which at some places a few bytes are replaced by others."""
    for where, gone, come in changes:
        at = int(where * len(body))
        body = body[:at] + come + body[at + gone :]
    return body


ZERO = [(0.5, 0, b"\0")]  # lxml's words for it have a line break


@given(case=st.sampled_from(CASES), changes=edits)
@example(case=next(case for case in CASES if case.folder.name == "sample-xml"), changes=ZERO).via("a longer run")
@fuzzed
def test_any_bytes_of_a_vendor(fuzz: Fuzz, case: Case, changes: list[tuple[float, int, bytes]]) -> None:
    if not fuzz():
        return
    began = time.monotonic()
    outcome(case, edited(case.body(), changes))
    assert time.monotonic() - began < 5


@given(case=st.sampled_from(BEST), changes=edits)
@fuzzed
def test_a_slow_file_says_the_same(fuzz: Fuzz, case: Case, changes: list[tuple[float, int, bytes]]) -> None:
    if not fuzz():
        return
    body = edited(case.body(), changes)
    assert outcome(case, body, dribble=True) == outcome(case, body)


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[-+]?[0-9.,  ']{1,30}([eE][-+]?[0-9]{1,4})?", fullmatch=True)))
@example("１２").via("Unicode digits")
@fuzzed
def test_any_amount(fuzz: Fuzz, value: str) -> None:
    if not fuzz():
        return
    try:
        canonical = amount(value)
    except Unreadable as error:
        in_words(error)
        return
    assert canonical is None or (amount(canonical) == canonical and format(Decimal(canonical), "f") == canonical)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**26) + 1, max_value=10**26 - 1))
@fuzzed
def test_no_digit_of_an_amount_is_lost(fuzz: Fuzz, value: Decimal) -> None:
    if not fuzz():
        return
    for written in (value, str(value), f"{value:f}", f"{value:E}"):
        canonical = amount(written)
        assert canonical is not None
        assert Decimal(canonical) == value


@given(
    st.one_of(st.text(max_size=40), st.from_regex(r"[0-9]{1,4}[-/.]?[0-9]{1,2}[-/.]?[0-9]{1,4}.{0,12}", fullmatch=True))
)
@fuzzed
def test_any_day_and_any_text(fuzz: Fuzz, value: str) -> None:
    if not fuzz():
        return
    try:
        found = day(value)
        assert found is None or day(found) == found
    except Unreadable:
        pass
    kept = text(value)
    assert kept is None or (text(kept) == kept and "\0" not in kept)
    assert clean(value, 50).isprintable()


names = st.sampled_from(["Orders", "Id", "token", "Password", "a", ""])
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=20,
)


@given(json_values)
@fuzzed
def test_what_nobody_may_store_is_cut_out_and_nothing_else(fuzz: Fuzz, value: Any) -> None:
    if not fuzz():
        return

    def without(one: Any) -> Any:
        if isinstance(one, dict):
            return {name: without(each) for name, each in one.items() if name.lower() not in ("token", "password")}
        return [without(each) for each in one] if isinstance(one, list) else one

    body = json.dumps(value).encode()
    assert json.loads(without_fields(body, ("token", "password"))) == without(value)


@given(st.sampled_from(E_INVOICES), edits)
@example(E_INVOICES[0], ZERO).via("a longer run")
@fuzzed
def test_any_bytes_of_an_e_invoice(fuzz: Fuzz, path: Path, changes: list[tuple[float, int, bytes]]) -> None:
    if not fuzz():
        return
    read_invoice(edited(path.read_bytes(), changes))


@given(st.sampled_from(REPORTS), edits)
@fuzzed
def test_any_bytes_of_a_consumption_report(fuzz: Fuzz, path: Path, changes: list[tuple[float, int, bytes]]) -> None:
    if not fuzz():
        return
    read_report(edited(path.read_bytes(), changes))


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_fuzzers_begin_with_is_read(name: str) -> None:
    seeds = [*TARGETS[name].seeds()]
    assert len({*seeds}) >= 5
    for seed in seeds:
        TARGETS[name].read(seed)


FOUND = sorted((DATA / "fuzz").glob("*/*"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name[:12]}")
def test_what_a_fuzzer_found_stays_mended(path: Path) -> None:
    TARGETS[path.parent.name].read(path.read_bytes())


secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)


@given(secrets, st.text(max_size=30), st.text(max_size=30))
@fuzzed
def test_no_secret_survives_redaction(fuzz: Fuzz, secret: str, before: str, after: str) -> None:
    if not fuzz():
        return
    for _, written in forms(secret):
        assert written not in redact(f"{before}{written}{after}", [secret])


hosts = ["api.example", "files.example", "evil.example", "127.0.0.1", "[::1]", "169.254.169.254", "", "0x7f.1"]
schemes = ["https://", "http://", "//", "https:/", "https:\\\\", "HTTPS://", "file://", "", "javascript:", "https:///"]
addresses = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(schemes),
    st.sampled_from(["", "api.example@", "evil.example@", "a:b@", "api.example\\@", "api.example#@", "api.example?@"]),
    st.sampled_from(hosts),
    st.sampled_from(["", ":443", ":8443", ":0", ":", ":x", ".", ".api.example", "%2eapi.example", "\t"]),
    st.text(st.sampled_from("/\\?#@:%.\t ax\0é"), max_size=8),
)


@given(addresses)
@fuzzed
def test_no_address_leads_to_another_host_than_it_seems(fuzz: Fuzz, address: str) -> None:
    """The library that sends reads an address as the check before it does."""
    if not fuzz():
        return
    own = tiny_settings("https://api.example", allowed_hosts=["files.example"])
    try:
        where = target(Request("GET", address), own)
        asked = transport.httpx.URL(where.url)
    except (RefusedError, transport.httpx.InvalidURL):
        return
    assert asked.scheme == "https"
    assert asked.host in (("api.example",) if where.own else ("api.example", "files.example"))
    assert asked.port in (None, 443)


@given(st.text(max_size=80))
@example("..").via("a folder")
@example("a\0/../b").via("all of them")
@fuzzed
def test_no_name_leads_elsewhere(fuzz: Fuzz, name: str) -> None:
    if not fuzz():
        return
    safe = safe_name(name, "fallback")
    assert safe not in ("", ".", "..")
    assert not set(safe) & set("/\\\0")
    assert len(safe.encode()) <= 255
    url = urlsplit(f"https://api.example/files/{path_part(name)}/x")
    assert (url.netloc, url.query, url.fragment) == ("api.example", "", "")
    assert url.path.count("/") == 3 if name else True
