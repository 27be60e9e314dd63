#!/usr/bin/env bash
# Build the test hosts' images, ops-maintenance-test:bookworm and :trixie, from Debian packages.
# The image proper carries a hash of this script and the package lists, so it is made once per content;
# the plain tag is an alias that moves to it. SUITES="bookworm" builds one; --names only prints what it would build.
set -euo pipefail
cd "$(dirname "$0")/.."

repository=ops-maintenance-test
read -ra suites <<<"${SUITES:-bookworm trixie}"
packages=$(grep -v '^#' images/packages.txt | tr -s ' \n' ',' | sed 's/,$//')
later=$(grep -v '^#' images/later.txt | tr -s '\n' ' ')
content=$(cat scripts/images.sh images/packages.txt images/later.txt | sha256sum | cut -c1-12)

if [[ ${1:-} == --names ]]; then
  printf "$repository:%s-$content\n" "${suites[@]}"
  exit 0
fi

# Hosts make their own ssh keys and machine id. A company's certificate authorities, where this machine has any, are
# passed on, so that package managers inside a host work behind an intercepting proxy.
build() {
  local suite=$1 image=$2
  # mmdebstrap kills its whole process group when it fails: setsid keeps this script out of it.
  setsid -w mmdebstrap --quiet --variant=minbase --include="$packages" \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook='d="$1"/etc/systemd/system/ssh.service.d; mkdir -p "$d"; printf "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n" >"$d"/keys.conf' \
    --customize-hook=': >"$1"/etc/machine-id; rm -f "$1"/etc/ssh/ssh_host_*' \
    --customize-hook='chroot "$1" systemctl --quiet disable nginx.service postgresql.service redis-server.service nftables.service certbot.timer prometheus.service prometheus-alertmanager.service' \
    --customize-hook="for package in $later; do mkdir -p \"\$1\"/opt/packages/\$package/partial; chroot \"\$1\" apt-get -qq install -y --download-only --no-install-recommends -o Dir::Cache::archives=/opt/packages/\$package \$package >/dev/null 2>&1 || exit 1; done" \
    --customize-hook='rm -f "$1"/etc/cron.d/barman "$1"/etc/cron.d/certbot' \
    --customize-hook='cp /usr/local/share/ca-certificates/*.crt "$1"/usr/local/share/ca-certificates/ 2>/dev/null && chroot "$1" update-ca-certificates >/dev/null || true' \
    "$suite" - |
    docker import -c 'ENV container=docker' -c 'CMD ["/lib/systemd/systemd"]' - "$image" >/dev/null
}

require_mmdebstrap() {
  command -v mmdebstrap >/dev/null && return
  if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "images: mmdebstrap and the keys of Debian's archive are missing; as root: apt-get install mmdebstrap debian-archive-keyring" >&2
    exit 1
  fi
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends mmdebstrap debian-archive-keyring >/dev/null
}

for suite in "${suites[@]}"; do
  image=$repository:$suite-$content
  if ! docker image inspect "$image" >/dev/null 2>&1; then
    require_mmdebstrap
    echo "images: building $image"
    if ! build "$suite" "$image"; then
      echo "images: $suite failed; run mmdebstrap without --quiet to see why" >&2
      exit 1
    fi
  fi
  docker tag "$image" "$repository:$suite"
done
