"""The plugin ``cloudbilling``: template macros that reckon in billing months, and the page in Airflow's UI.

Every component of Airflow imports it at its start, so it imports next to nothing; only the API server makes the page.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

from airflow_cloudbilling.model import Period

_ICON = (  # an invoice; as part of the address, since the page has no file that is served without a login
    "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' stroke='%23d97706'"
    " stroke-width='2' stroke-linecap='round' stroke-linejoin='round'>"
    "<path d='M5 3h14v18l-3-2-2 2-2-2-2 2-2-2-3 2z'/><path d='M9 8h6M9 12h6'/></svg>"
)


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
    external_views = [  # noqa: RUF012 - so too
        {
            "name": "Cloud billing",
            "href": "cloudbilling/",  # below Airflow's own address, wherever that is
            "url_route": "cloudbilling",
            "destination": "nav",
            "nav_top_level": True,
            "icon": _ICON,
        }
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override] # a list in Airflow's base
        """Return the page's application, made when the API server asks for it."""
        from airflow_cloudbilling.page.addresses import PREFIX
        from airflow_cloudbilling.plugins.app import create_app

        return [{"app": create_app(), "url_prefix": PREFIX, "name": "Cloud billing"}]
