# SPDX-License-Identifier: Apache-2.0
# Calls that are not made here, with what to use instead. Comments and strings do not count.
BEGIN {
	use["strcpy"] = "snprintf with the size of the destination"
	use["strcat"] = use["strcpy"]
	use["stpcpy"] = use["strcpy"]
	use["strncpy"] = use["strcpy"]
	use["sprintf"] = "snprintf"
	use["vsprintf"] = "vsnprintf"
	use["gets"] = "getline"
	use["strtok"] = "strtok_r or strcspn"
	use["atoi"] = "strtoul with its end and range checked"
	use["atol"] = use["atoi"]
	use["atof"] = "strtod with its end checked"
	use["system"] = "fork and execve"
	use["popen"] = use["system"]
	use["alloca"] = "an array with a named bound"
	use["mktemp"] = "mkstemp"
	use["localtime"] = "localtime_r"
	use["gmtime"] = "gmtime_r"
	for (name in use) names = names (names ? "|" : "") name
	call = "(^|[^A-Za-z0-9_.>])(" names ")[ \t]*\\("
}
FNR == 1 { comment = 0 }
{
	line = $0
	gsub(/\\"/, "", line)
	gsub(/"[^"]*"/, "\"\"", line)
	if (comment) {
		if (!sub(/^.*\*\//, "", line)) next
		comment = 0
	}
	gsub(/\/\*[^*]*\*+([^\/*][^*]*\*+)*\//, " ", line)
	sub(/\/\/.*/, "", line)
	if (sub(/\/\*.*/, "", line)) comment = 1
	if (match(line, call)) {
		name = substr(line, RSTART, RLENGTH)
		gsub(/[^a-z]/, "", name)
		printf "%s:%d: %s() is not used here: %s\n", FILENAME, FNR, name, use[name]
		bad = 1
	}
	if (FILENAME ~ /(^|\/)bpf\// && FILENAME !~ /tests\/bpf\/|bpf\/lib\/maps\.h$/ && match(line, /bpf_map_update_elem[ \t]*\(/)) {
		printf "%s:%d: map_insert() takes its place: its error is an int on every kernel\n", FILENAME, FNR
		bad = 1
	}
	# Only the log, the command line and the mains write to the terminal.
	if (FILENAME ~ /user\/[a-z]+\// && FILENAME !~ /user\/(cli\/|core\/log)/ &&
	    match(line, /(^|[^A-Za-z0-9_])(printf|puts|perror)[ \t]*\(/)) {
		printf "%s:%d: printing belongs to core/log, cli and the mains\n", FILENAME, FNR
		bad = 1
	}
}
END { exit bad }
