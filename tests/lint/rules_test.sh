#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Each house rule refuses its samples and passes their counterparts.
set -u
cd "$(dirname "$0")" || exit 1
bad=0

refuses() { # RULE FILE TEXT: the rule must fail and say TEXT
	local out
	if out=$(awk -f "$1.awk" "$2"); then
		echo "tests/lint/$1.awk passes $2, which breaks its rule" >&2
		bad=1
	elif [[ $out != *"$3"* ]]; then
		echo "tests/lint/$1.awk says '$out' of $2, expected '$3'" >&2
		bad=1
	fi
}

passes() { # RULE FILE
	local out
	if ! out=$(awk -f "$1.awk" "$2"); then
		echo "tests/lint/$1.awk refuses $2: $out" >&2
		bad=1
	fi
}

refuses layers samples/layers/user/guard/right.c 'right.c:3: guard may not include audit'
passes layers samples/layers/user/guard/left.c
refuses banned samples/banned/strcpy.c 'strcpy.c:6: strcpy() is not used here'
refuses banned samples/banned/atoi.c 'atoi.c:6: atoi() is not used here'
refuses banned samples/banned/bpf/update.c 'update.c:7: map_insert() takes its place'
passes banned samples/banned/comment.c
refuses spdx samples/spdx/none.c "licence is ''"
passes spdx samples/spdx/apache.c

# Checks that are programs: what they print, and whether they pass.
says() { # STATUS TEXT PROGRAM ARG...
	local want=$1 text=$2 out got
	shift 2
	out=$(python3 "$@" 2>&1)
	got=$?
	if [ "$got" != "$want" ] || [[ $out != *"$text"* ]]; then
		echo "$* ends with $got and says '$out', expected $want and '$text'" >&2
		bad=1
	fi
}
says 0 '' links.py samples/links/good.md
says 1 "'gone.md' leads nowhere" links.py samples/links/bad/first.md
says 1 "'second.md#none': samples/links/bad/second.md has no such heading" links.py samples/links/bad/first.md
says 1 'alone.md: no page of the index leads here' links.py samples/links/bad/first.md
config=samples/config
says 0 '' config_docs.py $config/kilterd.sh $config/good.md $config/good.5
says 1 'stale.md is stale' config_docs.py $config/kilterd.sh $config/stale.md $config/good.5
says 1 'stale.5 has other keys or defaults' config_docs.py $config/kilterd.sh $config/good.md $config/stale.5

# The runner itself: a crash, a timeout, a failure and a skip are seen for what they are.
runner() { # CLOSING-LINE STATUS TEST...
	local want=$1 status=$2 out got
	shift 2
	out=$(CI='' TEST_TIMEOUT=1 ../run.sh "$@" 2>&1)
	got=$?
	out=$(printf '%s\n' "$out" | tail -1)
	if [ "$out" != "$want" ] || [ "$got" != "$status" ]; then
		echo "tests/run.sh closes $* with '$out' ($got), expected '$want' ($status)" >&2
		bad=1
	fi
}
runner '1 passed, 0 failed, 0 skipped' 0 samples/run/pass.sh
runner '0 passed, 1 failed, 0 skipped' 1 samples/run/crash.sh
runner '0 passed, 1 failed, 0 skipped' 1 samples/run/hang.sh
runner '0 passed, 1 failed, 0 skipped' 1 samples/run/missing.sh
runner '0 passed, 0 failed, 1 skipped' 1 samples/run/skip.sh
runner '2 passed, 1 failed, 1 skipped' 1 samples/run/tap.sh
runner '1 passed, 2 failed, 0 skipped' 1 samples/run/tap_died.sh
runner '1 passed, 1 failed, 1 skipped' 1 samples/run/unit.py

exit $bad
