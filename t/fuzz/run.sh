#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds every fuzz target with clang and runs each for a while:
#	t/fuzz/run.sh BUILD_DIRECTORY [SECONDS [TARGET...]]
# A crashing input stays in BUILD_DIRECTORY/TARGET-crash-*.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p "$1"
build=$(cd "$1" && pwd)
seconds=${2:-30}
shift
[ $# -eq 0 ] || shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(basename -s .c -a t/fuzz/fuzz_*.c)

read -r -a libs < <(pkg-config --libs libevent libevent_pthreads fuse3 libcurl yajl lmdb expat libisal libxxhash libcrypto)
read -r -a incs < <(pkg-config --cflags libevent fuse3 libcurl yajl lmdb expat libisal libxxhash libcrypto)
printf '#define PACKAGE_VERSION "fuzz"\n#define PACKAGE_NAME "batonfs"\n' >"$build/config.h"
# shellcheck disable=SC2054
flags=(-std=gnu11 -g -O1 -pthread -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Isrc "-I$build"
	-DSYSCONFDIR='"/etc"' -DBINDIR='"/bin"' -DSBINDIR='"/sbin"' "${incs[@]}"
	-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)

# The libraries once; a target takes from the archive what it needs.
mapfile -t sources < <(find src/base src/reactor src/ufs src/meta src/ctl src/peer src/takeover -name '*.c' ! -name 'keeper*')
objects=()
running=0
for f in "${sources[@]}"; do
	o=$build/$(echo "$f" | tr / _).o
	objects+=("$o")
	[ "$o" -nt "$f" ] && continue
	clang "${flags[@]}" -c "$f" -o "$o" &
	running=$((running + 1))
	if [ $running -ge "$(nproc)" ]; then
		wait -n
		running=$((running - 1))
	fi
done
wait
rm -f "$build/libfuzzed.a"
ar rcs "$build/libfuzzed.a" "${objects[@]}"

bad=0
for t in "${targets[@]}"; do
	clang "${flags[@]}" -fsanitize=fuzzer "t/fuzz/$t.c" "$build/libfuzzed.a" "${libs[@]}" -lm -o "$build/$t"
	mkdir -p "$build/$t.corpus"
	echo "== $t for $seconds s"
	"$build/$t" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
		-artifact_prefix="$build/$t-" "$build/$t.corpus" >"$build/$t.log" 2>&1 || {
		bad=1
		tail -n 40 "$build/$t.log"
	}
	grep -E 'number_of_executed_units|peak_rss' "$build/$t.log" || true
done
exit $bad
