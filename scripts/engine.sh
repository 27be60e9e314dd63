#!/usr/bin/env bash
# Have a Docker Engine that answers. Debian's own packages; nothing is pulled from an image registry.
set -euo pipefail

answers() { docker info >/dev/null 2>&1; }

answers && exit 0

if [[ $EUID -ne 0 ]]; then
  cat >&2 <<MESSAGE
engine: Docker Engine does not answer for user $(id -un). Either
  - it is not installed or not running: sudo make engine   (on Debian or Ubuntu)
  - or you may not talk to it: sudo usermod -aG docker $(id -un), then log in again
MESSAGE
  exit 1
fi

if ! command -v dockerd >/dev/null; then
  if ! command -v apt-get >/dev/null; then
    echo "engine: this is neither Debian nor Ubuntu; install Docker Engine and start it" >&2
    exit 1
  fi
  echo "engine: installing Docker Engine"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends docker.io iptables ca-certificates procps >/dev/null
  # Installing may have started it.
  answers && exit 0
fi

log=/var/log/dockerd.log
if [[ -d /run/systemd/system ]]; then
  systemctl start docker
elif ! pgrep -x dockerd -r S,R,D,I >/dev/null; then
  # Left behind by a kill, these files stop dockerd from starting.
  rm -f /var/run/docker.pid /var/run/docker/containerd/containerd.pid
  # In the daemon, a caller's open descriptors, a lock's for example, would stay open for good.
  (
    for descriptor in /proc/self/fd/*; do
      descriptor=${descriptor##*/}
      [[ $descriptor -le 2 ]] || exec {descriptor}>&-
    done
    exec setsid nohup dockerd >"$log" 2>&1 </dev/null
  ) &
fi
for _ in {1..300}; do
  answers && exit 0
  sleep 0.1
done
echo "engine: Docker Engine does not answer after 30 s; its log: $log or journalctl -u docker" >&2
tail -n 20 "$log" >&2 2>/dev/null || true
exit 1
