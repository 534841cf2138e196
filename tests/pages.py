"""The page as people see it: Airflow's own API server in this process, with users who may read some DAGs only."""

from __future__ import annotations

import html
import json
import os
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi.testclient import TestClient

ALL = "all"
NOTIFIED = "sage_connected_cloud_default"  # the connection that Sage may notify us of, by the address with this token
TOKEN = "token-of-the-notification-url_0123456789"


class PerDag(SimpleAuthManager):
    """Lets a user read the DAGs that their name lists, as managers with roles of one's own do.

    Who is called ``all`` may read all of them; ``outsider`` has a login, and may not look at plugins.
    """

    def is_authorized_dag(self, *, user: Any, details: Any = None, **_: Any) -> bool:
        return user.username == ALL or bool(details and details.id in user.username.split("+"))

    def is_authorized_view(self, *, user: Any, **_: Any) -> bool:
        return user.username != "outsider"


@cache
def airflow_app() -> Any:
    """Return Airflow's application with every plugin that is installed, made once."""
    from airflow.api_fastapi.app import create_app

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "1" * 64)
        patch.setenv("AIRFLOW__CLOUDBILLING__SAGE_NOTIFICATION_TOKENS", json.dumps({NOTIFIED: TOKEN}))
        patch.setenv("AIRFLOW__CORE__AUTH_MANAGER", f"{__name__}.PerDag")
        passwords = Path(os.environ["AIRFLOW_HOME"], "passwords.json")
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(passwords))
        return create_app("core")


class Reader:
    """A person, or a program, that looks at the page.

    :param user: as of :class:`PerDag`; None: without a login.
    """

    def __init__(self, user: str | None = ALL, accept: str = "text/html") -> None:
        from airflow.api_fastapi.app import get_auth_manager

        self.client = TestClient(airflow_app(), follow_redirects=False)
        self.client.headers["Accept"] = accept
        if user:
            token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=user, role="VIEWER"))
            self.client.headers["Authorization"] = f"Bearer {token}"

    def get(self, view: str = "", **params: Any) -> Any:
        """Return the answer to a request for a view, as it is when it no longer says that it will look again."""
        while (
            'http-equiv="refresh"' in (answer := self.client.get(f"/cloudbilling/{view}", params=params or None)).text
        ):
            time.sleep(0.1)
        return answer

    def read(self, view: str = "", **params: Any) -> str:
        """Return the words of a view, with one blank between them."""
        answer = self.get(view, **params)
        assert answer.status_code == 200, answer.text[-500:]
        return words(answer.text)

    def table(self, view: str = "", **params: Any) -> list[list[str]]:
        """Return the cells of a view's last table, row after row."""
        text = self.get(view, **params).text.rpartition("<tbody>")[2]
        return [
            [words(cell) for cell in re.findall(r"(?s)<t[dh]\b[^>]*>(.*?)</t[dh]>", row)]
            for row in text.split("</tr>")[:-1]
        ]


def words(text: str) -> str:
    """Return what a person reads of HTML."""
    shown = re.sub(r"(?s)<(style|script|svg|details)\b.*?</\1>|<[^>]+>", " ", text)
    return " ".join(html.unescape(shown).split())


def links(text: str) -> list[str]:
    """Return the addresses that a page links to."""
    return [html.unescape(found) for found in re.findall(r'href="([^"]*)"', text)]
