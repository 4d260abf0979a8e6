#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Holds the arrows between the folders of src/:
#
#	base <- reactor <- {ufs, meta}
#	cache -> base, reactor, ufs/ufs.h
#	ops -> all of these (of ufs: ufs.h and ufs_page.h, of meta: meta.h)
#	peer -> all of these (of ufs also ufs_priv.h)
#	takeover, ctl, cli and the files of src/ itself -> anything
#
# and who may speak to the event library, to curl's multi interface and to
# libfuse.  Exit status 1, naming file and line, if an #include or a call goes
# the wrong way.
#
#	check_includes.sh [SRCDIR]	SRCDIR defaults to src beside this folder
#	check_includes.sh --self-test	shows that each rule can fail

set -u

# Prints "file:line: folder/header" for every #include "folder/header" below $1.
own_includes() {
	grep -rnE --include='*.[ch]' '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$1" |
		sed -nE 's/^([^:]*:[0-9]+):[^"]*"([^"]*)".*/\1: \2/p'
}

# Prints "file:line: header" for every #include <header> below $1.
system_includes() {
	grep -rnE --include='*.[ch]' '^[[:space:]]*#[[:space:]]*include[[:space:]]*<' "$1" |
		sed -nE 's/^([^:]*:[0-9]+):[^<]*<([^>]*)>.*/\1: \2/p'
}

# The headers that a folder may include, as an extended regular expression.
allowed() {
	case $1 in
	base) echo '^base/' ;;
	reactor) echo '^(base|reactor)/' ;;
	ufs) echo '^(base|reactor|ufs)/' ;;
	meta) echo '^(base|reactor|meta)/' ;;
	cache) echo '^(base|reactor|cache)/|^ufs/ufs\.h$' ;;
	ops) echo '^(base|reactor|cache|ops)/|^ufs/ufs(_page)?\.h$|^meta/meta\.h$' ;;
	peer) echo '^(base|reactor|cache|ops|peer)/|^ufs/ufs(_priv)?\.h$|^meta/meta\.h$' ;;
	*) echo '.' ;;
	esac
}

# The folder of src/ that a file lies in; "." for the files of src/ itself.
folder_of() {
	case ${1#"$2"/} in
	*/*) f=${1#"$2"/} && echo "${f%%/*}" ;;
	*) echo . ;;
	esac
}

bad() {
	echo "$1: $2" >&2
	echo bad >>"$marks"
}

check_own() {
	own_includes "$1" | while IFS=' ' read -r place header; do
		file=${place%%:*}
		dir=$(folder_of "$file" "$1")
		case $header in
		*/*) ;;
		config.h) continue ;;
		*)
			# src/*.h are the daemon's: only those may see them that may see all.
			case $dir in
			base | reactor | ufs | meta | cache | ops | peer)
				bad "${place%:}" "$dir/ must not include \"$header\"" ;;
			esac
			continue
			;;
		esac
		echo "$header" | grep -qE "$(allowed "$dir")" ||
			bad "${place%:}" "$dir/ must not include \"$header\""
	done
}

check_system() {
	system_includes "$1" | while IFS=' ' read -r place header; do
		file=${place%%:*}
		dir=$(folder_of "$file" "$1")
		name=${file##*/}
		case $header in
		event2/* | event.h | evhttp.h)
			[ "$dir" = reactor ] ||
				bad "${place%:}" "only reactor/ may include <$header>"
			;;
		fuse_lowlevel.h | fuse.h | fuse3/*)
			case $dir/$name in
			reactor/fuse* | ops/* | takeover/*) ;;
			*) bad "${place%:}" \
				"only reactor/fuse*, ops/ and takeover/ may include <$header>" ;;
			esac
			;;
		esac
	done
}

check_multi() {
	grep -rnE --include='*.[ch]' 'curl_multi_[a-z]+' "$1" |
		while IFS=: read -r file line text; do
			[ "$(folder_of "$file" "$1")" = reactor ] && continue
			call=$(echo "$text" | grep -oE 'curl_multi_[a-z_]+' | head -n 1)
			bad "$file:$line" "only reactor/ may use $call"
		done
}

# 0 if all arrows hold.
check_tree() {
	marks=$(mktemp) || exit 2
	check_own "$1"
	check_system "$1"
	check_multi "$1"
	[ ! -s "$marks" ]
	held=$?
	rm -f "$marks"
	return $held
}

# write FILE TEXT: a file of the tree that the self-test checks
write() {
	mkdir -p "$(dirname "$tree/$1")" && echo "$2" >"$tree/$1"
}

# expect good|bad FILE TEXT: a clean tree with this one file more
expect() {
	rm -rf "${tree:?}"/*
	write base/obj.h '#include <stdlib.h>'
	write reactor/loop.c '#include <event2/event.h>'
	write "$2" "$3"
	if check_tree "$tree" 2>"$tree.err"; then
		got=good
	else
		got=bad
	fi
	if [ "$got" != "$1" ]; then
		echo "self-test: $2 with '$3' was found $got" >&2
		failed=1
	elif [ "$got" = bad ] && ! grep -q "^$tree/$2:1: " "$tree.err"; then
		echo "self-test: the message does not name $2, line 1: $(cat "$tree.err")" >&2
		failed=1
	fi
}

self_test() {
	tree=$(mktemp -d) || exit 2
	trap 'rm -rf "$tree" "$tree.err"' EXIT
	failed=0
	expect good base/a.c '#include "base/obj.h"'
	expect bad base/a.c '#include "reactor/loop.h"'
	expect bad base/a.h '#  include "ufs/ufs.h"'
	expect bad base/a.c '#include "daemon.h"'
	expect good reactor/a.c '#include "base/obj.h"'
	expect bad reactor/a.c '#include "ops/fs.h"'
	expect good ufs/a.c '#include "ufs/s3.h"'
	expect bad ufs/a.c '#include "meta/meta.h"'
	expect bad ufs/a.c '#include "cache/cache.h"'
	expect bad meta/a.c '#include "ufs/ufs.h"'
	expect good cache/a.c '#include "ufs/ufs.h"'
	expect bad cache/a.c '#include "ufs/s3.h"'
	expect bad cache/a.c '#include "meta/meta.h"'
	expect good ops/a.c '#include "cache/cache.h"'
	expect bad ops/a.c '#include "ufs/s3.h"'
	expect bad ops/a.c '#include "takeover/server.h"'
	expect bad ops/a.c '#include "daemon.h"'
	expect good peer/a.c '#include "ops/session.h"'
	expect bad peer/a.c '#include "ufs/s3_priv.h"'
	expect bad ops/a.c '#include "peer/peer.h"'
	expect good takeover/a.c '#include "ops/fs.h"'
	expect good ctl/a.c '#include "takeover/server.h"'
	expect good daemon.c '#include "daemon.h"'
	expect bad ops/a.c '#include <event2/event.h>'
	expect bad ufs/a.c '#include <event2/http.h>'
	expect good reactor/fuse_chan.c '#include <fuse_lowlevel.h>'
	expect bad reactor/loop.c '#include <fuse_lowlevel.h>'
	expect bad cache/a.c '#include <fuse_lowlevel.h>'
	expect good takeover/a.c '#include <fuse_lowlevel.h>'
	expect bad daemon.c '#include <fuse3/fuse_lowlevel.h>'
	expect good ufs/a.c '	curl_easy_setopt(c, CURLOPT_URL, u);'
	expect bad ufs/a.c '	curl_multi_add_handle(m, c);'
	[ "$failed" -eq 0 ] && echo "self-test: ok"
	return "$failed"
}

case ${1-} in
--self-test)
	self_test
	;;
-*)
	echo "usage: $0 [SRCDIR] | --self-test" >&2
	exit 2
	;;
*)
	src=${1:-$(dirname "$0")/../src}
	if [ ! -d "$src/base" ]; then
		echo "$0: $src has no folder base" >&2
		exit 2
	fi
	check_tree "$src"
	;;
esac
