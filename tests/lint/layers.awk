# SPDX-License-Identifier: Apache-2.0
# The one-way arrow: a folder of user/ includes only itself and what stands to its left here.
BEGIN {
	n = split("core probe collect model health guard audit export api cli", order, " ")
	for (i = 1; i <= n; i++) rank[order[i]] = i
}
match($0, /^[ \t]*#[ \t]*include[ \t]*"[a-z]+\//) {
	split(FILENAME, file, "user/")
	split(file[2], part, "/")
	from = part[1]
	to = $0
	sub(/^[^"]*"/, "", to)
	sub(/\/.*/, "", to)
	if (rank[from] && rank[to] && rank[to] > rank[from]) {
		printf "%s:%d: %s may not include %s: it stands to its right\n", FILENAME, FNR, from, to
		bad = 1
	}
}
END { exit bad }
