"""The hook of the connection type ``cloudonex``."""

from __future__ import annotations

from airflow_cloudbilling.hooks.billing import BillingHook


class CloudOnexHook(BillingHook):
    """CloudOnex Business Suite: invoices and purchases of a period, and the ten resources of its API.

    :param conn_id: an Airflow connection of the type ``cloudonex``.
    """

    default_conn_name = "cloudonex_default"
    conn_type = "cloudonex"
    hook_name = "CloudOnex"
