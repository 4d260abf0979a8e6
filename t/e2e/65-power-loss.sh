#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What a machine that loses its power at some moment has left of the write cache: of every
# file what was synced, and of what was not each page or none.  A fresh mount finds in it all
# that was acknowledged.  ROUNDS=n for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/workers.sh
. "$BATONFS_SRC/t/e2e/workers.sh"

ROUNDS=${ROUNDS:-5}
ACKS=$BATONFS_SRC/t/e2e/acks.py
mkdir "$T/bin" "$T/store" "$T/synced"

if ldd "$BATONFS_BUILD/batonfsd" | grep -q 'lib[at]san'; then
	echo "skipped: a sanitizer wants to be the first library of the daemon"
	exit 77
fi
"${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -O1 -shared -fPIC -o "$T/synced.so" \
	"$BATONFS_SRC/t/e2e/synced.c" -ldl || die "synced.c does not compile"

cat >"$T/bin/batonfsd" <<WRAPPER
#!/bin/bash
[ -e "$T/plain" ] || export LD_PRELOAD=$T/synced.so SYNCED_FROM=$T/cache SYNCED_TO=$T/synced
exec -a "\$0" "$BATONFS_BUILD/batonfsd" "\$@"
WRAPPER
chmod +x "$T/bin/batonfsd"
PATH=$T/bin:$PATH

cat >"$T/rules.json" <<'RULES'
{"apiVersion": "v1.0",
 "pathRules": [{"path": "/back/**", "policyMode": "WRITE_BACK"},
               {"path": "/temp/**", "policyMode": "TRANSIENT"}]}
RULES

cache_in() { # DIR
	serve -u /="file://$T/store" -s worker.page.store.dir="$1" -s write.cache.enabled=true \
		-s "keeper.restart.limit=1000 in 1min"
}

# What is WRITE_BACK is in the storage sooner or later, and then its staged file goes; what
# is TRANSIENT stays.
cache_in "$T/cache"
expect "rules are taken" batonfs -m "$M" pathconfig set "$T/rules.json"
mkdir "$M/back" "$M/temp"
for w in back.1 back.2 temp.3 temp.4; do
	worker_start "$w" python3 "$ACKS" write "$M/${w%.*}" "${w#*.}" "$T/list.$w"
	wait_until 60 "writer $w writes" test -s "$T/list.$w"
done

# The machine stands still: what is noted of the writers' answers is no more than what they
# were given.
for i in $(seq "$ROUNDS"); do
	sleep "0.$((RANDOM % 8 + 1))"
	[ $((i % 3)) != 2 ] || kill -9 "$(daemon_pid)"
	wait_until 60 "a daemon serves" daemon_pid
	pid=$(daemon_pid)
	kill -STOP "$pid"
	wait_until 60 "it stands still" grep -q '^State:.T' "/proc/$pid/status"
	mkdir "$T/lists.$i" "$T/image.$i"
	cp "$T"/list.* "$T/lists.$i/"
	cp -r "$T/store" "$T/store.$i"
	python3 "$ACKS" cut "$T/synced" "$T/cache" "$T/image.$i" "$((RANDOM + i))" || die "no image"
	cp "$T/cache/identity" "$T/image.$i/"
	kill -CONT "$pid"
	workers_alive "image $i"
done
workers_stop
batonfs -m "$M" async-persist drain --timeout 60s || die "not everything is stored"
stop

touch "$T/plain"
for i in $(seq "$ROUNDS"); do
	rm -rf "$T/store"
	mv "$T/store.$i" "$T/store"
	cache_in "$T/image.$i"
	for d in back temp; do
		python3 "$ACKS" check "$T/lists.$i/list.$d".* "$M/$d" || die "image $i: $d"
	done
	batonfs -m "$M" async-persist drain --timeout 60s || die "image $i: not everything is stored"
	python3 "$ACKS" check "$T/lists.$i/list.back".* "$T/store/back" ||
		die "image $i: back, in the storage"
	stop
	ok "power loss $i: what was acknowledged is there, and is stored in the end"
done
