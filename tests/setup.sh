#!/usr/bin/env bash
# Installs what building and testing need and this machine lacks. Running it again changes nothing.
#
#   tests/setup.sh compiler  a C compiler (the bundled SQLite is C)
#   tests/setup.sh build     that, and what the tests call: curl, git, make
#   tests/setup.sh client    jq, which orchestrator-client needs beside curl
#   tests/setup.sh haproxy   HAProxy's program, to try the example with; its service is not left running
#   tests/setup.sh network   ip(8) and unshare(1): machines with networks of their own, for which the tests need root
#                            (and sqlite3, by which people copy a daemon's file; and systemd's programs, which run the
#                            daemon on such machines: this one's own services stay as they are)
#   tests/setup.sh mariadb   MariaDB's server program, from this distribution's packages; no service is started
#   tests/setup.sh mysql     MySQL 9.x out of Debian's unstable suite, kept in a cache outside the clone
#   tests/setup.sh all       all of these
#
# The cache is $ORCHESTRATOR_CACHE, else $XDG_CACHE_HOME/orchestrator, else ~/.cache/orchestrator.
# Nothing of MySQL is installed into the system: the programs run from the cache with the dynamic
# loader and the libraries that stand beside them. To remove them, remove the folder.
set -euo pipefail

cache=${ORCHESTRATOR_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set, set ORCHESTRATOR_CACHE}/.cache}/orchestrator}
mirror=${ORCHESTRATOR_DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=${ORCHESTRATOR_DEBIAN_SUITE:-sid}
me=tests/setup.sh

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

# Runs a command as root: directly, or with sudo when this is somebody else.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "this needs root and there is no sudo; as root, type:  $*"
  fi
}

updated=
apt_install() {
  command -v apt-get >/dev/null ||
    die "this is no Debian or Ubuntu (no apt-get); install by your own package manager what these packages hold: $*"
  local log; log=$(mktemp)
  if [ -z "$updated" ]; then
    say "apt-get update"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 update -q >"$log" 2>&1 || { tail -n 20 "$log" >&2; rm -f "$log"; die "apt-get update failed; when the network is back, type:  $me $what"; }
    updated=1
  fi
  say "apt-get install $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 install -y -q --no-install-recommends "$@" >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; rm -f "$log"; die "could not install; to see why, type as root:  apt-get install $*"; }
  rm -f "$log"
}

setup_compiler() {
  local want=()
  command -v cc >/dev/null || want+=(gcc)
  [ -e /usr/include/stdio.h ] || want+=(libc6-dev)
  [ ${#want[@]} = 0 ] || apt_install "${want[@]}"
  if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    die "cargo is not in PATH; type:  . \"${CARGO_HOME:-$HOME/.cargo}/env\""
  fi
  command -v cargo >/dev/null ||
    die "the Rust toolchain is missing; type:  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
  say "build: $(cc --version | head -n 1); $(cargo --version)"
}

setup_build() {
  setup_compiler
  local want=()
  command -v make >/dev/null || want+=(make)
  command -v curl >/dev/null || want+=(curl ca-certificates)
  command -v git >/dev/null || want+=(git)
  [ ${#want[@]} = 0 ] || apt_install "${want[@]}"
}

setup_client() {
  local want=()
  command -v curl >/dev/null || want+=(curl ca-certificates)
  command -v jq >/dev/null || want+=(jq)
  [ ${#want[@]} = 0 ] || apt_install "${want[@]}"
  say "client: $(jq --version)"
}

find_haproxy() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v haproxy; }

setup_haproxy() {
  if ! find_haproxy >/dev/null; then
    apt_install haproxy
    # The package starts a service that has nothing to do here.
    if [ -d /run/systemd/system ]; then as_root systemctl disable --now haproxy >/dev/null 2>&1 || true; fi
  fi
  say "haproxy: $("$(find_haproxy)" -v | head -n 1)"
}

setup_network() {
  local want=()
  PATH=$PATH:/usr/sbin:/sbin command -v ip >/dev/null || want+=(iproute2)
  command -v unshare >/dev/null && command -v setpriv >/dev/null || want+=(util-linux)
  command -v dpkg-deb >/dev/null || want+=(dpkg)
  PATH=$PATH:/usr/sbin:/sbin command -v mkfs.ext4 >/dev/null || want+=(e2fsprogs)
  command -v mount >/dev/null || want+=(mount)
  # People copy a daemon's file by it: the tests type that, on such machines too.
  command -v sqlite3 >/dev/null || want+=(sqlite3)
  [ -x /lib/systemd/systemd ] && command -v systemctl >/dev/null || want+=(systemd)
  [ ${#want[@]} = 0 ] || apt_install "${want[@]}"
  # Machines are given a file of names of their own in its place; a system out of debootstrap has none.
  [ -e /etc/hosts ] || printf '127.0.0.1 localhost\n' | as_root tee /etc/hosts >/dev/null
  say "network: $(PATH=$PATH:/usr/sbin:/sbin ip -V)"
}

find_mariadbd() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v mariadbd; }

setup_mariadb() {
  # The -core packages hold the programs and no service, so nothing is started or left running.
  if ! find_mariadbd >/dev/null || ! command -v mariadb-install-db >/dev/null || ! command -v my_print_defaults >/dev/null; then
    if apt-cache show mariadb-server-core 2>/dev/null | grep -q '^Version'; then apt_install mariadb-server-core mariadb-client-core
    else
      # Fresh trees have no package lists, and Ubuntu 22.04 has the version in the package's name.
      as_root apt-get update -q >/dev/null 2>&1 || true
      updated=1
      local core; core=$(apt-cache search --names-only '^mariadb-server-core(-[0-9.]+)?$' | awk '{ print $1 }' | sort | head -n 1)
      [ -n "$core" ] || die "no MariaDB in this distribution's packages; as root, type:  apt-get update && apt-get install mariadb-server-core mariadb-client-core"
      apt_install "$core" "${core/server/client}"
    fi
  fi
  # A backend's backup is made by the program that people make it with, which is not among the core ones.
  command -v mariadb-dump >/dev/null || apt_install mariadb-client
  find_mariadbd >/dev/null || die "mariadbd is still missing; as root, type:  apt-get install mariadb-server-core mariadb-client-core"
  say "mariadb: $("$(find_mariadbd)" --no-defaults --version)"
}

mysql9() {
  local root=$cache/mysql9
  "$root"/lib64/ld-linux-x86-64.so.2 --library-path \
    "$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu:$root/usr/lib/mysql/private" "$root/usr/sbin/mysqld" "$@"
}

setup_mysql() {
  local root=$cache/mysql9 log
  if [ ! -e "$root/complete" ]; then
    [ "$(uname -m)" = x86_64 ] || die "MySQL is only set up on x86_64 (this is $(uname -m)); the MariaDB tests run without it:  $me mariadb"
    command -v debootstrap >/dev/null || apt_install debootstrap
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$keyring" ] || apt_install debian-archive-keyring
    [ -e "$keyring" ] || die "no $keyring to check Debian's signatures with; as root, type:  apt-get install debian-archive-keyring"
    command -v flock >/dev/null || apt_install util-linux
    mkdir -p "$cache"
    exec 9>"$cache/mysql9.lock"; flock 9
  fi
  if [ ! -e "$root/complete" ]; then
    log=$cache/mysql9.log
    say "mysql: fetching MySQL from Debian $suite into $root (1 to 3 minutes, 0.7 GB)"
    rm -rf "$root.new"; mkdir -p "$root.new"
    # Only the first stage, which fetches and verifies and unpacks: nothing of the tree is ever run
    # in a chroot, so neither mounts nor device nodes are needed.
    as_root env DEBIAN_FRONTEND=noninteractive debootstrap --foreign --variant=minbase --keyring="$keyring" \
      --include=mysql-server-core "$suite" "$root.new" "$mirror" >"$log" 2>&1 ||
      { tail -n 15 "$log" "$root.new/debootstrap/debootstrap.log" >&2 2>/dev/null || true
        die "debootstrap could not fetch Debian $suite from $mirror (whole log: $log); when the mirror answers, type:  $me mysql
       (another mirror: ORCHESTRATOR_DEBIAN_MIRROR=URL $me mysql)"; }
    [ "$(id -u)" = 0 ] || as_root chown -R "$(id -u):$(id -g)" "$root.new"
    local deb
    for deb in "$root.new"/var/cache/apt/archives/*.deb; do
      dpkg-deb -x "$deb" "$root.new" 2>>"$log" || die "could not unpack $deb (log: $log); type:  $me mysql"
    done
    rm -rf "$root.new"/var/cache/apt/archives "$root.new"/debootstrap "$root.new"/usr/share/doc "$root.new"/usr/share/locale
    [ -x "$root.new/usr/sbin/mysqld" ] || die "Debian $suite has no mysqld at present (log: $log); the MariaDB tests run without it:  $me mariadb"
    rm -rf "$root"; mv "$root.new" "$root"
    mysql9 --version >/dev/null || die "MySQL was unpacked into $root but does not run (see above); remove that folder and type:  $me mysql"
    touch "$root/complete"
  fi
  say "mysql: $(mysql9 --no-defaults --version | sed 's/^.*mysqld/mysqld/')"
}

what=${1:-}
case $what in
  compiler) setup_compiler ;;
  build) setup_build ;;
  client) setup_client ;;
  haproxy) setup_haproxy ;;
  network) setup_network ;;
  mariadb) setup_mariadb ;;
  mysql) setup_mysql ;;
  all) setup_build; setup_client; setup_haproxy; setup_network; setup_mariadb; setup_mysql ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac
