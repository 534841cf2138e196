"""Faults on demand: rules that say which requests go wrong, when, and how."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from airflow_cloudbilling.sandbox.vendor import Answer

FAULTS = ("status", "html", "empty", "body", "redirect", "delay", "reset", "cut", "drip")
HTML = b"<!DOCTYPE html><html><body><h1>Sorry, down for maintenance</h1></body></html>\n"


@dataclass(frozen=True)
class Fault:
    """One rule; the first one that matches a request and is due, decides.

    :param fault: ``status`` (answer with ``status``, ``headers``, ``body``), ``html`` (200 with a web page), ``empty``
        (200 with zero bytes), ``body`` (200 with ``body`` as ``content_type``), ``redirect`` (to ``url``), ``delay``
        (of ``seconds``, then the right answer), ``reset`` (TCP RST after ``at`` bytes of the answer), ``cut`` (the body
        ends after ``at`` bytes), ``drip`` (``rate`` bytes a second).
    :param match: part of the path and query, as sent; empty for every request.
    :param method: the only method concerned.
    :param times: how many requests go wrong; None for all.
    :param after: how many matching requests go well before.
    :param probability: of each due request to go wrong; the dice are seeded.
    :param how: for ``cut`` ``length`` (more announced than sent), ``clean`` (announced as sent) or ``chunked`` (no last
        chunk); for ``drip`` ``head`` when the headers drip as well.
    """

    fault: str
    match: str = ""
    method: str | None = None
    times: int | None = 1
    after: int = 0
    probability: float = 1.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    content_type: str | None = None
    at: int | None = None
    how: str = "length"
    rate: float = 1.0
    seconds: float = 0.0
    url: str | None = None

    def __post_init__(self) -> None:
        if self.fault not in FAULTS:
            raise ValueError(f"fault {self.fault!r} is none of {', '.join(FAULTS)}")
        if self.rate <= 0 or not 0 <= self.probability <= 1 or (self.fault == "redirect" and not self.url):
            raise ValueError(f"fault {self.fault!r}: rate is above 0, probability within 0 and 1, a redirect has a url")

    @property
    def refuses(self) -> bool:
        """Whether the vendor says that it did nothing; after any other fault it has done what was asked for."""
        return self.fault == "status" and 400 <= (self.status or 503) < 500

    def replaced(self, answer: Answer) -> Answer:
        """Return what is answered instead; the right answer when only the wire is at fault."""
        headers = dict(self.headers)
        if self.fault == "status":
            return Answer(self.status or 503, (self.body.encode(),), self.content_type or "text/plain", headers)
        if self.fault == "html":
            return Answer(self.status or 200, (self.body.encode() or HTML,), "text/html; charset=utf-8", headers)
        if self.fault == "empty":
            return Answer(self.status or 200, (), self.content_type or answer.content_type, headers)
        if self.fault == "body":
            content_type = self.content_type or answer.content_type
            return Answer(self.status or 200, (self.body.encode(),), content_type, headers)
        if self.fault == "redirect":
            return Answer(self.status or 302, (), None, {"Location": str(self.url), **headers})
        return answer


class Faults:
    """The rules in force, with what they have seen and done."""

    def __init__(self, seed: int) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._rules: list[tuple[Fault, dict[str, int]]] = []

    def add(self, *faults: Fault) -> None:
        """Put rules behind those in force."""
        with self._lock:
            self._rules += [(fault, {"seen": 0, "fired": 0}) for fault in faults]

    def clear(self) -> None:
        """Drop every rule."""
        with self._lock:
            self._rules.clear()

    def state(self) -> list[dict[str, Any]]:
        """Return the rules with how many requests each has ``seen`` and how often it ``fired``."""
        with self._lock:
            return [{**asdict(fault), **counts} for fault, counts in self._rules]

    def pick(self, method: str, target: str) -> Fault | None:
        """Return the fault for a request, if one is due, and count it."""
        with self._lock:
            for fault, counts in self._rules:
                if fault.match not in target or fault.method not in (None, method):
                    continue
                counts["seen"] += 1
                spent = fault.times is not None and counts["fired"] >= fault.times
                if counts["seen"] > fault.after and not spent and self._random.random() < fault.probability:
                    counts["fired"] += 1
                    return fault
        return None


def parse(spec: str) -> list[Fault]:
    """Read rules: JSON (one object or a list), ``@file`` with JSON, or the short ``status:status=503,times=2``.

    In the short form every value is JSON where it can be read as such, else text.

    :raises ValueError: when it is none of these, with the reason.
    """
    if spec.startswith("@"):
        return parse(Path(spec[1:]).read_text(encoding="utf-8"))
    if spec.lstrip()[:1] in ("[", "{"):
        return from_json(json.loads(spec))
    name, _, rest = spec.partition(":")
    pairs = (pair.partition("=") for pair in rest.split(",") if pair)
    return from_json({"fault": name, **{key: _value(value) for key, _, value in pairs}})


def from_json(rules: Any) -> list[Fault]:
    """Build rules from what JSON gave: one object or a list of them.

    :raises ValueError: when a key is unknown or a value makes no sense.
    """
    known = {one.name for one in fields(Fault)}
    rules = rules if isinstance(rules, list) else [rules]
    for rule in rules:
        if not isinstance(rule, dict) or not rule.keys() <= known or "fault" not in rule:
            raise ValueError(f"a fault is an object with 'fault' and any of {', '.join(sorted(known))}, not {rule!r}")
    return [Fault(**rule) for rule in rules]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
