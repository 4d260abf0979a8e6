#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A tree of objects with hostile names, from 0 bytes on, that another S3 client has put into
# a bucket, compared by checksum; and the other way: written through the mount, read by the
# other client.  OBJECTS=2000 for more, then one of 300 MB is among them.  SEED=n.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

OBJECTS=${OBJECTS:-200}
echo "SEED=${SEED:=$$}"
S=$T/src
mkdir "$S" "$T/back"
cat >"$T/tree.py" <<'P'
import os, random, sys
top, n, seed = os.fsencode(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rnd = random.Random(seed)
odd = [" ", "?", "\\", "%", "+", "&", "'", '"', "ü", "漢", "é", "😀", "%2F", "&amp;", "<", ">", "]]>", "#",
       ";", "=", "*", "~", "$", "`", "|", "!", "@", ":", ",", "(", "[", "{", "^", "\t", "\x7f", "%00",
       "\x01", "\n", "\r", "\x1b[31m", "\x1f",
       "..", ".", "-", "_", "a", "Z", "0", "b"]
whole = [" ", "  ", "...", "-rf", "--", "~", "%", "%25", "+", "?x=y", "#frag", "a b", "end ", " begin", "C:\\x",
         "n" * 255, "漢" * 85, "é" * 127, "%" * 255, " " * 200, "\\", "\\\\", '"', "'", "*", "a&b;c", "nul%00",
         "tab\there", "del\x7f", "\x01", "\x01\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f", "line\n", "\x1f" * 255, "A", "a", "Ａ", "e\u0301", "é"]

def name():
    if whole and rnd.random() < 0.5:
        return whole.pop(rnd.randrange(len(whole)))
    s = "".join(rnd.choice(odd) for _ in range(rnd.randrange(1, 20)))
    return s if s not in (".", "..") else s + "x"

dirs, made = [top], 0
while made < n:
    path = os.path.join(rnd.choice(dirs), name().encode())
    if os.path.lexists(path) or len(path) - len(top) > 900:
        continue
    if rnd.random() < 0.08:
        os.mkdir(path)
        dirs.append(path)
        path = os.path.join(path, b"inside")
    size = rnd.choice((0, 0, 1, 2, 100, 4095, 4096, 4097, 20000, 131073))
    if made % 100 == 7:
        size = rnd.choice((1048576, 3000001, 8388608, 12582913))
    if made == 1000:
        size = 300000000
    with open(path, "wb") as f:
        while size > 0:
            f.write(rnd.randbytes(min(size, 1 << 22)))
            size -= 1 << 22
    made += 1
P
python3 "$T/tree.py" "$S" "$OBJECTS" "$SEED"

bucket_begin
s3_many data "$S" || die "the other client"

SETTINGS=(-u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s memory.limit=32MiB)
serve "${SETTINGS[@]}"
(cd "$S" && find . -print0 | sort -z) >"$T/names.there"
(cd "$M" && find . -print0 | sort -z) >"$T/names.here"
cmp "$T/names.there" "$T/names.here" || die "names: $(diff -a <(tr '\0' '\n' <"$T/names.there") <(tr '\0' '\n' <"$T/names.here") | head)"
ok "find sees the names of $OBJECTS objects"
sums "$S" >"$T/sums.there"
[ "$(wc -l <"$T/sums.there")" -ge "$OBJECTS" ] || die "$(wc -l <"$T/sums.there") sums"
sums "$M" >"$T/sums.here" || die "not all can be read"
expect "the checksums of all agree" cmp "$T/sums.there" "$T/sums.here"
(cd "$S" && find . -type f -printf '%s %p\0' | sort -z) >"$T/sizes.there"
(cd "$M" && find . -type f -printf '%s %p\0' | sort -z) >"$T/sizes.here"
expect "and the sizes" cmp "$T/sizes.there" "$T/sizes.here"
batonfs -m "$M" upgrade >/dev/null || die "upgrade"
sums "$M" >"$T/sums.here" || die "not all can be read"
expect "after an upgrade too" cmp "$T/sums.there" "$T/sums.here"

# Each name is one that a file can be given here too, and the other client finds it.
mkdir "$M/copy"
i=0
while IFS= read -r -d '' f; do
	name=$(basename -- "$f"; echo x)
	name=${name%?x}
	[ "$(printf %s "$name" | wc -c)" -le 250 ] || continue
	cp -- "$S/$f" "$M/copy/$i" || die "cp"
	mv -- "$M/copy/$i" "$M/copy/$name.$i" || die "to the name $name"
	s3_curl -o "$T/back/file" "$RGW_ENDPOINT/data/copy/$(s3_encode "$name.$i")" ||
		die "the other client does not see $name"
	cmp "$T/back/file" "$S/$f" || die "the other client reads something else in $name"
	i=$((i + 1))
done < <(cd "$S" && find . -type f -size -100k -printf '%P\0' | sort -z | head -z -n 60)
ok "what is written here under such names is right for the other client"
rm -rf "$M/copy" || die "rm -rf"
stop
serve "${SETTINGS[@]}"
expect "nothing of it is left, and all else is" diff -r "$S" "$M"
stop
