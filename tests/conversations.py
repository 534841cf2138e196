"""Recorded conversations: a case is a folder with what is asked, what the vendor answered and what must be found."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from airflow_cloudbilling.found import Item, singly
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.settings import Settings, settings_from
from airflow_cloudbilling.source import Ahead, Ask, Reply, Request, Source
from airflow_cloudbilling.sources import SOURCES

DATA = Path(__file__).parent / "data"
LOGIN, PASSWORD = "1000123", "sekret-billing-key"


def settings_of(source: Source, extra: dict[str, Any] | None = None) -> Settings:
    """Return a connection as a user would enter it."""
    return settings_from(
        source,
        f"{source.conn_type}_default",
        conn_type=source.conn_type,
        host=source.default_host or "https://api.example.com",
        login=LOGIN,
        password=PASSWORD,
        extra=extra or {},
    )


def reply_to(
    request: Request,
    body: bytes,
    content_type: str | None = "application/json",
    status: int = 200,
    dribble: bool = False,
) -> Reply:
    """Return the vendor's answer, as the client would hand it over.

    :param dribble: the body's file gives no more than seven bytes at a time.
    """
    file = Dribble(body) if dribble else io.BytesIO(body)
    headers = {"content-type": content_type} if content_type else {}
    return Reply(request, "https://vendor.test/", status, headers, file, len(body), hashlib.sha256(body).hexdigest())


class Dribble(io.BytesIO):
    """A file that never gives what it is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most seven bytes."""
        return super().read(7 if size is None or size < 0 else min(size, 7))


@dataclass(frozen=True)
class Case:
    """One recorded conversation under ``data/<conn_type>/<name>/``."""

    folder: Path

    @property
    def source(self) -> Source:
        """The vendor's source."""
        return SOURCES[self.folder.parent.name]

    @cached_property
    def asked(self) -> dict[str, Any]:
        """The content of ``ask.json``."""
        return dict(json.loads((self.folder / "ask.json").read_text("utf-8")))

    @cached_property
    def settings(self) -> Settings:
        """The connection, with what the case says in ``connection``."""
        return settings_of(self.source, self.asked.get("connection"))

    @cached_property
    def ask(self) -> Ask:
        """What is asked for."""
        given = {k: v for k, v in self.asked.items() if k not in ("connection", "error", "period", "same_as")}
        return Ask(period=Period.parse(self.asked["period"]), **given)

    def body(self, number: int = 1) -> bytes:
        """Return the vendor's recorded answer."""
        (path,) = (p for p in self.folder.glob(f"reply-{number}.*") if p.name != f"reply-{number}.headers.json")
        return path.read_bytes()

    def reply(self, request: Request, number: int, body: bytes | None = None, dribble: bool = False) -> Reply:
        """Return the recorded answer, or another body with its headers."""
        headers = _headers(self.folder, number)
        body = self.body(number) if body is None else body
        return reply_to(request, body, headers["content-type"], headers["status"], dribble)

    def play(self, body: bytes | None = None, dribble: bool = False) -> tuple[list[Request], list[Item]]:
        """Hold the conversation; return what was requested and what was found.

        :param body: what comes instead of the first answer.
        """
        requests: list[Request] = []
        found: list[Item] = []
        conversation = self.source.invoices(self.ask, self.settings)
        answer = None
        while True:
            try:
                step = conversation.send(answer)
            except StopIteration:
                return requests, found
            answer = None
            if isinstance(step, Request):
                requests.append(step)
                answer = self.reply(step, len(requests), body if len(requests) == 1 else None, dribble)
            elif not isinstance(step, Ahead):
                found.extend(singly([step]))


@cache
def _headers(folder: Path, number: int) -> dict[str, Any]:
    return dict(json.loads((folder / f"reply-{number}.headers.json").read_text("utf-8")))


def cases(*, broken: bool | None = None) -> list[Case]:
    """Return every case of every source.

    :param broken: only those whose answer must be refused, or only the others.
    """
    found = [Case(path.parent) for conn_type in SOURCES for path in sorted((DATA / conn_type).glob("*/ask.json"))]
    return [case for case in found if broken is None or ("error" in case.asked) is broken]
