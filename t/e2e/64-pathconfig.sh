#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Path rules as a user has them: shown, edited, set and asked about; what is wrong with them
# is told and changes nothing; they outlive remount, crash and upgrade, and hold for files
# that are created from then on.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

S=$T/src
mkdir -p "$S/sub" "$T/tmp" "$T/cache"
export TMPDIR=$T/tmp
unset EDITOR VISUAL
ARGS=(-s worker.page.store.dir="$T/cache" -s write.cache.enabled=true -u "/s3=file://$S")

b() {
	batonfs -m "$M" "$@"
}

version() {
	b --json pathconfig show 2>/dev/null | jq .version
}

mode() { # PATH
	b --json pathconfig test --path "$1" 2>/dev/null | jq -r .policyMode
}

one() { # PATH MODE: a set with one rule
	printf '{"apiVersion": "v1.0", "pathRules": [{"path": "%s", "policyMode": "%s"}]}\n' "$1" "$2"
}

edit() { # EDITOR, standard input is the editor's
	EDITOR=$1 b pathconfig edit
}

killed() { # the daemon is killed; what it was asked last is done by the next
	kill -9 "$(daemon_pid)"
}

again() { # the next daemon answers
	wait_until 60 "the next daemon answers" b status
}

no_leftover() {
	[ -z "$(ls -A "$TMPDIR")" ]
}

# --- with the write cache off: rules can be prepared, and it is said that they have no effect
serve -u "/s3=file://$S" -s worker.page.store.dir="$T/cache"
expect "conf get says that it is off" test "$(b conf get write.cache.enabled)" = false
expect "by its other name too" test "$(b conf get alluxio.write.cache.enabled)" = false
expect_exit 0 "write.cache.enabled is false" "show says so" b pathconfig show
expect_exit 0 "every path is NO_CACHE" "test says so" b pathconfig test --path /s3/x
expect "and has it for scripts" test "$(b --json pathconfig test /s3/x 2>/dev/null | jq .enabled)" = false
one '/s3/**' TRANSIENT >"$T/first.json"
expect_exit 0 "every path is NO_CACHE" "set says so" b pathconfig set "$T/first.json"
echo x >"$M/s3/off"
expect "no rule has an effect" test "$(b --json fs explain /s3/off | jq -r .policy)" = NO_CACHE
stop

# --- they outlive the mount
serve "${ARGS[@]}"
expect "conf get says that it is on" test "$(b conf get write.cache.enabled)" = true
expect "rules outlive a remount" test "$(version) $(mode /s3/x)" = "1 TRANSIENT"
b pathconfig show >"$T/shown" 2>"$T/words"
expect "no warning any more" test ! -s "$T/words"
expect "what is shown can be set" b pathconfig set "$T/shown"
expect "with a version of its own" test "$(version)" = 2

# --- as in the manual
edit "cp /dev/stdin" >"$T/out" <<'EOF'
{
  "apiVersion": "v1.0",
  "defaultRule": {
    "description": "Global default",
    "policyMode": "WRITE_THROUGH"
  },
  "pathRules": [
    {
      "alluxioPath": "/s3/checkpoints/**",
      "description": "Low-latency checkpoint writes",
      "policyMode": "WRITE_BACK",
      "properties": { "writeReplicas": 1 }
    }
  ]
}
EOF
expect "edit without a terminal" test "$(cat "$T/out")" = "Update successful!"
expect "its file is gone" no_leftover
expect_exit 0 '"policyMode": "WRITE_BACK"' "test of a path below" b pathconfig test --path /s3/checkpoints/epoch-1/model.pt
expect "the directory itself" test "$(mode /s3/checkpoints)" = WRITE_BACK
expect "another is the default" test "$(mode /s3/checkpoints2)" = WRITE_THROUGH
expect "test has the whole rule" jq -e '. == {alluxioPath: "/s3/checkpoints/**",
	description: "Low-latency checkpoint writes", policyMode: "WRITE_BACK",
	properties: {writeReplicas: 1}, version: 3, enabled: true}' <(b --json pathconfig test /s3/checkpoints/x)
expect "show has the rules" jq -e '.version == 3 and .enabled and .rules.apiVersion == "v1.0"
	and .rules.pathRules[0].properties.writeReplicas == 1' <(b --json pathconfig show)
expect "EDITOR wins over VISUAL" env EDITOR=true VISUAL=false batonfs -m "$M" pathconfig edit
expect_exit 1 "status 1" "VISUAL alone" env VISUAL=false batonfs -m "$M" pathconfig edit
expect "set with --json" jq -e '. == {version: 5, enabled: true, warnings: []}' <(b --json pathconfig set "$T/shown")

# --- which file has which policy
policy() { # PATH: what became of the file
	b --json fs explain "$1" | jq -r .policy
}
cat >"$T/modes.json" <<'EOF'
{"apiVersion": "v1.0",
 "defaultRule": {"policyMode": "NO_CACHE"},
 "pathRules": [
	{"path": "/s3/sub/keep-*", "policyMode": "NO_CACHE"},
	{"path": "/s3/sub/**", "policyMode": "WRITE_BACK"},
	{"path": "/s3/**/*.tmp", "policyMode": "TRANSIENT"},
	{"path": "/s3/sub/x.tmp", "policyMode": "WRITE_THROUGH"}]}
EOF
expect_exit 0 "line 7: rule 4, /s3/sub/x.tmp, never decides: rule 2, /s3/sub/**, comes first" \
	"a rule that is covered is a warning" b pathconfig set "$T/modes.json"
for f in sub/keep-1 sub/a sub/b.tmp c.tmp d; do
	echo "$f" >"$M/s3/$f"
done
expect "files have the policy of the first rule that matches" test \
	"$(for f in sub/keep-1 sub/a sub/b.tmp c.tmp d; do policy "/s3/$f"; done | xargs)" = \
	"NO_CACHE WRITE_BACK WRITE_BACK TRANSIENT NO_CACHE"
expect "TRANSIENT is never stored" test ! -e "$S/c.tmp"
expect "and is there" grep -qx c.tmp "$M/s3/c.tmp"

# --- other rules while files are written: for new files only
exec 7>"$M/s3/sub/open" 8>"$M/s3/open.tmp"
echo one >&7
echo one >&8
one '/s3/**' WRITE_THROUGH | b pathconfig set - >/dev/null
echo two >&7
echo two >&8
exec 7>&- 8>&-
echo new >"$M/s3/sub/new"
expect "what was open before keeps its policy" test "$(policy /s3/sub/open) $(policy /s3/open.tmp)" = "WRITE_BACK TRANSIENT"
expect "what is created later has the new one" test "$(policy /s3/sub/new)" = WRITE_THROUGH
expect "which closed when it was stored" grep -qx new "$S/sub/new"
expect "all that was written is there" test "$(cat "$M/s3/sub/open" "$M/s3/open.tmp" | xargs)" = "one two one two"

# --- crash and upgrade
before=$(version)
killed
again
expect "after a crash" test "$(mode /s3/x) $(version)" = "WRITE_THROUGH $before"
echo x >"$M/s3/after-crash"
expect "and for files" test "$(policy /s3/after-crash)" = WRITE_THROUGH
batonfs -m "$M" upgrade >/dev/null
expect "after an upgrade" test "$(mode /s3/x) $(version)" = "WRITE_THROUGH $before"
one '/s3/sub/**' TRANSIENT | b pathconfig set - >/dev/null
killed
echo x >"$M/s3/sub/t"
again
expect "the last ones, at the first call after a crash" test "$(policy /s3/sub/t)" = TRANSIENT
kill -HUP "$(daemon_pid)"
expect "SIGHUP leaves them" test "$(mode /s3/sub/x)" = TRANSIENT

# --- somebody else was faster
one '/s3/other/**' NO_CACHE >"$T/other.json"
one '/s3/mine/**' TRANSIENT >"$T/mine.json"
cat >"$T/rival" <<EOF
#!/bin/sh
batonfs -m "$M" pathconfig set "$T/other.json" && cp "$T/mine.json" "\$1"
EOF
chmod +x "$T/rival"
edit "$T/rival" >"$T/out" 2>&1 && die "an editor overwrote somebody's change: $(cat "$T/out")"
expect "a change in between is refused" grep -q "somebody else has changed the path rules" "$T/out"
kept=$(sed -n 's/.*what was edited is kept in //p' "$T/out")
expect "what was edited is kept, and named" cmp "$T/mine.json" "$kept"
expect "for nobody else to read" test "$(stat -c %a "$kept") $(stat -c %a "${kept%/*}")" = "600 700"
expect "the other one's rules stay" test "$(mode /s3/other/x) $(mode /s3/mine/x)" = "NO_CACHE WRITE_THROUGH"
expect "set does not ask" b pathconfig set "$kept"
rm -r "${kept%/*}"

# --- editors that fail, and files that are in danger
expect_exit 1 "ended with status 3: nothing was changed" "an editor that fails" env EDITOR="sh -c 'exit 3'" batonfs -m "$M" pathconfig edit
expect_exit 1 "nothing was changed" "an editor that is not there" env EDITOR=/nonexistent batonfs -m "$M" pathconfig edit
expect_exit 1 "signal 15" "an editor that is killed" env EDITOR="kill \$\$; :" batonfs -m "$M" pathconfig edit
expect_exit 1 "No such file" "an editor that removes the file" env EDITOR=rm batonfs -m "$M" pathconfig edit
expect_exit 0 "successful" "an editor with another file in its place" env EDITOR="sh -c 'cp \"\$1\" \"\$1\".new && mv \"\$1\".new \"\$1\"' -" batonfs -m "$M" pathconfig edit
rm -rf "${TMPDIR:?}"/*
chmod 777 "$TMPDIR"
edit "sh -c 'echo \"\$1\" >$T/where' -" >/dev/null
expect "not where others could take it away" not grep -q "^$TMPDIR/" "$T/where"
expect "and nothing is left there either" test ! -e "$(cat "$T/where")"
chmod 700 "$TMPDIR"

# --- bad input: told with its place, and nothing is changed
b --json pathconfig show >"$T/was"
refused() { # TEXT WORDS
	printf '%s' "$1" >"$T/bad.json"
	expect_exit 1 "$2" "refused: $2" b pathconfig set "$T/bad.json"
}
V='{"apiVersion": "v1.0", '
rule() { # REST: one rule with that in it
	printf '%s\n"pathRules": [{%s}]}' "$V" "$1"
}
refused '' "line 1, column 1: "
refused '{' "line 1, column 2: "
refused "$V\"pathRules\": []" "line 1, column 39: "
refused "$V\"pathRules\": [}" "line 1, column 38: "
refused "$V} x" "line 1, column 24: "
refused "$V\"apiVersion\": \"v1.0\"}" "line 1, column 24: a key appears twice"
refused '[]' "must be an object, not an array"
refused '{"apiVersion": "v9"}' 'line 1, column 16: unknown apiVersion "v9"; this one knows "v1.0"'
refused '{}' '"apiVersion" is missing'
refused "$V\"pathRule\": []}" 'line 1, column 24: path rules: unknown field "pathRule"; did you mean "pathRules"?'
refused "$(rule '"path": "/a"')" '"policyMode" is missing'
refused "$(rule '"policyMode": "NO_CACHE"')" '"alluxioPath" is missing'
refused "$(rule '"path": "/a", "policyMode": "write_back"')" 'line 2, column 44: unknown policyMode "write_back"; did you mean "WRITE_BACK"?'
refused "$(rule '"path": "/a", "policyMode": "FAST"')" 'there are WRITE_THROUGH, WRITE_BACK, TRANSIENT and NO_CACHE'
refused "$(rule '"path": "/a", "policyMode": 1')" 'must be a string, not a number'
for n in 0 -1 1.5 '"1"' null; do
	refused "$(rule "\"path\": \"/a\", \"policyMode\": \"WRITE_BACK\", \"properties\": {\"writeReplicas\": $n}")" writeReplicas
done
refused "$(rule '"path": "/a", "policyMode": "WRITE_BACK", "properties": {"writeReplicas": 2}')" "there is one node"
for p in '' / a '**' /a/ /a//b /a/../b /./a '/a**' '/**b'; do
	refused "$(rule "\"path\": \"$p\", \"policyMode\": \"NO_CACHE\"")" "line 2, column 24: path \"$p\" can match nothing: it "
done
refused "$(rule '"path": "/a\u0000", "policyMode": "NO_CACHE"')" "NUL"
refused "$V\"defaultRule\": {\"path\": \"/a\", \"policyMode\": \"NO_CACHE\"}}" 'defaultRule: unknown field "path"'
expect_exit 1 "line 1, column 3: a byte 0" "a byte 0" b pathconfig set <(printf '{ \0}')
expect_exit 1 "UTF8" "bytes that are not UTF-8" b pathconfig set <(printf '%s"\xff": 1}' "$V")
expect_exit 1 "No such file" "a file that is not there" b pathconfig set "$T/nope"
expect_exit 1 "Is a directory" "a directory" b pathconfig set "$T"
expect_exit 2 "Usage: batonfs pathconfig set FILE" "no file" b pathconfig set
expect_exit 2 "which path?" "no path" b pathconfig test
expect_exit 1 "begins with \"/\"" "a path that is none" b pathconfig test --path s3/x
expect_exit 1 "no \".\" or \"..\" parts" "a path that leads up" b pathconfig test --path /s3/../x
edit "cp /dev/stdin" >"$T/out" 2>&1 <<<'{"apiVersion": "v1.0", "x": 1}' && die "edit took a bad text"
expect "edit tells the place too" grep -q 'line 1, column 24: path rules: unknown field "x"' "$T/out"
expect "and keeps the text" grep -q '"x": 1' "$(sed -n 's/.*what was edited is kept in //p' "$T/out")"
rm -r "${TMPDIR:?}"/*
b --json pathconfig show >"$T/now"
expect "none of these changed anything" cmp "$T/was" "$T/now"

# --- what is right, and hardly meant
one '/gcs/**' WRITE_BACK >"$T/gcs.json"
expect_exit 0 "rule 1, /gcs/**, is for storage that is not attached here" "a rule for other storage is a warning" b pathconfig set "$T/gcs.json"
expect "and in the answer" test "$(b --json pathconfig set "$T/gcs.json" 2>/dev/null | jq '.warnings | length')" = 1

# --- large ones, and odd bytes
python3 - >"$T/large.json" <<'EOF'
import json
rules = [{"path": "/s3/r%d/**" % i, "policyMode": "TRANSIENT", "description": "\n" * 480} for i in range(1000)]
text = json.dumps({"apiVersion": "v1.0", "pathRules": rules}, indent=1)
print(text + " " * (2**20 - len(text) - 1))
EOF
expect "1 MiB, with 1000 rules" b pathconfig set "$T/large.json"
expect "the last of them decides" test "$(mode /s3/r999/x)" = TRANSIENT
killed
again
expect "also after a crash" test "$(mode /s3/r999/x)" = TRANSIENT
expect "it is shown whole" test "$(b --json pathconfig show | jq '.rules.pathRules | length')" = 1000
echo >>"$T/large.json"
expect_exit 1 "is larger than 1 MiB" "more is refused" b pathconfig set "$T/large.json"
one '/s3/\udcff*\n' TRANSIENT | b pathconfig set - >/dev/null
expect "bytes of any kind in paths" test "$(mode $'/s3/\xffx\n')" = TRANSIENT
expect "and only these" test "$(mode $'/s3/\xfex\n')" = WRITE_THROUGH
expect "they come back as they were" test "$(b pathconfig show | grep -cF '\udcff*')" = 1
b pathconfig show | b pathconfig set - >/dev/null
expect "and go in again" test "$(mode $'/s3/\xffx\n')" = TRANSIENT
b async-persist drain --timeout 60s >/dev/null
stop

# --- no metadata store
mkdir "$T/broken"
touch "$T/broken/meta"
expect_exit 4 "metadata store $T/broken/meta" "without the metadata store nothing is mounted" \
	batonfsd -f "${ARGS[@]}" -s meta.dir="$T/broken/meta" "$M"
expect "and nothing stays" not mounted
serve -u "/s3=file://$S" -o ro
expect_exit 1 "read-only" "a read-only mount has no rules" b pathconfig show
expect_exit 1 "read-only" "and takes none" b pathconfig set "$T/first.json"
stop
