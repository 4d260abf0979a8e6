#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Static checks over the tree: t/lint.sh BUILD_DIRECTORY (a configured one).
set -u
build=$(cd "${1:-build/dev}" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2
bad=0

run() { # NAME COMMAND...
	echo "== $1"
	shift
	"$@" || bad=1
}

mapfile -t sources < <(git ls-files 'src/*.c')
mapfile -t scripts < <(git ls-files '*.sh' quickstart runtests autogen .ci/run)
flags=$(make -s -C "$build" -f Makefile -f - print-flags <<'M'
print-flags:
	@echo $(AM_CPPFLAGS) $(AM_CFLAGS)
M
)
read -r -a cflags <<<"${flags//\\\"/\"}"
defs=(-DSYSCONFDIR='"/etc"' -DBINDIR='"/bin"' -DSBINDIR='"/sbin"')
cc=()
for f in "${cflags[@]}"; do
	case $f in
	-I../*) cc+=("-I$build/${f#-I}") ;;
	-I.) cc+=("-I$build") ;;
	-I* | -D_* | -std=* | -pthread) cc+=("$f") ;;
	esac
done

run shellcheck shellcheck -x "${scripts[@]}"
run mandoc bash -c 'mandoc -T lint -W warning man/*.[158]'
run cppcheck cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 -j "$(nproc)" \
	--enable=warning,performance,portability --suppress=missingIncludeSystem \
	--suppress=unknownMacro -Isrc -D_GNU_SOURCE "${defs[@]}" "${sources[@]}"
printf '%s\n' "${sources[@]}" >"$build/sources"
run clang-tidy xargs -a "$build/sources" -n 4 -P "$(nproc)" clang-tidy --quiet --warnings-as-errors='*' \
	--checks='-*,clang-analyzer-*,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier,-bugprone-narrowing-conversions,-bugprone-assignment-in-if-condition,-bugprone-macro-parentheses,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling,-bugprone-branch-clone' \
	-- "${cc[@]}" "${defs[@]}"
exit $bad
