#!/usr/bin/env bash
# Make a virtual environment with a recent pip: tools/venv.sh DIRECTORY
#
# Needs nothing but Python 3.11 or later. The interpreter is $PYTHON where it is set, else the first that fits.
set -euo pipefail

target=$1

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

python=
if [ -n "${PYTHON:-}" ]; then
    fits "$PYTHON" || { echo "PYTHON=$PYTHON is no Python 3.11 or later." >&2; exit 1; }
    python=$PYTHON
else
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if fits "$candidate"; then python=$candidate; break; fi
    done
fi
if [ -z "$python" ]; then
    echo "Paddock needs Python 3.11 or later, and found none. Install one, or name it: make PYTHON=/path/to/python3" >&2
    exit 1
fi

rm -rf "$target"
if "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    "$python" -m venv "$target"
elif "$python" -m pip --version >/dev/null 2>&1 && "$python" -c 'import venv' >/dev/null 2>&1; then
    # Debian keeps ensurepip in a package of its own; a pip outside can fill the environment as well.
    "$python" -m venv --without-pip "$target"
    "$python" -m pip --python "$target/bin/python" install --quiet pip
else
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$python has neither ensurepip nor pip, so no virtual environment can be made with it." >&2
    echo "On Debian and Ubuntu: apt-get install python3-venv (or python$version-venv). Then run make again." >&2
    exit 1
fi
# 25.1 is the first pip that reads [dependency-groups].
"$target/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
