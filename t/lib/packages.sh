# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034
# Debian packages, in one place: for the build, and for the tests beyond it.
# Sourced by ./quickstart and ./runtests.

BUILD_PACKAGES="autoconf automake gcc libc6-dev make pkg-config fuse3 libfuse3-dev
	libevent-dev libcurl4-openssl-dev libyajl-dev liblmdb-dev libexpat1-dev
	libisal-dev libxxhash-dev libssl-dev uthash-dev"
TEST_PACKAGES="libcriterion-dev jq attr curl openssl iproute2 iptables radosgw ceph-mon ceph-osd
	mandoc shellcheck clang clang-tidy cppcheck libclang-rt-14-dev procps psmisc
	git python3 python3-numpy rsync fio stress-ng runc"

install_packages() { # PACKAGE...: only what is missing; says what it would have needed
	if ! command -v dpkg-query >/dev/null; then
		echo "This is not Debian: make sure yourself that what README lists under" \
			"\"Needs\" is there; configure names what it misses." >&2
		return 0
	fi
	missing=
	for p in "$@"; do
		dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' ||
			missing="$missing $p"
	done
	[ -n "$missing" ] || return 0
	if [ "$(id -u)" != 0 ]; then
		echo "These packages are missing, install them as root:" >&2
		echo "apt-get install$missing" >&2
		exit 1
	fi
	echo "installing:$missing" | fold -s -w 90 | sed 's/^/   /'
	apt_log=$(mktemp)
	# shellcheck disable=SC2086
	if apt-get update -qq >"$apt_log" 2>&1 &&
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			$missing >>"$apt_log" 2>&1; then
		rm -f "$apt_log"
	else
		tail -n 20 "$apt_log" >&2
		rm -f "$apt_log"
		echo "apt-get could not install what is missing, see above" >&2
		exit 1
	fi
}
