"""The package as it is installed: what the wheel holds, what Airflow finds."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from hashlib import sha256
from pathlib import Path

import pytest

import airflow_cloudbilling

ROOT = Path(__file__).parents[1]
NAME = "airflow-provider-cloudbilling"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and the source archive once, with the tools at hand and without the network."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], check=True)
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {Path(name).parts[0] for name in held} == {"airflow_cloudbilling"}
    sources = [file for file in (ROOT / "airflow_cloudbilling").rglob("*.*") if file.suffix != ".pyc"]
    assert {str(file.relative_to(ROOT)) for file in sources} == held
    assert any(name.endswith("licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_the_map_of_the_package_names_every_room_of_it():
    own = [
        one
        for one in (ROOT / "airflow_cloudbilling").iterdir()
        if one.suffix == ".py" or (one / "__init__.py").exists()
    ]
    assert set(re.findall(r"``(\w+)``", airflow_cloudbilling.__doc__ or "")) == {one.stem for one in own} - {"__init__"}


def test_the_same_source_gives_the_same_wheel_byte_for_byte(built, tmp_path):
    kept = ("airflow_cloudbilling", "pyproject.toml", "README.md", "LICENSE", ".gitignore")
    for name in kept:  # elsewhere and of another time; the first one was built from the source archive
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / "source").mkdir(exist_ok=True)
        copy(ROOT / name, tmp_path / "source" / name)
        os.utime(tmp_path / "source" / name, (1e9, 1e9))
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, tmp_path / "source"]
    subprocess.run(command, check=True)
    (first,), (second,) = built.glob("*.whl"), tmp_path.glob("*.whl")
    assert sha256(first.read_bytes()).hexdigest() == sha256(second.read_bytes()).hexdigest()


def test_the_source_archive_holds_what_tests_and_demo_need(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    assert {
        "example_dags/monthly_invoice_import.py",
        "scripts/demo.py",
        "tests/conftest.py",
        "Makefile",
        "constraints.txt",
        "README.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "docs/index.md",
        "docs/pictures/months.png",
        "benchmarks/results/bench.svg",
        "tests/data/twotcloud/bad-cut/ask.json",
    } <= held
    assert not any(name.startswith(("docs/reference", "dist", ".")) for name in held - {".gitignore"})


def test_the_metadata_is_what_an_index_and_airflow_want(built):
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = [name for name in archive.namelist() if ".dist-info/" in name]
    read = {name.rpartition("/")[2]: archive.read(name).decode() for name in names}
    told = Parser().parsestr(read["METADATA"])
    classifiers = set(told.get_all("Classifier"))
    assert {"Framework :: Apache Airflow", "Framework :: Apache Airflow :: Provider", "Typing :: Typed"} <= classifiers
    pythons = {name for name in classifiers if name.startswith("Programming Language :: Python :: 3.")}
    assert pythons == {f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)}
    assert (told["Requires-Python"], told["License-Expression"]) == (">=3.10", "Apache-2.0")
    assert told["Description-Content-Type"] == "text/markdown"
    assert told.get_payload().startswith("# airflow-provider-cloudbilling")
    assert {"postgres", "mysql", "parquet"} <= set(told.get_all("Provides-Extra"))
    assert any(name.startswith("apache-airflow>=3.2") for name in told.get_all("Requires-Dist"))
    assert "[apache_airflow_provider]\nprovider_info = airflow_cloudbilling.provider_info" in read["entry_points.txt"]


@pytest.mark.matrix
def test_what_is_installed_is_found_by_airflow_and_pytest():
    distribution = importlib.metadata.distribution(NAME)
    assert distribution.version == airflow_cloudbilling.__version__
    points = {(point.group, point.name): point.load() for point in distribution.entry_points}
    assert set(points) == {
        ("apache_airflow_provider", "provider_info"),
        ("airflow.plugins", "cloudbilling"),
        ("pytest11", "cloudbilling"),
    }
    assert points["apache_airflow_provider", "provider_info"]()["package-name"] == NAME


@pytest.mark.matrix
def test_every_module_imports():
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in sorted((ROOT / "airflow_cloudbilling").rglob("*.py"))
        if file.name != "__main__.py"
    ]
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    subprocess.run([sys.executable, "-W", "error:::airflow_cloudbilling", "-c", code, *modules], check=True)


@pytest.mark.matrix
@pytest.mark.parametrize("command", [("providers", "list"), ("plugins",)])
def test_airflow_lists_the_provider(command):
    done = subprocess.run([sys.executable, "-m", "airflow", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cloudbilling" in done.stdout


@pytest.mark.parametrize("constraints", sorted(ROOT.glob("constraints*.txt")), ids=lambda file: file.name)
def test_constraints_are_names_and_versions(constraints):
    line = re.compile(r"[a-z0-9.-]+==[a-z0-9.+]+( ; (python_version [<>=]+ '3\.\d+(\.\*)?'( and )?)+)?")
    assert [text for text in constraints.read_text().splitlines() if not line.fullmatch(text)] == []


def test_the_changelog_knows_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{airflow_cloudbilling.__version__}]" in changelog or "## [Unreleased]" in changelog


def test_tests_reach_this_machine_only():
    with socket.socket() as out, pytest.raises(RuntimeError, match="loopback only"):
        out.connect(("192.0.2.1", 80))
