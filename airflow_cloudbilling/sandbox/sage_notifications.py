"""The sandbox's Sage as a client: it calls the ``notificationUrl`` that was registered, on this machine only."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_cloudbilling.urls import is_loopback

_SECONDS = 30.0


def notification_url(registered: Mapping[str, Any]) -> str:
    """Return the ``notificationUrl`` of what was registered, of the application too that came with a developer."""
    for name, value in registered.items():
        if name == "notificationUrl":
            return str(value)
        if isinstance(value, Mapping) and (found := notification_url(value)):
            return found
    return ""


def notify(url: str, payload: Mapping[str, str]) -> int:
    """Send a notification, as JSON; return the answer's status, 0 when there was none.

    :raises ValueError: when the address is not plain HTTP of this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not is_loopback(parts.hostname or ""):
        raise ValueError(f"the sandbox calls this machine only, not {parts.scheme}://{parts.hostname}")
    connection = http.client.HTTPConnection(parts.netloc, timeout=_SECONDS)
    try:
        connection.request("POST", parts.path, json.dumps(payload), {"Content-Type": "application/json"})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()
