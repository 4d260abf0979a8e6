#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Nodes of a cluster read from each other what is not persisted yet: the right bytes, or EIO and
# a reason; never others, never fewer.  Without the key nobody is told anything.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

# shellcheck source=t/e2e/fdb.sh
. "$BATONFS_SRC/t/e2e/fdb.sh"
# shellcheck source=t/e2e/nodes.sh
. "$BATONFS_SRC/t/e2e/nodes.sh"

mkdir "$T/store"
cluster_start
faults_taken_once
PATH=$T/bin:$PATH

declare -A ports=()
for n in a b c d; do
	ports[$n]=$(free_port)
done
relay=$(free_port)
head -c 32 /dev/urandom | base64 >"$T/key"
head -c 32 /dev/urandom | base64 >"$T/other.key"
chmod 600 "$T/key" "$T/other.key"

begin_peer() { # NODE [FLAGS...]
	local node=$1
	shift
	begin "$node" -s node.listen="127.0.0.1:${ports[$node]}" -s node.key.file="$T/key" "$@"
}

count() { # NODE COUNTER
	on "$1"
	counter "$2"
}

reads() { # NODE FILE PATH: what is read there is that
	cmp "$2" "$T/mnt.$1$3"
}

busy() { # NODE PATH: cannot be opened for now
	local out
	out=$(LC_ALL=C cat "$T/mnt.$1$2" 2>&1) && return 1
	[[ $out == *"Device or resource busy"* ]]
}

is_at() { # BY NODE ADDRESS
	[ "$(seen "$1" "$2" address)" = "$3" ]
}

refused() { # how often nodes have said in the log that they refuse others
	grep -c "asked without the key of this cluster" "$LOG" || true
}

logged() { # PATTERN: a line more than before $since
	tail -n "+$((since + 1))" "$LOG" | grep -q -e "$1"
}

mark() {
	since=$(wc -l <"$LOG")
}

# --- what is refused at the start
on x
mkdir "$M"
alone=(-u /="file://$T/store" -s write.staging.dir="$T/staged.x" -s meta.dir="$T/meta.x")
expect_exit 2 "node.key.file is not set" "nobody listens without a key" \
	batonfsd -f "${alone[@]}" "${CLUSTER[@]}" -s node.listen=127.0.0.1:7373 "$M"
chmod 604 "$T/key"
expect_exit 1 "everybody may read or change it" "nor with one that everybody can read" \
	batonfsd -f "${alone[@]}" "${CLUSTER[@]}" -s node.key.file="$T/key" "$M"
chmod 600 "$T/key"
expect_exit 2 "set node.address" "nor at all addresses, which is none" \
	batonfsd -f "${alone[@]}" "${CLUSTER[@]}" -s node.key.file="$T/key" -s node.listen=0.0.0.0:7373 "$M"
expect_exit 2 "must be HOST:PORT" "nor at what is none" \
	batonfsd -f "${alone[@]}" "${CLUSTER[@]}" -s node.key.file="$T/key" -s node.listen=here "$M"
expect_exit 2 "meta.backend=fdb only" "nor without a cluster" \
	batonfsd -f "${alone[@]}" -s node.key.file="$T/key" -s node.listen=127.0.0.1:7373 "$M"
rm -rf "$T/staged.x" "$T/meta.x"

# --- three nodes; a cannot persist anything
fault persist.begun=errno:5
begin_peer a
begin_peer b
begin_peer c
wait_until 60 "all see all alive" all_alive
[ "$(seen b a address)" = "127.0.0.1:${ports[a]}" ] || die "a is at $(seen b a address)"
ok "a node tells the others where it listens"
cat >"$T/rules.json" <<'RULES'
{"apiVersion": "v1.0",
 "pathRules": [{"path": "/back/**", "policyMode": "WRITE_BACK"},
               {"path": "/temp/**", "policyMode": "TRANSIENT"}]}
RULES
batonfs -m "$T/mnt.b" pathconfig set "$T/rules.json" || die "rules"
for n in a c; do
	wait_until 60 "the rules hold on $n" rule_is $n /back/x WRITE_BACK
done

pattern gen "$T/big.5000001" "$T/small.700" "$T/large.40000000"
: >"$T/none"
mkdir "$T/mnt.a/back" "$T/mnt.a/temp"
cp "$T/big.5000001" "$T/mnt.a/back/big"
cp "$T/small.700" "$T/mnt.a/back/small"
cp "$T/none" "$T/mnt.a/back/none"
cp "$T/big.5000001" "$T/mnt.a/temp/big"
[ ! -e "$T/store/back/big" ] || die "it is stored already"
for n in b c; do
	expect "$n reads what only a has" reads $n "$T/big.5000001" /back/big
	expect "also what is small" reads $n "$T/small.700" /back/small
	expect "or empty" reads $n "$T/none" /back/none
	expect "or never persisted" reads $n "$T/big.5000001" /temp/big
done
[ "$(count b peer.bytes)" -ge 10000002 ] || die "b has read $(count b peer.bytes) bytes"
[ "$(count a peer.served.bytes)" -ge 20000004 ] || die "a gave $(count a peer.served.bytes)"
bytes=$(count b peer.bytes)
dd if="$T/mnt.b/back/big" of=/dev/null bs=1M iflag=direct status=none
[ "$(count b peer.bytes)" = "$bytes" ] || die "b has asked for it again"
ok "once"
expect_exit 0 "node a, which is alive: they are read from it" "people are told" \
	batonfs -m "$T/mnt.b" fs explain /back/big
[ "$(field b /back/big readable)" = true ] || die "explain: $(field b /back/big readable)"
[ ! -e "$T/store/back/big" ] || die "somebody has stored it"

# --- while it is being written
exec 7>"$T/mnt.a/back/growing"
head -c 2000 "$T/big.5000001" >&7
python3 -c 'import os; os.fsync(7)'
wait_until 60 "b knows of it" size_is b /back/growing 2000
expect "what is being written is not read elsewhere" busy b /back/growing
tail -c +2001 "$T/big.5000001" >&7
exec 7>&-
wait_until 60 "once it is closed, all of it is" reads b "$T/big.5000001" /back/growing
ok "and once it is closed, all of it is"

# --- daemons come and go
cp "$T/large.40000000" "$T/mnt.a/temp/large"
exec 8<"$T/mnt.b/temp/large"
cmp -n 1000000 "$T/large.40000000" /dev/fd/8 || die "its beginning"
expect "a is upgraded" batonfs -m "$T/mnt.a" upgrade
expect "b reads on" cmp "$T/large.40000000" "$T/mnt.b/temp/large"
exec 8<&-
on a
pid=$(daemon_pid)
next_has persist.begun=errno:5
wait_until 60 "a has another daemon" other_serves "$pid"
cp "$T/large.40000000" "$T/mnt.a/back/large"
exec 8<"$T/mnt.b/back/large"
head -c 4096 <&8 | cmp -n 4096 - "$T/large.40000000" || die "its beginning"
expect "b is upgraded" batonfs -m "$T/mnt.b" upgrade
tail -c +4097 "$T/large.40000000" >"$T/rest"
on a
pid=$(daemon_pid)
kill -9 "$pid"
wait_until 60 "a has another daemon" other_serves "$pid"
wait_until 60 "which persists" cmp "$T/large.40000000" "$T/store/back/large"
wait_until 60 "as b sees" state_is b /back/large PERSISTED
cat <&8 >"$T/out"
expect "who has it open reads on, from the storage" cmp "$T/rest" "$T/out"
exec 8<&-
expect "and who opens it now" reads b "$T/large.40000000" /back/large

# --- a wrong key (a's log ended with its first daemon)
on d
was=$(refused)
begin d -s node.key.file="$T/other.key"
cp "$T/big.5000001" "$T/mnt.c/temp/secret"
wait_until 60 "d sees it" size_is d /temp/secret 5000001
expect "without the key nothing is read" unreadable d /temp/secret
expect "the log says why" \
	grep -q "/temp/secret: cannot be read here: .* on node c .*it refuses the key of this node" "$LOG"
expect "nor at a second try" unreadable d /temp/secret
[ $(($(refused) - was)) = 1 ] || die "c has said so $(($(refused) - was)) times"
ok "c says so, once"
[ "$(count c peer.refused)" -ge 2 ] || die "c has refused $(count c peer.refused)"
exec 9<>"/dev/tcp/127.0.0.1/${ports[c]}"
printf 'GET /batonfs/1/content/8000000000000000 HTTP/1.1\r\n\r\n' >&9
head -c 12 <&9 | grep -q "HTTP/1.1 401" || die "a stranger is answered otherwise"
ok "a stranger is refused, too"
exec 9>&-
exec 9<>"/dev/tcp/127.0.0.1/${ports[c]}"
head -c 5000 /dev/zero >&9
head -c 12 <&9 | grep -q "HTTP/1.1 4" || die "noise is answered otherwise"
ok "noise is no request"
exec 9>&-
leave d

# --- a node that does not answer as it should
echo pass >"$T/mode"
python3 "$BATONFS_SRC/t/e2e/relay.py" "$relay" "${ports[a]}" "$T/mode" 2>"$T/relay.err" &
on a
leave a
begin_peer a -s node.address="127.0.0.1:$relay"
wait_until 60 "a tells the other address" is_at b a "127.0.0.1:$relay"
wait_until 60 "all see all alive" all_alive
expect "b does not wait long" batonfs -m "$T/mnt.b" conf set node.timeout 1s
words() { # MODE: what b says of it
	case $1 in
	flip) echo "its answer is damaged, or not of a node with this key" ;;
	long) echo "it answers with more than was asked for" ;;
	other) echo "its answer is none of a batonfs node" ;;
	*) echo "cannot be read here: .* on node a (.*at 127.0.0.1:$relay: " ;;
	esac
}
for m in flip short long empty noise other silent; do
	echo pass >"$T/mode"
	cp "$T/big.5000001" "$T/mnt.a/temp/$m"
	wait_until 60 "b sees it" size_is b "/temp/$m" 5000001
	echo $m >"$T/mode"
	mark
	SECONDS=0
	expect "$m: nothing is read" unreadable b "/temp/$m"
	[ "$SECONDS" -lt 30 ] || die "$m: it took $SECONDS s"
	expect "$m: the log says why" logged "/temp/$m: .*$(words $m)"
	echo pass >"$T/mode"
	expect "$m: and it is read when that is over" reads b "$T/big.5000001" "/temp/$m"
done
echo once >"$T/mode"
cp "$T/big.5000001" "$T/mnt.a/temp/once"
wait_until 60 "b sees it" size_is b /temp/once 5000001
expect "an answer that breaks off is asked for again" reads b "$T/big.5000001" /temp/once
echo pass >"$T/mode"

# --- a node that dies
cp "$T/big.5000001" "$T/mnt.a/temp/dead"
wait_until 60 "b sees it" size_is b /temp/dead 5000001
crash_node a
mark
expect "of a node that has just died nothing is read" unreadable b /temp/dead
expect "the log names it" logged "/temp/dead: cannot be read here: .* on node a ("
wait_until 60 "b sees that a is dead" is b a dead
mark
expect "nor once it counts as dead" unreadable b /temp/dead
expect "of which the log says so" logged "/temp/dead: cannot be read here: .* on node a .*: it is dead"
[ "$(field b /temp/dead readable)" = false ] || die "explain: $(field b /temp/dead readable)"
begin_peer a
wait_until 60 "all see all alive" all_alive
expect "it comes back with its node" reads b "$T/big.5000001" /temp/dead
cp "$T/big.5000001" "$T/mnt.a/temp/left"
wait_until 60 "b sees it" size_is b /temp/left 5000001
leave a
wait_until 60 "b sees that" is b a left
mark
expect "of one that was unmounted nothing is read" unreadable b /temp/left
expect "and the log says so" logged "/temp/left: .* on node a .*: it was unmounted"
leave b
leave c
