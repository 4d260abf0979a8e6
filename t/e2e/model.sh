# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Sourced by the model tests: the same random calls on a mount and on a local directory,
# compared one by one, also with upgrades and kills between the calls.
# MODEL_STEPS=200000 for longer (20000), MODEL_SEED=n or random for other calls,
# MODEL_TURNS=n for the steps with upgrades and kills (3000), MODEL_SCRIPT=FILE to make
# the calls of a script that an earlier run has left.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

# shellcheck disable=SC2034 # both are for who sources this
STEPS=${MODEL_STEPS:-20000}
TURNS=${MODEL_TURNS:-3000}
SEED=${MODEL_SEED:-1}
[ "$SEED" != random ] || SEED=$(date +%s)
R=$T/ref
SCRIPT=${TMPDIR:-/tmp}/batonfs-model.$$.script
# shellcheck disable=SC2034
COMMON=(-s write.part.size=5MiB -s worker.page.store.dir="$T/cache"
	-s keeper.restart.limit="1000 in 1min")
mkdir "$R"

same() { # DESCRIPTION ARGS...
	local what=$1
	shift
	if [ -n "${MODEL_SCRIPT:-}" ]; then
		set -- "$@" --replay "$MODEL_SCRIPT"
	fi
	model "$@" --seed "$SEED" --out "$SCRIPT" "$M" "$R" ||
		die "$what: seed $SEED; the calls that show it are in $SCRIPT"
	ok "$what"
}

# What happens between two calls: an upgrade, a kill, in turns.
cat >"$T/turn" <<'END'
n=$(cat "$T/turns")
echo $((n + 1)) >"$T/turns"
if [ $((n % 2)) = 0 ]; then
	batonfs -m "$M" upgrade >/dev/null
else
	pid=
	until [ -n "$pid" ]; do
		pid=$(batonfs -m "$M" --json status | jq -r .pid)
	done
	kill -9 "$pid"
fi
END
export T M

turns() { # DESCRIPTION
	echo 0 >"$T/turns"
	same "$1" --steps "$TURNS" --hook "sh $T/turn" --hook-every 100
	[ "$(cat "$T/turns")" -ge $((TURNS / 100)) ] || [ -n "${MODEL_SCRIPT:-}" ] ||
		die "the daemon was not upgraded and killed"
}
