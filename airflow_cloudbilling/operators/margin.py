"""What is earned on what: purchase against sales, as a report for people and a file for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from airflow.sdk import BaseOperator

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.exact import canonical
from airflow_cloudbilling.hooks.lineage import of_file
from airflow_cloudbilling.operators.arguments import given, period_of
from airflow_cloudbilling.operators.failing import failing_for_good
from airflow_cloudbilling.operators.files import keeping
from airflow_cloudbilling.operators.lineage import Lineage, Traced
from airflow_cloudbilling.operators.page_link import PageLink
from airflow_cloudbilling.tabular import write_csv

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.model import Period
    from airflow_cloudbilling.object_storage import Place
    from airflow_cloudbilling.staging.margin_report import Charge, MarginReport, Sums

_IN_MEMORY = 8 * 1024 * 1024  # bytes of the file of charges that are not on disk
_TOLD = 50  # charges of each kind that the report names
_SUMS = ("purchase", "sales", "margin", "bought_only", "sold_only", "bought_otherwise", "sold_otherwise")


class _Column(NamedTuple):
    name: str
    type: str = "text"


class MarginReportOperator(Traced, BaseOperator):
    """Compare what was bought with what was sold of it, by customer, month and currency.

    Lines of one charge (``match_key``) are compared first, what is left by subscription and item. What is bought and
    not sold, sold and not bought, or sold below cost is named. Amounts of different currencies are never netted, and
    every line counts once: a charge is of the month in which it was bought.

    :param staging_conn_id: connection of the staging database.
    :param destination: folder, or prefix of a bucket, for ``margin-2026-10.md``, a page to read, and
        ``margin-2026-10.csv``, every charge; empty: there is only the result.
    :param period: which month, as of :class:`~airflow_cloudbilling.operators.invoices.StageInvoicesOperator`.
    :param months: how many months, the last being that of ``period``.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :param timezone: in which calendar months are told.
    :raises AirflowFailException: when an argument is wrong.
    """

    template_fields: Sequence[str] = ("staging_conn_id", "destination", "period", "months", "schema")
    operator_extra_links = (PageLink(),)
    ui_color = "#e8f1ea"

    def __init__(
        self,
        *,
        staging_conn_id: str,
        destination: str | None = None,
        period: str | None = None,
        months: int | str = 1,
        schema: str | None = None,
        timezone: str = "UTC",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.staging_conn_id = staging_conn_id
        self.destination = destination
        self.period = period
        self.months = months
        self.schema = schema
        self.timezone = timezone

    def execute(self, context: Context) -> dict[str, Any]:
        """Make the report.

        :returns: ``{periods, customers, states: {state: charges}, below_cost, not_issued, totals: {currency: {purchase,
            sales, margin, bought_only, sold_only, bought_otherwise, sold_otherwise}}, report, charges}``; money as
            text, ``not_issued`` how many invoices are drafts or cancelled, and the last two ``{uri, bytes, sha256}``
            of the files, or null.
        """
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.operators.margin_page import not_issued
        from airflow_cloudbilling.staging.margin_report import MarginReport
        from airflow_cloudbilling.staging.reading import let_the_database_learn, snapshot

        with failing_for_good():
            periods = self._periods(context)
            staging = open_staging(self.staging_conn_id, self.schema)
            let_the_database_learn(staging.engine, staging.tables.invoice, staging.tables.invoice_line)
            with snapshot(staging.engine) as connection:
                report = MarginReport(connection, staging.tables)
                kept = self._write(report, periods)
        with self.tracing() as lineage:
            self.expect(lineage)
            for file in filter(None, kept.values()):
                lineage.wrote(of_file(file["uri"]), bytes=file["bytes"])
        totals = {currency: _texts(sums) for currency, sums in report.totals.items()}
        self.log.info("%s charges (%s sold below cost): %s.", sum(report.states.values()), report.below_cost, totals)
        if report.not_issued:
            self.log.warning("%s", not_issued(report.not_issued))
        counts = {"states": dict(report.states), "below_cost": report.below_cost, "not_issued": report.not_issued}
        customers = len({customer.customer_id for customer in report.sums})
        self.page_result = {"periods": [str(p) for p in periods]}
        return {**self.page_result, "customers": customers, **counts, "totals": totals, **kept}

    def expect(self, lineage: Lineage) -> None:
        """Note what is compared."""
        lineage.read(*self.staged("invoice", "invoice_line"))

    def _periods(self, context: Context) -> list[Period]:
        last, months = period_of(context, self.period, self.timezone).period, str(self.months)
        if not months.isdigit() or int(months) < 1:
            raise ConfigurationError(f"{months!r} is no number of months.", field="months")
        return [*(last.shifted(-back) for back in range(int(months) - 1, 0, -1)), last]

    def _write(self, report: MarginReport, periods: list[Period]) -> dict[str, Any]:
        from airflow_cloudbilling.object_storage import Place
        from airflow_cloudbilling.operators.margin_page import Page

        destination = given(self.destination)
        page, place = Page(_TOLD), Place(destination, "destination") if destination else None
        with SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
            rows = (_row(page.noted(charge)) for charge in report.charges(periods))
            write_csv(cast("IO[bytes]", spool), _columns(), rows)
            if place is None:
                return {"report": None, "charges": None}
            spool.seek(0)
            first, last = periods[0].key, periods[-1].key
            name = f"margin-{last if first == last else f'{first}_{last}'}".replace("/", "_")
            charges = self._keep(place, f"{name}.csv", iter(lambda: spool.read(1024 * 1024), b""))
        text = page.text(report, periods).encode()
        return {"report": self._keep(place, f"{name}.md", iter([text])), "charges": charges}

    def _keep(self, place: Place, name: str, parts: Iterator[bytes]) -> dict[str, Any]:
        with keeping(place, name) as file:
            for part in parts:
                file.write(part)
        self.log.info("%s bytes are in %s.", file.bytes, place.address(name))
        return {"uri": place.address(name), "bytes": file.bytes, "sha256": file.sha256}


def _columns() -> list[_Column]:
    from airflow_cloudbilling.staging.margin_report import Charge

    return [_Column(name) for name in (*Charge._fields, "margin", "below_cost")]


def _row(charge: Charge) -> dict[str, str | Decimal | None]:
    return {**charge._asdict(), "margin": charge.margin, "below_cost": "yes" if charge.is_below_cost else None}


def _texts(sums: Sums) -> dict[str, str]:
    return {name: canonical(getattr(sums, name)) for name in _SUMS}
