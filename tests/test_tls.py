"""Whom a connection talks to: only who proves to be the host that it names, and nothing is sent to anybody else."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from certificates import HOUR, Authority, Shown
from importing import connect, stage

from airflow_cloudbilling.hooks.billing import BillingHook
from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
from airflow_cloudbilling.sandbox.server import Sandbox

DAY = timedelta(days=1)
CONNECTIONS = ("twotcloud", "orange_cloudstore", "cloudonex", "store365", "sage_connected_cloud")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def test_every_vendor_is_asked_over_tls_with_an_authority_of_ones_own(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, staging: Path
) -> None:
    with Sandbox(months=1, tls=authority.vouches()) as vendor:
        for name in CONNECTIONS:
            connect(vendor, monkeypatch, conn_id=f"{name}_default", verify=authority.bundle)
            hook = SageConnectedCloudHook() if name.startswith("sage") else BillingHook(f"{name}_default")
            well, said = hook.test_connection()
            assert well, said
        assert stage(vendor.months[0])["invoices"] > 0


def shown_by(how: str, authority: Authority, folder: Path) -> Shown:
    """Return what a server shows that is not to be trusted."""
    if how == "of a stranger":
        return Authority(folder).vouches()
    if how == "self-signed":
        return Authority(folder).itself
    if how == "expired":
        return authority.vouches(since=-2 * DAY, until=-DAY)
    if how == "of tomorrow":
        return authority.vouches(since=HOUR, until=DAY)
    return authority.vouches("10.0.0.7" if how == "of another address" else "api.cloudnet.services")


REFUSED = {
    "of a stranger": ("unable to get local issuer certificate", "CA bundle that signs it"),
    "self-signed": ("self-signed", "CA bundle that signs it"),
    "expired": ("certificate has expired", "must renew it"),
    "of tomorrow": ("not yet valid", "this machine's clock"),
    "of another address": ("mismatch", "it is another host's"),
    "of another name": ("mismatch", "it is another host's"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_who_proves_nothing_is_told_nothing(
    how: str, authority: Authority, monkeypatch: pytest.MonkeyPatch, staging: Path, tmp_path: Path
) -> None:
    with Sandbox(months=1, tls=shown_by(how, authority, tmp_path)) as vendor:
        for name in CONNECTIONS:
            connect(vendor, monkeypatch, conn_id=f"{name}_default", verify=authority.bundle)
        for name in CONNECTIONS[:-1]:
            with pytest.raises(AirflowFailException) as refused:
                stage(vendor.months[0], conn_id=f"{name}_default")
            assert all(each in str(refused.value) for each in (f"{name}_default", "'verify'", *REFUSED[how]))
        well, said = SageConnectedCloudHook().test_connection()
        assert (well, REFUSED[how][1] in said) == (False, True)
        assert vendor.requests == []


@pytest.mark.parametrize("verify", [False, "false", "False"])
def test_verification_cannot_be_switched_off(
    verify: Any, vendor: Sandbox, monkeypatch: pytest.MonkeyPatch, staging: Path
) -> None:
    connect(vendor, monkeypatch, verify=verify)
    with pytest.raises(AirflowFailException, match=r"'twotcloud_default', field 'verify': false would accept any"):
        stage(vendor.months[0])
    assert vendor.requests == []


def test_clear_text_is_warned_of_by_the_connections_name(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fields = {"conn_type": "twotcloud", "host": "http://10.0.0.7", "login": "1", "password": "billing-key"}
    monkeypatch.setenv("AIRFLOW_CONN_PLAIN", json.dumps({**fields, "extra": {"allow_insecure_http": True}}))
    assert BillingHook("plain").settings.base_url == "http://10.0.0.7"
    assert "Connection 'plain': credentials go to http://10.0.0.7 in clear text" in capfd.readouterr().out
