"""The README says what is true: its DAG runs, its tables of vendors and endpoints are the code's."""

from __future__ import annotations

import ast
import inspect
import os
import re
from importlib import import_module
from typing import Any

import pytest
from airflow.sdk._shared.module_loading import import_string
from conversations import settings_of
from documentation import ROOT, blocks, rows, text_of

from airflow_cloudbilling.provider_info import get_provider_info
from airflow_cloudbilling.source import Endpoint, Request
from airflow_cloudbilling.sources import SOURCES

README = text_of("README.md")


def test_the_table_of_vendors_is_the_registry():
    told = rows(README, "present truth or nothing.\n")
    assert [row.split(" | ")[1] for row in told] == [f"`{name}`" for name in SOURCES]
    for row, source in zip(told, SOURCES.values(), strict=True):
        title, _, kinds, guide = row.strip("| ").split(" | ")
        assert title == source.title
        assert tuple(re.findall(r"`(\w+)`", kinds)) == source.kinds
        assert f"docs/connections.md#{title.lower().replace(' ', '-')})" in guide


def test_the_first_dag_is_short_and_runs(dags_folder, vendor, staging, run_dag):
    code = blocks("python", page="README.md")[0].code
    assert len(code.splitlines()) <= 12
    file = dags_folder / "of_the_readme.py"
    file.write_text(code)
    month = vendor.months[-1]
    result = run_dag(file, partition_key=month)["stage"]
    assert result["invoices"] == sum(truth.invoices for truth in vendor.truth("twotcloud", "purchase", month).values())


# Every endpoint, by method and path as the vendor's document has them, or by the API whose paths it leaves open
DOCUMENTED = {
    "twotcloud": [
        *("GET /v2/consolidatedinvoices", "GET /v2/customerinvoices", "GET /v2/invoices"),
        *("Customers API: GET", "Customers API: POST", "Cloudstore API: GET", "Cloudstore API: POST"),
    ],
    "orange_cloudstore": [
        *("GET /contracts", "GET /contract", "GET /documents", "GET /documents/{id}/file"),
        *("POST /contract/{id}/user", "POST /contract/", "POST https://api.orange.com/oauth/v3/token"),
    ],
    "cloudonex": [
        f"{method} /{resource}"
        for method in ("GET", "POST")
        for resource in (
            *("customers", "invoices", "transactions", "quotes", "products", "orders"),
            *("leads", "suppliers", "purchases", "tickets"),
        )
    ],
    "store365": ["GET /users", "POST https://token.store-it365.eu/auth"],
    "sage_connected_cloud": [
        *("POST /api/developers", "POST /api/developers/{developer_id}/applications", "PATCH /api/apikey"),
        "POST /api/developers/{developer_id}/applications/{application_id}/passcodes",
        *("POST /api/files/{scope}", "GET /api/files/{tracking_id}/tracking", "GET /api/files/{scope}"),
    ],
}
ENDPOINTS = [(source, endpoint) for source in SOURCES.values() for endpoint in source.endpoints]
CALLS: dict[str, Any] = {
    "ListRecordsOperator": lambda source, resource, settings: source.list_records(resource, {}, settings),
    "GetRecordOperator": lambda source, resource, settings: source.get_record(resource, "7", {}, settings),
    "CreateRecordOperator": lambda source, resource, settings: source.create_record(resource, {}, settings),
    "UpdateRecordOperator": lambda source, resource, settings: source.update_record(resource, "7", {}, settings),
    "DeleteRecordOperator": lambda source, resource, settings: source.delete_record(resource, "7", settings),
    "DownloadFileOperator": lambda source, resource, settings: [source.file_request(resource, "7", {}, settings)],
}


def endpoint_row(source: Any, endpoint: Endpoint) -> str:
    return f"| {source.title} | `{endpoint.document}` | `{endpoint.hook}` | `{endpoint.operator}` |"


def endpoint_table() -> list[str]:
    return [endpoint_row(source, endpoint) for source, endpoint in ENDPOINTS]


def call(text: str) -> tuple[str, list[ast.expr], dict[str, ast.expr]]:
    """Return the name, the arguments and the named arguments of a call, or of a bare name."""
    node = ast.parse(text.replace("…", "..."), mode="eval").body
    if isinstance(node, ast.Name):
        return node.id, [], {}
    assert isinstance(node, ast.Call), text
    assert isinstance(node.func, ast.Name), text
    return node.func.id, node.args, {str(keyword.arg): keyword.value for keyword in node.keywords}


def is_of_the_token(source: Any, endpoint: Endpoint) -> bool:
    """Whether nobody calls it: the client fetches tokens by itself."""
    request = source.credential_request(settings_of(source, SPECIMEN.get(source.conn_type)))
    return request is not None and endpoint.document == f"{request.method} {request.path}"


SPECIMEN = {
    "twotcloud": {"customers_api_key": "key", "cloudstore_api_key": "key"},
    "orange_cloudstore": {"api_key": "key", "contract_id": "c-1"},
    "store365": {"client_id": "client"},
}


def operators() -> dict[str, type]:
    modules = [name for entry in get_provider_info()["operators"] for name in entry["python-modules"]]
    return {name: one for module in modules for name, one in vars(import_module(module)).items()}


def test_the_table_of_endpoints_is_the_sources():
    """``CLOUDBILLING_UPDATE_GOLDENS=1`` writes it anew."""
    heading = "| vendor | endpoint | hook method | operator |\n| --- | --- | --- | --- |\n"
    if os.environ.get("CLOUDBILLING_UPDATE_GOLDENS") == "1":
        before, after = README.split(heading, 1)
        rest = after[after.index("\n\n") :]
        (ROOT / "README.md").write_text(f"{before}{heading}{chr(10).join(endpoint_table())}{rest}")
    below = (ROOT / "README.md").read_text().split(heading, 1)[1]
    assert below.split("\n\n", 1)[0].splitlines() == endpoint_table()


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_endpoint_of_the_vendors_document_has_a_row(source):
    rows = [f"{endpoint.document} " for endpoint in source.endpoints]
    assert [name for name in DOCUMENTED[source.conn_type] if not any(row.startswith(f"{name} ") for row in rows)] == []


@pytest.mark.parametrize(("source", "endpoint"), ENDPOINTS)
def test_each_row_names_a_method_and_an_operator_that_do_it(source, endpoint):
    name, arguments, named = call(endpoint.hook)
    inspect.signature(getattr(import_string(source.hook_class), name)).bind("self", *arguments, **named)
    if is_of_the_token(source, endpoint):
        return
    name, arguments, named = call(endpoint.operator)
    assert arguments == []
    taken = {p for kind in operators()[name].__mro__ for p in inspect.signature(kind.__init__).parameters}
    assert set(named) <= taken
    if name in CALLS:
        resource = ast.literal_eval(named["resource"])
        steps = CALLS[name](source, resource, settings_of(source, SPECIMEN.get(source.conn_type)))
        request = next(step for step in steps if isinstance(step, Request))
        assert re.search(rf"\b{request.method} ", endpoint.document), request
