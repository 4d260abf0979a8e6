#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A mount whose metadata store is in FoundationDB, when there is no client library, no cluster,
# or the cluster goes away: who starts is told what to do, requests end in time, what is cached
# is read, a daemon is replaced or killed all the same, nothing acknowledged is lost, and it
# goes on by itself when the cluster is back.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/fdb.sh
. "$BATONFS_SRC/t/e2e/fdb.sh"

if is_real; then
	echo "skipped: a real cluster does not fail on demand"
	exit 77
fi
cluster_start
mkdir "$T/store"
FLAGS=(-u /="file://$T/store" "${CLUSTER[@]}" -s worker.page.store.dir="$T/cache"
	-s write.cache.enabled=true)

# --- at the start: exit status 4, and the way out
start() { # FLAGS
	batonfsd -f "${FLAGS[@]}" "$@" "$M"
}
expect_exit 4 "install the FoundationDB client, or say where its libfdb_c.so is" \
	"without the library" start -s meta.fdb.library=/nowhere/libfdb_c.so
expect_exit 4 "it is no FoundationDB client of 6.3 or later" "with another library" \
	start -s meta.fdb.library=libm.so.6
BATONFS_FDB_STANDIN_MAX_API=620 expect_exit 4 "install a FoundationDB client of 6.3 or later" \
	"with one that is too old" start
expect_exit 4 "meta.fdb.cluster.file $T/none: No such file" "without a cluster file" \
	start -s meta.fdb.cluster.file="$T/none"
echo hello >"$T/hello"
expect_exit 4 "meta.fdb.cluster.file names no cluster" "with a file of something else" \
	start -s meta.fdb.cluster.file="$T/hello"
faults "any hold"
expect_exit 4 "the cluster does not answer (meta.fdb.cluster.file)" "with a silent cluster" \
	start -s meta.timeout=1s
faults "commit 1038"
expect_exit 4 "refuses it: Database is locked" "with a cluster that takes no changes" \
	start -s meta.timeout=1s
faults
expect "nothing is mounted by these" not mounted

# --- while it serves
cat >"$T/rules.json" <<'END'
{"apiVersion": "v1.0", "defaultRule": {"policyMode": "WRITE_BACK"}}
END
# Names and attributes are asked for each time: reading does not rely on what is young enough.
serve "${FLAGS[@]}" -s meta.timeout=2s -s "keeper.restart.limit=1000 in 1min" \
	-s worker.write.cache.async.persist.retry.max.interval=1s \
	-o attr_timeout=0,entry_timeout=0
batonfs -m "$M" pathconfig set "$T/rules.json" >/dev/null
pattern gen "$T/small.5000" "$T/big.3000000"
cp "$T/small.5000" "$M/small"
cp "$T/big.3000000" "$M/big"
mkdir -p "$M/deep/er"
for f in "$M/deep/er/small" "$M/replaced-"{silent,killed,upgraded,crashed}; do
	cp "$T/small.5000" "$f"
done
chmod 640 "$M/deep/er/small"
batonfs -m "$M" async-persist drain >/dev/null || die "drain"
expect "what is stored is read" cmp "$T/small.5000" "$M/small"
expect "and a large file" cmp "$T/big.3000000" "$M/big"
for f in "$M/deep/er/small" "$M"/replaced-*; do
	cmp "$T/small.5000" "$f" || die "$f"
done

error() { # of status
	batonfs -m "$M" --json status | jq -r .metadata.error
}

silent() {
	error | grep -q "$1"
}

# told ERRNO WHAT PATH: the call says it, after a while, and in the end
told() {
	python3 - "$@" <<'END' || die "$*"
import errno, os, sys, time
want, what, path = sys.argv[1:]
begun = time.monotonic()
try:
    if what == "create":
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    else:
        os.unlink(path)
except OSError as e:
    took = time.monotonic() - begun
    print(f"{what}: {errno.errorcode[e.errno]} after {took:.1f} s")
    sys.exit(0 if errno.errorcode[e.errno] == want else f"{what}: {e}, not {want}")
sys.exit(f"{what}: nobody was told")
END
	ok "$2 ends with $1"
}

while_down() {
	expect "a small file is read" cmp "$T/small.5000" "$M/small"
	expect "a large one, too" cmp "$T/big.3000000" "$M/big"
	expect "below directories, too" cmp "$T/small.5000" "$M/deep/er/small"
	[ "$(stat -c %a:%s "$M/deep/er/small")" = 640:5000 ] || die "with other attributes"
	# Another version in the storage: whose it is nobody can tell, and it is not the old one.
	pattern gen "$T/new.5000"
	mv "$T/new.5000" "$T/store/replaced-$1"
	LC_ALL=C cat "$M/replaced-$1" >"$T/out" 2>"$T/words" && die "what was replaced is read"
	[ ! -s "$T/out" ] || die "bytes of what was replaced are read"
	expect "what was replaced is not" grep -q "Input/output error" "$T/words"
	# A name that was never seen may be one that only the cluster knows.
	LC_ALL=C stat "$M/never-seen" 2>"$T/words" && die "it is there"
	expect "nobody says that a name is not there" grep -q "Input/output error" "$T/words"
	told EIO create "$M/new-$1"
	told EIO remove "$M/small"
	expect "it is still there" cmp "$T/small.5000" "$M/small"
}

write_and_wait() { # NAME: holds a written file open until $T/go
	rm -f "$T/go" "$T/written"
	python3 - "$M/$1" "$T/small.5000" "$T/written" "$T/go" <<'END' &
import errno, os, sys, time
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o644)
os.write(fd, open(sys.argv[2], "rb").read())
open(sys.argv[3], "w").close()
while not os.path.exists(sys.argv[4]):
    time.sleep(0.01)
try:
    os.close(fd)
except OSError as e:
    sys.exit(0 if e.errno == errno.EIO else f"close: {e}")
sys.exit("close said that all is well")
END
	writer=$!
	wait_until 60 "it is written" test -e "$T/written"
}

works_again() { # NAME
	wait_until 60 "it works again" cp "$T/small.5000" "$M/$1"
	wait_until 60 "and has nothing to complain of" not silent .
	[ "$(batonfs -m "$M" --json fs explain "/$1" | jq -r .policy)" = WRITE_BACK ] ||
		die "another policy: $(batonfs -m "$M" fs explain "/$1")"
	ok "by the rules that it has"
	expect "what is written is read" cmp "$T/small.5000" "$M/$1"
	# What could not be made safe counts as failed until it is tried again.
	wait_until 90 "and all is stored" batonfs -m "$M" async-persist drain --timeout 60s
	expect "as it was written" cmp "$T/small.5000" "$T/store/$1"
}

[ "$(batonfs -m "$M" --json status | jq -r .metadata.backend)" = fdb ] || die "another back end"
ok "status names the back end"

# --- silent: connections stand, and nothing comes
write_and_wait open-1
faults "any hold"
touch "$T/go"
wait $writer || die "a close that nobody made safe"
ok "a close whose record is not safe says EIO"
while_down silent
wait_until 60 "status says so" silent "has not answered"
faults
works_again after-1
expect "what could not be made safe then is, now" cmp "$T/small.5000" "$T/store/open-1"

# --- killed, and a daemon replaced and killed meanwhile
write_and_wait open-2
cluster_kill
touch "$T/go"
wait $writer || die "a close that nobody made safe"
ok "a close whose record is not safe says EIO"
while_down killed
before=$(daemon_pid)
expect "the daemon is replaced all the same" batonfs -m "$M" upgrade
expect "by another one" other_serves "$before"
while_down upgraded
crash
while_down crashed
cluster_start
works_again after-2
expect "what could not be made safe then is, now" cmp "$T/small.5000" "$T/store/open-2"

# --- writers go on over short outages, and lose nothing
mkdir "$M/dir"
batonfs -m "$M" conf set meta.timeout 1min >/dev/null
python3 "$BATONFS_SRC/t/e2e/acks.py" write "$M/dir" 1 "$T/list" >"$T/writer" 2>&1 &
writer=$!
wait_until 60 "the writer writes" test -s "$T/list"
for i in 1 2 3 4 5 6; do
	was=$(wc -l <"$T/list")
	wait_until 60 "it goes on" eval "[ \$(wc -l <$T/list) -gt $((was + 20)) ]"
	case $i in
	[14]) cluster_kill && cluster_start ;;
	[25])
		cluster_kill
		kill -9 "$(daemon_pid)"
		wait_until 60 "a daemon serves" daemon_pid
		cluster_start
		;;
	*)
		faults "any hold"
		batonfs -m "$M" upgrade >/dev/null || die "upgrade"
		faults
		;;
	esac
	kill -0 $writer 2>/dev/null || die "the writer: $(cat "$T/writer")"
done
kill -TERM $writer
wait $writer || die "the writer: $(cat "$T/writer")"
ok "a writer did not notice six short outages"
expect "what was acknowledged is in the mount" \
	python3 "$BATONFS_SRC/t/e2e/acks.py" check "$T/list" "$M/dir"
expect "all is stored" batonfs -m "$M" async-persist drain --timeout 60s
expect "and in the storage" python3 "$BATONFS_SRC/t/e2e/acks.py" check "$T/list" "$T/store/dir"

# --- the end, without a cluster
cluster_kill
batonfs -m "$M" conf set meta.timeout 1s >/dev/null
expect_exit 1 "is not known: the metadata store" "nobody knows then what is not stored yet" \
	batonfs -m "$M" umount
stop_forced
expect "but it can be unmounted" not mounted
