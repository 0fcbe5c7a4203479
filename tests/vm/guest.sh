#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs inside the test machine: the tests of each BPF program, then the daemon on real traffic.
# Lines that start with VM- are for vm.py; the rest is for people.
set -u
B=/kilter/build
export B CMOCKA_MESSAGE_OUTPUT=TAP
READY_SECONDS=120 # loading is verification, which emulation makes slow
REQUESTS=50
BENCH_SECONDS=1 # of a clock that counts instructions: 1,000 million of them at most
WINDOW_SECONDS=90 # a window of health and its hysteresis: what was refused before is forgotten then
ASLEEP_SECONDS=16 # more than the lease and the open time of 127.0.0.4
failed=0

result() { # NAME STATUS
	read -r up _ < /proc/uptime
	echo "VM-TEST $up $1 $2"
	[ "$2" = 0 ] || failed=1
}

metrics() {
	curl -s http://127.0.0.1:9470/metrics
}

wait_ready() { # PID
	i=0
	while [ $i -lt $READY_SECONDS ]; do
		curl -sf -o /dev/null http://127.0.0.1:9470/health/ready && return 0
		kill -0 "$1" 2> /dev/null || return 1
		sleep 1
		i=$((i + 1))
	done
	return 1
}

served() { # STATUS: how many answers of nginx the metrics have
	metrics | sed -n "s/^http_server_request_duration_seconds_count{.*status_code=\"$1\".*server_port=\"80\"[^}]*} //p" |
		awk '{ n += $1 } END { print n + 0 }'
}

# Waits until nginx's log and the kernel's counts agree on STATUS; they are apart by a tick.
agree() { # STATUS
	i=0
	while [ $i -lt 30 ]; do
		logged=$(grep -c "\" $1 " /tmp/access.log)
		[ "$logged" -gt 0 ] && [ "$(served "$1")" = "$logged" ] && return 0
		sleep 1
		i=$((i + 1))
	done
	echo "status $1: nginx logged $logged, kilter counted $(served "$1")"
	return 1
}

refused() { # how many connects the circuits have refused
	metrics | sed -n 's/^kilter_circuit_refused_total{.*} //p' | awk '{ n += $1 } END { print n + 0 }'
}

opened() { # how often a circuit has opened
	metrics | sed -n 's/^kilter_circuit_transitions_total{.*to="open".*} //p' | awk '{ n += $1 } END { print n + 0 }'
}

# Whose health is in what state: the node's, the probes', and that of who is at work all the time. Of others, and of
# edges to what refuses, it changes with time alone.
judged() {
	metrics | sed -n 's/^kilter_health_state{\(.*\)} 1$/\1/p' | grep -E 'kind="(node|probe)"|subject="(nginx|curl)"' | sort
}

# Waits until the command says WANTED; what it says is apart from what happened by a tick. It has to stay so.
reaches() { # SECONDS WANTED COMMAND...
	i=$1 wanted=$2
	shift 2
	while [ "$i" -gt 0 ]; do
		if [ "$("$@")" = "$wanted" ]; then
			sleep 2
			[ "$("$@")" = "$wanted" ]
			return
		fi
		sleep 1
		i=$((i - 1))
	done
	echo "$*: awaited '$wanted', last was '$("$@")'"
	return 1
}

# nginx works until a window of the sampler has met it.
sampled() {
	i=0
	while [ $i -lt 60 ]; do
		curl -s -o /dev/null "http://127.0.0.1/[1-20]"
		metrics | grep -q '^kilter_syscall_duration_seconds_count{.*nginx' && return 0
		i=$((i + 1))
	done
	return 1
}

# A connection that is older than the daemon: one request before, which nobody counts, and one when
# /tmp/go is there.
old_connection() {
	rm -f /tmp/go
	{
		printf 'GET /before HTTP/1.1\r\nHost: a\r\n\r\n'
		while ! [ -e /tmp/go ]; do sleep 1; done
		printf 'GET /after HTTP/1.1\r\nHost: a\r\n\r\n'
		sleep 2
	} | nc 127.0.0.1 80 > /dev/null &
	sleep 1
	: > /tmp/access.log
}

passes() { # URL TIMES: how many get through
	n=0
	for _ in $(seq "$2"); do curl -s -o /dev/null "$1" && n=$((n + 1)); done
	echo $n
}

tier() { # PROBE
	curl -s http://127.0.0.1:9470/api/v1/status | tr '{' '\n' |
		sed -n "s/.*\"name\":\"$1\".*\"tier\":\"\([a-z]*\)\".*/\1/p"
}

# A child that has ended and was not waited for has no descriptors.
alive() { # PID
	[ -n "$(ls "/proc/$1/fd" 2> /dev/null)" ]
}

# Limits, the clock on the wall, and the connections of a circuit that opens.
guarded() { # LABEL
	[ "$(passes http://127.0.0.2/ 5)" = 3 ]
	result "$1: a burst of three lets three connects through" $?
	now=$(date +%s)
	date -s "@$((now + 3600))" > /dev/null
	[ "$(passes http://127.0.0.2/ 2)$(passes http://127.0.0.1:9/ 1)" = 00 ] &&
		kilter circuits | grep -q '127.0.0.1:9 *open'
	result "$1: a clock that jumps changes nothing" $?
	date -s "@$((now + 5))" > /dev/null
	sleep 60 | nc 127.0.0.3 80 > /dev/null &
	pool=$!
	sleep 2
	kilter circuits trip '*->127.0.0.3:80'
	sleep 3
	ended=$(metrics | sed -n 's/^kilter_circuit_connections_closed_total{.*127.0.0.3:80.*} //p')
	case $(tier guard_iter) in
	full) [ "$ended" = 1 ] ;;
	*) [ "$ended" = 0 ] && alive $pool ;;
	esac
	result "$1: connections of an open circuit end where the kernel can end them" $?
	kill $pool 2> /dev/null
}

# shellcheck disable=SC2317 # reaches() calls it
failures() {
	metrics | sed -n 's/^kilter_circuit_failures_total{.*127.0.0.5:53",reason="connect"} //p'
}

# A name server that is gone: the resolver is told by ICMP, and the circuit where the kernel tells it.
unresolved() { # LABEL
	for _ in 1 2 3; do curl -s -o /dev/null http://name.test/; done
	case $(tier guard_udp) in
	full) reaches 10 3 failures && reaches 10 open state udp:..127.0.0.5:53 ;;
	*) reaches 3 0 failures && reaches 3 closed state udp:..127.0.0.5:53 ;;
	esac
	result "$1: a name server without its port trips its circuit where the kernel tells of it" $?
}

# Requests and refusals, each of them counted, and health as it was.
work() { # COMMAND...: what runs curl
	"$@" curl -s -o /dev/null "http://127.0.0.1/[1-20]"
	for _ in 1 2 3; do "$@" curl -s -o /dev/null http://127.0.0.1:9/; done
	turned=$((turned + 3))
	agree 200 && reaches 30 $turned refused && well
}

# Whether health comes to be as it was; if not, says what was and what is.
well() {
	reaches $WINDOW_SECONDS "$health" judged > /dev/null && return
	judged > /tmp/judged
	echo "$health" | diff - /tmp/judged
}

# shellcheck disable=SC2317 # reaches() calls it
ailing() {
	judged | grep -E 'state="(degraded|unhealthy)"'
}

# What the second CPU has counted is still there, once, when it is gone and when it is back.
unplugged() { # LABEL
	cpu=/sys/devices/system/cpu
	reaches $WINDOW_SECONDS "" ailing
	turned=$(refused) health=$(judged)
	for pid in $(pidof nginx); do taskset -p 2 "$pid" > /dev/null; done # until that CPU goes
	echo "$health" | grep -q 'nginx.*state="healthy"' && work taskset 2
	result "$1: a CPU alone counts what it serves and refuses" $?
	echo 0 > $cpu/cpu1/online
	[ "$(cat $cpu/online)" = 0 ] && work env
	result "$1: a CPU that goes offline takes nothing along" $?
	echo 1 > $cpu/cpu1/online
	[ "$(cat $cpu/online)" = 0-1 ] && work taskset 2
	result "$1: a CPU that comes back brings nothing along" $?
}

state() { # CIRCUIT
	kilter circuits | sed -n "s/^[^ ]*->$1  *\([a-z_-]*\) .*/\1/p"
}

# Sleeps for longer than the lease, and than a circuit is open that was tripped just before. Once: QEMU's x86
# machines forget their ACPI registers over it, so that they neither sleep again nor power off.
suspended() { # LABEL
	kind=$(sed 's/.*\[\(.*\)\].*/\1/' /sys/power/mem_sleep 2> /dev/null)
	turned=$(refused) trips=$(opened)
	kilter circuits trip '*->127.0.0.4:80'
	read -r before _ < /proc/uptime
	echo +$ASLEEP_SECONDS > /sys/class/rtc/rtc0/wakealarm &&
		echo mem > /sys/power/state
	read -r after _ < /proc/uptime
	[ $((${after%.*} - ${before%.*})) -ge $((ASLEEP_SECONDS - 1)) ]
	slept=$?
	[ $slept = 0 ] || kind=none
	echo "VM-SUSPEND $1 ${kind:-none}"
	result "$1: the machine sleeps, and its boot clock runs on" $slept
	reaches 8 half_open state 127.0.0.4:80
	result "$1: asleep an open time runs on" $?
	[ "$(state 127.0.0.1:9)$(state 127.0.0.2:80)" = openclosed ] && [ "$(opened)" = $((trips + 1)) ] && alive $daemon
	result "$1: a sleep opens and closes nothing else" $?
	[ "$(passes http://127.0.0.1:9/ 4)" = 0 ] && reaches 30 $((turned + 4)) refused
	result "$1: after a sleep the lease is renewed, and what is open refuses" $?
	[ "$(passes http://127.0.0.4/ 3)" = 3 ] && reaches 10 closed state 127.0.0.4:80 && agree 200
	result "$1: after a sleep trials close a circuit, and no count is lost" $?
}

# shellcheck disable=SC2317 # reaches calls it
executed() { # MARK: how many execs of it are in the trail
	kilter audit query --action exec -o json | grep -c "\"$1\""
}

daemon() { # LABEL: the first run has the best tiers, another is told by its environment
	old_connection
	/kilter/kilterd --config /etc/kilter/kilter.yaml > /tmp/kilterd.log 2>&1 &
	daemon=$!
	wait_ready $daemon
	result "$1: starts" $?
	touch /tmp/go
	curl -s -o /dev/null "http://127.0.0.1/[1-$REQUESTS]" # one connection
	for _ in 1 2 3 4 5; do curl -s -o /dev/null http://127.0.0.1/nothing; done
	agree 200
	result "$1: 200s as nginx logs them, on a connection that is older, too" $?
	agree 404
	result "$1: 404s as nginx logs them" $?
	for _ in 1 2 3 4 5 6 7 8; do curl -s -o /dev/null http://127.0.0.1:9/; done
	sleep 2
	[ "$(refused)" = 3 ]
	result "$1: the sixth connect to what refuses is refused by the kernel" $?
	guarded "$1"
	unresolved "$1"
	unplugged "$1"
	[ "$1" = lower ] || suspended "$1"
	for _ in 1 2 3 4 5; do /bin/busybox true "audit-$1"; done
	reaches 10 5 executed "audit-$1"
	result "$1: each exec is recorded, once" $?
	kill -9 $daemon
	wait $daemon
	for _ in 1 2 3 4 5; do curl -s -o /dev/null http://127.0.0.1/; done # counted while it is dead
	for _ in 1 2 3 4 5; do /bin/busybox true "audit-$1"; done
	/kilter/kilterd --config /etc/kilter/kilter.yaml > /tmp/kilterd2.log 2>&1 &
	daemon=$!
	wait_ready $daemon && agree 200
	result "$1: killed and started again, no count is lost" $?
	reaches 10 10 executed "audit-$1"
	result "$1: execs while it was dead are recorded, once" $?
	sampled
	result "$1: system calls are sampled" $?
	kilter status
	cat /sys/kernel/security/lockdown 2> /dev/null
	echo "VM-STATUS $1 $(curl -s http://127.0.0.1:9470/api/v1/status)"
	kill $daemon
	wait $daemon
	result "$1: stops" $?
	cat /tmp/kilterd.log /tmp/kilterd2.log
	rm -rf /sys/fs/bpf/kilter /var/lib/kilter
}

# What the kernel accounts each program for, under a small load of everything.
benched() {
	/kilter/kilterd --config /etc/kilter/kilter.yaml > /tmp/kilterd.log 2>&1 &
	wait_ready $!
	result "bench: starts" $?
	kilter bench --interval ${BENCH_SECONDS}s -o json > /tmp/bench.json 2> /tmp/bench.err &
	bench=$!
	while alive $bench; do
		curl -s -o /dev/null "http://127.0.0.1/[1-100]"
		curl -s -o /dev/null http://127.0.0.1:9/
	done
	wait $bench
	status=$?
	[ -s /tmp/bench.json ] || mv /tmp/bench.err /tmp/bench.json # why there is none
	echo "VM-BENCH $(tr -d '\n' < /tmp/bench.json)"
	[ $status = 0 ] && grep -q request_ingress /tmp/bench.json
	result "bench: the kernel accounts what each program takes" $?
	cat /tmp/kilterd.log
}

KILTER_TEST_AUDIT_TIERS=$(sed -n 's/.*vm_audit=\([a-z,]*\).*/\1/p' /proc/cmdline)
KILTER_TEST_TIERS=$(sed -n 's/.*vm_tiers=\([a-z,]*\).*/\1/p' /proc/cmdline)
export KILTER_TEST_TIERS KILTER_TEST_AUDIT_TIERS
mkdir -p /etc/kilter
echo nameserver 127.0.0.5 > /etc/resolv.conf
# A dependency that refuses, and a policy that may refuse in turn.
cat > /etc/kilter/kilter.yaml << C
guard:
  max_open_ratio: 1
  policies:
    - {name: dead, mode: enforce, destination: "127.0.0.1:9", consecutive_failures: 5, base_open: 10m, max_open: 10m}
    - {name: rate, mode: enforce, destination: "127.0.0.2:80", rate_limit: 0.01, burst: 3}
    - {name: pool, mode: enforce, destination: "127.0.0.3:80", on_open: close_connections}
    - {name: names, mode: enforce, destination: "udp://127.0.0.5:53", consecutive_failures: 3, base_open: 10m, max_open: 10m}
    - {name: asleep, mode: enforce, destination: "127.0.0.4:80", base_open: 14s, max_open: 14s, jitter: 0}
C
if grep -q vm_bench /proc/cmdline; then
	nginx -c /kilter/nginx.conf
	benched
	exit $failed
fi
for test in "$B"/tests/bpf/*_test; do
	$test
	result "bpf: $(basename "$test")" $?
done
nginx -c /kilter/nginx.conf
daemon best
export KILTER_KERNEL_SET_RETVAL=false KILTER_KERNEL_TRACING_STORAGE=false KILTER_KERNEL_TASK_STORAGE=false \
	KILTER_KERNEL_SOCK_DESTROY=false KILTER_KERNEL_MAP_BATCH=false KILTER_KERNEL_LSM=false \
	KILTER_KERNEL_FENTRY=false KILTER_KERNEL_ERROR_REPORT=false
daemon lower
# What the kernel warned of meanwhile is a fault of ours.
! dmesg | grep -E "WARNING: |BUG: |run-time allocation"
result "kernel: no warning" $?
exit $failed
