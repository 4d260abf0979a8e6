#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Three daemons with one metadata store in FoundationDB (fdb.sh): each on its own mount,
# with its own cache and staged files, over one storage.  They know of each other, path rules
# reach all, and what one has written is listed by all and persisted by itself alone; a node
# that was killed is dead for the others, its files stay, and it comes back as itself.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

# shellcheck source=t/e2e/fdb.sh
. "$BATONFS_SRC/t/e2e/fdb.sh"
# shellcheck source=t/e2e/nodes.sh
. "$BATONFS_SRC/t/e2e/nodes.sh"

mkdir "$T/store"
cluster_start
faults_taken_once
PATH=$T/bin:$PATH

queue() { # NODE WORKER: the paths that it lists
	batonfs -m "$T/mnt.$1" --json async-persist list --worker "$2" | jq -r '.entries[].path' |
		sort | tr '\n' ' '
}

# --- they know of each other
fault persist.begun=errno:5
begin a
begin b
begin c
wait_until 60 "all see all alive" all_alive
ok "three nodes see each other alive"
[ "$(seen b a id)" = "$(seen c a id)" ] || die "one node has two ids"
[ "$(seen b a capacity_bytes)" = 1073741824 ] || die "its capacity: $(seen b a capacity_bytes)"
[ "$(seen a a self)$(seen b a self)" = truefalse ] || die "who is who"
ok "each by its id, with its capacity"
batonfs -m "$T/mnt.b" --json status | jq -e '[.cluster[] | keys_unsorted] | unique == [["id",
	"name", "self", "state", "silent_seconds", "address", "capacity_bytes", "waiting",
	"waiting_bytes", "failed", "transient"]]' >/dev/null || die "the members of a node are others"
expect_exit 0 "a ($(seen a a id)) alive" "people are told, too" batonfs -m "$T/mnt.b" status

# --- path rules
cat >"$T/rules.json" <<'RULES'
{"apiVersion": "v1.0",
 "pathRules": [{"path": "/back/**", "policyMode": "WRITE_BACK"},
               {"path": "/temp/**", "policyMode": "TRANSIENT"}]}
RULES
[ "$(rule a /back/x)" = WRITE_THROUGH ] || die "before there are rules: $(rule a /back/x)"
on b
expect "rules are set on one node" batonfs -m "$M" pathconfig set "$T/rules.json"
for n in a b c; do
	wait_until 60 "the rules hold on $n" rule_is $n /back/x WRITE_BACK
done
ok "and hold on all"

# --- what one has written
mkdir "$T/mnt.a/back" "$T/mnt.a/temp"
pattern gen "$T/big.300000" "$T/small.700"
cp "$T/big.300000" "$T/mnt.a/back/big"
cp "$T/small.700" "$T/mnt.a/back/small"
for n in b c; do
	size_is $n /back/big 300000 || die "$n: /back/big has $(stat -c %s "$T/mnt.$n/back/big")"
	size_is $n /back/small 700 || die "$n: /back/small"
	listed $n /back big || die "$n does not list /back/big"
	listed $n /back small || die "$n does not list /back/small"
	state_is $n /back/big NOT_PERSISTED || die "$n: $(field $n /back/big persistence)"
	[ "$(field $n /back/big worker) $(field $n /back/big worker_state)" = "a alive" ] ||
		die "$n: whose is it: $(field $n /back/big worker)"
done
ok "others list it at once, with size and state"
[ ! -e "$T/store/back/big" ] || die "it is stored already"
for n in b c; do
	expect "$n cannot read it, and says so" unreadable $n /back/big
	expect "nor if it is small" unreadable $n /back/small
done
expect "the log names the node" grep -q "/back/big: cannot be read here: .* on node a (" "$LOG"
expect "its own node reads it" cmp "$T/big.300000" "$T/mnt.a/back/big"
(rm "$T/mnt.b/back/big") 2>"$T/out" && die "removed under an upload"
expect "others cannot remove it" grep -q "busy" "$T/out"
(chmod 600 "$T/mnt.b/back/big") 2>"$T/out" && die "changed under an upload"
expect "nor change it" grep -q "busy" "$T/out"
expect_exit 1 "another node" "nor persist it" \
	batonfs -m "$T/mnt.b" async-persist retry /back/big
[ "$(queue b a)" = "/back/big /back/small " ] || die "queue of a, asked of b: $(queue b a)"
[ -z "$(queue b local)$(queue b b)" ] || die "b waits for what is not its own"
ok "each has a queue of its own"
expect "and waits for that alone" batonfs -m "$T/mnt.b" async-persist drain --timeout 10s
wait_until 60 "b counts them" [ "$(seen b a waiting)" = 2 ]
cp "$T/big.300000" "$T/mnt.b/back/of.b"
wait_until 60 "b persists its own" cmp "$T/big.300000" "$T/store/back/of.b"
wait_until 60 "a sees that" state_is a /back/of.b PERSISTED
expect "and a reads it" cmp "$T/big.300000" "$T/mnt.a/back/of.b"
[ ! -e "$T/store/back/big" ] || die "somebody else has stored it"

# --- one name, made on two nodes at the same time
cat >"$T/twice.py" <<'PYTHON'
import os, sys
first, second = (os.open(p, os.O_WRONLY | os.O_CREAT | os.O_EXCL) for p in sys.argv[1:])
os.write(first, b"first")
os.write(second, b"second")
os.close(first)
try:
    os.close(second)
except OSError:
    sys.exit(0)
sys.exit(1)
PYTHON
expect "of two files of one name the second is refused" \
	python3 "$T/twice.py" "$T/mnt.a/back/twice" "$T/mnt.b/back/twice"
[ "$(cat "$T/mnt.a/back/twice")" = first ] || die "the first was lost"
ok "and the first stays"
[ "$(batonfs -m "$T/mnt.b" --json async-persist list | jq -r '.entries[] | .path + .state')" = \
	/back/twiceFAILED ] || die "the second: $(batonfs -m "$T/mnt.b" async-persist list)"
expect "the second is kept until it is dropped" \
	batonfs -m "$T/mnt.b" async-persist drop /back/twice

# --- another daemon of the node, whose storage works
id=$(seen b a id)
on a
pid=$(daemon_pid)
kill -9 "$pid"
wait_until 60 "the keeper starts another daemon" other_serves "$pid"
[ "$(seen a a id)" = "$id" ] || die "which is another node"
ok "another daemon of a node is the same node"
wait_until 60 "a persists" cmp "$T/big.300000" "$T/store/back/big"
wait_until 60 "all" cmp "$T/small.700" "$T/store/back/small"
for n in b c; do
	wait_until 60 "$n sees it" state_is $n /back/big PERSISTED
	expect "$n reads it now" cmp "$T/big.300000" "$T/mnt.$n/back/big"
	expect "and the small one" cmp "$T/small.700" "$T/mnt.$n/back/small"
done
rm "$T/mnt.c/back/big"
wait_until 60 "deleted there, it is gone here" not test -e "$T/mnt.a/back/big"
ok "what is persisted is everybody's"

on c
id_c=$(seen a c id)
cp "$T/cache.c/staged/node" "$T/node"
rm "$T/cache.c/staged/node"
expect "c is upgraded" batonfs -m "$M" upgrade
[ "$(seen c c id)" = "$id_c" ] || die "which is another node"
expect "a lost id is written again" cmp "$T/node" "$T/cache.c/staged/node"
cp "$T/cache.b/staged/node" "$T/cache.c/staged/node"
expect "nor does it take another's" batonfs -m "$M" upgrade
[ "$(seen c c id)" = "$id_c" ] || die "which is another node"
expect "of which it complains" \
	grep -q "staged/node: is of node $(seen a b id); the mount goes on as node $id_c" "$LOG"
cp "$T/node" "$T/cache.c/staged/node"
fault "staging.lock=until:$T/answers"
expect "its disk is not waited for" batonfs -m "$M" upgrade
[ "$(seen c c id)" = "$id_c" ] || die "which is another node"
touch "$T/answers"
cp "$T/small.700" "$T/mnt.c/back/upgraded"
wait_until 60 "it persists" cmp "$T/small.700" "$T/store/back/upgraded"
ok "and so is one that took over"

# --- a node dies
cp "$T/big.300000" "$T/mnt.a/temp/big"
crash_node a
wait_until 60 "b sees that a is dead" is b a dead
wait_until 60 "c, too" is c a dead
[ "$(seen b c state)" = alive ] || die "c is $(seen b c state)"
ok "a node that was killed is dead after its lease, and no other"
[ "$(seen b a transient)" = 1 ] || die "it has $(seen b a transient) files"
expect "its files stay" size_is b /temp/big 300000
expect "and cannot be read" unreadable b /temp/big
[ "$(field b /temp/big worker_state)" = dead ] || die "its node: $(field b /temp/big worker_state)"
expect_exit 0 "node a, which is dead" "it is told why" \
	batonfs -m "$T/mnt.b" fs explain /temp/big
cp "$T/small.700" "$T/mnt.c/back/meanwhile"
wait_until 60 "others go on" cmp "$T/small.700" "$T/store/back/meanwhile"

# --- and comes back
begin a
wait_until 60 "all see all alive" all_alive
[ "$(seen b a id)" = "$id" ] || die "it is another node now"
expect "it comes back as itself" cmp "$T/big.300000" "$T/mnt.a/temp/big"
expect "and sees what was done meanwhile" cmp "$T/small.700" "$T/mnt.a/back/meanwhile"

# --- two that claim to be one
mkdir -p "$T/cache.d/staged"
chmod 700 "$T/cache.d/staged"
cp -p "$T/cache.c/staged/node" "$T/cache.d/staged/node"
begin d
(cp "$T/small.700" "$T/mnt.c/back/fenced") 2>/dev/null && die "c writes as a node that d is"
expect "of two with one id the newer fences the older" \
	grep -q "another daemon has opened it as this node, c (" "$LOG"
expect "which can write" cp "$T/small.700" "$T/mnt.d/back/new"
leave d

# --- an unmount
leave b
wait_until 60 "a sees that b has left" is a b left
ok "an unmount is no death"
leave a
