#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs test programs one by one, a line each, and closes with "N passed, N failed, N skipped".
#
#   tests/run.sh TEST...      TEST: a cmocka program, a python unittest file, or any program
#
# Counted are test cases: from TAP (cmocka), from unittest's summary, else one per program
# (exit status 77: skipped). A crash, a timeout or a missing program is a failure. With
# CI=true a skip is a failure too: CI must be able to run everything.
# A script sets its own limit with a line "# timeout: SECONDS"; otherwise TEST_TIMEOUT (120).
set -u

passed=0 failed=0 skipped=0
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
export CMOCKA_MESSAGE_OUTPUT=TAP PYTHONDONTWRITEBYTECODE=1
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

number() { # FILE REGEX: the first number that REGEX captures in FILE, or nothing
	sed -nE "s/$2/\\1/p" "$1" | tail -1
}

# Sets ok, bad and skip for one finished test from what it printed and its exit status.
count() { # FILE STATUS
	local file=$1 status=$2 ran
	ok=0 bad=0 skip=0
	if ran=$(number "$file" '^Ran ([0-9]+) tests? in .*') && [ -n "$ran" ]; then
		local failures errors unexpected
		failures=$(number "$file" '^FAILED \(.*failures=([0-9]+).*')
		errors=$(number "$file" '^FAILED \(.*errors=([0-9]+).*')
		unexpected=$(number "$file" '^FAILED \(.*unexpected successes=([0-9]+).*')
		skip=$(sed -nE 's/^(OK|FAILED) \(.*skipped=([0-9]+).*/\2/p' "$file" | tail -1)
		skip=${skip:-0}
		bad=$((${failures:-0} + ${errors:-0} + ${unexpected:-0}))
		ok=$((ran - bad - skip))
		[ "$ok" -ge 0 ] || ok=0
	elif grep -qE '^1\.\.[0-9]+' "$file"; then
		local planned
		# A program may run several groups, each with its plan.
		planned=$(sed -nE 's/^1\.\.([0-9]+).*/\1/p' "$file" | awk '{ n += $1 } END { print n + 0 }')
		skip=$(grep -cE '^(not )?ok .*# SKIP' "$file")
		bad=$(grep -vE '# SKIP' "$file" | grep -cE '^not ok ')
		ok=$(grep -vE '# SKIP' "$file" | grep -cE '^ok ')
		# A case that was planned and never reported died with the program.
		if [ $((ok + bad + skip)) -lt "$planned" ]; then bad=$((planned - ok - skip)); fi
	elif [ "$status" = 77 ]; then
		skip=1
	elif [ "$status" = 0 ]; then
		ok=1
	fi
	if [ "$status" != 0 ] && [ "$status" != 77 ] && [ "$bad" = 0 ]; then bad=1; fi
	if [ $((ok + bad + skip)) = 0 ]; then bad=1; fi
}

for test in "$@"; do
	limit=${TEST_TIMEOUT:-120}
	command=("$test")
	case $test in
	*/*) ;;
	*) command=("./$test") ;;
	esac
	case $test in
	*.py | *.sh)
		own=$(sed -nE 's/^# timeout: ([0-9]+).*/\1/p' "$test" 2>/dev/null | head -1)
		limit=${own:-$limit}
		;;
	esac
	case $test in
	*.py) command=(python3 "$test" -v) ;;
	*.sh) command=(bash "$test") ;;
	esac

	start=$SECONDS
	timeout -k 10 "$limit" "${command[@]}" > "$log/out" 2>&1 < /dev/null
	status=$?
	count "$log/out" "$status"

	note=
	if [ "$status" = 124 ] || [ "$status" = 137 ]; then
		note="  timed out after $limit s"
	elif [ "$status" -gt 128 ]; then
		note="  died of signal $((status - 128))"
	fi
	word=ok
	[ "$skip" = 0 ] || word=skip
	[ "$bad" = 0 ] || word=FAIL
	printf '%-4s %-52s %3d ok %2d failed %2d skipped %4d s%s\n' \
		"$word" "${test#"${B:-build}"/}" "$ok" "$bad" "$skip" $((SECONDS - start)) "$note"
	if [ "$bad" != 0 ]; then sed 's/^/     | /' "$log/out" | tail -n "${TEST_LINES:-120}"; fi
	if [ "$skip" != 0 ]; then grep -E '# SKIP|skipped' "$log/out" | sed 's/^/     | /'; fi
	passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
done

echo "$passed passed, $failed failed, $skipped skipped"
if [ $((passed + failed)) = 0 ]; then exit 1; fi
if [ "$skipped" != 0 ] && [ "${CI:-}" = true ]; then
	echo "with CI=true a skipped test is a failure" >&2
	exit 1
fi
[ "$failed" = 0 ]
