#!/usr/bin/env bash
# Three daemons and a few clusters on this machine; kill a primary and watch.
#
#   tests/demo.sh                               clusters of model servers; keys kill, freeze and revive
#   tests/demo.sh --kill primary|daemon|both    does it unasked; succeeds when the cluster is writable again
#   tests/demo.sh --real mariadb|mysql          one cluster of real servers, which are installed if missing
#
# Needs git, a Rust toolchain and a C compiler, which is installed if missing (tests/setup.sh). Ctrl-C leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

real=
previous=
for argument in "$@"; do
  case $previous/$argument in
    --real/*) real=$argument ;;
    */--real=*) real=${argument#--real=} ;;
  esac
  previous=$argument
done
case ${1:-} in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit ;; esac
case $real in '' | mariadb | mysql) ;; *) echo "demo: $real: neither mariadb nor mysql" >&2; exit 2 ;; esac

[ -n "$(command -v cargo)" ] || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
echo "demo: 1 of 3: what is missing on this machine"
tests/setup.sh compiler
[ -z "$real" ] || tests/setup.sh "$real"
echo "demo: 2 of 3: build (some minutes the first time, seconds later)"
cargo build --locked -p orchestrator -p orchestrator-tests --bin orchestrator --bin demo
echo "demo: 3 of 3: the show"
exec "${CARGO_TARGET_DIR:-target}/debug/demo" "$@"
