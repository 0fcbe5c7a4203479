#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Writes vmlinux/ARCH/vmlinux.h: the kernel's types, from its BTF.
#
#   vmlinux/generate.sh [ARCH [BTF]]
#
# ARCH: x86_64 or arm64, by default this machine's. BTF: a kernel of that architecture, as a file
# with its BTF, its vmlinux (ELF), or an arm64 vmlinuz; by default the BTF of the running kernel.
# CO-RE relocates every field access when an object is loaded, so any kernel that has the types
# will do; SOURCE says which it was.
set -euo pipefail

cd "$(dirname "$0")"
host=$(uname -m | sed 's/aarch64/arm64/')
arch=${1:-$host}
btf=${2:-/sys/kernel/btf/vmlinux}

case $arch in
x86_64 | arm64) ;;
*)
	echo "generate.sh: unknown architecture '$arch': x86_64 or arm64" >&2
	exit 2
	;;
esac
if [ "$arch" != "$host" ] && [ $# -lt 2 ]; then
	echo "generate.sh: this machine is $host: name the BTF, vmlinux or vmlinuz of an $arch kernel" >&2
	exit 2
fi
mkdir -p "$arch"
new=$(mktemp "$arch/vmlinux.h.XXXXXX")
trap 'rm -f "$new" "$new.btf"' EXIT
case $(head -c 4 "$btf" | od -An -tx1 | tr -d ' \n') in
9feb* | 7f454c46) ;;
*)
	./btf.py "$btf" "$new.btf"
	btf=$new.btf
	;;
esac
"${BPFTOOL:-bpftool}" btf dump file "$btf" format c > "$new"
grep -q 'struct task_struct {' "$new" || {
	echo "generate.sh: $btf holds no kernel types" >&2
	exit 1
}
chmod 0644 "$new"
mv "$new" "$arch/vmlinux.h"
