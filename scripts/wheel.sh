#!/bin/sh
# Install a wheel with all that users may want into a new virtual environment, and see that Airflow finds everything in it.
# usage: scripts/wheel.sh PYTHON DIRECTORY WHEEL CONSTRAINTS
# Runs outside the source tree, so that nothing but the wheel can be found.
set -eu
python=$1 directory=$2
wheel=$(realpath "$3") constraints=$(realpath "$4")

"$python" -m venv --clear "$directory"
directory=$(realpath "$directory")
extras=$("$python" - "$wheel" <<'PY'
import sys, zipfile
from email.parser import Parser

archive = zipfile.ZipFile(sys.argv[1])
(name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
extras = Parser().parsestr(archive.read(name).decode()).get_all("Provides-Extra", [])
print(",".join(extra for extra in extras if extra not in ("dev", "docs")))
PY
)
echo "==> Installing the wheel with [$extras] into $directory"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$constraints" "$wheel[$extras]"
"$directory/bin/python" -m pip check

home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"
airflow() { AIRFLOW_HOME=$home AIRFLOW__CORE__LOAD_EXAMPLES=False "$directory/bin/airflow" "$@"; }

echo "==> airflow providers list"
airflow providers list --output plain | grep airflow-provider-cloudbilling
echo "==> airflow providers hooks"
airflow providers hooks --output plain >hooks.txt
for type in twotcloud orange_cloudstore store365 cloudonex sage_connected_cloud; do
    grep "^$type .*airflow-provider-cloudbilling" hooks.txt || { echo "$type is not among the hooks" >&2; cat hooks.txt >&2; exit 1; }
done
echo "==> airflow providers get"
airflow providers get airflow-provider-cloudbilling --full --output json >info.json
"$directory/bin/python" - <<'PY'
import json
from importlib.metadata import distribution
from importlib.resources import files

info = json.load(open("info.json"))
assert "airflow-provider-cloudbilling" in str(info) and "StageInvoices" not in str(info), info
held = {str(path) for path in distribution("airflow-provider-cloudbilling").files or ()}
for name in ("airflow_cloudbilling/py.typed", "airflow_cloudbilling/page/templates/page.css"):
    assert name in held, name
assert not any(name.startswith(("tests/", "docs/", "example_dags/")) for name in held), held
assert (files("airflow_cloudbilling") / "py.typed").is_file()
PY
airflow plugins --output plain | grep "^cloudbilling " >/dev/null # reads all, or Airflow complains of a broken pipe
airflow cloudbilling --help | grep preview >/dev/null
"$directory/bin/python" -m airflow_cloudbilling.sandbox --help >/dev/null
echo "==> The plugin, the command line and the sandbox are there"
