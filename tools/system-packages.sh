#!/usr/bin/env bash
# Installs the Debian packages named that are missing; does nothing, and needs no root, where none is.
set -euo pipefail

missing=()
for package in "$@"; do
    if ! command -v dpkg-query >/dev/null; then
        echo "This is no Debian machine: install what corresponds to '$*' by hand." >&2
        exit 1
    fi
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
echo "Installing ${missing[*]}"
"${as_root[@]}" apt-get update --quiet=2
"${as_root[@]}" apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" >/dev/null
