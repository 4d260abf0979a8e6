#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The model test on a directory; see model.sh for what can be set.
. "${BATONFS_SRC:-.}/t/e2e/model.sh" || exit

mkdir "$T/store" "$T/small"
# The test itself: a disk that gets full is a difference, and it becomes a short script.
mount -t tmpfs -o size=512k none "$T/small"
expect_exit 1 "DIFFERENT at step" "a difference is found" \
	model --seed 1 --out "$T/script" "$T/small" "$R"
expect "and shrunk" test "$(grep -vc '^#' "$T/script")" -le 6
expect_exit 1 "DIFFERENT at step" "and found again in what is left" \
	model --replay "$T/script" --shrink 0 --out "$T/again" "$T/small" "$R"
expect "but not where there is room" model --replay "$T/script" "$T/store" "$R"

serve -u "/=file://$T/store" "${COMMON[@]}"
same "$STEPS calls on a directory" --steps "$STEPS"
same "$((STEPS / 20)) calls with large files" --steps $((STEPS / 20)) --large
turns "$TURNS calls on a directory, upgraded and killed between them"
stop
