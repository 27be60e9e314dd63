#!/bin/bash
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes a signed archive in two suites on this host, ordinary and security, and installs the packages' first versions.
#
# usage: build.sh FOLDER [--pending] [--broken] [--kept-back] [--regression] [--half-done]
#   --pending  the archives carry newer versions, so that updates are pending
#   --broken   with them one security update whose maintainer script fails
#   --kept-back   with them one that would remove another package
#   --regression  with them one whose service dies after it
#   --half-done   an installation was interrupted
set -euo pipefail
folder=$1 pending=no broken=no kept_back=no regression=no half_done=no
shift
for word; do
  case $word in
    --pending) pending=yes ;;
    --broken) broken=yes ;;
    --kept-back) kept_back=yes ;;
    --regression) regression=yes ;;
    --half-done) half_done=yes ;;
    *) echo "unknown argument $word" >&2; exit 2 ;;
  esac
done
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
key=/usr/share/keyrings/local-repository.gpg
work=$(mktemp -d)
trap 'gpgconf --homedir "$work/gpg" --kill all; rm -rf "$work"' EXIT
rm -rf "$folder"

# package NAME VERSION SUITE: a package with one library, a configuration file and, on demand, a failing script
package() {
  local name=$1 version=$2 suite=$3 root="$work/$1_$2"
  mkdir -p "$root/DEBIAN" "$root/etc/$name" "$root/usr/share/$name"
  echo "$version" >"$root/usr/share/$name/version"
  echo "setting = from the package $version" >"$root/etc/$name/$name.conf"
  echo "/etc/$name/$name.conf" >"$root/DEBIAN/conffiles"
  printf '%s\n' "Package: $name" "Version: $version" "Architecture: all" "Maintainer: Nobody <nobody@example.com>" \
    "Description: sample package of a test" >"$root/DEBIAN/control"
  if [ "$name" = demo-broken ] && [ "$version" != 1.0 ]; then
    printf '#!/bin/sh\necho "demo-broken cannot be configured" >&2\nexit 3\n' >"$root/DEBIAN/postinst"
    chmod 755 "$root/DEBIAN/postinst"
  fi
  if [ "$name" = demo-kept ] && [ "$version" != 1.0 ]; then
    sed -i '/^Description/i Conflicts: demo-tool' "$root/DEBIAN/control"
  fi
  if [ "$name" = demo-service ]; then service "$root" "$version"; fi
  mkdir -p "$folder/pool/$suite"
  dpkg-deb --root-owner-group --build "$root" "$folder/pool/$suite/${name}_${version}_all.deb" >/dev/null
}

# service ROOT VERSION: a web server that starts in every version and dies in all but the first
service() {
  local command="python3 -m http.server --bind 127.0.0.1 8099"
  [ "$2" = 1.0 ] || command="sh -c 'sleep 0.5; exit 1'"
  mkdir -p "$1/usr/lib/systemd/system"
  printf '%s\n' "[Service]" "ExecStart=$command" "[Install]" "WantedBy=multi-user.target" >"$1/usr/lib/systemd/system/demo-service.service"
  printf '%s\n' "#!/bin/sh" "systemctl daemon-reload" "systemctl enable --quiet demo-service" "systemctl restart demo-service" >"$1/DEBIAN/postinst"
  chmod 755 "$1/DEBIAN/postinst"
}

# suite NAME LABEL: index and sign what the pool of that suite has
suite() {
  local name=$1 label=$2 dist="$folder/dists/$1"
  mkdir -p "$dist/main/binary-amd64" "$folder/pool/$name"
  (cd "$folder" && apt-ftparchive --arch amd64 packages "pool/$name") >"$dist/main/binary-amd64/Packages"
  apt-ftparchive -o "APT::FTPArchive::Release::Origin=Debian" -o "APT::FTPArchive::Release::Label=$label" \
    -o "APT::FTPArchive::Release::Suite=$name" -o "APT::FTPArchive::Release::Codename=$name" \
    -o "APT::FTPArchive::Release::Components=main" -o "APT::FTPArchive::Release::Architectures=amd64" \
    release "$dist" >"$work/Release"
  gpg --homedir "$work/gpg" --batch --yes --clearsign -o "$dist/InRelease" "$work/Release" 2>/dev/null
}

install -d -m 700 "$work/gpg"
gpg --homedir "$work/gpg" --batch --passphrase '' --quick-gen-key 'Local repository' rsa2048 sign never 2>/dev/null
gpg --homedir "$work/gpg" --batch --export >"$key"

names=(demo-tls demo-conf demo-held demo-tool libsecurity-foo demo-both)
[ $broken = no ] || names+=(demo-broken)
[ $kept_back = no ] || names+=(demo-kept)
[ $regression = no ] || names+=(demo-service)
for name in "${names[@]}"; do package "$name" 1.0 "$codename"; done
dpkg --force-confold -i "$folder/pool/$codename"/*_1.0_all.deb >/dev/null
if [ $pending = yes ]; then
  for name in demo-tls demo-conf demo-held demo-both; do package "$name" 1.1 "$codename-security"; done
  [ $broken = no ] || package demo-broken 1.1 "$codename-security"
  [ $kept_back = no ] || package demo-kept 1.1 "$codename-security"
  [ $regression = no ] || package demo-service 1.1 "$codename-security"
  for name in demo-tool libsecurity-foo demo-both; do package "$name" 2.0 "$codename"; done
fi
if [ $half_done = yes ]; then
  package demo-half 1.0 "$codename"
  dpkg --unpack "$folder/pool/$codename/demo-half_1.0_all.deb" >/dev/null
fi
# so that the suite is one that carries something, with nothing pending too
package demo-unrelated 1.0 "$codename-security"
suite "$codename" Debian
suite "$codename-security" Debian-Security

rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
for name in "$codename" "$codename-security"; do
  echo "deb [signed-by=$key] file:$folder $name main"
done >/etc/apt/sources.list.d/local.list
apt-get update -qq
