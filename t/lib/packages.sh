# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034
# Debian packages, in one place: for the build, and for the tests beyond it.
# Sourced by ./quickstart and ./runtests.

BUILD_PACKAGES="autoconf automake gcc libc6-dev make pkg-config fuse3 libfuse3-dev
	libevent-dev libcurl4-openssl-dev libyajl-dev liblmdb-dev libexpat1-dev
	libisal-dev libxxhash-dev uthash-dev"
TEST_PACKAGES="libcriterion-dev jq attr curl openssl iproute2 iptables radosgw ceph-mon ceph-osd
	mandoc shellcheck clang clang-tidy cppcheck libclang-rt-14-dev procps psmisc"

install_packages() { # PACKAGE...: only what is missing; says what it would have needed
	missing=
	for p in "$@"; do
		dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' ||
			missing="$missing $p"
	done
	[ -n "$missing" ] || return 0
	if [ "$(id -u)" != 0 ]; then
		echo "These packages are missing, install them as root: apt-get install$missing" >&2
		exit 1
	fi
	echo "installing:$missing"
	apt-get update -qq
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
