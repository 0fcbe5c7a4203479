# SPDX-License-Identifier: Apache-2.0
# Every file names its licence in its first two lines: Apache-2.0 for user space, either of two for the kernel's side.
FNR == 1 { if (NR > 1) check(); file = FILENAME; found = "" }
FNR <= 2 && /SPDX-License-Identifier: / { found = $0; sub(/.*SPDX-License-Identifier: /, "", found); sub(/ *\*\/.*/, "", found) }
END { if (NR) check(); exit bad }
function check(   want) {
	want = file ~ /(^|\/)bpf\/(lib|probes|protocols)\// && file !~ /(^|\/)tests\// ? "GPL-2.0-only OR BSD-2-Clause" : "Apache-2.0"
	if (index(found, want) == 0) {
		printf "%s:1: licence is '%s', expected '%s'\n", file, found, want
		bad = 1
	}
}
