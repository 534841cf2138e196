#!/bin/sh
# Make a virtual environment with this package, its tools and the tested versions of everything.
# usage: scripts/venv.sh DIRECTORY CONSTRAINTS    (PYTHON=... chooses the interpreter)
# Needs only Python 3.10 or newer with venv; says in words what is missing.
set -eu
venv=$1
constraints=$2

# venv and sqlite3 are parts of Python that some distributions leave out
usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python}; do
        if usable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python 3.10 or newer found (looked for: ${PYTHON:-python3, python3.13 … python3.10})." >&2
    echo "Install one, or name it: make PYTHON=/path/to/python3 …" >&2
    exit 1
}

has() {
    "$python" -c "import $1" >/dev/null 2>&1 || {
        echo "$python ($version) has no module $1: $2" >&2
        exit 1
    }
}

# Pip tells a lot; show one line for every 25 packages and keep the rest in a log.
install() {
    log=$venv/install.log
    { "$venv/bin/python" -m pip --disable-pip-version-check --no-input install "$@" 2>&1 || echo "pip failed: $?"; } | awk -v log_file="$log" '
        { print > log_file; last[NR % 15] = $0 }
        /^ *(Collecting|Requirement already satisfied:) / { if (++found % 25 == 0) { print "    " found " packages found"; fflush() } }
        /^Installing collected packages/ { print "    installing them"; fflush() }
        /^pip failed: / { failed = 1 }
        END {
            if (failed) {
                for (i = NR - 14; i <= NR; i++) if (i > 0) print "    " last[i % 15]
                print "Installing failed; all of it is in " log_file
            }
            exit failed
        }'
}

python=$(find_python)
version=$("$python" -c 'import platform; print(platform.python_version())')
has venv "on Debian and Ubuntu: apt install python3-venv"
has ensurepip "on Debian and Ubuntu: apt install python3-venv (or python${version%.*}-venv)"
has sqlite3 "install a Python that was built with SQLite"

if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "==> Making the virtual environment $venv with Python $version"
    "$python" -m venv --clear "$venv"
fi
echo "==> Installing this package, Airflow and the tools into $venv as $constraints pins them (about 200 packages; minutes the first time)"
install --constraint "$constraints" --editable ".[dev,docs,postgres,mysql,parquet]"
echo "==> $venv is ready"
