#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A source tree of many small files unpacked by tar(1) and removed by rm -rf, beside
# Debian's s3fs on the same radosgw, in turns; and the rename of a large object, which
# must not come through the client.  FILES=n files, ROUNDS=n turns, RENAME_MB=n.
#
# The same once more with a fifth of the files and the gateway FAR_US microseconds away each
# way (0: not at all): next door, what counts is how long the gateway itself takes for a PUT;
# elsewhere, how many requests wait for one another.
#
# Unpacking is measured with both values of create.exclusive, and beside it curl, which puts
# the same files one after the other over one connection: no file system that has the file in
# the storage when close(2) returns can be much faster.  Removing is measured to the end of rm,
# which does not wait for the storage, and to the end of an fsync of the directory after it,
# which does.
. "${BATONFS_SRC:-.}/t/bench/bench.sh" || exit

FILES=${FILES:-1000}
ROUNDS=${ROUNDS:-3}
RENAME_MB=${RENAME_MB:-1024}
FAR_US=${FAR_US:-2500}
S=$T/s3fs

command -v s3fs >/dev/null || die "s3fs is not installed (apt-get install s3fs)"
far=
own_end() {
	fusermount3 -u "$S" 2>/dev/null || fusermount -u "$S" 2>/dev/null || true
	[ -z "$far" ] || kill "$far" 2>/dev/null || true
}

# Sizes as sources have them: a few hundred bytes to some ten thousand.
make_tree() { # FILES
	local i
	rm -rf "$T/tree"
	mkdir "$T/tree"
	for i in $(seq "$1"); do
		[ $((i % 100)) = 1 ] && mkdir -p "$T/tree/dir$((i / 100))"
		head -c $((200 + i * 7919 % 20000)) /dev/urandom >"$T/tree/dir$(((i - 1) / 100))/file$i.c"
	done
	tar -C "$T" -cf "$T/tree.tar" tree
}

seconds() { # COMMAND...
	local began ended
	began=$(date +%s%N)
	"$@" || die "$*"
	ended=$(date +%s%N)
	calc "($ended - $began) / 1e9"
	echo
}

turn() { # NAME DIRECTORY
	local answered
	seconds tar -C "$2" -xf "$T/tree.tar" >>"$T/$1.unpack"
	diff -r "$T/tree" "$2/tree" >/dev/null || die "$1: what was unpacked differs"
	answered=$(seconds rm -rf "$2/tree")
	echo "$answered" >>"$T/$1.remove"
	[ ! -e "$2/tree" ] || die "$1: the tree is still there"
	# Nothing is left that the next turn would pay for.
	calc "$answered + $(seconds sync "$2")" >>"$T/$1.gone"
	echo >>"$T/$1.gone"
}

# One curl for all, and each a request of its own in its list: what curl takes for uploads
# waits for "100 Continue" first.
puts_alone() { # BUCKET, empty
	local f word=""
	"$BATONFS_SRC/t/lib/s3put.sh" bucket "$1"
	while IFS= read -r f; do
		printf '%s\n' $word 'aws-sigv4 = "aws:amz:us-east-1:s3"' \
			"user = \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\"" \
			'header = "x-amz-content-sha256: UNSIGNED-PAYLOAD"' \
			'header = "Content-Type: application/octet-stream"' 'request = PUT' 'fail' \
			"data-binary = \"@$T/tree/$f\"" "url = \"$RGW_ENDPOINT/$1/$f\""
		word=next
	done < <(cd "$T/tree" && find . -type f -printf '%P\n') >"$T/puts"
	seconds curl -sS --fail-early -K "$T/puts" >>"$T/curl.unpack"
}

exclusive() { # storage|mount
	batonfs -m "$M" conf set create.exclusive "$1" >/dev/null || die "create.exclusive"
}

listens() { # PORT
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

took() { # NAME WHAT
	say "$(printf '%-22s %-7s %8.2f s' "$1" "$2" "$(median <"$T/$1.$2")")"
}

compare() { # NAME WHAT LIMIT WORDS
	verdict "$(ratio "$T/s3fs.$2" "$T/$1.$2" 1)" ">=" "$3" "$4"
}

"$BATONFS_SRC/t/lib/rgw.sh" start "$T/rgw" || die "radosgw did not start"
# shellcheck source=/dev/null
. "$T/rgw/env"
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY RGW_ENDPOINT
"$BATONFS_SRC/t/lib/s3put.sh" bucket ours
"$BATONFS_SRC/t/lib/s3put.sh" bucket theirs
echo "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" >"$T/passwd"
chmod 600 "$T/passwd"
mkdir "$S"

mount_both() { # ENDPOINT
	s3fs theirs "$S" -o "passwd_file=$T/passwd,url=$1,use_path_request_style" ||
		die "s3fs did not mount"
	wait_until 20 "s3fs is mounted" grep -q " $S " /proc/self/mounts
	serve -u /=s3://ours -s s3.endpoint="$1" -s write.staging.dir="$T/staged"
}

turns() { # NAME ENDPOINT
	local i
	for i in $(seq "$ROUNDS"); do
		RGW_ENDPOINT=$2 puts_alone "alone$1$i"
		turn s3fs "$S"
		turn batonfs "$M"
		exclusive mount
		turn batonfs,mount "$M"
		exclusive storage
	done
	took curl unpack
	for what in unpack remove gone; do
		for how in s3fs batonfs batonfs,mount; do
			took "$how" "$what"
		done
	done
	say "PUTs alone, by curl, times as fast as s3fs: $(ratio "$T/s3fs.unpack" "$T/curl.unpack" 1)"
}

mount_both "$RGW_ENDPOINT"
make_tree "$FILES"
say "$FILES small files:"
turns near "$RGW_ENDPOINT"
compare batonfs unpack 5 "unpack"
compare batonfs,mount unpack 5 "unpack with create.exclusive=mount"
compare batonfs remove 5 "remove"
say "remove and fsync of the directory, times as fast as s3fs: $(ratio "$T/s3fs.gone" "$T/batonfs.gone" 1)"

head -c $((RENAME_MB << 20)) /dev/zero >"$M/large"
received() { # bytes that the daemon has read from and sent to the storage
	batonfs -m "$M" --json status | jq '.counters["cache.fetch.bytes"] + .counters["upload.bytes"]'
}
before=$(received)
took=$(seconds mv "$M/large" "$M/renamed")
say "$(printf 'rename of %d MiB: %.2f s' "$RENAME_MB" "$took")"
verdict "$(calc "($(received) - $before) / 1048576")" "<=" 0 "MiB that a rename moves through the client"
[ "$(stat -c %s "$M/renamed")" = $((RENAME_MB << 20)) ] || die "size after the rename"
stop

if [ "$FAR_US" -gt 0 ]; then
	port=$(free_port)
	bench_far "$port" "${RGW_ENDPOINT##*:}" "$FAR_US" &
	far=$!
	wait_until 10 "the far end is there" listens "$port"
	fusermount3 -u "$S" 2>/dev/null || fusermount -u "$S"
	rm -f "$T"/*.unpack "$T"/*.remove "$T"/*.gone
	mount_both "http://127.0.0.1:$port"
	make_tree $((FILES / 5))
	say "$((FILES / 5)) small files, $FAR_US us away each way:"
	turns far "http://127.0.0.1:$port"
	compare batonfs unpack 5 "unpack, far away"
	compare batonfs,mount unpack 5 "unpack with create.exclusive=mount, far away"
	compare batonfs remove 5 "remove, far away"
	stop
fi
finish
