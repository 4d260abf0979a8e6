#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The daemon is killed at the named points of creating, writing and uploading, under
# writers that know what each call must answer: each change happens exactly once.
# ROUNDS=n for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh"

ROUNDS=${ROUNDS:-1}
POINTS="mkdir.noted mkdir.made create.made open.made write.done truncate.done release upload.begun upload.sent
	upload.taken session.end"
mkdir -p "$T/bin" "$T/store"

# The daemon with a fault that is taken once: whoever starts next has it.
cat >"$T/bin/batonfsd" <<WRAPPER
#!/bin/bash
unset BATONFS_FAULT
if mv "$T/fault" "$T/fault.taken" 2>/dev/null; then
	export BATONFS_FAULT=\$(cat "$T/fault.taken")
	echo \$\$ >"$T/fault.new"
	mv "$T/fault.new" "$T/fault.pid"
fi
exec -a "\$0" "$BATONFS_BUILD/batonfsd" "\$@"
WRAPPER
chmod +x "$T/bin/batonfsd"
PATH=$T/bin:$PATH

# The next daemon has the fault, and is killed by it.
dies_at() { # POINT
	rm -f "$T/fault.pid"
	echo "$1=kill@$((RANDOM % 5 + 1))" >"$T/fault.new"
	mv "$T/fault.new" "$T/fault"
	kill -9 "$(daemon_pid)"
	wait_until 30 "a daemon with the fault $1 begins" test -e "$T/fault.pid"
	wait_until 60 "it comes by $1 and dies" not kill -0 "$(cat "$T/fault.pid")"
	wait_until 30 "another one serves" daemon_pid
}

points() { # NAME POINTS...
	local name=$1 point i w writers="" bad=0
	shift
	mkdir "$M/$name"
	for i in 1 2 3; do
		MUTATOR_LIST=$T/list.$i python3 "$BATONFS_SRC/t/e2e/mutator.py" "$M/$name/w$i" \
			"$((RANDOM * 100 + i))" >"$T/writer.$i" 2>&1 &
		writers="$writers $i:$!"
	done
	for i in $(seq "$ROUNDS"); do
		for point in "$@"; do
			dies_at "$point"
			for w in $writers; do
				kill -0 "${w#*:}" 2>/dev/null ||
					die "$point: writer ${w%:*}: $(cat "$T/writer.${w%:*}")"
			done
			ok "killed at $point under writers on $name"
		done
	done
	for w in $writers; do
		kill -TERM "${w#*:}" 2>/dev/null || true
	done
	for w in $writers; do
		wait "${w#*:}" || bad=1
		[ $bad = 0 ] || die "writer ${w%:*}: $(cat "$T/writer.${w%:*}")"
	done
}

checked() { # DIR WHERE
	local i
	for i in 1 2 3; do
		python3 "$BATONFS_SRC/t/e2e/mutator.py" --check "$T/list.$i" "$1/w$i" || die "writer $i"
	done
	ok "the writers' files, and no others, are in $2"
}

serve -u /="file://$T/store" -s worker.page.store.dir="$T/cache" -s "keeper.restart.limit=1000 in 1min"
# shellcheck disable=SC2086
points directory $POINTS create.reserved
checked "$M/directory" "the mount"
stop
checked "$T/store/directory" "the storage"
[ -z "$(find "$T/store" -name '.batonfs*')" ] || die "temporary files were left: $(find "$T/store" -name '.batonfs*')"
ok "no temporary file is left"
[ -z "$(find "$T/cache/staged" -type f 2>/dev/null)" ] || die "staged files were left"
ok "no staged file is left"

"$BATONFS_SRC/t/lib/rgw.sh" start "$T/rgw" || die "radosgw did not start"
# shellcheck source=/dev/null
. "$T/rgw/env"
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY RGW_ENDPOINT
"$BATONFS_SRC/t/lib/s3put.sh" bucket data
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s "keeper.restart.limit=1000 in 1min"
# shellcheck disable=SC2086
points bucket $POINTS create.reserved upload.recorded unlinked.noted unlinked.send unlinked.sent unlinked.recorded \
	unlinked.gone
checked "$M/bucket" "the mount"
stop
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT"
checked "$M/bucket" "the bucket, after a remount"
stop
"$BATONFS_SRC/t/lib/rgw.sh" stop "$T/rgw"
