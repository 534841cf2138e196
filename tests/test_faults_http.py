"""A wire that fails: whatever breaks where, what is found is the vendor's whole truth, or an error in bounded time."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from proxy import Break, Proxy
from test_client import fetch
from tiny import Answer, serving

from airflow_cloudbilling.errors import CloudBillingError, UnavailableError, VendorError
from airflow_cloudbilling.found import Item, singly
from airflow_cloudbilling.http.client import Client
from airflow_cloudbilling.model import Finding, Period, Reject
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.settings import Settings, settings_from
from airflow_cloudbilling.source import Ask
from airflow_cloudbilling.sources import SOURCES

Record = Callable[[str, object], None]


class Way(NamedTuple):
    """One vendor, and how it is asked."""

    vendor: str
    kind: str
    extra: dict[str, Any]

    def __str__(self) -> str:
        return "-".join([self.vendor, *map(str, self.extra.values())])


WAYS = [
    Way("twotcloud", "purchase", {"response_format": "json"}),
    Way("twotcloud", "purchase", {"response_format": "xml"}),
    Way("orange_cloudstore", "purchase", {"contract_id": "OCB0001234"}),
    Way("cloudonex", "sales", {"auth_mode": "bearer"}),
    Way("store365", "purchase", {"page_size": 4}),
]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(months=2, invoices=6, rate_limit=10**6) as found:
        yield found


def settings(sandbox: Sandbox, way: Way, port: int | None = None, **extra: Any) -> Settings:
    """Return the connection, at another port of this machine when one is given."""
    fields: dict[str, Any] = sandbox.connections()[f"{way.vendor}_default"]
    fields = {**fields, "extra": {**fields.get("extra", {}), **way.extra, **extra}}
    if port:
        there = str(urlsplit(sandbox.url).port)
        fields = json.loads(json.dumps(fields).replace(f":{there}", f":{port}"))
    return settings_from(SOURCES[way.vendor], f"{way.vendor}_default", **fields)


def found(way: Way, own: Settings, month: str) -> list[Item]:
    """Return all that an import would stage; waits take no time."""
    ask = Ask(way.kind, Period.parse(month), account=str(way.extra.get("contract_id", "")))
    source = SOURCES[way.vendor]
    with Client(source, own, draw=lambda: 0.0) as opened:
        return list(singly(opened.stream(source.invoices(ask, own))))


def positions(total: int) -> list[int]:
    """Return where an answer may break: its first line, its headers, their end, its body, its very end."""
    return sorted({0, 1, 12, 40, total // 5, total // 2, total - 2, total - 1} - {total})


@pytest.mark.thorough
@every_way
def test_a_reset_at_any_byte_costs_an_attempt_and_nothing_else(
    way: Way, sandbox: Sandbox, record_property: Record
) -> None:
    month = sandbox.months[-1]
    with Proxy(urlsplit(sandbox.url).port or 0) as proxy:
        own = settings(sandbox, way, proxy.port, max_connections=1, max_attempts=20)
        truth = found(way, own, month)
        total = sum(proxy.passed)
        assert truth
        if "CLOUDBILLING_TEST_THOROUGH" in os.environ:
            chosen = sorted({*positions(total), *range(0, total, max(1, total // 150))})
        else:
            chosen = positions(total)
        for at in chosen:
            count = itertools.count()
            proxy.plan = lambda _, at=at, count=count: Break(at) if next(count) == 0 else None
            assert found(way, own, month) == truth, at
    record_property("resets", len(chosen))


@every_way
@pytest.mark.parametrize("how", ["reset", "close", "stall"])
def test_a_wire_that_always_breaks_ends_in_words_and_in_time(way: Way, how: str, sandbox: Sandbox) -> None:
    with Proxy(urlsplit(sandbox.url).port or 0, lambda _: Break(300, how)) as proxy:
        own = settings(sandbox, way, proxy.port, max_attempts=3, timeout=0.2)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="given up after 3 attempts"):
            found(way, own, sandbox.months[-1])
        assert time.monotonic() - began < 8


MENDED = (  # what another attempt mends → how the sandbox does it
    *({"fault": "status", "status": status} for status in (500, 502, 503, 504, 429)),
    {"fault": "reset", "at": 0},
    {"fault": "reset", "at": 200},
    {"fault": "cut", "how": "length"},
    {"fault": "cut", "how": "chunked"},
)
FATAL = ({"fault": "html"}, {"fault": "empty"}, {"fault": "cut", "how": "clean"})


def mixed(sandbox: Sandbox, faults: tuple[dict[str, Any], ...], rate: float) -> None:
    """Let a share of all requests go wrong, each time in one of the ways."""
    left = 1.0
    for fault in faults:
        share = rate / len(faults)
        sandbox.inject(times=None, probability=share / left, **fault)
        left -= share


def fired(sandbox: Sandbox) -> int:
    return sum(rule["fired"] for rule in sandbox.faults.state())


SEEDS = 4 if "CLOUDBILLING_TEST_THOROUGH" in os.environ else 1
RATES = (0.01, 0.05, 0.1, 0.2, 0.3) if "CLOUDBILLING_TEST_THOROUGH" in os.environ else (0.3,)


@pytest.mark.thorough
@every_way
@pytest.mark.parametrize("rate", RATES)
def test_a_vendor_of_which_up_to_a_third_fails_gives_its_truth(way: Way, rate: float, record_property: Record) -> None:
    faults = imports = 0
    for nth in range(SEEDS):
        seed = round(10_000 * rate) + nth  # nobody else's: this process may know a token of the port before
        with Sandbox(seed=seed, months=2, invoices=6, rate_limit=10**6) as sandbox:
            own = settings(sandbox, way, max_attempts=100)
            truth = found(way, own, sandbox.months[-1])
            mixed(sandbox, MENDED, rate)
            for _ in range(20):
                assert found(way, own, sandbox.months[-1]) == truth
                imports += 1
                if fired(sandbox) >= 3:
                    break
            faults += fired(sandbox)
    record_property("imports", imports)
    record_property("faults", faults)


@pytest.mark.thorough
@every_way
def test_no_partial_page_is_taken_as_whole(way: Way, record_property: Record) -> None:
    """A page of HTML, none at all, or one that ends early as if that were its end: the truth, or an error.

    Of a file that ends early, a reject or a finding says that it cannot be read.
    """
    truthful = failed = 0
    for seed in range(4 * SEEDS):
        with Sandbox(seed=seed, months=2, invoices=6, rate_limit=10**6) as sandbox:
            own = settings(sandbox, way, max_attempts=4)
            truth = found(way, own, sandbox.months[-1])
            mixed(sandbox, FATAL + MENDED, 0.3)
            try:
                here = found(way, own, sandbox.months[-1])
            except CloudBillingError:
                failed += 1
                continue
            other = [item for item in here if item not in truth]
            assert here == truth or any(isinstance(item, (Reject, Finding)) for item in other)
            truthful += here == truth
    record_property("imports that gave the truth", truthful)
    record_property("that failed", failed)


@pytest.mark.parametrize("skew", [-3600, 0, 3600])
@pytest.mark.parametrize("name", ["Retry_After", "X_RateLimit_Reset"])
def test_a_clock_that_is_an_hour_off_changes_no_wait(skew: int, name: str) -> None:
    """A moment counts from the server's own Date; without one it cannot, and the wait is bounded."""

    def script(answer: Answer) -> None:
        now = time.time() + skew
        if answer.number == 1:
            answer.give(429, Date=formatdate(now, usegmt=True), **{name: formatdate(now + 1, usegmt=True)})
        else:
            answer.give()

    with serving(script) as server:
        began = time.monotonic()
        assert fetch(server.url, max_attempts=2) == b"fine"
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("damage", ["noise", "cut", "flipped", "none of it"])
def test_gzip_that_is_none_ends_in_words_after_the_attempts(damage: str) -> None:
    noise = random.Random(1).randbytes(3000)
    bodies = {"noise": noise, "none of it": b""}

    def script(answer: Answer) -> None:
        if damage in bodies:
            answer.give(body=bodies[damage], Content_Encoding="gzip")
        elif damage == "cut":
            answer.give_gzip(noise, keep=-20)
        else:
            packed = bytearray(gzip.compress(noise))
            packed[len(packed) // 2] ^= 0xFF
            answer.give(body=bytes(packed), Content_Encoding="gzip")

    with serving(script) as server:
        if damage == "none of it":  # no byte at all is an empty body, which each vendor's source judges
            assert fetch(server.url) == b""
            return
        with pytest.raises(UnavailableError, match="gzip body"):
            fetch(server.url, max_attempts=3)
        assert len(server.seen) == 3


@pytest.mark.parametrize("head", [True, False])
def test_a_slow_loris_is_cut(head: bool, sandbox: Sandbox) -> None:
    sandbox.inject("drip", times=None, rate=40, how="head" if head else "body")
    own = settings(sandbox, WAYS[0], timeout=1, total_timeout=1.5)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="total_timeout"):
        found(WAYS[0], own, sandbox.months[-1])
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("way", "page"), [(WAYS[4], "pageNumber=3"), (WAYS[3], "page=1")], ids=["store365", "cloudonex"]
)
def test_a_page_that_always_fails_is_named(way: Way, page: str, sandbox: Sandbox) -> None:
    sandbox.inject("status", status=500, match=page, times=None)
    with pytest.raises(VendorError, match=page):
        found(way, settings(sandbox, way, max_attempts=2), sandbox.months[-1])


PRIVATE = ["http://169.254.169.254/latest/meta-data", "http://[fd00::1]/x", "https://10.0.0.1/x", "file:///etc/passwd",
           "gopher://127.0.0.1/x", "//evil.example/x", "https://user@evil.example/x", "http://127.0.0.2:1/x",
           "https://[::ffff:169.254.169.254]/x", "http://0x7f.1/x", "javascript:alert(1)"]  # fmt: skip


@every_way
@pytest.mark.parametrize("location", PRIVATE)
def test_a_vendor_leads_nowhere_else(way: Way, location: str, sandbox: Sandbox) -> None:
    sandbox.inject(
        "redirect", url=location, times=None, match="voice" if way.vendor != "orange_cloudstore" else "/documents"
    )
    with pytest.raises(VendorError, match=r"is not followed|is no valid address"):
        found(way, settings(sandbox, way), sandbox.months[-1])
