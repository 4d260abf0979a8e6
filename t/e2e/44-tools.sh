#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Programs that people run: tar, rsync, git, a compiler, zipfile, sqlite3, numpy.memmap,
# fio with verification, stress-ng; on a bucket and on a directory.  TOOLS_LONG=1 also
# clones and builds this project on the mount.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

W=$T/work
mkdir "$W"
cp -r "$BATONFS_SRC/src" "$BATONFS_SRC/man" "$BATONFS_SRC/etc" "$W/"
find "$W" -type f -exec touch -d '2020-01-02 03:04:05' {} +
tar -C "$W" -cf "$T/src.tar" .

# The rest of stress-ng's class `filesystem`, a few times each, but for those
# - that want what the manual says is not there: link, symlink, xattr, verity, fiemap,
#   inode-flags; lease, which opens a file for writing more than once;
# - that do not look at the file system under test: bind-mount, binderfs, dup, eventfd, fanotify,
#   io, procfs;
# - that cannot be told to be small: chdir (8,192 directories), copy-file (128 MiB), fpunch
#   (ends by the clock alone).
STRESS=(--iomix-bytes 8M --fallocate-bytes 8M --sync-file-bytes 8M)
for s in access chattr chmod chown dirdeep dirmany dnotify fallocate fcntl file-ioctl filename flock \
	fsize fstat getdent handle inotify iomix ioprio locka lockf lockofd mknod open sync-file touch \
	utime; do
	STRESS+=(--"$s" 1 --"$s"-ops 4)
done

tools() { # NAME: in a directory of that name
	local D=$M/$1
	mkdir "$D" "$D/tar"
	tar -C "$D/tar" -xf "$T/src.tar" || die "tar x"
	expect "$1: tar d finds no difference" tar -C "$D/tar" -df "$T/src.tar"
	expect "$1: rsync -a" rsync -a "$W/" "$D/rsync/"
	[ -z "$(rsync -ain "$W/" "$D/rsync/")" ] || die "rsync: $(rsync -ain "$W/" "$D/rsync/" | head)"
	ok "$1: a second rsync -a has nothing to do"
	[ -z "$(rsync -acin --delete "$W/" "$D/rsync/")" ] || die "rsync -c"
	ok "$1: nor with checksums"
	cp -a "$D/rsync" "$D/copy" || die "cp -a"
	expect "$1: cp -a within the mount" diff -r "$W" "$D/copy"

	git init -q "$D/git" && cp -r "$W/src" "$D/git/"
	(cd "$D/git" && git add -A && git -c user.name=t -c user.email=t@t commit -q -m one &&
		git repack -adq && git fsck --strict) >"$T/git.log" 2>&1 || die "git: $(cat "$T/git.log")"
	[ -z "$(git -C "$D/git" status --porcelain)" ] || die "git status"
	git clone -q "$D/git" "$D/clone" || die "git clone"
	expect "$1: git: commit, repack, fsck, clone" diff -r "$W/src" "$D/clone/src"
	make -s -C "$D/clone" -f "$BATONFS_SRC/t/e2e/tools.mk" all || die "make"
	expect "$1: a program that was built there runs there" "$D/clone/out/program"
	make -s -C "$D/clone" -f "$BATONFS_SRC/t/e2e/tools.mk" -q all || die "make does it again"
	ok "$1: make sees that nothing is to be done"

	expect "$1: zipfile, sqlite3, numpy.memmap" "$BATONFS_SRC/t/e2e/tools.py" "$D"

	(cd "$T" && fio --output="$T/fio.log" --directory="$D" --size=24M --verify=crc32c --verify_fatal=1 \
		--name=seq --rw=write --bs=1M --end_fsync=1 \
		--name=rand --stonewall --rw=randwrite --bs=4k --io_size=4M \
		--name=mixed --stonewall --rw=randrw --bsrange=512-64k --bs_unaligned --io_size=8M) ||
		die "fio: $(grep -iE 'err|verify' "$T/fio.log" | head)"
	# fio opens a file for writing while it has it mapped; so written and verified by two.
	map=(--output="$T/fio.log" --directory="$D" --name=map --size=24M --rw=randwrite --bs=4k --io_size=2M
		--randseed=1 --verify=crc32c)
	(cd "$T" && fio "${map[@]}" --ioengine=mmap --do_verify=0 &&
		fio "${map[@]}" --verify_only=1 --verify_state_load=0 --verify_fatal=1) ||
		die "fio, mmap: $(grep -iE 'err|verify' "$T/fio.log" | head)"
	ok "$1: fio --verify: sequential, random, mixed, mmap"
	stress-ng --temp-path "$D" --timeout 2s --verify --quiet \
		--hdd 1 --hdd-bytes 8M --rename 1 --dir 1 --dentry 1 --dentries 50 --dentry-order random \
		>"$T/stress.log" 2>&1 || die "stress-ng: $(tail -n 20 "$T/stress.log")"
	ok "$1: stress-ng: hdd, rename, dir, dentry"
	stress-ng --temp-path "$D" --timeout 2m --verify --quiet "${STRESS[@]}" >"$T/stress.log" 2>&1 ||
		die "stress-ng: $(tail -n 20 "$T/stress.log")"
	ok "$1: stress-ng: what else of its class of file systems applies"
	rm -rf "$D" || die "rm -rf"
	expect "$1: rm -rf leaves nothing" not test -e "$D"
}

build_project() {
	git clone -q "$BATONFS_SRC" "$M/project" || die "clone of the project"
	(cd "$M/project" && ./autogen && mkdir -p build && cd build &&
		../configure --disable-tests && make -j2) >"$T/build.log" 2>&1 || die "build: $(tail -n 20 "$T/build.log")"
	expect "the project builds on the mount" "$M/project/build/batonfs" --version
}

mkdir "$T/store"
serve -u /="file://$T/store" -s worker.page.store.dir="$T/cache"
tools directory
stop
[ -z "$(ls -A "$T/store")" ] || die "left in the storage: $(find "$T/store")"
ok "the directory is empty again"

bucket_begin
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s worker.page.store.dir="$T/cache2"
tools bucket
[ -z "${TOOLS_LONG:-}" ] || build_project
stop
