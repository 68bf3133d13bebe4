#!/usr/bin/env bash
# Install the browser of tests/browser, Debian's Chromium, unless one is installed.
set -euo pipefail
if command -v chromium >/dev/null; then
  echo "Chromium is installed: $(command -v chromium)"
  exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo 'tests/browser/setup.sh: needs root on Debian (apt-get); on other systems put `chromium` on the PATH' >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
command -v chromium
