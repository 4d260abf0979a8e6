#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every row of the table "what a call gets" on paths with a write policy, on a directory and
# on a real radosgw: while persisting is held back, after the files of that time have been
# through a remount, and when they are persisted.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

HOLD=persist.begun=errno:5
OPTS="-s write.cache.enabled=true -s ufs.timeout=20s -o attr_timeout=0.1,entry_timeout=0.1"
DRAIN="timeout 300 batonfs -m $M async-persist drain"

rules() {
	cat >"$T/rules.json" <<-END
	{"apiVersion": "v1.0",
	 "defaultRule": {"policyMode": "NO_CACHE"},
	 "pathRules": [{"path": "/WRITE_THROUGH/**", "policyMode": "WRITE_THROUGH"},
	               {"path": "/WRITE_BACK/**", "policyMode": "WRITE_BACK"},
	               {"path": "/TRANSIENT/**", "policyMode": "TRANSIENT"}]}
	END
	expect "the rules are taken" batonfs -m "$M" pathconfig set "$T/rules.json"
}

rows() { # NAME POLICY FLAGS...: all rows, in a directory of that name
	local dir=$2/$1 policy=$2
	shift 2
	mkdir -p "$M/$dir"
	python3 "$BATONFS_SRC/t/e2e/policy_calls.py" "$M/$dir" --policy "$policy" "$@" ||
		die "$dir: a row failed"
	ok "every row of the table: $dir"
}

all_policies() { # NAME FLAGS...
	local policy name=$1
	shift
	for policy in WRITE_THROUGH WRITE_BACK TRANSIENT; do
		rows "$name" "$policy" "$@"
	done
}

content() { # what there is, but for what is never the same
	(cd "$M" && find . -type f -print0 | sort -z | xargs -0 -r md5sum &&
		find . -printf '%p %m %s\n' | sort)
}

# both FLAGS...: held back, remounted, persisted
both() {
	local before
	BATONFS_FAULT=$HOLD serve "$@"
	rules
	all_policies held --held
	before=$(content)
	stop_forced # also while files wait to be persisted
	serve "$@"
	[ "$(content)" = "$before" ] || die "files changed: $(diff <(echo "$before") <(content))"
	ok "what was not persisted is there after a remount"
	# shellcheck disable=SC2086
	expect "and is persisted then" $DRAIN
	[ "$(content)" = "$before" ] || die "files changed: $(diff <(echo "$before") <(content))"
	ok "as it was"
	batonfs -m "$M" conf set fuse.silly.rename.interceptor.enabled true
}

# --- a directory
mkdir "$T/store"
# shellcheck disable=SC2086
both -u /="file://$T/store" $OPTS -s worker.page.store.dir="$T/cache" -s meta.dir="$T/meta"
rows persisted WRITE_THROUGH --silly --storage "$T/store/WRITE_THROUGH/persisted"
rows persisted WRITE_BACK --settle "$DRAIN" --silly --storage "$T/store/WRITE_BACK/persisted"
rows silly TRANSIENT --silly --storage "$T/store/TRANSIENT/silly"
[ -z "$(find "$T/store/TRANSIENT" -type f)" ] || die "a TRANSIENT file in the storage"
ok "nothing that is TRANSIENT is in the storage"
stop_forced

# --- a bucket
bucket_begin
S3="-u /=s3://data -s s3.endpoint=$RGW_ENDPOINT -s worker.page.store.dir=$T/cache.s3 -s meta.dir=$T/meta.s3"
# shellcheck disable=SC2086
both $S3 $OPTS
rows persisted WRITE_THROUGH --silly
rows persisted WRITE_BACK --settle "$DRAIN" --silly
stop_forced

# --- a storage that does not answer: what is not persisted needs none
# shellcheck disable=SC2086
BATONFS_FAULT=$HOLD serve $S3 $OPTS -o attr_timeout=600,entry_timeout=600
for policy in WRITE_BACK TRANSIENT; do
	mkdir "$M/$policy/stopped"
	python3 "$BATONFS_SRC/t/e2e/policy_calls.py" "$M/$policy/stopped" --prepare
done
rgw=$(gateway_pid)
kill -STOP "$rgw"
for policy in WRITE_BACK TRANSIENT; do
	python3 "$BATONFS_SRC/t/e2e/policy_calls.py" "$M/$policy/stopped" --stopped ||
		die "a call failed without the storage"
	ok "files that are not persisted need no storage: $policy"
done
kill -CONT "$rgw"
stop_forced
