#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs inside the test machine: the tests of each BPF program, then the daemon on real traffic.
# Lines that start with VM- are for vm.py; the rest is for people.
set -u
B=/kilter/build
export B CMOCKA_MESSAGE_OUTPUT=TAP
READY_SECONDS=120 # loading is verification, which emulation makes slow
REQUESTS=50
failed=0

result() { # NAME STATUS
	echo "VM-TEST $1 $2"
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

refuses_to_start() { # the kernel lacks an essential: one clear error that names the version
	/kilter/kilterd > /tmp/kilterd.log 2>&1
	status=$?
	cat /tmp/kilterd.log
	[ $status = 3 ] && grep -q "is Linux 5\.17" /tmp/kilterd.log
}

daemon() {
	mkdir -p /etc/kilter
	# A dependency that refuses, and a policy that may refuse in turn.
	cat > /etc/kilter/kilter.yaml <<- C
	guard:
	  policies:
	    - {name: dead, mode: enforce, destination: "127.0.0.1:9", consecutive_failures: 5}
	C
	/kilter/kilterd --config /etc/kilter/kilter.yaml > /tmp/kilterd.log 2>&1 &
	daemon=$!
	wait_ready $daemon
	result "daemon: starts" $?
	nginx -c /kilter/nginx.conf
	curl -s -o /dev/null "http://127.0.0.1/[1-$REQUESTS]" # one connection
	for _ in 1 2 3 4 5; do curl -s -o /dev/null http://127.0.0.1/nothing; done
	agree 200
	result "daemon: 200s as nginx logs them" $?
	agree 404
	result "daemon: 404s as nginx logs them" $?
	for _ in 1 2 3 4 5 6 7 8; do curl -s -o /dev/null http://127.0.0.1:9/; done
	sleep 2
	[ "$(metrics | sed -n 's/^kilter_circuit_refused_total{.*} //p' | awk '{ n += $1 } END { print n + 0 }')" = 3 ]
	result "daemon: the sixth connect to what refuses is refused by the kernel" $?
	kill -9 $daemon
	wait $daemon
	for _ in 1 2 3 4 5; do curl -s -o /dev/null http://127.0.0.1/; done # counted while it is dead
	/kilter/kilterd --config /etc/kilter/kilter.yaml > /tmp/kilterd2.log 2>&1 &
	daemon=$!
	wait_ready $daemon && agree 200
	result "daemon: killed and started again, no count is lost" $?
	kilter status
	echo "VM-STATUS $(curl -s http://127.0.0.1:9470/api/v1/status)"
	kill $daemon
	wait $daemon
	result "daemon: stops" $?
	cat /tmp/kilterd.log /tmp/kilterd2.log
}

if grep -q vm_refuses /proc/cmdline; then
	refuses_to_start
	result "daemon: refuses to start and says why" $?
else
	for test in "$B"/tests/bpf/*_test; do
		$test
		result "bpf: $(basename "$test")" $?
	done
	daemon
fi
exit $failed
