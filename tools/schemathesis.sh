#!/usr/bin/env bash
# Hold a server of real processes to its OpenAPI description, with every phase and check of schemathesis.
# usage: tools/schemathesis.sh VENV MODULE [ARGUMENTS OF schemathesis run]
set -euo pipefail

bin=$1/bin
module=$2
shift 2

folder=$(mktemp -d)
trap 'kill "$server" 2>/dev/null; wait "$server" || true; rm -rf "$folder"' EXIT
"$bin/paddock" serve "$module" --db "$folder/app.db" --port 0 2>"$folder/log" &
server=$!
until url=$(grep -om1 'http://[0-9.:]*' "$folder/log"); do
  kill -0 "$server" || { cat "$folder/log" >&2; exit 1; }
  sleep 0.1
done

export SCHEMATHESIS_HOOKS=tests/acceptance/http/promises.py
"$bin/schemathesis" --config-file tests/acceptance/http/schemathesis.toml run "$url/openapi.json" "$@"
