#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What every file of the tree has to keep to:
#
#	sources are under 700 lines, bear an SPDX line, end lines without blanks;
#	headers have guards; no file names a place of somebody's machine or leaves
#	work marked to be done; sources and e2e tests stand in Makefile.am, and so
#	does a manual page for each program.
#
#	check_tree.sh [TREE]		TREE defaults to the folder above this one
#	check_tree.sh --self-test	shows that each rule can fail
#
# Exit status 1, naming each place, if something is not as it should be.

set -u
max_lines=${MAX_LINES:-700}
bad=0

bad() {
	echo "$*" >&2
	bad=1
}

# The files that people write, relative to the tree.
files() {
	local dirs=() d
	for d in src t man etc; do
		[ ! -d "$d" ] || dirs+=("$d")
	done
	find "${dirs[@]}" -type f \( -name '*.[ch]' -o -name '*.def' -o -name '*.sh' -o \
		-name '*.[1-8]' -o -name '*.conf' \) | sort
}

check_file() { # FILE
	local f=$1 n
	n=$(wc -l <"$f")
	case $f in
	src/*.[ch] | t/*.sh)
		[ "$n" -le "$max_lines" ] || bad "$f: $n lines: split it ($max_lines at the most)"
		;;
	esac
	case $f in
	*.conf) ;; # the administrator's own, once installed
	*) head -n 3 "$f" | grep -q 'SPDX-License-Identifier: BSD-2-Clause' || bad "$f:1: no SPDX line" ;;
	esac
	case $f in
	*.h)
		if ! grep -qE '^#ifndef [A-Z0-9_]+_H$' "$f" || ! grep -qE '^#define [A-Z0-9_]+_H$' "$f"; then
			bad "$f:1: no header guard"
		fi
		;;
	esac
}

check_lines() { # FILE...
	local place
	while IFS= read -r place; do
		bad "$place: blanks at the end of the line"
	done < <(grep -HnE '[[:blank:]]+$' "$@" | cut -d: -f1,2)
	while IFS= read -r place; do
		bad "$place"
	done < <(grep -HnE '\b(TODO|FIXME|XXX)\b|(^|[^[:alnum:]_./])/(work|home/[a-z]+)/' "$@" |
		grep -v '^t/check_tree\.sh:')
}

listed() { # FILE: in Makefile.am, as a word
	grep -qE "(^|[[:space:]=])${1//./\\.}([[:space:]]|\$)" Makefile.am
}

check_listed() { # FILE
	case $1 in
	src/*.[ch] | src/*.def | t/unit/*.[ch] | t/lib/*.[ch] | t/e2e/[0-9]*.sh | t/check_*.sh | man/*)
		listed "$1" || bad "$1: not in Makefile.am"
		;;
	esac
	case $1 in
	t/e2e/[0-9]*.sh | t/check_*.sh) [ -x "$1" ] || bad "$1: not executable" ;;
	esac
}

check_manuals() {
	local p
	while read -r p; do
		compgen -G "man/$p.[1-8]" >/dev/null || bad "Makefile.am: $p has no manual page in man/"
	done < <(sed -nE '/^(check|noinst|EXTRA)_/d; s/^[a-z]+_PROGRAMS *= *//p' Makefile.am | xargs -n 1)
}

check_tree() { # TREE
	local f all
	cd "$1" || exit 2
	bad=0
	mapfile -t all < <(files)
	for f in "${all[@]}"; do
		check_file "$f"
		check_listed "$f"
	done
	check_lines "${all[@]}"
	check_manuals
	return $bad
}

# expect good|bad FILE TEXT: a clean tree with this one file other
expect() {
	local got=good
	rm -rf "${tree:?}"/*
	mkdir -p "$tree/src" "$tree/t/e2e" "$tree/man" || exit 2
	printf '%s\n' 'bin_PROGRAMS = prog' 'prog_SOURCES = src/a.c src/a.h' \
		'dist_man_MANS = man/prog.1' 'E2E = t/e2e/10-a.sh' >"$tree/Makefile.am"
	echo "/* $spdx */" >"$tree/src/a.c"
	printf '%s\n' "/* $spdx */" '#ifndef A_H' '#define A_H' '#endif' >"$tree/src/a.h"
	printf '%s\n' '#!/bin/sh' "# $spdx" >"$tree/t/e2e/10-a.sh"
	chmod +x "$tree/t/e2e/10-a.sh"
	echo ".\\\" $spdx" >"$tree/man/prog.1"
	printf '%b\n' "$3" >"$tree/$2"
	(check_tree "$tree") 2>"$tree.err" || got=bad
	if [ $got != "$1" ]; then
		echo "self-test: $2 with '$3' was found $got: $(cat "$tree.err")" >&2
		failed=1
	elif [ $got = bad ] && ! grep -qF "${2##*/}" "$tree.err"; then
		echo "self-test: the message does not name $2: $(cat "$tree.err")" >&2
		failed=1
	fi
}

self_test() {
	local c todo=TO
	spdx='SPDX-License-Identifier: BSD-2-Clause'
	c="/* $spdx */"
	todo+=DO
	tree=$(mktemp -d) || exit 2
	trap 'rm -rf "$tree" "$tree.err"' EXIT
	failed=0
	max_lines=10
	expect good src/a.c "$c\nint a;"
	expect good src/a.c "$c\n1\n2\n3\n4\n5\n6\n7\n8\n9"
	expect bad src/a.c "$c\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10"
	expect bad src/a.c 'int a;'
	expect bad src/a.c "$c\nint a; "
	expect bad src/a.c "$c\nint a;\t"
	expect bad src/a.c "$c\n/* $todo: more */"
	expect bad src/a.c "$c\n/* see /wo""rk/x */"
	expect good src/a.c "$c\n/* see t/wo""rk/x */"
	expect bad src/a.h "$c\nint a;"
	expect bad src/b.c "$c"
	expect bad t/e2e/11-b.sh "#!/bin/sh\n# $spdx"
	expect bad man/other.5 ".\\\\\" $spdx"
	expect bad Makefile.am 'bin_PROGRAMS = prog other\nx = src/a.c src/a.h man/prog.1 t/e2e/10-a.sh'
	[ $failed = 0 ] && echo "self-test: ok"
	return $failed
}

case ${1-} in
--self-test) self_test ;;
-*)
	echo "usage: $0 [TREE] | --self-test" >&2
	exit 2
	;;
*) check_tree "${1:-$(dirname "$0")/..}" ;;
esac
