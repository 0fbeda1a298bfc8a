#!/usr/bin/env bash
# Prints who covers each operation: contract, code, upstream lock and tests; `--help` tells more.
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
"$root/scripts/setup"
cd -- "$root"
exec .venv/bin/contract coverage "$@"
