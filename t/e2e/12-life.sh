#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# How a daemon begins and ends: background, signals, umount(8), a second daemon with
# a keeper of its own, a daemon that crashes for ever.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

S=$T/src
mkdir -p "$S"
pattern gen "$S/a.3000000"
echo hello >"$S/hello"
URI="/=file://$S"
n=$(systemd_escape "$M")

gone() { # nothing of the mount is left
	! mounted && [ -z "$(ours)" ] && [ ! -e "/run/batonfs/$n" ] && [ ! -e "/dev/shm/batonfs/$n" ]
}

# Background: returns when the mount serves, without holding our stdout.
expect "background start" timeout 60 bash -c "batonfsd -u '$URI' '$M' | cat"
expect "the mount serves at once" grep -q hello "$M/hello"
expect "the client finds the daemon by its socket" test "$(batonfs -S "/run/batonfs/$n/control" --json status | jq -r .mountpoint)" = "$M"
batonfs -m "$M" umount
wait_until 60 "everything is gone" gone
ok "umount leaves nothing behind"

# In the foreground without a keeper SIGTERM and SIGINT unmount.
for sig in TERM INT; do
	batonfsd -f -u "$URI" "$M" 2>>"$LOG" &
	pid=$!
	wait_until 60 "the mount serves" grep -q hello "$M/hello"
	kill -$sig $pid
	wait $pid || die "SIG$sig: exit code $?"
	wait_until 60 "everything is gone" gone
	ok "SIG$sig without a keeper unmounts and exits 0"
done

# umount(8) from outside.
serve -u "$URI"
window=/sys/class/bdi/$(mountpoint -d "$M")/read_ahead_kb
if [ -w "$window" ]; then # not in a container
	expect "the kernel's readahead window is raised" test "$(cat "$window")" = 4096
fi
umount "$M"
wait_until 60 "everything is gone" gone
wait "$keeper" || die "the keeper ended with $?"
ok "umount(8) ends daemon and keeper"

# With a keeper SIGTERM to the daemon leaves the mount; the next daemon goes on.
serve -u "$URI"
pattern loop buffered "$M/a.3000000" >"$T/r.out" 2>&1 &
reader=$!
before=$(daemon_pid)
kill -TERM "$before"
wait_until 60 "another daemon serves" other_serves "$before"
kill -TERM $reader
wait $reader || die "the reader: $(cat "$T/r.out")"
ok "SIGTERM under a keeper leaves the mount to the next daemon"

# SIGHUP rereads the configuration; a bad file changes nothing.
stop
echo "readahead.max = 5MiB" >"$T/conf"
serve -c "$T/conf" -u "$URI"
[ "$(batonfs -m "$M" conf get readahead.max)" = 5MiB ] || die "the file was not read"
echo "readahead.max = 6MiB" >"$T/conf"
kill -HUP "$(daemon_pid)"
wait_until 60 "SIGHUP was taken" sh -c "[ \"\$(batonfs -m '$M' conf get readahead.max)\" = 6MiB ]"
ok "SIGHUP rereads the configuration"
echo "readahead.max = many" >"$T/conf"
kill -HUP "$(daemon_pid)"
wait_until 60 "the log tells" grep -q 'configuration not changed.*conf:1' "$LOG"
[ "$(batonfs -m "$M" conf get readahead.max)" = 6MiB ] || die "changed"
ok "a bad file changes nothing, and the log names the line"

# The keeper's own SIGTERM ends the mount.
kill -TERM "$keeper"
wait_until 60 "everything is gone" gone
ok "SIGTERM to the keeper unmounts"

# A second start takes over, with a keeper of its own.
serve -u "$URI"
first=$keeper
pattern loop buffered "$M/a.3000000" >"$T/r.out" 2>&1 &
reader=$!
before=$(daemon_pid)
serve -u "$URI"
[ "$(daemon_pid)" != "$before" ] || die "the first daemon serves on"
wait_until 60 "the first keeper is gone" not kill -0 "$first"
after=$(daemon_pid)
kill -9 "$after"
wait_until 60 "the second keeper restarts" other_serves "$after"
kill -TERM $reader
wait $reader || die "the reader: $(cat "$T/r.out")"
ok "a second start takes over, and its keeper restarts it"
stop

# A daemon that dies at once, for ever: errors in the end, not a hang.
serve -u "$URI" -s keeper.restart.limit="3 in 10min"
exec 6<"$M/hello"
mkdir -p "$T/bin"
for i in 1 2 3 4 5; do
	pid=$(daemon_pid 2>/dev/null) && [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null
	wait_until 60 "restarted or given up" sh -c "! kill -0 $keeper 2>/dev/null || { p=\$(timeout 20 batonfs -m '$M' --json status | jq -r .pid) && [ \"\$p\" != \"$pid\" ]; }"
	kill -0 "$keeper" 2>/dev/null || break
done
kill -0 "$keeper" 2>/dev/null && die "the keeper did not give up after $i crashes"
expect_exit 1 "" "callers get an error, not a hang" timeout 60 cat "$M/hello"
exec 6<&-
umount -l "$M"
