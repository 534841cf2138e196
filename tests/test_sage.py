"""Sage Connected Cloud through its hook, over real HTTP: on-boarding, uploads in every way, tracking, files."""

from __future__ import annotations

import hashlib
import json

import pytest
from sages import ORDERS, connect, upload

from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox


@pytest.mark.parametrize("strategy", ["direct", "presigned", "multipart"])
def test_a_file_arrives_once_as_it_is(
    strategy: str, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(vendor, monkeypatch, upload_strategy=strategy)
    known: list[tuple[str, int]] = []
    tracking_id = upload(hook, on_tracking_id=lambda each: known.append((each, sage.contents.total())))
    assert known == [(tracking_id, 0 if strategy == "presigned" else 1)]
    assert sage.contents == {hashlib.sha256(ORDERS).hexdigest(): 1}
    assert sage.records == {"CI-1": 1, "CI-2": 1}
    assert sage.leaks == 0


def test_an_upload_is_followed_to_its_result(sage: Sage) -> None:
    hook = SageConnectedCloudHook()
    tracking_id = upload(hook)
    said = [hook.track(tracking_id) for _ in range(4)]
    assert [(each.status, each.progress) for each in said] == [
        ("validating", "33"),
        ("processing", "66"),
        ("accepted", "100"),
        ("accepted", "100"),
    ]
    assert [each.result_uri for each in said] == [None, None, *[f"{sage.files_url}/results/{tracking_id}"] * 2]
    with hook.download_result(str(said[-1].result_url)).body as body:
        assert [(each["id"], each["status"]) for each in json.load(body)] == [
            ("CI-1", "accepted"),
            ("CI-2", "accepted"),
        ]
    assert sage.leaks == 0
