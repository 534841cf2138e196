"""Retention and erasure: raw bodies and names of customers go after a time, figures stay."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import BaseOperator

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.operators.arguments import given
from airflow_cloudbilling.operators.failing import failing_for_good

if TYPE_CHECKING:
    from airflow.sdk import Context

_ERASE = ("raw", "personal")


class ApplyRetentionOperator(BaseOperator):
    """Erase what vendors sent and names of customers, of periods that ended so many months ago.

    ``raw``: the vendors' records with invoices, lines, revisions and rejects, and, with ``archive``, the bodies there
    that nothing else refers to; such a month cannot be restaged any more. ``personal``: the fields of
    ``personal_fields``. Amounts, ids, hashes and the ledger stay, so importing an old month again writes nothing, as
    long as the vendor's data is the same; what has changed is written anew, with names and raw text, and ``archive=``
    of an import keeps its answers anew. Bodies that another staging database refers to are not known here: give each
    its own archive. Names inside descriptions, file names and the scopes of Sage stay.

    Nothing goes that is under way at Sage, that is neither posted nor in an approved close, or that has changed since
    it was posted, until a person has decided about that finding. Batch by batch, and running it again erases nothing
    more.

    :param staging_conn_id: connection of the staging database.
    :param keep_months: how many full months before the run's stay as they are.
    :param archive: where imports keep answers, as their ``archive=``; empty: bodies stay.
    :param erase: ``raw``, ``personal`` or both.
    :param personal_fields: of ``buyer_name, customer_name, buyer_vat_id, seller_name, subscription_name, description``.
    :param include_open: also what is not posted, approved or decided so; what is under way at Sage never goes.
    :param dry_run: only count.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :raises AirflowFailException: when an argument is wrong.
    """

    template_fields: Sequence[str] = ("staging_conn_id", "keep_months", "archive", "erase", "schema")
    ui_color = "#e8f1ea"

    def __init__(
        self,
        *,
        staging_conn_id: str,
        keep_months: int | str,
        archive: str | None = None,
        erase: Sequence[str] = _ERASE,
        personal_fields: Sequence[str] = ("buyer_name", "customer_name"),
        include_open: bool = False,
        dry_run: bool = False,
        schema: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.staging_conn_id = staging_conn_id
        self.keep_months = keep_months
        self.archive = archive
        self.erase = erase
        self.personal_fields = personal_fields
        self.include_open = include_open
        self._dry_run = dry_run  # BaseOperator has a method of that name
        self.schema = schema

    def execute(self, context: Context) -> dict[str, Any]:
        """Erase what is due.

        :returns: ``{before, dry_run, invoices, lines, revisions, rejects, bodies, elsewhere, kept}``: how many of each
            were (or, in a dry run, would be) erased, of periods that ended by ``before``; ``elsewhere``: bodies that
            are due and not in this archive; ``kept``: old invoices that stay.
        """
        from airflow_cloudbilling.archive import Archive
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.staging.retention import Retention, cutoff

        with failing_for_good():
            what, fields = self._what()
            before = cutoff(_today(context), self._months())
            location = given(self.archive)
            archive = Archive(location) if location else None
            staging = open_staging(self.staging_conn_id, self.schema)
            retention = Retention(
                staging,
                before,
                raw="raw" in what,
                fields=fields,
                include_open=self.include_open,
                dry_run=self._dry_run,
            )
            erased = retention.run(archive).as_dict()
        words = "would be erased" if self._dry_run else "were erased"
        self.log.info("Of periods that ended by %s %s: %s.", before, words, erased)
        if erased["elsewhere"]:
            told = "%s bodies are not in %s: if they were archived elsewhere, run this with that archive= too."
            self.log.warning(told, erased["elsewhere"], location)
        return {"before": before.isoformat(), "dry_run": self._dry_run, **erased}

    def _what(self) -> tuple[Sequence[str], Sequence[str]]:
        what = self.erase.split(",") if isinstance(self.erase, str) else self.erase
        what = [part.strip() for part in what]
        if not what or set(what) - set(_ERASE):
            raise ConfigurationError(f"{self.erase!r} is none of {', '.join(_ERASE)}.", field="erase")
        return what, self.personal_fields if "personal" in what else ()

    def _months(self) -> int:
        months = str(self.keep_months)
        if not months.isdigit() or int(months) < 1:
            raise ConfigurationError(f"{months!r} is no number of months.", field="keep_months")
        return int(months)


def _today(context: Context) -> date:
    """Return the day that the run is for, which a run that is made up for has too."""
    run = context.get("dag_run")
    moment = context.get("logical_date") or getattr(run, "run_after", None)
    found: date = pendulum.instance(moment).date() if moment else pendulum.now("UTC").date()
    return found
