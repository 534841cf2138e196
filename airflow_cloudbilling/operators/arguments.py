"""What a task's arguments mean: the period, the kind, the types of documents, what was left out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.operators.run_period import Chosen, choose_period

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.source import Source
    from airflow_cloudbilling.staging.posting import InvoiceKey


FOLDER = "a folder or a prefix of a bucket"


def given(value: object) -> str | None:
    """Return a templated argument, or None when it was left out or rendered empty (a Param that is null: "None").

    :param value: where a DAG renders native objects, an id of digits comes as a number.
    """
    text = "" if value is None else str(value)
    return text if text.strip() not in ("", "None") else None


def needed(value: object, field: str, what: str) -> str:
    """Return a templated argument that may not be left out.

    :param what: what it is to name, for the error.
    :raises ConfigurationError: when it rendered empty.
    """
    if not (found := given(value)):
        raise ConfigurationError(f"is empty; name {what}. A template that finds nothing renders so.", field=field)
    return found


def keys_of(invoices: Any) -> list[InvoiceKey]:
    """Return the invoices that an argument names; a template may have made JSON of them.

    :raises ConfigurationError: when it names none, or something else.
    """
    from airflow_cloudbilling.staging.posting import InvoiceKey

    found = invoices
    if isinstance(invoices, str):
        try:
            found = json.loads(invoices)
        except ValueError:
            found = None
    if not found or isinstance(found, str | Mapping) or not isinstance(found, Iterable):
        raise ConfigurationError(
            f"{invoices!r} is no list of keys, each of {', '.join(InvoiceKey._fields)}. A template that finds nothing"
            " renders empty, and one that finds a list needs render_template_as_native_obj on the DAG.",
            field="invoices",
        )
    return [InvoiceKey.read(value) for value in found]


def period_of(context: Context, period: str | None, timezone: str) -> Chosen:
    """Return the period that a task run means, as :func:`.choose_period` has it.

    :raises ConfigurationError: when neither the argument nor the run names one.
    """
    run = context.get("dag_run")
    partition_key = getattr(run, "partition_key", None) or context.get("partition_key")
    interval = (context.get("data_interval_start"), context.get("data_interval_end"))
    return choose_period(period, partition_key, interval, timezone)


def kind_of(source: Source, kind: str | None, default: str | None = None) -> str:
    """Return the kind of invoices that a task means; of a vendor without invoices none, it says so when it is asked.

    :param kind: its argument.
    :param default: what stands in for it, before the vendor's own default.
    :raises ConfigurationError: when the vendor has no such kind.
    """
    if not source.kinds:
        return ""
    chosen = given(kind) or default or source.default_kind
    if chosen not in source.kinds:
        raise ConfigurationError(
            f"{source.title} has no invoices of kind {chosen!r}; use {' or '.join(source.kinds)}.", field="kind"
        )
    return chosen


def providers_of(providers: str | Sequence[str] | None) -> list[str] | None:
    """Return the vendors that a task or a command means, or None for all.

    :param providers: connection types; a text has commas between them.
    :raises ConfigurationError: when one is no billing vendor's.
    """
    from airflow_cloudbilling.sources import SOURCES  # with every vendor's module, which no DAG file needs

    if isinstance(providers, str):
        providers = [part.strip() for part in (given(providers) or "").split(",") if part.strip()]
    known = [name for name, source in SOURCES.items() if source.kinds]
    for name in providers or ():
        if name not in known:
            raise ConfigurationError(f"{name!r} is none of {', '.join(known)}.", field="providers")
    return [*providers] if providers else None


def document_types_of(types: str | Sequence[str]) -> tuple[str, ...]:
    """Return the types of documents that a task means; an argument that was templated may have become a text."""
    return tuple(part.strip() for part in types.split(",") if part.strip()) if isinstance(types, str) else (*types,)


def share_of(value: float | str | Decimal, field: str) -> Decimal:
    """Read ``0.1``, ``"10%"`` or ``"10 %"`` as a share of 1.

    :raises ConfigurationError: when it is none.
    """
    text = str(value).strip()
    with suppress(InvalidOperation):
        share = Decimal(text[:-1].strip()) / 100 if text.endswith("%") else Decimal(text)
        if 0 <= share <= 1:
            return share
    raise ConfigurationError(f"{value!r} is not a share such as 0.1 or '10%'.", field=field)
