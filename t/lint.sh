#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Static checks over the tree: t/lint.sh BUILD_DIRECTORY [CHECK...]
# The directory is a configured one; a CHECK is one of those at the end.
set -u
if [ ! -f "${1-}/Makefile" ]; then
	echo "usage: $0 BUILD_DIRECTORY [shellcheck|mandoc|cppcheck|clang-tidy]..." >&2
	exit 2
fi
build=$(cd "$1" && pwd) || exit 2
shift
cd "$(dirname "$0")/.." || exit 2
jobs=$(nproc)
bad=0

mapfile -t sources < <(find src -name '*.c' | sort)
mapfile -t helpers < <(find t/lib t/e2e t/fuzz -name '*.c' | sort)
mapfile -t scripts < <(find . -path ./build -prune -o -path ./build-aux -prune -o -name '*.sh' -print | sort)
for f in quickstart runtests autogen .ci/run; do
	[ ! -f "$f" ] || scripts+=("$f")
done

# What the compiler is told of include paths and macros, a line each.
mapfile -t flags < <(make -s -C "$build" -f Makefile -f - print-flags <<'M'
print-flags:
	@printf '%s\n' $(DEFS) $(DEFAULT_INCLUDES) $(AM_CPPFLAGS) $(AM_CFLAGS)
M
)
cc=(-I"$PWD/t/lib/plain" -std=gnu11)
for f in "${flags[@]}"; do
	case $f in
	-I/*) cc+=("$f") ;;
	-I*) cc+=("-I$build/${f#-I}") ;;
	-D* | -pthread) cc+=("$f") ;;
	esac
done
if [ ${#sources[@]} -eq 0 ] || [ ${#flags[@]} -eq 0 ]; then
	echo "$0: found no sources, or no compiler flags in $build" >&2
	exit 2
fi

# Off: what speaks of taste (parameter order, names, branches alike), what the
# kernel's style uses throughout, what asks for C11's Annex K, which glibc lacks, and
# what takes 64 * 1024 for an overflow and an array of pointers for a mistake.
tidy_checks='-*,clang-analyzer-*,bugprone-*
-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling
-bugprone-assignment-in-if-condition
-bugprone-branch-clone
-bugprone-easily-swappable-parameters
-bugprone-implicit-widening-of-multiplication-result
-bugprone-macro-parentheses
-bugprone-narrowing-conversions
-bugprone-reserved-identifier
-bugprone-sizeof-expression'

header() { # NAME: the file that #include <NAME> reads
	printf '#include <%s>\n' "$1" | cc -M -x c - | tr ' ' '\n' | grep "/$1\$"
}

check_shellcheck() {
	shellcheck -x "${scripts[@]}"
}

check_mandoc() {
	mandoc -T lint -W warning man/*.[1-8]
}

check_cppcheck() {
	# Of the system's headers it reads those alone whose macros declare and loop.
	local f own=(-Isrc "-I$build" --include="$(header sys/queue.h)" --include="$(header uthash.h)")
	for f in "${cc[@]}"; do
		[[ $f != -D* ]] || own+=("$f")
	done
	cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 -j "$jobs" \
		--enable=warning,performance,portability --suppress=missingIncludeSystem \
		--suppress=unknownMacro "${own[@]}" "${sources[@]}"
}

# A process a file: several in one make the analyzer see uninitialized va_lists.
check_clang_tidy() {
	printf '%s\0' "${sources[@]}" "${helpers[@]}" |
		xargs -0 -P "$jobs" -I FILE clang-tidy --quiet --warnings-as-errors='*' \
			--checks="${tidy_checks//$'\n'/,}" FILE -- "${cc[@]}" 2>&1 |
		grep -vE '^[0-9]+ warnings? generated\.$'
	return "${PIPESTATUS[1]}"
}

[ $# -gt 0 ] || set -- shellcheck mandoc cppcheck clang-tidy
for check in "$@"; do
	start=$SECONDS
	echo "== $check"
	case $check in
	shellcheck) check_shellcheck ;;
	mandoc) check_mandoc ;;
	cppcheck) check_cppcheck ;;
	clang-tidy) check_clang_tidy ;;
	*) echo "no such check" && false ;;
	esac
	status=$?
	if [ $status = 0 ]; then
		echo "== $check: clean, $((SECONDS - start)) s"
	else
		echo "== $check: FAILED, $((SECONDS - start)) s"
		bad=1
	fi
done
exit $bad
