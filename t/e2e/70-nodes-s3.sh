#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Two nodes of a cluster over one bucket: a name that one of them removes and the other makes
# again is not deleted by what was to be deleted later (delete.delay).
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"
# shellcheck source=t/e2e/fdb.sh
. "$BATONFS_SRC/t/e2e/fdb.sh"
# shellcheck source=t/e2e/nodes.sh
. "$BATONFS_SRC/t/e2e/nodes.sh"

bucket_begin
cluster_start
cat >"$T/rules.json" <<'END'
{"apiVersion": "v1.0", "defaultRule": {"policyMode": "WRITE_BACK"}}
END
NODES_STORE=(-u /=s3://data -s s3.endpoint="$RGW_ENDPOINT")
for n in a b; do
	begin $n -s delete.delay=10s -o attr_timeout=0,entry_timeout=0
done
mkdir "$T/mnt.a/dir"
batonfs -m "$T/mnt.a" pathconfig set "$T/rules.json" >/dev/null
rules_hold() {
	[ "$(batonfs -m "$T/mnt.b" --json pathconfig show | jq .version)" = 1 ]
}
wait_until 60 "the rules hold on b" rules_hold
for f in first second; do
	echo "$f" >"$T/mnt.a/dir/$f"
done
expect "they are stored" batonfs -m "$T/mnt.a" async-persist drain --timeout 60s
# The first one shows that the bucket deletes there: the second might be deleted later.
rm "$T/mnt.a/dir/first"
rm "$T/mnt.a/dir/second"
on a
[ "$(counter delete.pending)" = 0 ] || die "$(counter delete.pending) are to be deleted later"
ok "nothing is deleted later"
expect "b sees that it has gone" not test -e "$T/mnt.b/dir/second"
echo again >"$T/mnt.b/dir/second"
expect "it is stored again" batonfs -m "$T/mnt.b" async-persist drain --timeout 60s
leave a
expect "and stays" grep -qx again "$T/mnt.b/dir/second"
[ "$(s3_status data dir/second)" = 200 ] || die "the bucket has it no more"
ok "in the bucket, too"

# --- made again on one node while another one removes it
echo old >"$T/mnt.b/dir/third"
expect "what is to be removed is stored" batonfs -m "$T/mnt.b" async-persist drain --timeout 60s
BATONFS_FAULT=remove.deleted=until:$T/gate begin c -o attr_timeout=0,entry_timeout=0
rm "$T/mnt.c/dir/third" &
rm=$!
wait_until 60 "c has deleted the object" test -e "$T/gate.here"
echo new >"$T/mnt.b/dir/third"
touch "$T/gate"
wait $rm || die "rm: $?"
expect "the new file is there" grep -qx new "$T/mnt.b/dir/third"
expect "the node that has removed the old one sees it" test -e "$T/mnt.c/dir/third"
leave b
expect "it is stored, and read there" grep -qx new "$T/mnt.c/dir/third"
leave c
