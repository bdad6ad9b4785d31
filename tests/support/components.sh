#!/bin/sh
# Programs that only the system's packages have. Root on Debian gets the missing ones; anybody else is told how to,
# and the tests that need them say so when they skip (tests/support/require.py).
set -eu
PATH="$PATH:/usr/sbin:/sbin"
missing=
for program in buildah chromium curl debootstrap haproxy nginx openssl prometheus wrk; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v iptables-restore >/dev/null 2>&1 || missing="$missing iptables"
command -v cc >/dev/null 2>&1 && [ -e /usr/include/dlfcn.h ] || missing="$missing gcc libc6-dev"
# The interpreter's headers, without which nothing is compiled; one that is not Debian's brings its own.
[ ! -x .venv/bin/python ] || .venv/bin/python -c '
import os, sys, sysconfig
sys.exit(sys.base_prefix == "/usr" and not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
' || missing="$missing python3-dev"
ldconfig -p 2>/dev/null | grep -q 'libatomic\.so\.1' || missing="$missing libatomic1" # Playwright's driver links it
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "not installed:$missing; the tests that need them are skipped (as root: apt-get install$missing)" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086  # a list of words
if apt-get update -qq >"$log" 2>&1 && apt-get install -y -qq --no-install-recommends $missing >>"$log" 2>&1; then
    echo "installed:$missing"
else
    tail -n 5 "$log" >&2
    echo "could not install:$missing; the tests that need them are skipped" >&2
fi
rm -f "$log"
