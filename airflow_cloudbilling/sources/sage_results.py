"""What Sage's states and result files mean; no I/O.

"When 'accepted' or 'failed', the Sage product upload a file with the results of processing": its form is not
documented, so that the usual names are taken (vendor facts 4c, 4d).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from airflow_cloudbilling.model import Outcome
from airflow_cloudbilling.parse.events import Malformed
from airflow_cloudbilling.parse.fields import fold
from airflow_cloudbilling.parse.record_lists import Records
from airflow_cloudbilling.redaction import clean, without_queries
from airflow_cloudbilling.sources.sage_answers import SECRET_NAMES, folded_status

SUCCESS_STATES = ("accepted",)
FAILURE_STATES = ("failed", "rejected", "error", "invalid")
_LISTS = ("results", "records", "orders", "data", "items", "details")
_IDS = ("id", "recordid", "orderid", "externalid", "reference", "key")
_STATES = ("status", "result", "state", "outcome")
_WORDS = ("errors", "error", "message", "messages", "reason", "statusmessage", "description")
_GOOD = (
    "accepted",
    "success",
    "successful",
    "succeeded",
    "ok",
    "created",
    "updated",
    "processed",
    "imported",
    "completed",
)
_BAD = (*FAILURE_STATES, "failure", "refused", "errors", "notaccepted", "notprocessed", "discarded")
_LONGEST = 500  # characters of what Sage says of one record


class States:
    """Which states of an upload are an end; every other is pending.

    :param success: in any case, with or without ``_``, ``-`` and spaces.
    :param failure: so too.
    """

    def __init__(self, success: Iterable[str] | None = None, failure: Iterable[str] | None = None) -> None:
        self._success = frozenset(map(folded_status, SUCCESS_STATES if success is None else success))
        self._failure = frozenset(map(folded_status, FAILURE_STATES if failure is None else failure))

    def end(self, status: str) -> str | None:
        """Return ``accepted`` or ``failed`` for a state that is an end, None for one that is not."""
        state = folded_status(status)
        if state in self._success:
            return "accepted"
        return "failed" if state in self._failure else None


class ResultFile:
    """A result file, read once from its beginning to its end.

    :param body: at its beginning.
    :param end: ``accepted`` or ``failed``: of a record that has neither state nor error.
    """

    def __init__(self, body: IO[bytes], end: str) -> None:
        self._records = Records(body, _LISTS, _IDS, SECRET_NAMES)
        self._end = end

    def __iter__(self) -> Iterator[Outcome]:
        """Yield what the file says of each record, as it is read.

        :raises Malformed: when it is no JSON, or says nothing of records nor of the file.
        """
        try:
            for record in self._records:
                yield self._outcome(record)
        except Malformed:
            if not self._records.around:  # an object that speaks of the file alone
                raise

    @property
    def words(self) -> str:
        """What it says of the file as a whole, known at its end."""
        return _said({fold(name): value for name, value in self._records.around.items()})

    def _outcome(self, record: Any) -> Outcome:
        if not isinstance(record, Mapping):
            raise Malformed(f"expected a record's result, came {clean(str(record))[:60]!r}")
        members = {fold(name): value for name, value in record.items()}
        record_key = _first(members, _IDS)
        return Outcome("" if record_key is None else str(record_key), *_judged(members, _said(members), self._end))


def _judged(members: Mapping[str, Any], said: str, end: str) -> tuple[str, str]:
    """Return the status of a record, and what Sage says of it."""
    state = _first(members, _STATES)
    if state is None:
        state = next((members[name] for name in ("success", "accepted") if name in members), None)
    word = "accepted" if state is True else "rejected" if state is False else folded_status(str(state or ""))
    if word in _GOOD:
        return "accepted", said
    if word in _BAD or (not word and _text(members.get("errors") or members.get("error"))):
        return "rejected", said or str(state)
    if not word:
        return ("accepted" if end == "accepted" else "rejected"), said
    return "unknown", clean(f"Sage's word for it is {str(state)[:60]!r}; {said}").rstrip("; ")


def _said(members: Mapping[str, Any]) -> str:
    return "; ".join(filter(None, (_text(members.get(name)) for name in _WORDS)))


def _first(members: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((members[name] for name in names if members.get(name) not in (None, "")), None)


def _text(value: Any) -> str:
    """Return errors in words: a text, a list of them, or objects such as ``{"field": …, "message": …}``."""
    if isinstance(value, (list, tuple)):
        text = "; ".join(filter(None, map(_text, value)))
    elif isinstance(value, Mapping):
        text = " ".join(filter(None, (_text(each) for each in value.values())))
    else:
        text = "" if value is None or isinstance(value, bool) else without_queries(clean(str(value)))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
