#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Applications that know nothing of it, while the daemon is replaced again and again:
# readers, writers, renamers, creators and listers go on, and what a program holds (locks,
# mappings, open files, removed ones too, a working directory, inode numbers) is as it was.
#
#	ROUNDS=300	upgrades in a row, with flags that change
#	KILLS=500	kill -9 at random moments
#	SECONDS_LONG=3600	both at random for so long, half of it on a bucket
#	OTHER_BUILD=DIR	every other upgrade is to the batonfsd there, and so a downgrade
#	OTHER_LIBFUSE=DIR	every other upgrade is to a daemon that uses the libfuse3.so.3 there
#	TROUBLE=1	the bucket does not answer, or is not there, for stretches of time
#	SEED=n		the same sequence of decisions
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"
# shellcheck source=t/e2e/workers.sh
. "$BATONFS_SRC/t/e2e/workers.sh"

ROUNDS=${ROUNDS:-7}
KILLS=${KILLS:-5}
RANDOM=${SEED:=$$}
echo "SEED=$SEED"
BUSY=$BATONFS_SRC/t/e2e/busy.py
S=$T/read
mkdir "$S" "$T/out"
pattern gen "$S/a.20000000" "$S/b.3000001" "$S/c.4097"
BINARIES=("$BATONFS_BUILD/batonfsd")
[ -z "${OTHER_BUILD:-}" ] || BINARIES+=("$OTHER_BUILD/batonfsd")
if [ -n "${OTHER_LIBFUSE:-}" ]; then
	[ -e "$OTHER_LIBFUSE/libfuse3.so.3" ] || die "$OTHER_LIBFUSE: no libfuse3.so.3"
	mkdir "$T/bin"
	# Each start sets it anew: what the daemon before had is passed on to the next one.
	for i in "" "$OTHER_LIBFUSE"; do
		b=$T/bin/batonfsd${i:+.other}
		cat >"$b" <<WRAPPER
#!/bin/bash
export LD_LIBRARY_PATH="$i"
exec -a "\$0" "$BATONFS_BUILD/batonfsd" "\$@"
WRAPPER
		chmod +x "$b"
	done
	BINARIES=("$T/bin/batonfsd" "$T/bin/batonfsd.other")
fi

load_start() { # DIR on the mount
	local i
	mkfifo "$T/words"
	python3 "$BUSY" hold "$1/hold" <"$T/words" >"$T/out/hold" 2>&1 &
	holder=$!
	exec 7>"$T/words"
	held begun
	# Its standard input is to end when we close it.
	{
		# shellcheck disable=SC2086
		readers_start buffered direct mmap reopen list
		mutators_start "$1" 2
		for i in rename create; do
			worker_start $i python3 "$BUSY" $i "$1/$i"
		done
		worker_start list python3 "$BUSY" list "$M/list"
	} 7>&-
}

said() { # WORD: or it has ended
	grep -q "^well $1\$" "$T/out/hold" || ! kill -0 $holder 2>/dev/null
}

# Some seventy calls one after the other, beside ten programs that leave the machine no rest:
# where it is busy with other things as well, one of them can take ten seconds and more.
held() { # WORD
	wait_until 600 "the program that holds things has looked" said "$1"
	grep -q "^well $1\$" "$T/out/hold" || die "at $1: $(tail -n 5 "$T/out/hold")"
}

look() { # what is held is as it was
	looks=$((looks + 1))
	echo "look$looks" >&7
	held "look$looks"
}

load_alive() {
	readers_alive
	workers_alive "an application"
}

load_stop() {
	exec 7>&-
	held ended
	wait $holder || die "$(tail -n 5 "$T/out/hold")"
	rm "$T/words"
	workers_stop
	readers_stop
}

upgrade() { # to the other build where there is one, with other flags
	turn=$((turn + 1))
	batonfs -m "$M" upgrade --binary "${BINARIES[turn % ${#BINARIES[@]}]}" -- \
		-s readahead.max=$((turn % 4 + 1))MiB -s log.level="$([ $((turn % 3)) = 0 ] && echo debug || echo info)"
}

uses_its_libfuse() { # the daemon that serves has the library that this turn is for
	local pid other=0
	[ -n "${OTHER_LIBFUSE:-}" ] || return 0
	pid=$(daemon_pid) || return 1
	! grep -q " $(readlink -f "$OTHER_LIBFUSE")/libfuse3" "/proc/$pid/maps" || other=1
	[ $other = $((turn % 2)) ]
}

upgrades() {
	local i before
	for i in $(seq "$ROUNDS"); do
		before=$(daemon_pid)
		upgrade >"$T/up" 2>&1 || die "upgrade $i: $(cat "$T/up")"
		other_serves "$before" || die "upgrade $i: the same process serves on"
		uses_its_libfuse || die "upgrade $i: the daemon has another libfuse than it should"
		load_alive
		[ $((i % 5)) != 0 ] || look
	done
	look
	batonfs -m "$M" status | grep "pauses: "
	ok "$1: $ROUNDS upgrades in a row"
}

kills() {
	local i
	for i in $(seq "$KILLS"); do
		# The moment is what is random here; nothing is waited for.
		sleep 0.$((RANDOM % 4))
		crash
		load_alive
		[ $((i % 5)) != 0 ] || look
	done
	look
	ok "$1: $KILLS times kill -9"
}

at_random() {
	local end=$(($(date +%s) + $2)) ups=0 lost=0 kills=0 p
	while [ "$(date +%s)" -lt $end ]; do
		sleep $((RANDOM % 2)).$((RANDOM % 10))
		if [ $((RANDOM % 2)) = 0 ]; then
			# One that a kill before it has hit may fail, and says so.
			if upgrade >"$T/up" 2>&1; then ups=$((ups + 1)); else lost=$((lost + 1)); fi
		elif p=$(daemon_pid 2>/dev/null) && [ -n "$p" ] && kill -9 "$p" 2>/dev/null; then
			kills=$((kills + 1))
		fi
		load_alive
		[ $((RANDOM % 10)) != 0 ] || look
	done
	look
	ok "$1: $2 seconds, $ups upgrades ($lost lost to a kill), $kills kills"
}

# Until $T/calm is there the gateway stops, or is killed and started again.
trouble() {
	local pid
	while [ ! -e "$T/calm" ]; do
		sleep 0.$((RANDOM % 9))
		if [ $((RANDOM % 8)) = 0 ]; then
			gateway_kill
			sleep $((RANDOM % 3))
			gateway_start
		else
			pid=$(gateway_pid)
			kill -STOP "$pid"
			sleep $((RANDOM % 2)).$((RANDOM % 9))
			kill -CONT "$pid"
		fi
	done
}

rounds() { # NAME [COMMAND]: which goes on meanwhile, until $T/calm is there
	local meanwhile=""
	looks=0 turn=0
	mkdir "$M/work"
	load_start "$M/work"
	if [ $# -gt 1 ]; then
		"$2" 7>&- &
		meanwhile=$!
	fi
	upgrades "$1"
	kills "$1"
	[ -z "${SECONDS_LONG:-}" ] || at_random "$1" $((SECONDS_LONG / 2))
	if [ -n "$meanwhile" ]; then
		touch "$T/calm"
		wait "$meanwhile" || die "the gateway was not brought back"
	fi
	load_stop
	mutators_checked "$M/work" 2 "$1"
}

SETTINGS=(-s "keeper.restart.limit=1000 in 1min" -s memory.limit=64MiB -s worker.page.store.size=64MiB)
FILES="$M/read/a.20000000 $M/read/b.3000001 $M/read/c.4097"

mkdir -p "$T/store/list" && mv "$S" "$T/store/read"
(cd "$T/store/list" && seq -f 'entry-%04g' 1500 | xargs touch)
serve -u "/=file://$T/store" "${SETTINGS[@]}" -s worker.page.store.dir="$T/cache"
rounds "a directory"
stop
mutators_checked "$T/store/work" 2 "the directory itself"
[ -z "$(find "$T/store" -name '.batonfs*')" ] || die "temporary files were left: $(find "$T/store" -name '.batonfs*')"
ok "no temporary file is left"
rm -rf "$T/cache" "$T/store/work"

bucket_begin
s3_many data "$T/store"
[ -z "${TROUBLE:-}" ] || SETTINGS+=(-s ufs.timeout=10min)
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" "${SETTINGS[@]}" -s worker.page.store.dir="$T/cache"
rounds "a bucket" ${TROUBLE:+trouble}
stop
