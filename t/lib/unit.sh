#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs a test for `make check`.  Of a unit program, also what a sanitizer says of a test
# counts: criterion's runner looks at a test's end only, and a leak is found after it.
case $1 in
*.sh) exec "$@" ;;
esac
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
# criterion's own time limits leak in its runner when tests run long side by side.
timeout -k 10 1800 "$@" >"$log" 2>&1
status=$?
cat "$log"
[ $status != 124 ] || echo "FAILED: not through within 30 minutes"
if grep -qE 'ERROR: [A-Za-z]*Sanitizer|WARNING: ThreadSanitizer|runtime error:' "$log"; then
	echo "FAILED: a sanitizer's report, see above"
	exit 1
fi
exit $status
