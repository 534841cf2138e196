"""Staged months in the field's own formats, on object storage: FOCUS datasets, and e-invoices of EN 16931."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any, cast

from airflow.sdk import BaseOperator

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.hooks.lineage import of_file
from airflow_cloudbilling.operators.arguments import FOLDER, given, keys_of, needed, period_of
from airflow_cloudbilling.operators.failing import failing_for_good
from airflow_cloudbilling.operators.files import keeping
from airflow_cloudbilling.operators.lineage import Lineage, Traced
from airflow_cloudbilling.tabular import write_csv, writer

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.object_storage import Place
    from airflow_cloudbilling.operators.einvoices import InvoiceFiles
    from airflow_cloudbilling.staging.focus_rows import FocusRows
    from airflow_cloudbilling.staging.invoices import StagedInvoices
    from airflow_cloudbilling.staging.posting import InvoiceKey

_REQUIRED = ("written", "complete", "nothing")
_INVOICED = ("sales", "purchase", "consolidated")
_IN_MEMORY = 1024 * 1024  # bytes of a report that is not on disk
_NO_CURRENCY = (
    "%s invoices name no currency: their BillingCurrency is empty, which FOCUS does not allow. Map the vendor's field"
    ' in the connection\'s field_map ({"currency": …}) and import again.'
)


class ExportFocusOperator(Traced, BaseOperator):
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

        :returns: ``{period, kind, format, datasets: {name: {uri, rows, bytes, sha256}}, totals: {currency: text},
            without_currency}``: what is due, and how many invoices name no currency.
        """
        from airflow_cloudbilling.object_storage import Place
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.staging.focus_rows import FocusRows, texts
        from airflow_cloudbilling.staging.reading import snapshot

        with failing_for_good():
            period, kind = period_of(context, self.period, self.timezone).period, self._kind()
            place, _ = Place(needed(self.destination, "destination", FOLDER), "destination"), writer(self.format)
            staging = open_staging(self.staging_conn_id, self.schema)
            with snapshot(staging.engine) as connection:
                rows = FocusRows(connection, staging.tables, period, kind)
                kept = {dataset: self._write(place, rows, dataset) for dataset in rows.columns}
        with self.tracing() as lineage:
            self.expect(lineage)
            for one in kept.values():
                lineage.wrote(of_file(one["uri"]), rows=one["rows"], bytes=one["bytes"])
        totals = texts(rows.totals)
        self.log.info("%s: %s rows in %s; due: %s.", period.key, *_told(kept["InvoiceDetail"]), totals or "nothing")
        if rows.without_currency:
            self.log.warning(_NO_CURRENCY, rows.without_currency)
        result = {"period": str(period), "kind": kind, "format": self.format, "datasets": kept, "totals": totals}
        return {**result, "without_currency": rows.without_currency}

    def expect(self, lineage: Lineage) -> None:
        """Note what the files are made of."""
        lineage.read(*self.staged("invoice", "invoice_line", "invoice_tax"))

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


class ExportInvoiceOperator(Traced, BaseOperator):
    """Write staged invoices as UBL 2.1, each as ``<destination>/<kind>/<provider>/<account>/<invoice id>.xml``.

    The files are valid against UBL's schema. What EN 16931 asks for and staging lacks comes from ``defaults``, or
    stands in words in ``<destination>/<kind>-<period>-gaps.csv`` and in the log; nothing is rounded or made up. An id
    that holds ``/``, ``..`` or the like is replaced by its SHA-256.

    :param staging_conn_id: connection of the staging database.
    :param destination: folder, or prefix of a bucket (``s3://conn_id@bucket/invoices``).
    :param period: which one, as of :class:`~airflow_cloudbilling.operators.invoices.StageInvoicesOperator`.
    :param kind: ``sales``, ``purchase`` or ``consolidated``.
    :param invoices: instead of a period's, these: mappings with ``provider, account, kind, invoice_id``, or the four in
        order.
    :param defaults: what stands in for what is not staged: ``seller`` and ``buyer`` (or ``buyers`` by buyer id) with
        ``name, id, registration, vat_id, street, city, postcode, country, endpoint, endpoint_scheme``, and
        ``payment_terms, note, buyer_reference, zero_rate_category, exemption_reason, allowance_reason, charge_reason,
        units`` (the vendor's word → code of UN/ECE Recommendation 20).
    :param require: what fails the task once all is written: ``written``, an invoice of which there can be no valid
        file; ``complete``, any gap; ``nothing``.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :param timezone: in which calendar months are told.
    :raises AirflowFailException: when an argument is wrong, or something that is required is not there.
    """

    template_fields: Sequence[str] = (
        "staging_conn_id",
        "destination",
        "period",
        "kind",
        "invoices",
        "defaults",
        "schema",
    )
    ui_color = "#e8f1ea"

    def __init__(
        self,
        *,
        staging_conn_id: str,
        destination: str,
        period: str | None = None,
        kind: str = "sales",
        invoices: Sequence[Mapping[str, str] | Sequence[str]] | None = None,
        defaults: Mapping[str, Any] | None = None,
        require: str = "written",
        schema: str | None = None,
        timezone: str = "UTC",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.staging_conn_id = staging_conn_id
        self.destination = destination
        self.period = period
        self.kind = kind
        self.invoices = invoices
        self.defaults = defaults
        self.require = require
        self.schema = schema
        self.timezone = timezone

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the invoices.

        :returns: ``{invoices, complete, incomplete, not_written, gaps: {term: how many invoices}, report: {uri, rows,
            bytes, sha256}}``; an invoice is incomplete when something is missing, assumed or does not add up.
        """
        from airflow_cloudbilling.einvoicing.defaults import Defaults
        from airflow_cloudbilling.object_storage import Place
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.operators.einvoices import InvoiceFiles
        from airflow_cloudbilling.staging.invoices import StagedInvoices
        from airflow_cloudbilling.staging.reading import snapshot

        with failing_for_good():
            if self.require not in _REQUIRED:
                raise ConfigurationError(f"{self.require!r} is none of {', '.join(_REQUIRED)}.", field="require")
            defaults = Defaults.read(self.defaults)
            place = Place(needed(self.destination, "destination", FOLDER), "destination")
            staging = open_staging(self.staging_conn_id, self.schema)
            with snapshot(staging.engine) as connection:
                staged = StagedInvoices(connection, staging.tables)
                name, keys = self._chosen(context, staged)
                writing = InvoiceFiles(place, staged, defaults)
                report = self._report(place, f"{name}-gaps.csv", writing.rows(keys))
            with self.tracing() as lineage:
                self.expect(lineage)
                files = writing.counts["complete"] + writing.counts["incomplete"]
                lineage.wrote(of_file(place.address()), files=files)
                lineage.wrote(of_file(report["uri"]), rows=report["rows"], bytes=report["bytes"])
            self._tell(writing)
            return {**writing.counts, "gaps": dict(sorted(writing.terms.items())), "report": report}

    def expect(self, lineage: Lineage) -> None:
        """Note what the files are made of, and their folder."""
        lineage.read(*self.staged("invoice", "invoice_line", "invoice_tax"))

    def _chosen(self, context: Context, staged: StagedInvoices) -> tuple[str, Iterable[InvoiceKey]]:
        if self.invoices is not None:
            return "invoices", keys_of(self.invoices)
        period, kind = period_of(context, self.period, self.timezone).period, given(self.kind) or "sales"
        if kind not in _INVOICED:
            raise ConfigurationError(f"{kind!r} is none of {', '.join(_INVOICED)}.", field="kind")
        return f"{kind}-{period.key.replace('/', '_')}", staged.keys(period, kind)

    def _report(self, place: Place, name: str, rows: Iterator[dict[str, str]]) -> dict[str, Any]:
        from airflow_cloudbilling.operators.einvoices import COLUMNS

        with SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:  # a bucket has one file under way at a time
            count = write_csv(cast("IO[bytes]", spool), COLUMNS, rows)
            spool.seek(0)
            with keeping(place, name) as file:
                shutil.copyfileobj(spool, file)
        return {"uri": place.address(name), "rows": count, "bytes": file.bytes, "sha256": file.sha256}

    def _tell(self, writing: InvoiceFiles) -> None:
        counts = writing.counts
        for words in writing.first:
            self.log.warning("%s", words)
        words = "%(invoices)s invoices: %(complete)s complete, %(incomplete)s incomplete, %(not_written)s not written"
        self.log.info(words, counts)
        failed = counts["not_written"] if self.require == "written" else counts["not_written"] + counts["incomplete"]
        if failed and self.require != "nothing":
            raise ConfigurationError(
                f"{failed} of {counts['invoices']} invoices are not {self.require}: {'; '.join(writing.first[:3])}."
                ' Give what is missing as defaults, or let them be with require="nothing".',
                field="require",
            )


def _told(kept: dict[str, Any]) -> tuple[int, str]:
    return kept["rows"], kept["uri"]
