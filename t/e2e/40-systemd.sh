#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The unit under a real systemd, first process of namespaces of its own: start, reload,
# crash, hang, restart and stop under readers that compare every byte.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

# The host's cgroup v2 tree.
cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
skip() {
	echo "skipped: $*"
	trap - EXIT
	rm -rf "$T"
	exit 77
}
[ -x /lib/systemd/systemd ] || skip "no systemd here"
[ -n "$cgroups" ] || skip "no cgroup v2 here"
[ ! -d "$cgroups/init.scope" ] || skip "another systemd has this cgroup tree"
unshare --pid --fork --mount true 2>/dev/null || skip "no namespaces here"

S=$T/src
mkdir "$S"
pattern gen "$S/a.8000000" "$S/b.100003"
FILES="$M/a.8000000 $M/b.100003"
name=batonfs@$(systemd-escape --path "$M").service
UNIT="$BATONFS_SRC/etc/systemd/batonfs@.service"

cat >"$T/init" <<INIT
#!/bin/bash
set -eu
mount --make-rprivate /
# The copies of other tests' mounts: they would live as long as this namespace.
awk '/ - fuse\\.batonfs / { print \$5 }' /proc/self/mountinfo | while read -r other; do
	umount -l "\$(printf '%b' "\$other")"
done
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /usr/local/sbin
mount -t tmpfs tmpfs /usr/local/bin
ln -s "$BATONFS_BUILD/batonfsd" /usr/local/sbin/
ln -s "$BATONFS_BUILD/batonfs" /usr/local/bin/
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
d="/run/systemd/system/batonfs@.service.d"
mkdir -p /run/lock "\$d"
cp "$UNIT" /run/systemd/system/
cat >"\$d/test.conf" <<CONF
[Unit]
DefaultDependencies=no
Wants=
[Service]
EnvironmentFile=
Environment=UFS=file://$S
Environment="OPTIONS=-s worker.page.store.dir=$T/cache"
# ProtectProc= and the like leave the leak checker nothing to look at.
Environment=ASAN_OPTIONS=detect_leaks=0
WatchdogSec=8s
StandardError=append:$LOG
CONF
printf '[Unit]\nDefaultDependencies=no\n' >/run/systemd/system/mini.target
export container=lxc
exec /lib/systemd/systemd --unit=mini.target --log-target=console --show-status=no
INIT
chmod +x "$T/init"
mkdir "$T/cache"
unshare --pid --fork --kill-child --mount --uts --ipc "$T/init" >>"$LOG" 2>&1 &
outer=$!

leave() { # what this systemd leaves in the host's cgroup tree
	local status=$? n
	set +e
	kill -9 $outer 2>/dev/null
	wait $outer 2>/dev/null
	for n in 1 2 3 4 5 6 7 8 9 10; do
		[ -d "$cgroups/system.slice" ] || [ -d "$cgroups/init.scope" ] || break
		find "$cgroups/system.slice" "$cgroups/init.scope" -depth -type d -exec rmdir {} + 2>/dev/null
		[ "$n" = 1 ] || sleep 0.1
	done
	(exit $status)
	cleanup
}
trap leave EXIT

first() { # systemd's own pid, as we see it
	pid1=$(cat "/proc/$outer/task/$outer/children")
	pid1=${pid1% }
	[ -n "$pid1" ] && [ "$(cat "/proc/$pid1/comm")" = systemd ]
}
wait_until 60 "systemd runs" first
inside() {
	nsenter --target "$pid1" --mount --pid --uts --ipc -- "$@"
}
there() { # in its mount namespace, but among our processes
	nsenter --target "$pid1" --mount -- "$@"
}
wait_until 60 "systemd answers" inside systemctl list-jobs
main_pid() {
	inside systemctl show -p MainPID --value "$name"
}
another() { # MAINPID is not $before, and it serves
	local p
	p=$(main_pid) && [ "$p" != 0 ] && [ "$p" != "$before" ] &&
		[ "$(there "$BATONFS_BUILD/batonfs" -m "$M" --json status 2>/dev/null | jq -r .keeper)" = true ]
}
there_readers() {
	local mode
	readers=""
	for mode in buffered direct mmap list; do
		# shellcheck disable=SC2086
		nsenter --target "$pid1" --mount -- pattern loop $mode $FILES >"$T/reader.$mode.out" 2>"$T/reader.$mode.err" &
		readers="$readers $mode:$!"
	done
}

inside systemd-analyze verify "/run/systemd/system/batonfs@.service" 2>"$T/verify" || true
grep -v "^Failed to\|not a mount point\|man " "$T/verify" | grep "batonfs@" && die "systemd-analyze verify: $(cat "$T/verify")"
ok "systemd-analyze verify finds nothing"

expect "start" inside systemctl start "$name"
expect "the mount serves when start returns" there "$BATONFS_BUILD/pattern" check "$M/b.100003"
there_readers
for how in reload kill restart freeze reload; do
	before=$(main_pid)
	case $how in
	kill) inside kill -9 "$before" ;;
	freeze) inside kill -STOP "$before" ;;
	*) inside systemctl $how "$name" || die "systemctl $how" ;;
	esac
	wait_until 60 "another daemon after $how" another
	readers_alive
	wait_until 60 "$how: it is active" inside systemctl is-active "$name"
	ok "$how: another daemon serves, readers saw nothing"
done
readers_stop
ok "no reader saw an error or a wrong byte"
expect "stop" inside systemctl stop "$name"
inside grep " $M fuse.batonfs " /proc/self/mounts && die "still mounted"
[ "$(inside systemctl show -p NFileDescriptorStore --value "$name")" = 0 ] || die "systemd still holds descriptors"
ok "stop unmounts, and nothing is kept"
expect "start again" inside systemctl start "$name"
expect "it serves again" there "$BATONFS_BUILD/pattern" check "$M/b.100003"
# The figure that the unit file tells; more of the sandbox would take the mount from others.
inside systemd-analyze security --no-pager "$name" >"$T/security" 2>&1 || true
figure=$(sed -n "s/^.*exposure level for .*: \([0-9.]*\) .*$/\1/p" "$T/security")
[ -n "$figure" ] || die "systemd-analyze security: $(tail -n 3 "$T/security")"
echo "systemd-analyze security: $figure"
expect "systemd-analyze security is as the unit file says" grep -q "systemd-analyze security.*: $figure\$" "$UNIT"
expect "stop again" inside systemctl stop "$name"
