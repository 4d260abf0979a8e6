# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Nodes of one cluster on this machine, after lib.sh and fdb.sh: each with its own mount
# $T/mnt.NODE, cache and staged files, all over the storage $T/store.
declare -A keepers=()

on() { # NODE: what follows is about its mount
	M=$T/mnt.$1
	LOG=$T/daemon.log
}

begin() { # NODE [FLAGS...]
	local node=$1
	shift
	on "$node"
	mkdir -p "$M"
	BATONFS_FDB_STANDIN_NODE=$node serve -u /="file://$T/store" -s write.cache.enabled=true \
		"${CLUSTER[@]}" -s meta.node.name="$node" \
		-s worker.page.store.dir="$T/cache.$node" -s worker.page.store.size=1GiB \
		-s meta.node.heartbeat=100ms -s meta.node.expiry=2s \
		-s worker.write.cache.async.persist.retry.max.interval=1s \
		-o attr_timeout=0.1,entry_timeout=0.1 "$@"
	# shellcheck disable=SC2154
	keepers[$node]=$keeper
}

leave() { # NODE: unmounts
	on "$1"
	keeper=${keepers[$1]}
	batonfs -m "$M" async-persist drain --timeout 60s >"$T/drain.out" 2>&1 ||
		die "$1: drain: $(cat "$T/drain.out")"
	stop
}

crash_node() { # NODE: its daemon and its keeper at once, as if the machine had gone
	local pid
	on "$1"
	pid=$(daemon_pid)
	kill -9 "${keepers[$1]}" "$pid"
	wait "${keepers[$1]}" 2>/dev/null || true
	wait_until 60 "the daemon is gone" not kill -0 "$pid"
	umount -l "$M"
	rm -rf "/run/batonfs/$(systemd_escape "$M")" "/dev/shm/batonfs/$(systemd_escape "$M")"
}

seen() { # BY NODE FIELD: what one node's status says of another
	batonfs -m "$T/mnt.$1" --json status |
		jq -r --arg n "$2" '.cluster[] | select(.name == $n) | .'"$3"
}

is() { # BY NODE STATE
	[ "$(seen "$1" "$2" state)" = "$3" ]
}

all_alive() {
	local by of
	for by in a b c; do
		for of in a b c; do
			is $by $of alive || return 1
		done
	done
}
