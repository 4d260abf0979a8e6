#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Proves that the manual has every property of the daemon, with its form, range,
# default and whether it can be changed at any time:
#
#	check_options.sh [BATONFSD MANPAGE [SAMPLE]]
#
# (without arguments those of BATONFS_BUILD and BATONFS_SRC, as in `make check`),
# and that each "#name = value" line of the sample configuration shows a property
# with its default.  In the manual page's source a property is
#
#	.It Va ufs.timeout
#	duration, 100ms to 1h; default 30s; live.
#
# Properties that the page has and the daemon has not are errors too.  Exit
# status 1 if something lacks or differs, and then every such place is named.

set -u

if [ $# -eq 0 ]; then
	src=${BATONFS_SRC:-.}
	set -- "${BATONFS_BUILD:-.}/batonfsd" "$src/man/batonfs.conf.5" "$src/etc/batonfs.conf"
fi
if [ $# -ne 2 ] && [ $# -ne 3 ]; then
	echo "usage: $0 [BATONFSD MANPAGE [SAMPLE]]" >&2
	exit 2
fi
dump=$(mktemp) || exit 2
trap 'rm -f "$dump"' EXIT
if ! "$1" --dump-options >"$dump"; then
	echo "$0: $1 --dump-options failed" >&2
	exit 2
fi
if [ ! -s "$dump" ]; then
	echo "$0: $1 --dump-options names no property" >&2
	exit 1
fi

awk -v page="$2" -v sample="${3-}" '
function fail(text)
{
	fail_in(page, text)
}

function fail_in(file, text)
{
	print file ": " text > "/dev/stderr"
	bad = 1
}

FNR == 1 { part++ }

# the dump: a name at the margin, then its indented "default:", "value:", "change:"
part == 1 && /^[a-z]/ {
	name = $1
	names[++count] = name
	next
}
part == 1 && /^ +(default|value|change):/ {
	key = $1
	text = $0
	sub(/^ +[a-z]+: +/, "", text)
	have[name, key] = text
	next
}
part == 1 { next }

# the sample
part == 3 && /^#[a-z0-9._]+ =/ {
	shown++
	name = substr($1, 2)
	text = $0
	sub(/^[^=]*= */, "", text)
	value = have[name, "default:"]
	if (value == "(none)")
		value = ""
	if (!((name, "default:") in have))
		fail_in(sample, "line " FNR ": the daemon has no property " name)
	else if (text != value)
		fail_in(sample, "line " FNR ": " name ": is \"" text "\", the default is \"" \
		    value "\"")
	next
}
part == 3 { next }

# the page
/^\.It Va / {
	item = $3
	item_line = FNR
	next
}
item != "" {
	line[item] = $0
	place[item] = FNR
	item = ""
}

END {
	for (i = 1; i <= count; i++) {
		name = names[i]
		known[name] = 1
		value = have[name, "default:"]
		if (value == "(none)")
			value = "empty"
		want = have[name, "value:"] "; default " value "; "
		want = want (have[name, "change:"] ~ /^at any time/ ? "live." : "start.")
		if (!(name in line))
			fail("lacks \".It Va " name "\" with \"" want "\"")
		else if (line[name] != want)
			fail("line " place[name] ": " name ": is \"" line[name] \
			    "\", must be \"" want "\"")
	}
	if (sample != "" && shown == 0)
		fail_in(sample, "shows no property")
	for (name in line) {
		if (!(name in known))
			fail("line " place[name] ": the daemon has no property " name)
	}
	exit bad
}
' "$dump" "$2" ${3:+"$3"}
