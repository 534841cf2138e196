"""The page's web application: who may look, and what every answer carries; mounted by Airflow below its own address.

Airflow mounts a plugin's application without asking anybody for a login, so each route asks by Airflow's own means;
the address for Sage's notifications alone, which is off unless configured, asks a token of its own.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from airflow.sdk.exceptions import AirflowNotFoundException
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy.exc import DBAPIError
from starlette.datastructures import MutableHeaders

from airflow_cloudbilling.errors import CloudBillingError, ConfigurationError
from airflow_cloudbilling.page.render import content_security_policy
from airflow_cloudbilling.plugins.asked import Asked, NothingYet, airflow_path, message
from airflow_cloudbilling.plugins.downloads import DOWNLOADS
from airflow_cloudbilling.plugins.sage_notifications import NAME, Unlogged, configured
from airflow_cloudbilling.plugins.views import VIEWS

log = logging.getLogger(__name__)


def create_app() -> FastAPI:
    """Return the application; it describes itself to nobody, since a description would be served without a login."""
    app = FastAPI(title="Cloud billing", docs_url=None, redoc_url=None, openapi_url=None)
    pages = APIRouter(dependencies=[Depends(requires_access_view(AccessView.PLUGINS))])
    for path, view in {**VIEWS, **DOWNLOADS}.items():
        pages.add_api_route(f"/{path}", view, methods=["GET"], response_class=Response)
    app.include_router(pages)
    if notifications := configured():
        app.add_api_route(f"/{NAME}/{{token}}", notifications.take, methods=["POST"], response_class=Response)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(CloudBillingError, _in_words)
    app.add_exception_handler(NothingYet, _nothing_yet)
    app.add_exception_handler(AirflowNotFoundException, _no_connection)
    app.add_exception_handler(DBAPIError, _out_of_reach)
    app.add_middleware(Guarded)
    app.add_middleware(Unlogged)
    return app


class Guarded:
    """Gives every answer the headers that keep it private and whole.

    :param app: the application behind it.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.headers = {
            "Content-Security-Policy": content_security_policy(),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "SAMEORIGIN",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on."""

        async def guarded(event: Any) -> None:
            if event["type"] == "http.response.start":
                MutableHeaders(scope=event).update(self.headers)
            await send(event)

        await self.app(scope, receive, guarded)


async def _refused(request: Request, error: Exception) -> Response:
    """Send a person without a login to Airflow's, and tell others in words; tell a program the status."""
    assert isinstance(error, HTTPException)
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    if error.status_code == 401:
        query = f"?{request.url.query}" if request.url.query else ""
        here = quote(f"{request.url.path}{query}", safe="")
        return RedirectResponse(f"{airflow_path(request)}/api/v2/auth/login?next={here}", 302)
    return message(request, "This cannot be shown", str(error.detail), error.status_code)


async def _in_words(request: Request, error: Exception) -> Response:
    """Show what a person has to mend."""
    status = 400 if isinstance(error, ConfigurationError) else 503
    return message(request, "This cannot be shown", str(error), status)


async def _nothing_yet(request: Request, error: Exception) -> Response:
    """Say how the first import comes; nothing is wrong so far."""
    return message(request, "Nothing is staged yet", str(error), 404, severity="")


async def _no_connection(request: Request, error: Exception) -> Response:
    """Say which connections the page looks for: who has just installed it has none of that name."""
    words = f"{error} [cloudbilling] staging_conn_ids in Airflow's configuration names those that this page shows."
    return message(request, "There is no staging database yet", words, 404)


async def _out_of_reach(request: Request, error: Exception) -> Response:
    """Say that the staging database does not answer; why is for the log, which fewer people read."""
    log.error("The staging database does not answer: %s", error.args[0] if error.args else error)
    words = f"The staging database {Asked.conn_id_of(request)!r} does not answer. Airflow's log says why."
    return message(request, "The staging database does not answer", words, 503)
