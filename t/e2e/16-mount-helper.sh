#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# mount(8) and fstab(5) by way of mount.batonfs, in a mount namespace whose /sbin holds
# nothing else.
if [ "${BATONFS_MOUNT_NS:-}" != yes ]; then
	BATONFS_MOUNT_NS=yes exec unshare -m --propagation private "$0" "$@"
fi
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

if [ -e /sbin/awk ]; then
	echo "skipped: /sbin is /bin here"
	exit 77
fi
mount -t tmpfs tmpfs "$(readlink -f /sbin)"
ln -s "$BATONFS_BUILD/mount.batonfs" /sbin/mount.batonfs

mkdir -p "$T/src"
echo hello >"$T/src/hello"
SRC=file://$T/src
n=$(systemd_escape "$M")

gone() {
	! mounted && [ -z "$(ours)" ] && [ ! -e "/run/batonfs/$n" ]
}

helper() { # mount.batonfs itself, without mount(8)
	/sbin/mount.batonfs "$@"
}

# --- what is refused
expect_exit 1 "Usage: mount.batonfs" "too few words" helper "$SRC"
expect_exit 1 "file:///srv/data" "a directory names the right form" helper /srv/data "$M"
expect_exit 1 "is no storage" "a source without a scheme" mount -t batonfs bucket "$M"
expect_exit 1 'unknown mount option "frobnicate"' "an unknown option" mount -t batonfs "$SRC" "$M" -o frobnicate
expect_exit 1 "did you mean" "an unknown property" mount -t batonfs "$SRC" "$M" -o readahed.max=1MiB
expect_exit 32 "No such file or directory" "storage that is not there" mount -t batonfs "$SRC/none" "$M"
expect_exit 1 "conf set" "remount" helper "$SRC" "$M" -o remount,ro
expect_exit 32 "No such file or directory" "-f looks for the storage" helper -f "$SRC/none" "$M"
expect_exit 0 "are well" "-f of what is well" helper -f "$SRC" "$M"
mounted && die "something is mounted"

# --- mount and umount
echo "readahead.max = 3MiB" >"$T/a file.conf"
expect "mount -t batonfs" mount -t batonfs "$SRC" "$M" \
	-o "ro,allow_other,noexec,config=$T/a file.conf,ufs.timeout=11s,x-systemd.requires=net.target,_netdev,nofail"
expect "it serves" grep -q hello "$M/hello"
expect "mount options arrive" sh -c "grep ' $M fuse.batonfs ' /proc/self/mounts | grep noexec | grep -q allow_other"
expect "the source is shown" sh -c "findmnt -no SOURCE '$M' | grep -qxF '$SRC'"
expect "config= arrives" test "$(batonfs -m "$M" conf get readahead.max)" = 3MiB
expect "properties arrive" test "$(batonfs -m "$M" conf get ufs.timeout)" = 11s
before=$(daemon_pid)
expect_exit 32 "busy" "a second mount is refused" mount -t batonfs "$SRC" "$M"
expect "and does not replace the daemon" test "$(daemon_pid)" = "$before"
kill -9 "$before"
wait_until 60 "restarted" other_serves "$before"
expect "a crash is survived, with the options" test "$(batonfs -m "$M" conf get ufs.timeout)" = 11s
umount "$M"
wait_until 60 "everything is gone" gone
ok "umount(8) ends it"

# --- fstab
mkdir -p "$T/src/a b" "$T/a mnt"
echo spaced >"$T/src/a b/file"
cat >"$T/fstab" <<F
file://$T/src/a\\040b	$T/a\\040mnt	batonfs	defaults,nofail,_netdev,user,x-systemd.device-timeout=3s,attr_timeout=2,readahead.max=5MiB 0 0
$SRC	$M	batonfs	noauto	0 0
F
expect "mount -a" mount -a -T "$T/fstab"
expect "spaces in source and mount point" grep -q spaced "$T/a mnt/file"
expect "properties of fstab" test "$(batonfs -m "$T/a mnt" conf get readahead.max)" = 5MiB
mounted && die "noauto was mounted"
expect "mount -a once more finds it mounted" mount -a -T "$T/fstab"
expect "mounted once" test "$(grep -c 'a\\040mnt fuse.batonfs' /proc/self/mounts)" = 1
expect "the other line by its mount point" mount -T "$T/fstab" "$M"
expect "both serve" grep -q hello "$M/hello"
umount "$M" "$T/a mnt"
wait_until 60 "everything is gone" gone

# --- -s, -v, a manager's socket in the environment
expect "-s drops what it does not know" helper "$SRC" "$M" -s -o rw,frobnicate,nolog=3
umount "$M"
wait_until 60 "everything is gone" gone
out=$(NOTIFY_SOCKET=/run/nobody timeout 60 mount -v -t batonfs "$SRC" "$M" \
	-o 's3.region="top,secret",fsname="a,b"' 2>&1) || die "mount -v: $out"
case $out in
*"-s s3.region=..."*) ;;
*) die "-v: $out" ;;
esac
case $out in *top*) die "-v shows a secret: $out" ;; esac
ok "-v shows the command line without values"
expect "a comma in a value" sh -c "grep -q '^a,b $M fuse.batonfs' /proc/self/mounts"
umount "$M"
wait_until 60 "everything is gone" gone
