"""Sage's operations and their paths, which the connection's ``paths`` may change: the document's own are lost."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any, NamedTuple

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Endpoint
from airflow_cloudbilling.urls import path_part


class Operation(NamedTuple):
    """One operation of the API.

    :param path: the template in force unless the connection has its own.
    :param needs: the placeholder that a template must hold, if any; the others of ``path`` it may.
    """

    method: str
    path: str
    needs: str = ""


# "POST developers", "POST applications", "POST passcodes", "PATCH apikey" and "GET tracking file" are the document's;
# the folders come from its predecessor (vendor facts 4b), and upload and download are assumed (4c).
OPERATIONS: Mapping[str, Operation] = {
    "register_developer": Operation("POST", "/api/developers"),
    "register_application": Operation("POST", "/api/developers/{developer_id}/applications"),
    "create_passcode": Operation("POST", "/api/developers/{developer_id}/applications/{application_id}/passcodes"),
    "rotate_api_key": Operation("PATCH", "/api/apikey"),
    "upload": Operation("POST", "/api/files/{scope}"),
    "tracking": Operation("GET", "/api/files/{tracking_id}/tracking", "tracking_id"),
    "download": Operation("GET", "/api/files/{scope}", "scope"),
}

_CALLS = {
    "register_developer": ("register_developer({…})", "SageRegisterDeveloperOperator(data={…})"),
    "register_application": ("register_application({…})", "SageRegisterApplicationOperator(data={…})"),
    "create_passcode": ("create_passcode()", "SageCreatePasscodeOperator(return_passcode=True)"),
    "rotate_api_key": ("rotate_api_key()", "SageRotateApiKeyOperator()"),
    "upload": (
        'upload("Orders", file, name="orders.json", size=512, sha256="…")',
        'SageUploadOperator(scope="Orders")',
    ),
    "tracking": ('track("7c0d8b1e")', 'SageTrackUploadOperator(tracking_id="7c0d8b1e")'),
    "download": ('download_scope("Products")', 'SageDownloadScopeOperator(scope="Products", destination="s3://…")'),
}
ENDPOINTS = tuple(Endpoint(f"{OPERATIONS[name].method} {OPERATIONS[name].path}", *_CALLS[name]) for name in _CALLS)


def path_of(operation: str, settings: Settings, **values: str) -> str:
    """Return the path of an operation.

    :param values: for the placeholders; whatever they hold, each stays one part of the path.
    :raises ConfigurationError: when the connection's template makes no sense, or a value is empty.
    """
    template = template_of(operation, settings)
    for name, value in values.items():
        if f"{{{name}}}" in template and not value.strip():
            raise ConfigurationError("is empty; say which one is meant.", conn_id=settings.conn_id, field=name)
    return template.format(**{name: path_part(value) for name, value in values.items()})


def template_of(operation: str, settings: Settings) -> str:
    """Return the template in force: the connection's, or the default."""
    return str(_own(settings).get(operation) or OPERATIONS[operation].path)


def check_paths(settings: Settings) -> None:
    """Look at every template of the connection before anything is asked.

    :raises ConfigurationError: naming the operation and what is wrong with its template.
    """
    for operation, template in _own(settings).items():
        if wrong := _wrong(operation, template):
            raise ConfigurationError(wrong, conn_id=settings.conn_id, field="paths")


def _own(settings: Settings) -> Mapping[str, Any]:
    return settings.options.get("paths") or {}


def _wrong(name: str, template: Any) -> str | None:
    """Return what is wrong with a template, in words."""
    if name not in OPERATIONS:
        return f"{name!r} is no operation; they are {', '.join(OPERATIONS)}."
    operation = OPERATIONS[name]
    if not isinstance(template, str) or not template.startswith("/") or "//" in template:
        return f"{name!r} must be given a path below the host, such as {operation.path!r}, not {template!r}."
    known = {named for _, named, _, _ in Formatter().parse(operation.path) if named}
    try:
        parsed = [(named, spec, as_) for _, named, spec, as_ in Formatter().parse(template) if named is not None]
    except ValueError as error:
        return f"{name!r}: {template!r} is no template ({error}); write it as {operation.path!r}."
    if any(named not in known or spec or as_ for named, spec, as_ in parsed):
        has = " and ".join(f"{{{each}}}" for each in sorted(known)) or "no placeholder"
        return f"{name!r}: {template!r} has a placeholder that is not known; this operation has {has}."
    if operation.needs and operation.needs not in {named for named, _, _ in parsed}:
        return f"{name!r}: {template!r} lacks {{{operation.needs}}}, so that it would always ask the same."
    return None
