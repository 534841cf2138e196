"""What an ERP that reads staging itself has posted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.arguments import given, keys_of, needed
from airflow_cloudbilling.operators.deciding import who_decides
from airflow_cloudbilling.operators.failing import failing_for_good

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.staging.posting import InvoiceKey, Posting


class MarkPostedOperator(BaseOperator):
    """Mark staged invoices as posted, for ERPs that read staging themselves; from then on they are frozen.

    What the vendor says of them later goes to ``cloudbilling_invoice_revision`` with a finding, and the posted version
    stays. Marking again changes nothing.

    :param staging_conn_id: connection of the staging database.
    :param invoices: keys: mappings with ``provider, account, kind, invoice_id``, or these four in order.
    :param period: instead, every invoice of the slices of this period, ``2026-10`` or ``2026-10-01/2026-11-01``.
    :param reference: what the ERP calls its posting; kept with each invoice.
    :param reason: why, where a person marks them; kept with the reference.
    :param who: the person; ``None``: who started the run. Asked for only with a reason.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :raises AirflowFailException: when an argument is wrong or rendered empty, or an invoice, or any of the period, is
        not staged.
    """

    template_fields: Sequence[str] = (
        "staging_conn_id",
        "invoices",
        "period",
        "reference",
        "reason",
        "who",
        "schema",
    )
    ui_color = "#e8f1ea"

    def __init__(
        self,
        *,
        staging_conn_id: str,
        reference: str,
        invoices: Sequence[Mapping[str, str] | Sequence[str]] | None = None,
        period: str | None = None,
        reason: str | None = None,
        who: str | None = None,
        schema: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.staging_conn_id = staging_conn_id
        self.reference = reference
        self.invoices = invoices
        self.period = period
        self.reason = reason
        self.who = who
        self.schema = schema

    def execute(self, context: Context) -> dict[str, int]:
        """Mark the invoices.

        :returns: ``{invoices, marked}``: how many were named, and how many of them were not marked before.
        """
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.staging.posting import Posting

        with failing_for_good():
            period, reference = given(self.period), needed(self.reference, "reference", "the ERP's own posting")
            if (self.invoices is None) == (period is None):
                raise ConfigurationError("give either invoices or a period.", field="invoices")
            if reason := given(self.reason):
                reference = f"{reference} ({who_decides(context, self.who)}: {reason})"
            posting = Posting(open_staging(self.staging_conn_id, self.schema))
            keys = _of_period(posting, period) if period else keys_of(self.invoices)
            marked = posting.mark(keys, reference)
        self.log.info("%s invoices marked as posted under %r, %s were before.", marked, reference, len(keys) - marked)
        return {"invoices": len(keys), "marked": marked}


def _of_period(posting: Posting, period: str) -> list[InvoiceKey]:
    """Return a period's invoices; a month without any is rather one that was mistyped."""
    if keys := posting.of_period(Period.parse(period)):
        return keys
    raise ConfigurationError(
        f"nothing is staged of {period}, so there is nothing to mark; name a period as it was imported.", field="period"
    )
