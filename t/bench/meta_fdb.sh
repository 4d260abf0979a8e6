#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The metadata store in FoundationDB: what 1,000 files made at the same time cost in commits,
# and how a directory of very many is listed; in the store alone, and through a mount.  On a
# stand-in of its own (t/fdb), or in the cluster BATONFS_TEST_FDB_CLUSTER_FILE with the library
# BATONFS_TEST_FDB_LIBRARY.  ENTRIES=n of the listing (100,000).
. "${BATONFS_SRC:-.}/t/bench/bench.sh" || exit
# shellcheck source=t/e2e/fdb.sh
. "$BATONFS_SRC/t/e2e/fdb.sh"

ENTRIES=${ENTRIES:-100000}
PREFIX=t/bench/${T##*/}

of() { # NAME, of a line of "name value" pairs
	awk -v n="$1" '{ for (i = 1; i < NF; i += 2) if ($i == n) print $(i + 1) }'
}

store() { # ARGUMENTS of bench_meta_fdb behind the prefix
	bench_meta_fdb "$LIBRARY" "$CLUSTER_FILE" "$PREFIX" "$@" >"$T/line" || die "bench_meta_fdb $*"
	say "$(cat "$T/line")"
}

if is_real; then
	say "cluster: $CLUSTER_FILE"
else
	say "cluster: the stand-in"
fi
cluster_start

# --- the store alone
store create 1000 new
each=$(of commits_each <"$T/line")
turn=$(of turn_ms <"$T/line")
verdict "$each" "<" 1.2 "1,000 files made at once in a new directory: commits each"
store create 1000 other/deep/down
verdict "$(of commits_each <"$T/line")" "<" 1.2 "the same in new directories: commits each"
verdict "$turn" "<=" 50 "longest turn of the loop meanwhile: ms of its processor"
store fill "$ENTRIES" many
store list many 1000
[ "$(of entries <"$T/line")" = "$ENTRIES" ] || die "it listed $(cat "$T/line")"
verdict "$(of first_ms <"$T/line")" "<=" 500 "first page of $ENTRIES: ms"
verdict "$(of turn_ms <"$T/line")" "<=" 50 "longest turn of the loop meanwhile: ms of its processor"
verdict "$(calc "$(of grown_kib <"$T/line") / 1024")" "<=" 16 "memory for it: MiB"

# --- a mount
mkdir -p "$T/store/many"
cat >"$T/rules.json" <<'END'
{"apiVersion": "v1.0", "defaultRule": {"policyMode": "TRANSIENT"}}
END
# It sees what was made above: the same store.
CLUSTER+=(-s meta.fdb.prefix="$PREFIX")
serve -u "/=file://$T/store" "${CLUSTER[@]}" -s write.cache.enabled=true \
	-s worker.page.store.dir="$T/cache" -s meta.timeout=1min \
	-o attr_timeout=3600,entry_timeout=3600
batonfs -m "$M" pathconfig set "$T/rules.json" >/dev/null
cat >"$T/create.py" <<'END'
import os, sys, threading, time
top, files, threads, data = sys.argv[1], 1000, 64, b"x" * 700
os.mkdir(top)
def some(k):
    for i in range(k, files, threads):
        with open(f"{top}/file{i:08}", "xb", buffering=0) as f:
            f.write(data)
began = time.monotonic()
all = [threading.Thread(target=some, args=(k,)) for k in range(threads)]
[t.start() for t in all]
[t.join() for t in all]
print(f"{time.monotonic() - began:.2f}")
END
before=$(counter meta.commits)
took=$(python3 "$T/create.py" "$M/of64")
say "1,000 files by 64 threads in $took s"
verdict "$(calc "($(counter meta.commits) - $before) / 1000")" "<" 1.2 \
	"1,000 files by 64 threads of the mount: commits that counted, each"
cat >"$T/list.py" <<'END'
import os, sys, time
top, pid = sys.argv[1:]
def rss():
    with open(f"/proc/{pid}/status") as f:
        return next(int(l.split()[1]) for l in f if l.startswith("RssAnon"))
was, most, first, n = rss(), 0, None, 0
began = time.monotonic()
with os.scandir(top) as it:
    for e in it:
        first = first or time.monotonic() - began
        n += 1
        if n % 1000 == 0:
            most = max(most, rss() - was)
print(f"entries {n} first_ms {first * 1000:.1f} all_ms {(time.monotonic() - began) * 1000:.1f} grown_kib {most}")
END
python3 "$T/list.py" "$M/many" "$(daemon_pid)" >"$T/line"
say "$(cat "$T/line")"
[ "$(of entries <"$T/line")" = "$ENTRIES" ] || die "it listed $(cat "$T/line")"
verdict "$(of first_ms <"$T/line")" "<=" 500 "first entry through the mount: ms"
verdict "$(calc "$(of grown_kib <"$T/line") / 1024")" "<=" 32 "the daemon's memory for it: MiB"
stop_forced
finish
