"""What Airflow knows about this provider: its own checks, the form as the API serves it, the command line."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow._shared.secrets_masker import DEFAULT_SENSITIVE_FIELDS
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

import airflow_cloudbilling
from airflow_cloudbilling.connection_fields import COMMON_FIELDS
from airflow_cloudbilling.provider_info import get_provider_info
from airflow_cloudbilling.sources import SOURCES

FIELDS = [(source, field) for source in SOURCES.values() for field in (*source.fields, *COMMON_FIELDS)]


@pytest.fixture(scope="module")
def forms() -> dict[str, Any]:
    """Return the connection forms as ``GET /ui/connections/hook_meta`` serves them."""
    return {form.connection_type: form.model_dump() for form in HookMetaService.hook_meta_data()}


def test_the_metadata_fits_airflows_schema() -> None:
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_the_name_is_the_distributions_lest_airflow_drop_every_provider() -> None:
    name = get_provider_info()["package-name"]
    assert importlib.metadata.distribution(name).metadata["Name"] == name


def test_discovery_imports_neither_airflow_nor_http_nor_a_database() -> None:
    program = (
        "import sys; from airflow_cloudbilling.provider_info import get_provider_info; get_provider_info();"
        "print(sorted({'airflow', 'httpx', 'sqlalchemy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(("source", "field"), FIELDS)
def test_a_secrets_name_is_one_that_airflow_masks_and_no_others(source: Any, field: Any) -> None:
    assert field.secret is any(word in field.name for word in DEFAULT_SENSITIVE_FIELDS)
    assert field.label
    assert field.help


@pytest.mark.parametrize("source", SOURCES.values())
def test_the_form_is_served_with_every_field(source: Any, forms: dict[str, Any]) -> None:
    form = forms[source.conn_type]
    assert form["hook_name"] == source.title
    assert form["default_conn_name"] in (None, f"{source.conn_type}_default")
    assert list(form["extra_fields"]) == [field.name for field in (*source.fields, *COMMON_FIELDS)]
    for field in (*source.fields, *COMMON_FIELDS):
        served = form["extra_fields"][field.name]
        assert served["value"] == field.default
        assert served["description"] == field.help
        assert served["schema"]["title"] == field.label
        assert (served["schema"].get("format") == "password") is field.secret
    standard = form["standard_fields"]
    assert {name: standard[name]["title"] for name in source.labels} == dict(source.labels)
    assert standard["host"]["placeholder"] == (source.default_host or source.placeholders["host"])
    assert standard["url_schema"]["hidden"]


@pytest.mark.parametrize("source", SOURCES.values())
def test_what_the_metadata_names_exists(source: Any) -> None:
    from airflow.sdk._shared.module_loading import import_string

    info = get_provider_info()
    hook = import_string(source.hook_class)
    assert (hook.conn_type, hook.hook_name) == (source.conn_type, source.title)
    for group in ("hooks", "operators", "sensors", "triggers"):
        for module in (module for entry in info[group] for module in entry["python-modules"]):
            __import__(module)
    for entry in info["asset-uris"]:
        assert callable(import_string(entry["handler"]))
        assert callable(import_string(entry["factory"]))


def test_every_module_for_users_is_named() -> None:
    info = get_provider_info()
    for group, base in (("operators", "BaseOperator"), ("sensors", "BaseSensorOperator"), ("triggers", "BaseTrigger")):
        folder = Path(airflow_cloudbilling.__file__).parent / group
        modules = (import_module(f"airflow_cloudbilling.{group}.{path.stem}") for path in folder.glob("[a-z]*.py"))
        having = {module.__name__ for module in modules if public_classes(module, base)}
        assert {name for entry in info[group] for name in entry["python-modules"]} == having - {
            "airflow_cloudbilling.operators.loading"  # only a base
        }


def public_classes(module: Any, base: str) -> list[str]:
    """Return the names of a module's own classes that descend from a class of Airflow's."""
    return [
        name
        for name, one in vars(module).items()
        if isinstance(one, type) and one.__module__ == module.__name__ and base in [c.__name__ for c in one.__mro__]
    ]


def test_airflow_knows_the_settings_and_their_defaults() -> None:
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    from airflow_cloudbilling.hooks.credential_store import DEFAULT

    ProvidersManager().initialize_providers_configuration()
    assert conf.get("cloudbilling", "credential_store") == DEFAULT
    assert conf.get("cloudbilling", "staging_conn_ids") == "erp_staging"
    for option in get_provider_info()["config"]["cloudbilling"]["options"].values():
        assert {"description", "version_added", "type", "default", "example"} == set(option) - {"sensitive"}


def test_airflow_makes_the_hook_from_the_connection_type(vendor: Any) -> None:
    from airflow.sdk import BaseHook

    from airflow_cloudbilling.hooks.twotcloud import TwoTCloudHook

    hook = BaseHook.get_hook("twotcloud_default")
    assert isinstance(hook, TwoTCloudHook)
    assert hook.conn_id == "twotcloud_default"


def test_airflow_checks_the_assets_uri() -> None:
    from airflow.sdk import Asset

    assert Asset("cloudbilling://twotcloud_default/purchase").uri == "cloudbilling://twotcloud_default/purchase"


def test_the_command_line_lists_the_provider_and_its_hook() -> None:
    def airflow(*arguments: str) -> Any:
        command = [sys.executable, "-m", "airflow", "providers", *arguments, "-o", "json"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return json.loads(output[output.index("[{") :])

    name = get_provider_info()["package-name"]
    assert name in [row["package_name"] for row in airflow("list")]
    listed = {row["connection_type"]: row["class"] for row in airflow("hooks") if row["package_name"] == name}
    assert listed == {source.conn_type: source.hook_class for source in SOURCES.values()}
