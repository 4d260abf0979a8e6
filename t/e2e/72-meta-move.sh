#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A metadata store moves from the embedded back end into FoundationDB and back, by meta export
# and meta import: modes, times and rules are there again, and what would be lost is refused.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/fdb.sh
. "$BATONFS_SRC/t/e2e/fdb.sh"

cluster_start
mkdir "$T/store"
cat >"$T/rules.json" <<'END'
{"apiVersion": "v1.0", "defaultRule": {"policyMode": "WRITE_BACK"},
 "pathRules": [{"path": "/temp/**", "policyMode": "TRANSIENT"}]}
END
FLAGS=(-u /="file://$T/store" -s worker.write.cache.async.persist.retry.max.interval=1s -s write.cache.enabled=true -s worker.page.store.dir="$T/cache")

b() {
	batonfs -m "$M" "$@"
}

look() { # what a user sees of the whole tree, and whose rules hold
	(cd "$M" && find . -printf '%P %y %m %U %G %s %T@\n' | sort)
	b pathconfig show
	python3 - "$M/back/small" <<'END'
import sys
try:
    open(sys.argv[1], "r+b").close()
    print("can be written")
except PermissionError:
    print("cannot be written")
END
}

embedded() { # DIR
	serve "${FLAGS[@]}" -s meta.dir="$T/$1"
}

cluster() {
	serve "${FLAGS[@]}" "${CLUSTER[@]}"
}

# --- a store with something in it; nothing is stored while this daemon lives
faults_taken_once
PATH=$T/bin:$PATH
fault persist.begun=errno:5
embedded meta.1
b pathconfig set "$T/rules.json" >/dev/null
mkdir -p "$M/back/deep" "$M/temp"
for i in $(seq 1 250); do
	echo "$i" >"$M/back/deep/$i"
done
pattern gen "$T/small.700"
cp "$T/small.700" "$M/back/small"
cp "$T/small.700" "$M/back/$(printf 'odd \377 "name"')"
cp "$T/small.700" "$M/back/ünicode"
chmod 2750 "$M/back/deep"
chmod 600 "$M/back/small"
touch -d '1969-12-31 23:00:00.5 UTC' "$M/back/small"
chown 12:34 "$M/back/deep/7"

# --- what would be lost is refused
expect_exit 1 "files are not in the storage yet" "what is not stored does not move" \
	b meta export "$T/out"
crash
expect "all is stored" b async-persist drain --timeout 60s
echo x >"$M/temp/file"
expect_exit 1 "1 files are TRANSIENT" "what is TRANSIENT does not move" b meta export "$T/out"
rm "$M/temp/file"
exec 7>"$M/back/open"
expect_exit 1 "close them first" "nor what is open" b meta export "$T/out"
exec 7>&-
expect "all is stored" b async-persist drain --timeout 60s
expect "no file is left of these" test ! -e "$T/out"

# --- out
look >"$T/before"
expect_exit 0 "exported" "it is exported" b meta export "$T/out"
jq -es 'first.format == "batonfs-metadata" and first.version == 1 and last.records > 250' \
	"$T/out" >/dev/null || die "the file: $(head -n 3 "$T/out")"
ok "as a line of JSON each"
[ "$(stat -c %a "$T/out")" = 600 ] || die "others may read it"
expect_exit 1 "an import needs an empty one" "it is not put where something is" \
	b meta import "$T/out"
stop

# --- files that are none
cluster
head -n -1 "$T/out" >"$T/short"
expect_exit 1 "was cut off" "what was cut off is refused" b meta import "$T/short"
sed '50d' "$T/out" >"$T/less"
expect_exit 1 "records are missing" "what lacks a record, too" b meta import "$T/less"
sed '1s/"version":1/"version":2/' "$T/out" >"$T/newer"
expect_exit 1 "use the batonfs that wrote it" "and what is newer" b meta import "$T/newer"
sed '50s/"kind"/"sort"/' "$T/out" >"$T/unknown"
expect_exit 1 '"sort" is nothing that this build knows' "and what nobody knows" \
	b meta import "$T/unknown"

# --- in; what was broken off goes on, and is nothing else's
expect_exit 1 "another file into this store was broken off" "a broken import is no place" \
	b meta import "$T/out"
expect_exit 1 "was broken off" "and cannot be exported" b meta export "$T/half"
stop
# It is killed between the first commits, and the client asks the next one.
CLUSTER+=(-s meta.fdb.prefix="t/e2e/${T##*/}/2")
rm "$T/fault.pid"
fault meta.committed=kill@5
cluster
if ! b meta import "$T/out" >"$T/imported" 2>&1; then
	wait_until 60 "another daemon answers" daemon_pid
	b meta import "$T/out" >"$T/imported" 2>&1 || die "it does not go on: $(cat "$T/imported")"
fi
expect "an import outlives a daemon" grep -q "imported" "$T/imported"
expect "which was killed" test -e "$T/fault.pid"
stop
cluster
look >"$T/after"
expect "in the cluster all is as it was" diff "$T/before" "$T/after"
expect "and is read" cmp "$T/small.700" "$M/back/small"
expect "what is new is written" cp "$T/small.700" "$M/back/new"
expect "and stored" b async-persist drain --timeout 60s

# --- and back
look >"$T/before"
expect "it is exported again" b meta export "$T/out.2"
stop
embedded meta.2
expect "and imported" b meta import "$T/out.2"
expect "a second time nothing is done" not b meta import "$T/out.2"
stop
embedded meta.2
look >"$T/after"
expect "embedded again all is as it was" diff "$T/before" "$T/after"
expect "the same is exported" b meta export "$T/out.3"
expect "but for where it was" diff <(tail -n +2 "$T/out.2") <(tail -n +2 "$T/out.3")
stop
