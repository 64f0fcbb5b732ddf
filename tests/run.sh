#!/usr/bin/env bash
# Runs every test there is: installs what is missing, then format, lints, determinism, unit and property
# tests, simulation seeds, and the tests on real servers. Ends at the first failure; says how long
# each part took.
#
#   tests/run.sh                 everything
#   tests/run.sh PART...         some of: setup format lint build determinism unit simulation real proof bench seeds
#
# "proof" is simulation and real, one beside the other: servers wait most of the time, and the simulator takes what they leave.
#
# ORCHESTRATOR_SIM_SEEDS sets how many seeds each scenario is played with (4), ORCHESTRATOR_SIM_FIRST the first of them. By
# default that follows from the code: other code is played from another seed, and whoever changes it plays the very seeds that
# others will, so that a run of the tests is no lottery. "tests/run.sh seeds" says which they are. The properties of the unit part
# draw their cases from the same number; PROPTEST_RNG_SEED sets another.
#
# ORCHESTRATOR_BINARY_BEFORE names the program of the release before, for the tests of two releases in one cluster. Without it
# this program stands in, which then reads, writes and speaks what that one did.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -n "$(command -v cargo)" ] || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
# One profile for everything: the dependencies are optimised once, our own code builds quickly.
target=${CARGO_TARGET_DIR:-target}/debug
seeds=${ORCHESTRATOR_SIM_SEEDS:-4}

# Of everything that a run of the simulator is made of: its files as they are, committed or not. A multiple of eight: of every
# eight seeds the first and the fourth draw no faults, and only there is it judged what a scenario expects. Of four seeds
# one of these is played with assertions, of MySQL servers, and the other without, of MariaDB servers.
first_seed() {
  local sum
  sum=$(find Cargo.lock core/src runtime/src sim/src sim/scenarios -type f | LC_ALL=C sort | xargs sha256sum | sha256sum) || return 1
  echo $((16#${sum:0:6} / 8 * 8))
}
first=${ORCHESTRATOR_SIM_FIRST:-$(first_seed)}
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-$first}
times=()
fetching=

part() {
  local name=$1 began=$SECONDS
  printf '\n=== %s\n' "$name"
  case $name in
    setup | format | lint | build) ;;
    *) fetched || { printf '=== setup FAILED\n'; exit 1; } ;;
  esac
  "part_$name" || { printf '=== %s FAILED after %d s\n' "$name" $((SECONDS - began)); exit 1; }
  times+=("$name $((SECONDS - began)) s")
  printf '=== %s: %d s\n' "$name" $((SECONDS - began))
}

# What building needs; the servers are fetched while the first parts build, and are there before anything is tested.
part_setup() {
  tests/setup.sh build || return 1
  mkdir -p "$target"
  tests/setup.sh all >"$target/setup.log" 2>&1 &
  fetching=$!
}

fetched() {
  local fetch=$fetching failed=0
  [ -n "$fetch" ] || return 0
  fetching=
  wait "$fetch" || failed=1
  cat "$target/setup.log"
  return "$failed"
}

part_format() { cargo fmt --all --check; }

part_lint() { cargo clippy --workspace --all-targets --locked -- -D warnings; }

# The simulator is built twice: with assertions, and as it is released, without our own and raft's (many of which are
# in validit, that looks at raft's whole state whenever something reads it). The other dependencies are the same: programs
# alone would have some with other features than programs and tests have, hence a small test with the first. What that builds
# is put beside the other.
part_build() {
  local plain=() package
  for package in orchestrator-core orchestrator orchestrator-sim openraft validit; do
    plain+=(--config "profile.dev.package.$package.debug-assertions=false")
  done
  cargo build --workspace --bin orchestrator-sim --test analysis_cases --locked "${plain[@]}" || return 1
  # Where nothing was to be built the two are one file, which mv would not move.
  rm -f "$target/orchestrator-sim-plain"
  mv "$target/orchestrator-sim" "$target/orchestrator-sim-plain" || return 1
  cargo build --workspace --bins --tests --locked
}

# Before anything else is believed: every scenario on each engine, twice, in two processes: one with its trace kept and no
# logs, one without the trace and with all logs; one with assertions and one without: the same trace. On madsim the fleet is
# MariaDB (seed 1: with hooks and a key-value store), on turmoil it is MySQL (seed 6).
part_determinism() {
  "$target/orchestrator-sim" twice 1 --with "$target/orchestrator-sim-plain" --engine madsim &&
    "$target/orchestrator-sim" twice 6 --with "$target/orchestrator-sim-plain" --engine turmoil &&
    "$target/orchestrator-sim" twice 1 sim/scenarios/primary_killed.toml
}

# Always the whole workspace: another choice of packages is another choice of features, and builds the dependencies
# anew. The tests on real servers have a part of their own.
part_unit() {
  local tests=() file name
  for file in {core,runtime,sim,fuzz}/tests/*.rs {core,runtime,sim,fuzz}/tests/*/main.rs; do
    [ -f "$file" ] || continue
    name=${file%/main.rs}
    name=${name%.rs}
    tests+=(--test "${name##*/}")
  done
  cargo test --workspace --lib "${tests[@]}" --locked
}

# Every scenario with so many seeds on each engine, half of them without assertions; then what was found once: faults that
# were mended stay mended, and mistakes put back on purpose are still found. These are searched for, until the first seed that
# finds each, which must not be a late one; which seed it is changes with the code. What an assertion of openraft's finds an
# oracle must find without it.
part_simulation() {
  local half=$((first + (seeds + 1) / 2)) end=$((first + seeds))
  "$target/orchestrator-sim" sweep "$first..$half" || return 1
  [ "$half" -ge "$end" ] || "$target/orchestrator-sim-plain" sweep "$half..$end" || return 1
  "$target/orchestrator-sim" regressions &&
    "$target/orchestrator-sim" mutants --seeds 300 &&
    "$target/orchestrator-sim-plain" mutants any-target --seeds 300
}

part_seeds() { echo "$first..$((first + seeds))"; }

# They share the machine's cores, and times are judged, so most tests have their fleet to themselves. Beside them runs what does
# little or judges no time: leaders that are watched for ten minutes; and, one after the other, what servers were seen to do, and
# daemons that lose what they have or are asked by the client. All of it is at an end before the deployment's tests take disks off: a
# network of its own has a copy of all mounts, and keeps them in use.
part_real() {
  local binary observation quiet real=0 watched=0 patient=0
  beside observation & observation=$!
  rm -f "$target"/{facts,provisioning,client}.log
  (for binary in facts provisioning client; do beside "$binary" || exit 1; done) & quiet=$!
  for binary in grants oracle real black_hole hooks backend daemons; do
    cargo test --workspace --test "$binary" --locked -- --test-threads=1 || { real=1; break; }
  done
  wait "$observation" || watched=1
  wait "$quiet" || patient=1
  [ "$real" = 1 ] || cargo test --workspace --test deployment --locked -- --test-threads=1 || real=1
  told observation "$watched"
  for binary in facts provisioning client; do
    [ ! -e "$target/$binary.log" ] || told "$binary" "$patient"
  done
  [ "$real" = 0 ] && [ "$watched" = 0 ] && [ "$patient" = 0 ]
}

beside() { cargo test --workspace --test "$1" --locked -- --test-threads=2 >"$target/$1.log" 2>&1; }

told() {
  printf '\n--- beside it: %s\n' "$1"
  if [ "$2" = 0 ]; then grep '^test' "$target/$1.log"; else cat "$target/$1.log"; fi
}

# The simulator, which measures no time but its own, gives way to whatever else wants a core.
part_proof() {
  local told=$target/simulation.log real=0 simulation
  (renice -n 19 "$BASHPID" >/dev/null && part_simulation) >"$told" 2>&1 &
  simulation=$!
  part_real || real=1
  wait "$simulation" || simulation=failed
  printf '\n--- the simulation beside it:\n'
  awk '!/^[0-9]+\/[0-9]+ / || /FAILED/' "$told"
  [ "$simulation" != failed ] && [ "$real" = 0 ]
}

part_bench() {
  local flavour how
  for flavour in mariadb mysql; do
    for how in kill9 sigstop with-leader; do
      # Two of each on a busy machine measure nothing; what is far too slow is broken.
      "$target/failover-bench" --flavour "$flavour" --how "$how" --kills 2 --times 3 || return 1
    done
  done
  # The median is three times what a machine that does nothing else must keep. A single one may meet a machine that stands still.
  "$target/leader-bench" --kills 4 --median-seconds-max 1.5 --seconds-max 10 || return 1
  "$target/membership-bench" || return 1
  # Medians again: of three, one may meet such a machine. The bounds are what a deployment is promised.
  "$target/deployment-bench" --runs 3
}

# What runs in the background does not hear of Ctrl-C by itself.
trap 'trap - INT; kill 0' INT
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(setup format lint build determinism unit proof bench)
for name in "${parts[@]}"; do
  declare -F "part_$name" >/dev/null || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
done
for name in "${parts[@]}"; do part "$name"; done
fetched || { printf '=== setup FAILED\n'; exit 1; }
printf '\nall passed in %d s\n' "$SECONDS"
printf '  %s\n' "${times[@]}"
