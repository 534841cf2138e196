"""The plugin ``cloudbilling``: template macros that reckon in billing months.

Every component of Airflow imports it at its start, so it imports next to nothing.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.sdk.plugins_manager import AirflowPlugin

from airflow_cloudbilling.model import Period


def shift_month(month: str, months: int) -> str:
    """Return another month: ``{{ macros.cloudbilling.shift_month("2026-10", -1) }}`` is ``2026-09``.

    :param month: ``YYYY-MM``.
    :param months: how many months later; negative: earlier.
    :raises ConfigurationError: when ``month`` is not a month.
    """
    return Period.parse(month).shifted(months).key


def last_full_month(moment: datetime) -> str:
    """Return the calendar month (UTC) before the one that a moment lies in, as ``YYYY-MM``.

    :param moment: with a time zone, as Airflow's own are: ``macros.cloudbilling.last_full_month(dag_run.run_after)``.
    """
    moment = moment.astimezone(timezone.utc)
    return Period.month(moment.year, moment.month - 1).key


class CloudBillingPlugin(AirflowPlugin):
    """Found by Airflow through the entry point ``airflow.plugins``."""

    name = "cloudbilling"
    macros = [shift_month, last_full_month]  # noqa: RUF012 - declared like this in Airflow's base
