"""Staged months in the field's own formats: FOCUS datasets as files on object storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.operators.asking import given, period_of
from airflow_cloudbilling.operators.failing import failing_for_good
from airflow_cloudbilling.operators.files import keeping
from airflow_cloudbilling.tabular import writer

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.objects import Place
    from airflow_cloudbilling.staging.focus_rows import FocusRows


class ExportFocusOperator(BaseOperator):
    """Write a period of what is staged as FOCUS 1.4: the datasets InvoiceDetail and BillingPeriod, a file each.

    ``<destination>/InvoiceDetail/purchase-2026-10.csv``, and likewise below ``BillingPeriod``; each is there wholly or
    not at all, and the same rows give the same bytes. All is read as of one moment, and nothing grows with the number
    of rows. What the rows come to by currency is compared with the staged invoices to the last digit, before the file
    appears.

    :param staging_conn_id: connection of the staging database.
    :param destination: folder, or prefix of a bucket (``s3://conn_id@bucket/focus``).
    :param period: which one, as of :class:`~airflow_cloudbilling.operators.invoices.StageInvoicesOperator`; an invoice
        that several periods return is of the last one.
    :param kind: ``purchase`` or ``sales``; empty for both, in one file.
    :param format: ``csv``, or ``parquet`` with the extra ``parquet`` of this package.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :param timezone: in which calendar months are told.
    :raises AirflowFailException: when an argument is wrong.
    """

    template_fields: Sequence[str] = ("staging_conn_id", "destination", "period", "kind", "format", "schema")
    ui_color = "#e8f1ea"

    def __init__(
        self,
        *,
        staging_conn_id: str,
        destination: str,
        period: str | None = None,
        kind: str | None = "purchase",
        format: str = "csv",
        schema: str | None = None,
        timezone: str = "UTC",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.staging_conn_id = staging_conn_id
        self.destination = destination
        self.period = period
        self.kind = kind
        self.format = format
        self.schema = schema
        self.timezone = timezone

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the files.

        :returns: ``{period, kind, format, datasets: {name: {uri, rows, bytes, sha256}}, totals: {currency: text}}``.
        """
        from airflow_cloudbilling.objects import Place
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.staging.focus_rows import FocusRows, texts
        from airflow_cloudbilling.staging.reading import snapshot

        with failing_for_good():
            period, kind = period_of(context, self.period, self.timezone).period, self._kind()
            place, _ = Place(self.destination, "destination"), writer(self.format)
            staging = open_staging(self.staging_conn_id, self.schema)
            with snapshot(staging.engine) as connection:
                rows = FocusRows(connection, staging.tables, period, kind)
                kept = {dataset: self._write(place, rows, dataset) for dataset in rows.columns}
        totals = texts(rows.totals)
        self.log.info("%s: %s rows in %s; billed: %s.", period.key, *_told(kept["InvoiceDetail"]), totals or "nothing")
        return {"period": str(period), "kind": kind, "format": self.format, "datasets": kept, "totals": totals}

    def _kind(self) -> str | None:
        from airflow_cloudbilling.staging.focus import KINDS

        kind = given(self.kind)
        if kind and kind not in KINDS:
            raise ConfigurationError(f"{kind!r} is neither {' nor '.join(KINDS)}; empty means both.", field="kind")
        return kind

    def _write(self, place: Place, rows: FocusRows, dataset: str) -> dict[str, Any]:
        name = f"{rows.kind or 'all'}-{rows.period.key.replace('/', '_')}.{self.format}"
        with keeping(place, dataset, name) as file:
            count = writer(self.format)(file.stream, rows.columns[dataset], rows.rows(dataset))
            if dataset == "InvoiceDetail":
                rows.check()
        return {"uri": place.address(dataset, name), "rows": count, "bytes": file.bytes, "sha256": file.sha256}


def _told(kept: dict[str, Any]) -> tuple[int, str]:
    return kept["rows"], kept["uri"]
