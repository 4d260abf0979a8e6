#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A resolver that never answers, in a mount namespace of its own: reads wait, but the
# daemon answers, lets reads be cancelled, is replaced and ends, all at once.
if [ -z "${BATONFS_TEST_NS:-}" ]; then
	BATONFS_TEST_NS=1 exec unshare --mount --propagation private "$0" "$@"
fi
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

# A name server that is silent, and hosts(5) of our own.
cat >"$T/silent.py" <<'END'
import signal, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.78.0.1", 53))
open(sys.argv[1], "w").write("bound")
while True:
    s.recv(65536)
    open(sys.argv[2], "w").write("asked")
END
python3 "$T/silent.py" "$T/bound" "$T/asked" &
wait_until 60 "the name server is there" test -s "$T/bound"
printf 'nameserver 127.78.0.1\noptions timeout:30 attempts:4\n' >"$T/resolv.conf"
printf '127.0.0.1 localhost store.batonfs.test\n' >"$T/hosts"
printf 'hosts: files dns\n' >"$T/nsswitch.conf"
for f in resolv.conf hosts nsswitch.conf; do
	mount --bind "$T/$f" "/etc/$f" || die "cannot bind /etc/$f"
done

mkdir "$T/objects"
head -c 200000 /dev/urandom >"$T/objects/one"
cp "$T/objects/one" "$T/objects/two"
echo ok >"$T/mode"
export AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret
"$BATONFS_BUILD/hostile_s3" "$T/objects" "$T/mode" "$T/port" &
wait_until 60 "the server listens" test -s "$T/port"
serve -u /=s3://b -s s3.endpoint="http://store.batonfs.test:$(cat "$T/port")" -s ufs.timeout=5min \
	-s ufs.connect.timeout=5min
expect "while names resolve" cmp "$M/one" "$T/objects/one"

# From now on only the silent server knows the name; a new daemon has nothing cached.
echo '127.0.0.1 localhost' >"$T/hosts"
expect "an upgrade asks no resolver" timeout 60 batonfs -m "$M" upgrade >/dev/null
cat "$M/two" >/dev/null 2>&1 &
reader=$!
wait_until 60 "the resolver is asked" test -s "$T/asked"
expect "status answers while the resolver hangs" timeout 60 batonfs -m "$M" status >/dev/null
expect "an upgrade while the resolver hangs" timeout 60 batonfs -m "$M" upgrade >/dev/null
kill -0 "$reader" 2>/dev/null || die "the read did not wait"
ok "the read still waits"
kill -INT "$reader"
kill -KILL "$reader" 2>/dev/null || true
wait_until 60 "the reader is gone" not kill -0 "$reader"
ok "a read that waits for the resolver can be cancelled"
cat "$M/two" >/dev/null 2>&1 &
reader=$!
batonfs -m "$M" umount --force >/dev/null 2>&1 || kill -INT "$(daemon_pid)"
# The resolver would hang for two minutes.
wait_until 60 "the keeper ends" not kill -0 "$keeper"
ok "the end does not wait for the resolver"
wait "$reader" || true
for f in resolv.conf hosts nsswitch.conf; do
	umount "/etc/$f"
done
