"""A connection to the sandbox's Sage, and files to send there."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pytest

from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
from airflow_cloudbilling.sandbox.server import Sandbox

CONN_ID = "sage_connected_cloud_default"
ORDERS = json.dumps([{"id": "CI-1"}, {"id": "CI-2"}]).encode()


def connect(vendor: Sandbox, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> SageConnectedCloudHook:
    """Change the connection, and return its hook.

    :param changes: host, login and password; every other one is a key of ``extra``.
    """
    fields = vendor.connections()[CONN_ID]
    own = {name: changes.pop(name) for name in [*changes] if name in ("host", "login", "password")}
    fields = {**fields, **own, "extra": {**fields["extra"], **changes}}
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(fields))
    return SageConnectedCloudHook()


def upload(hook: SageConnectedCloudHook, content: bytes = ORDERS, **more: Any) -> str:
    """Send a file and return its tracking id."""
    digest = hashlib.sha256(content).hexdigest()
    told = {"name": "orders.json", "size": len(content), "sha256": digest, **more}
    return hook.upload("Orders", io.BytesIO(content), **told).tracking_id
