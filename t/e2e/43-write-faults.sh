#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What goes wrong while files are written: storage that refuses, hangs or is gone at each
# step of an upload and of a rename, a staging disk that is full, a bucket without room.
# Every error reaches the caller, nothing half-written is seen, nothing is lost.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

bucket_begin
mkdir "$T/disk"
mount -t tmpfs -o size=64m,mode=700 batonfs-test "$T/disk"
pattern gen "$T/big.30000000" "$T/small.5000"
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" \
	-s write.staging.dir="$T/disk/staged" -s keeper.restart.limit="100 in 1min" \
	-o attr_timeout=0.1,entry_timeout=0.1

gateway() { # stop|start: nothing listens, or again
	if [ "$1" = start ]; then
		gateway_start
		batonfs -m "$M" conf set ufs.timeout 1min >/dev/null
	else
		impatient
		gateway_kill
	fi
}

impatient() { # only while there is nothing to wait for: this machine may be slow
	batonfs -m "$M" conf set ufs.timeout 1500ms >/dev/null
}

# write_fails ERRNO FILE SOURCE [PID]: some call of the writer says it; the process PID is
# killed when the file is open
write_fails() {
	python3 - "$@" <<'EOF'
import errno, os, sys
want = getattr(errno, sys.argv[1])
fd = os.open(sys.argv[2], os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
if len(sys.argv) > 4:
    os.kill(int(sys.argv[4]), 9)
try:
    with open(sys.argv[3], "rb") as f:
        while piece := f.read(1 << 20):
            os.write(fd, piece)
    os.close(fd)
except OSError as e:
    sys.exit(0 if e.errno == want else f"{e}, not {sys.argv[1]}")
sys.exit("nobody was told")
EOF
}

state_of() { # PATH: as async-persist has it
	batonfs -m "$M" --json async-persist stat --path "$1" | jq -r .state
}

has_failed() { # PATH
	[ "$(state_of "$1")" = FAILED ]
}

in_bucket() { # NAME: by another client
	[ "$(s3_status data "$1")" = 200 ]
}

# --- another mount with the same staging directory: what it does not know it would sweep
mkdir "$T/mnt2" "$T/other"
exec 5>"$M/open"
cat "$T/small.5000" >&5
expect_exit 1 "another mount writes there" "a staging directory belongs to one mount" \
	batonfsd -f -u /="file://$T/other" -s write.staging.dir="$T/disk/staged" \
	-s meta.dir="$T/othermeta" "$T/mnt2"
expect "which is not left mounted" not grep -q " $T/mnt2 " /proc/self/mounts
expect "an upgrade keeps it" batonfs -m "$M" upgrade
pid=$(daemon_pid)
kill -9 "$pid"
wait_until 60 "a new daemon serves" daemon_pid
exec 5>&-
expect "and what was being written is whole" cmp "$T/small.5000" "$M/open"
rm "$M/open"

# --- the storage is gone
for f in big.30000000 small.5000; do
	impatient
	expect "close of $f says that it is not stored" write_fails EIO "$M/$f" "$T/$f" "$(gateway_pid)"
	wait_until 60 "its last try ends" has_failed "/$f"
	ok "async-persist shows it as FAILED"
	expect_exit 1 "not in the storage" "umount is refused meanwhile" batonfs -m "$M" umount
	expect "its bytes are still there to read" cmp "$T/$f" "$M/$f"
	pid=$(daemon_pid)
	kill -9 "$pid"
	wait_until 60 "a new daemon serves" daemon_pid
	expect "also after a crash" cmp "$T/$f" "$M/$f"
	expect_exit 1 "" "a retry fails as long as the storage is gone" batonfs -m "$M" async-persist retry "/$f"
	gateway start
	expect "nothing of it is in the bucket" not in_bucket "$f"
	expect "a retry uploads it" batonfs -m "$M" async-persist retry "/$f"
	expect "and it is not listed any more" not batonfs -m "$M" async-persist stat --path "/$f"
	expect "now the bucket has it" in_bucket "$f"
	expect "byte for byte" cmp "$T/$f" "$M/$f"
	rm "$M/$f"
done

# --- dropped instead
impatient
expect "a failed file" write_fails EIO "$M/gone" "$T/small.5000" "$(gateway_pid)"
wait_until 60 "its last try ends" has_failed /gone
gateway start
expect "is dropped on request" batonfs -m "$M" async-persist drop /gone
wait_until 60 "its name is gone" not test -e "$M/gone"
echo one >"$M/kept"
impatient
expect "a failed change of a file" write_fails EIO "$M/kept" "$T/small.5000" "$(gateway_pid)"
wait_until 60 "its last try ends" has_failed /kept
gateway start
expect "is dropped" batonfs -m "$M" async-persist drop /kept
wait_until 60 "the file is what it was" grep -qx one "$M/kept"
ok "the file is what it was"

# --- rename, unlink, mkdir while it is gone
mkdir "$M/dir"
echo 1 >"$M/dir/a"
gateway stop
expect_exit 1 "" "rename says that it failed" mv -T "$M/kept" "$M/renamed"
expect_exit 1 "" "rename of a directory too" mv -T "$M/dir" "$M/other"
expect_exit 1 "" "unlink too" rm "$M/kept"
expect_exit 1 "" "mkdir too" mkdir "$M/new"
gateway start
wait_until 60 "the old name is there" grep -qx one "$M/kept"
wait_until 60 "the directory too" grep -qx 1 "$M/dir/a"
expect "the new names are not" not ls "$M/renamed" "$M/other" "$M/new"
expect "later it works" mv -T "$M/dir" "$M/other"

# --- the staging disk is full
head -c 100000000 /dev/zero >"$T/toolarge"
expect "a write that does not fit says ENOSPC" write_fails ENOSPC "$M/toolarge" "$T/toolarge"
rm -f "$M/toolarge"
room() {
	[ "$(df --output=used -k "$T/disk" | tail -n 1)" -lt 20000 ]
}
wait_until 60 "the room is free again" room
expect "and others can write" cp "$T/big.30000000" "$M/fits"
expect "whole" cmp "$T/big.30000000" "$M/fits"

# --- the mount ends, and nobody has said what is to become of it
aside() { # PATH: the file of an earlier mount that was written there
	local text
	text=$(grep -lxF "path: $1" "$T/disk/staged/kept/"*.txt) && echo "${text%.txt}"
}
serve_again() {
	serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s write.part.size=5MiB \
		-s write.staging.dir="$T/disk/staged" -s keeper.restart.limit="100 in 1min" \
		-o attr_timeout=0.1,entry_timeout=0.1
}
cp "$T/big.30000000" "$M/changed"
impatient
exec 5<>"$M/changed"
expect "an upload fails" write_fails EIO "$M/left" "$T/small.5000" "$(gateway_pid)"
python3 -c "import os; os.pwrite(5, b'x' * 10, 12000000)"
exec 5>&-
wait_until 60 "its last try ends" has_failed /left
wait_until 60 "and that of a file that is changed in part" has_failed /changed
expect_exit 1 "--force leaves what was written of them in $T/disk/staged" \
	"umount says what --force does" batonfs -m "$M" umount
batonfs -m "$M" umount --force
wait_until 60 "the keeper ends" not kill -0 "$keeper"
gateway_again() { # while nothing is mounted
	"$BATONFS_SRC/t/lib/rgw.sh" gateway "$T/rgw" || die "the gateway did not start again"
}
gateway_again
serve_again
kept_count() {
	[ "$(batonfs -m "$M" --json status | jq .writing.set_aside)" = "$1" ]
}
wait_until 60 "the next mount says how many there are" kept_count 2
ok "the next mount says how many there are"
expect "what was written was set aside" cmp "$T/small.5000" "$(aside /left)"
expect "as complete" grep -qx "complete: yes" "$(aside /left).txt"
expect "with the reason" grep -q "^not stored: [IC]" "$(aside /left).txt"
expect "a change in part is not" grep -q "complete: no" "$(aside /changed).txt"
expect "but tells where it is" test \
	"$(dd if="$(aside /changed)" bs=1 skip=12000000 count=10 status=none)" = xxxxxxxxxx
expect "the file itself is as it was" cmp "$T/big.30000000" "$M/changed"
kept() { # COMMAND OPERAND
	batonfs -m "$M" async-persist "$1" --kept "$2"
}
listed() { # as it is in --json, sorted by path
	[ "$(batonfs -m "$M" --json async-persist list --kept |
		jq -c '[.entries[] | [.path, .size, .complete]] | sort')" = "$1" ]
}
expect "they are listed" listed '[["/changed",30000000,false],["/left",5000,true]]'
batonfs -m "$M" async-persist list --kept >"$T/out"
expect "for people too" grep -q " in part .* /changed$" "$T/out"
expect_exit 1 "not among the files" "what is not there cannot be retried" kept retry /other
chmod 640 "$M/changed"
cp "$T/big.30000000" "$T/expected"
printf xxxxxxxxxx | dd of="$T/expected" bs=1 seek=12000000 conv=notrunc status=none
expect "a change in part is stored with the rest" kept retry /changed
expect "and the file has it" cmp "$T/expected" "$M/changed"
expect "with its mode" test "$(stat -c %a "$M/changed")" = 640
expect "what was new is stored" kept retry "$(basename "$(aside /left)")"
expect "byte for byte" cmp "$T/small.5000" "$M/left"
expect "then nothing is listed" listed '[]'
expect "nor counted" kept_count 0
expect "nor left of the way there" test "$(find "$M" "$T/disk/staged/kept" -name '.kept-*' -o -name '*.txt')" = ""
# The same with umount(8), which asks nobody; and after that a retry, which leaves nothing.
impatient
asked=$'asked\nsize: 1'
expect "an upload fails" write_fails EIO "$M/$asked" "$T/small.5000" "$(gateway_pid)"
wait_until 60 "its last try ends" has_failed "/$asked"
umount "$M"
wait_until 60 "the keeper ends" not kill -0 "$keeper"
gateway_again
serve_again
wait_until 60 "umount(8) loses nothing" kept_count 1
expect "umount(8) loses nothing" cmp "$T/small.5000" "$(aside '/asked\nsize: 1')"
expect "whatever the name is" listed '[["/asked\nsize: 1",5000,true]]'
echo newer >"$M/$asked"
expect_exit 1 "both are kept" "what is newer is not overwritten" kept retry "/$asked"
expect "it is what it was" grep -qx newer "$M/$asked"
expect "what was set aside can be dropped" kept drop "/$asked"
expect "then nothing is listed" listed '[]'
expect "nor counted" kept_count 0
impatient
expect "an upload fails" write_fails EIO "$M/again" "$T/small.5000" "$(gateway_pid)"
wait_until 60 "its last try ends" has_failed /again
gateway start
expect "a retry uploads it" batonfs -m "$M" async-persist retry /again
stop
[ -z "$(find "$T/disk/staged" -type f)" ] || die "staged files were left: $(find "$T/disk/staged" -type f)"
ok "no staged file is left"
umount "$T/disk"
