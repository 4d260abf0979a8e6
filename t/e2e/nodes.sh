# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Nodes of one cluster on this machine, after lib.sh and fdb.sh: each with its own mount
# $T/mnt.NODE, cache and staged files, all over one storage.
declare -A keepers=()
NODES_STORE=(-u "/=file://$T/store")

on() { # NODE: what follows is about its mount
	M=$T/mnt.$1
}

begin() { # NODE [FLAGS...]
	local node=$1
	shift
	on "$node"
	mkdir -p "$M"
	BATONFS_FDB_STANDIN_NODE=$node serve "${NODES_STORE[@]}" -s write.cache.enabled=true \
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

rule() { # NODE PATH: the policy that decides there
	batonfs -m "$T/mnt.$1" --json pathconfig test --path "$2" | jq -r .policyMode
}

rule_is() { # NODE PATH POLICY
	[ "$(rule "$1" "$2")" = "$3" ]
}

field() { # NODE PATH FIELD: of fs explain
	batonfs -m "$T/mnt.$1" --json fs explain "$2" | jq -r ".$3"
}

state_is() { # NODE PATH STATE
	[ "$(field "$1" "$2" persistence)" = "$3" ]
}

size_is() { # NODE PATH BYTES: as stat(2) has it
	[ "$(stat -c %s "$T/mnt.$1$2" 2>/dev/null)" = "$3" ]
}

listed() { # NODE DIR NAME: as readdir(3) has it
	find "$T/mnt.$1$2" -mindepth 1 -maxdepth 1 -printf '%f\n' | grep -qx "$3"
}

unreadable() { # NODE PATH: EIO, and not a byte
	local out
	out=$(LC_ALL=C cat "$T/mnt.$1$2" 2>&1 >"$T/out") && return 1
	[ ! -s "$T/out" ] && [[ $out == *"Input/output error"* ]]
}
