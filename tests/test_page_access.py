"""Nobody without a login sees a figure, and who may read some DAGs sees what those have imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from months import SEPTEMBER, bill
from pages import ALL, Reader, airflow_app, links
from staged import OCTOBER, Erp, load, open_staging
from starlette.routing import Mount

from airflow_cloudbilling.plugins.app import create_app
from airflow_cloudbilling.staging.ledger import Run

SALES = OCTOBER._replace(kind="sales", account="20002")


NO_LOGIN = ["/notifications/{token}"]  # Sage's calls, where that is configured: the only exception


def page_routes() -> list[str]:
    """Return the path of every route that wants a login, whatever kind of route it is."""
    (mounted,) = (r for r in airflow_app().routes if isinstance(r, Mount) and r.path == "/cloudbilling")
    return [route.path for route in mounted.app.routes if route.path not in NO_LOGIN]


def test_every_route_is_one_that_asks() -> None:
    (mounted,) = (r for r in airflow_app().routes if isinstance(r, Mount) and r.path == "/cloudbilling")
    assert len(mounted.app.routes) > 10
    methods = {route.path: [*route.methods] for route in mounted.app.routes if isinstance(route, APIRoute)}
    assert methods == {path: ["POST" if path in NO_LOGIN else "GET"] for path in [*page_routes(), *NO_LOGIN]}


def test_the_route_without_a_login_is_there_only_where_it_is_configured() -> None:
    routes = [route.path for route in create_app().routes]
    assert sorted(routes) == sorted(page_routes())
    assert Reader(None).client.post("/cloudbilling/notifications/guessed").status_code == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nobody_without_a_login_sees_a_figure(staging: Any, method: str) -> None:
    client = Reader(None, accept="*/*").client
    for path in page_routes():
        answer = client.request(method, f"/cloudbilling{path}")
        assert answer.status_code == 401 if method == "GET" else answer.status_code in (401, 405), path
        assert len(answer.content) < 100


def test_a_forged_login_is_none() -> None:
    client = Reader(None).client
    client.headers["Authorization"] = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGwifQ."
    assert {client.get(f"/cloudbilling{path}").status_code for path in page_routes()} == {403}
    client.headers.pop("Authorization")
    client.cookies.set("_token", "forged")
    assert {client.get(f"/cloudbilling{path}").status_code for path in page_routes()} <= {302, 401, 403}


def test_a_person_without_a_login_is_sent_to_airflows_and_back() -> None:
    answer = Reader(None).get("invoices", period="2026-10", provider="twotcloud")
    assert answer.status_code == 302
    location = answer.headers["location"]
    assert location.startswith("/api/v2/auth/login?next=%2Fcloudbilling%2Finvoices%3Fperiod%3D2026-10")
    assert Reader(None).client.get(location).status_code == 307  # Airflow takes it for a safe place to go back to


def test_who_may_not_look_at_plugins_sees_nothing() -> None:
    outsider = Reader("outsider")
    assert {outsider.client.get(f"/cloudbilling{path}").status_code for path in page_routes()} == {403}


@pytest.fixture
def two_teams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Erp:
    """Two accounts, each imported by a DAG of its own, and one that no DAG has imported."""
    erp = Erp("sqlite", tmp_path)
    monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(erp.connection))
    staging = open_staging(erp)
    load(staging, bill(1, buyer_name="Alpha BV"), SEPTEMBER, Run("dag_a", "stage", "run-a", -1, 1))
    load(staging, bill(1, buyer_name="Alpha BV"), OCTOBER, Run("dag_a", "stage", "run-a", -1, 1))
    load(staging, bill(2, buyer_name="Beta BV"), SALES, Run("dag_b", "stage", "run-b", -1, 1))
    load(staging, bill(3, buyer_name="Gamma BV"), OCTOBER._replace(account="30003"))
    return erp


def test_a_user_sees_what_the_dags_that_they_may_read_have_imported(two_teams: Erp) -> None:
    everything, of_a = (Reader(user).read(amount="gross") for user in (ALL, "dag_a"))
    assert "sales" in everything
    assert "sales" not in of_a
    assert "1 invoice" in of_a
    assert "121.00" in of_a
    assert "242.00" in everything  # both purchases
    assert "242.00" not in of_a
    assert "Nothing is staged yet" in Reader("dag_c").read()


OF_B = {"provider": "twotcloud", "account": "20002", "kind": "sales"}


@pytest.mark.parametrize(
    ("view", "params"),
    [
        ("invoices", {**OF_B, "period": "2026-10"}),
        ("invoices.csv", {**OF_B, "period": "2026-10"}),
        ("invoice", {**OF_B, "id": "INV-2"}),
    ],
)
def test_what_one_may_not_see_is_answered_like_what_is_not_there(two_teams: Erp, view: str, params: Any) -> None:
    assert Reader("dag_b").get(view, **params).status_code == 200
    hidden = Reader("dag_a").get(view, **params)
    absent = Reader("dag_a").get(view, **{**params, "account": "99999"})
    assert (hidden.status_code, hidden.text.replace("20002", "99999")) == (404, absent.text)


def test_a_search_finds_what_one_may_see(two_teams: Erp) -> None:
    assert [row[0] for row in Reader(ALL).table("search", q=" bv")] == ["F-1", "F-2", "F-3"]
    assert [row[0] for row in Reader("dag_b").table("search", q=" bv")] == ["F-2"]


def test_a_margin_compares_all_accounts_and_is_for_who_may_see_all(two_teams: Erp) -> None:
    assert Reader(ALL).get("margin").status_code == 200
    for view in ("margin", "margin.csv"):
        assert Reader("dag_a+dag_b").get(view, period="2026-10").status_code == 403


def test_findings_are_those_of_accounts_that_one_sees(two_teams: Erp) -> None:
    finding = (
        "INSERT INTO cloudbilling_finding (finding_id, provider, account, kind, period, rule, severity, message,"
        " created_at) VALUES ('{0}', 'twotcloud', '{0}', '{1}', '2026-10-01/2026-11-01', 'r-{0}', 'error', 'm',"
        " '2026-11-01 00:00:00')"
    )
    two_teams.execute(finding.format("10001", "purchase"))
    two_teams.execute(finding.format("20002", "sales"))
    assert [row[1] for row in Reader(ALL).table("findings")] == ["r-10001", "r-20002"]
    assert [row[1] for row in Reader("dag_b").table("findings")] == ["r-20002"]
    csv = Reader("dag_b").get("findings.csv").text
    assert "r-20002" in csv
    assert "r-10001" not in csv


def test_a_run_is_linked_for_who_may_read_its_dag(two_teams: Erp) -> None:
    invoice = {"provider": "twotcloud", "account": "10001", "kind": "purchase", "id": "INV-1"}
    (run,) = [link for link in links(Reader("dag_a").get("invoice", **invoice).text) if "/dags/" in link]
    assert run == "/dags/dag_a/runs/run-a/tasks/stage"
    load_id = two_teams.query("SELECT load_id FROM cloudbilling_load WHERE dag_id = 'dag_a'")[0][0]
    assert Reader("dag_a").get("load", id=load_id).status_code == 200
    assert Reader("dag_b").get("load", id=load_id).status_code == 404


def test_a_connection_that_is_not_named_is_not_opened(two_teams: Erp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(two_teams.connection))
    answer = Reader().get("", staging="other")
    assert answer.status_code == 400
    assert "staging_conn_ids" in answer.text
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__STAGING_CONN_IDS", "erp_staging, other")
    assert Reader().get("", staging="other").status_code == 200


def test_looking_changes_nothing(two_teams: Erp) -> None:
    before, reader = two_teams.everything(), Reader()
    seen, ahead = set[str](), ["/cloudbilling/"]
    while ahead:
        address = ahead.pop()
        seen.add(address)
        answer = reader.client.get(address)
        assert answer.status_code == 200, address
        ahead += {one for one in links(answer.text) if one.startswith("/cloudbilling")} - seen - set(ahead)
    assert len({address.partition("?")[0] for address in seen}) > 8
    assert two_teams.everything() == before
