#!/usr/bin/env bash
# Install a Chromium for the tests of the page, where that is possible: tools/browser.sh
#
# Without one those tests are skipped, and say so. Only Debian and Ubuntu, only as root: a machine of one's own is not ours to change.
set -euo pipefail

for program in chromium chromium-browser google-chrome; do
    if command -v "$program" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "no Chromium here, and none can be installed: the tests of the page will be skipped" >&2
    exit 0
fi
echo "installing Chromium"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null || true   # an old list may still do
if ! apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; then
    echo "Chromium could not be installed: the tests of the page will be skipped" >&2
fi
