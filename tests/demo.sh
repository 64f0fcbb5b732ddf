#!/usr/bin/env bash
# Three daemons and a small real MariaDB fleet on this machine; kill the primary and watch.
#
#   tests/demo.sh                               the keys k, d, o, r, q do things to it
#   tests/demo.sh --kill primary|daemon|both    does it unasked; succeeds when the fleet is writable again
#   tests/demo.sh --flavour mysql               the same on MySQL 9.x
#
# Installs what is missing first (tests/setup.sh), and builds. Ctrl-C leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

flavour=mariadb
previous=
for argument in "$@"; do
  case $previous/$argument in
    --flavour/mysql | */--flavour=mysql) flavour=mysql ;;
  esac
  previous=$argument
done

[ -n "$(command -v cargo)" ] || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
echo "demo: 1 of 3: what is missing on this machine"
tests/setup.sh build
tests/setup.sh "$flavour"
echo "demo: 2 of 3: build (some minutes the first time, seconds later)"
cargo build -p orchestrator -p orchestrator-tests --bin orchestrator --bin demo
echo "demo: 3 of 3: the show"
exec "${CARGO_TARGET_DIR:-target}/debug/demo" "$@"
