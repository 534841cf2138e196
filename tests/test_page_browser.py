"""The page in a real browser: Airflow's login, its navigation, the way down to a line; by dark, and on a phone.

Runs where there is a Chromium, which Debian has as ``chromium``. ``CLOUDBILLING_TEST_SCREENSHOTS`` names a folder to
keep the screenshots in; ``CLOUDBILLING_TEST_CHROMIUM`` one that must be there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from importing import stage
from real_airflow import RealAirflow, Standalone, real_airflow, until
from staged import Erp, open_staging

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.page.render import money
from airflow_cloudbilling.reconcile.approval import approve
from airflow_cloudbilling.reconcile.month import Scope, reconcile
from airflow_cloudbilling.sandbox.server import Sandbox

CHROMIUM = os.environ.get("CLOUDBILLING_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
IMPORTS = {
    "twotcloud_default": ("purchase", "sales"),
    "orange_cloudstore_default": ("purchase",),
    "cloudonex_default": ("purchase", "sales"),
    "store365_default": ("purchase",),
}
# The frame's address is part of the window's own since Airflow 3.3.
SHOWS_ADDRESSES = tuple(map(int, version("apache-airflow-core").split(".")[:2])) >= (3, 3)
PATIENCE = 60_000  # milliseconds; a machine that tests is busy
QUIET = (
    "--no-first-run",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

DAG_FILE = """
from airflow.sdk import DAG
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator

with DAG("imports", schedule=None):
    StageInvoicesOperator(
        task_id="stage", conn_id="twotcloud_default", staging_conn_id="erp_staging", period="{month}", kind="sales"
    )
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@contextmanager
def browser() -> Iterator[Any]:
    """Run a Chromium that talks to this machine only."""
    from playwright.sync_api import sync_playwright

    own = ("--no-sandbox",) if os.getuid() == 0 else ()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *own])
        yield chromium
        chromium.close()


class Visit:
    """A person at a browser, logged in to Airflow.

    :param context: of the browser.
    :param shots: folder of the screenshots.
    """

    def __init__(self, airflow: RealAirflow, context: Any, shots: Path) -> None:
        self.url = airflow.url
        self.window = context.new_page()
        self.window.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.window.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.window.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page = self.window.frame_locator("iframe")
        self._shots = shots

    def log_in(self, address: str) -> None:
        """Go to an address, and log in where Airflow asks for it."""
        self.window.goto(self.url + address)
        self.window.fill("input[name=username]", "admin")
        self.window.fill("input[name=password]", "admin")
        self.window.keyboard.press("Enter")

    def open(self) -> None:
        """Open the page from Airflow's navigation."""
        self.window.get_by_text("Cloud billing").first.click()
        self.complaints.clear()  # of what Airflow asks before the login
        self.page.locator("table.matrix").wait_for()

    def heading(self, text: str) -> None:
        """Wait for a view by its heading."""
        self.page.locator("h1", has_text=text).wait_for()

    def shoot(self, name: str) -> None:
        """Keep what is seen now."""
        self.window.screenshot(path=self._shots / f"{name}.png")


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("CLOUDBILLING_TEST_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def billed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Three months of every vendor, staged, checked and the first of them approved; the last lacks a vendor."""
    erp = Erp("sqlite", tmp_path_factory.mktemp("billed"))
    with Sandbox(months=3, invoices=6, last_month=date(2026, 10, 1)) as sandbox, pytest.MonkeyPatch.context() as patch:
        for name, value in sandbox.environment().items():
            patch.setenv(name, value)
        patch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(erp.connection))
        for month in sandbox.months:
            for conn_id, kinds in IMPORTS.items():
                if (conn_id, month) != ("store365_default", "2026-10"):
                    for kind in kinds:
                        stage(month, conn_id=conn_id, kind=kind)
            close = reconcile(open_staging(erp), Scope(Period.parse(month))).close
            if month == sandbox.months[0]:
                approve(open_staging(erp), close.close_id, "Ann Accountant")
        yield sandbox


@pytest.fixture(scope="module")
def airflow(billed: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAirflow]:
    """Run Airflow's API server, which serves its UI."""
    started = RealAirflow(tmp_path_factory.mktemp("ui"))
    try:
        started.start("api-server")
        until(lambda: started.call("GET", "/api/v2/monitor/health"))
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


def test_a_person_finds_the_page_and_follows_a_figure_to_its_lines(
    airflow: RealAirflow, billed: Sandbox, chromium: Any, shots: Path
) -> None:
    visit = Visit(airflow, chromium.new_context(viewport={"width": 1440, "height": 900}), shots)
    visit.log_in("/")
    visit.open()
    visit.shoot("months")
    for word in ("missing", "staged", "approved"):
        assert visit.page.locator(f"table.matrix .state.{word}").count() > 0
    truth = billed.truth("twotcloud", "sales", "2026-10")
    cell = visit.page.locator('a.cell[href*="period=2026-10&provider=twotcloud&kind=sales"]')
    shown = cell.inner_text()
    assert f"{sum(one.invoices for one in truth.values())} invoices" in shown
    for currency, one in truth.items():
        assert f"{money(one.net, currency)}\n{currency}" in shown

    cell.click()
    visit.heading("2tCloud, sales, 2026-10")
    visit.shoot("invoices")
    assert not SHOWS_ADDRESSES or "/plugin/cloudbilling/cloudbilling/invoices?" in visit.window.url
    visit.page.locator("tbody a").first.click()
    visit.heading("Invoice")
    visit.shoot("invoice")
    assert visit.page.locator("tbody tr").count() > 1
    number = visit.page.locator("h1").inner_text().split()[-1]
    if SHOWS_ADDRESSES:
        visit.window.reload()
        visit.heading(number)

    visit.page.get_by_role("searchbox").fill(number)
    visit.page.get_by_role("button", name="Search").click()
    visit.heading("Invoices with")
    visit.shoot("search")
    assert visit.page.locator("tbody a", has_text=number).count() > 0
    for name in ("Findings", "Margin"):
        visit.page.get_by_role("navigation").get_by_role("link", name=name).click()
        visit.heading(name)
        visit.shoot(name.lower())
    with visit.window.expect_download() as saved:
        visit.page.get_by_role("link", name="Every charge as CSV").click()
    assert saved.value.suggested_filename == "margin-2026-10.csv"
    visit.page.get_by_role("link", name="Open by itself").click()
    visit.window.wait_for_url("**:*/cloudbilling/margin**")
    visit.window.locator("h1", has_text="Margin").wait_for()
    assert visit.complaints == []


def test_it_is_read_by_dark_and_on_a_phone(airflow: RealAirflow, chromium: Any, shots: Path) -> None:
    for name, width, scheme in (("dark", 1440, "dark"), ("phone", 390, "light")):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        visit = Visit(airflow, context, shots)
        visit.log_in("/cloudbilling/findings")
        visit.window.wait_for_url("**/cloudbilling/findings")  # after the login one is where one wanted to go
        visit.window.get_by_role("link", name="Months").click()
        visit.window.locator("table.matrix").wait_for()
        visit.shoot(f"months-{name}")
        root = "document.documentElement"
        assert visit.window.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")  # tables scroll within themselves
        latest = (
            "Math.max(...[...document.querySelectorAll('figure rect')].map(one => one.getBoundingClientRect().right))"
        )
        assert visit.window.evaluate(f"{latest} <= {root}.clientWidth")  # charts begin at their end
        back = visit.window.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(255, 255, 255)") is (scheme == "light")
        assert visit.complaints == []
    visit.window.set_viewport_size({"width": 1440, "height": 900})
    visit.window.goto(f"{airflow.url}/")
    visit.open()
    assert visit.page.locator("html").get_attribute("data-theme") == "light"
    visit.window.evaluate("document.documentElement.classList.replace('light', 'dark')")  # as Airflow's switch does
    visit.page.locator("html[data-theme=dark]").wait_for()
    visit.shoot("months-in-dark-airflow")


@pytest.mark.processes
def test_a_figure_leads_to_the_run_that_imported_it(
    chromium: Any, shots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    erp = Erp("sqlite", tmp_path)
    monkeypatch.delenv("AIRFLOW_CONN_ERP_STAGING", raising=False)
    home = tmp_path / "airflow"
    home.mkdir()
    with Sandbox(months=2, invoices=3) as sandbox:
        for name, value in sandbox.environment().items():
            monkeypatch.setenv(name, value)
        with real_airflow(home, Standalone) as airflow:
            (airflow.dags / "imports.py").write_text(DAG_FILE.format(month=sandbox.months[-1]))
            airflow.ready()
            named = {"connection_id": "erp_staging", "conn_type": "sqlite", "host": erp.connection["host"]}
            airflow.call("POST", "/api/v2/connections", named)  # it lies in Airflow's own database, as a user's does
            run_id = airflow.run("imports")
            until(lambda: airflow.runs("imports")[run_id] in ("success", "failed"))
            assert airflow.runs("imports")[run_id] == "success"
            visit = Visit(airflow, chromium.new_context(viewport={"width": 1440, "height": 900}), shots)
            visit.log_in("/")
            visit.open()
            visit.page.locator("a.cell").first.click()
            visit.heading("2tCloud, sales")
            visit.page.locator("tbody a").first.click()
            visit.heading("Invoice")
            visit.page.locator('a[href*="/dags/"]').click()
            visit.window.wait_for_url("**/dags/imports/runs/**")
            visit.window.get_by_text("imports").first.wait_for()
            visit.shoot("run")
            assert visit.complaints == []


CLOSE_FILE = """
from airflow.sdk import DAG
from airflow_cloudbilling.operators.approval import ApproveCloseOperator
from airflow_cloudbilling.operators.reconcile import ReconcileInvoicesOperator

with DAG("month_close", schedule=None):
    reconcile = ReconcileInvoicesOperator(
        task_id="reconcile", staging_conn_id="erp_staging", period="2026-10", fail_on="never"
    )
    approve = ApproveCloseOperator(
        task_id="approve",
        staging_conn_id="erp_staging",
        close_id="{{ ti.xcom_pull(task_ids='reconcile')['close_id'] }}",
    )
    reconcile >> approve
"""


@pytest.mark.processes
def test_a_person_approves_a_month_among_the_required_actions(
    billed: Sandbox, chromium: Any, shots: Path, tmp_path: Path
) -> None:
    with real_airflow(tmp_path) as airflow:
        (airflow.dags / "month_close.py").write_text(CLOSE_FILE)
        airflow.ready()
        run_id = airflow.run("month_close")
        waits = ("Received executor event with state success", "task_id='approve'")  # else 3.3.2 fails what is answered
        until(lambda: any(all(word in line for word in waits) for line in airflow.printed("scheduler")))
        visit = Visit(airflow, chromium.new_context(viewport={"width": 1440, "height": 900}), shots)
        visit.log_in(f"/dags/month_close/runs/{run_id}/tasks/approve/required_actions")
        visit.window.get_by_role("button", name="Approve").wait_for()
        for words in ("2026-10", "missing-slice"):
            visit.window.get_by_text(words).first.wait_for()
        visit.shoot("approve")
        visit.window.get_by_role("button", name="Approve").click()
        until(lambda: airflow.runs("month_close")[run_id] in ("success", "failed"))
        assert airflow.runs("month_close")[run_id] == "success"
