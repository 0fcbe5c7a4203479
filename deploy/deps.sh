#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that a set of verbs needs and that are missing: deps.sh build|test|lint|fuzz|bench ...
# Nothing is upgraded, and no service that comes with a package is started.
set -eu

build='gcc make libc6-dev clang llvm bpftool libbpf-dev libelf-dev libmicrohttpd-dev libjansson-dev
	libyaml-dev libseccomp-dev libcap-dev libnghttp2-dev libprotobuf-c-dev protobuf-c-compiler zlib1g-dev
	pkg-config git'
test='libcmocka-dev python3 nginx-light wrk redis-server postgresql prometheus curl nghttp2-client mandoc tmux iproute2
	procps dnsmasq-base bind9-dnsutils containerd python3-grpcio python3-protobuf'
lint='clang-format clang-tidy cppcheck shellcheck codespell yamllint prometheus mandoc systemd'
fuzz='libclang-rt-dev'
bench='bpftrace libbpf-tools haproxy tcpdump strace linux-perf auditd prometheus-node-exporter redis-tools gnuplot-nox'

want=
for set in "$@"; do
	case $set in
	build) want="$want $build" ;;
	test) want="$want $test" ;;
	lint) want="$want $lint" ;;
	fuzz) want="$want $fuzz" ;;
	bench) want="$want $bench" ;;
	*) echo "deps.sh: unknown set '$set': build, test, lint, fuzz or bench" >&2; exit 2 ;;
	esac
done

missing=
for package in $want; do
	state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "missing packages, install them as root: apt-get install$missing" >&2
	exit 1
fi
echo "installing:$missing"

# A policy of our own for the time of the installation: invoke-rc.d starts nothing (101).
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT INT TERM
	printf '#!/bin/sh\nexit 101\n' > $policy
	chmod 0755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
# shellcheck disable=SC2086 # a list of names
apt-get -q install -y --no-install-recommends $missing
