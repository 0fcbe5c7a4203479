// SPDX-License-Identifier: Apache-2.0
/* Each kind of fault in a configuration: named with its place and what would be right, and without
 * any effect on what was there before. */
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <kilter/identity.h>
#include <kilter/series.h>

#include "core/clock.h"
#include "core/config.h"

#include <cmocka.h>

static bool fails_on(const struct config_policy *p, unsigned int status)
{
	unsigned int bit = kilter_status_bit(status);

	assert_true(bit < KILTER_STATUS_BITS);
	return p->failures.statuses[bit / 64] >> (bit % 64) & 1;
}

static struct config config, before;
static char faults[8192];
static unsigned int faults_count;

static void note(void *ctx, const char *text)
{
	size_t n = strlen(faults);

	assert_ptr_equal(ctx, &config);
	assert_null(strchr(text, '\n'));
	faults_count++;
	snprintf(faults + n, sizeof(faults) - n, "%s\n", text);
}

static int setup(void **state)
{
	(void)state;
	memset(&config, 0, sizeof(config));
	config_defaults(&config);
	faults[0] = '\0';
	faults_count = 0;
	return 0;
}

static int parse_n(const char *text, size_t n)
{
	faults[0] = '\0';
	faults_count = 0;
	before = config;
	return config_parse(&config, text, n, "k.yaml", note, &config);
}

static int parse(const char *text)
{
	return parse_n(text, strlen(text));
}

static void expect_good(const char *text)
{
	int err = parse(text);

	if (err)
		fail_msg("%s\n-> %d %s", text, err, faults);
	assert_int_equal(faults_count, 0);
}

/* Exactly one fault, that says what; and nothing changed. */
static void expect_fault(const char *text, const char *what)
{
	int err = parse(text);

	if (err != -EINVAL || faults_count != 1 || !strstr(faults, what))
		fail_msg("%s\n-> %d, %u faults:\n%snot: %s", text, err, faults_count, faults, what);
	assert_memory_equal(&config, &before, sizeof(config));
}

static void the_defaults_are_good(void **state)
{
	(void)state;
	assert_int_equal(config_check(&config, note, &config), 0);
	assert_int_equal(faults_count, 0);
	assert_string_equal(config.listen, "127.0.0.1:9470");
	assert_true(config.tick_ns == NS_PER_SEC);
	assert_true(config.audit.max_bytes == 100ull << 20);
	assert_int_equal(config.guard.defaults.mode, KILTER_GUARD_OBSERVE);
	assert_int_equal(config.guard.mode, KILTER_GUARD_ENFORCE);
	assert_int_equal(config.guard.defaults.failures.outcomes,
			 KILTER_FAIL_ON_CONNECT | KILTER_FAIL_ON_NO_ANSWER);
	assert_true(fails_on(&config.guard.defaults, 500));
	assert_true(fails_on(&config.guard.defaults, 599));
	assert_false(fails_on(&config.guard.defaults, 499));
	for (unsigned int code = 0; code < KILTER_GRPC_CODES; code++)
		assert_int_equal(fails_on(&config.guard.defaults, KILTER_STATUS_GRPC + code),
				 kilter_status_is_error(KILTER_STATUS_GRPC + code));
}

static void an_empty_file_changes_nothing(void **state)
{
	static const char *const rows[] = {"",
					   "\n\n",
					   "# a comment alone\n",
					   "---\n",
					   "---\n...\n",
					   "log:\n",
					   "guard:\n  policies:\n  defaults:\n",
					   "{}"};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		setup(NULL);
		expect_good(rows[i]);
		memset(config.file, 0, sizeof(config.file)); /* its name is all that is new */
		assert_memory_equal(&config, &before, sizeof(config));
	}
}

static void every_type_is_read(void **state)
{
	(void)state;
	expect_good("listen: '[::1]:80'\n"
		    "tick: 500ms\n"
		    "log: {level: debug, format: json}\n"
		    "limits:\n  series: 1000\n"
		    "syscalls:\n  enabled: false\n"
		    "audit:\n  max_size: 64KiB\n  max_age: 2h\n"
		    "health:\n  latency_factor: 2.5\n"
		    "guard:\n"
		    "  mode: off\n"
		    "  defaults:\n    failures: [connect, no_answer]\n    base_open: 1m\n"
		    "  policies:\n"
		    "    - name: a\n      destination: 10.0.0.0/8\n      mode: enforce\n"
		    "    - destination: ':80'\n      failures: http_5xx\n      base_open: 7s\n");
	assert_string_equal(config.listen, "[::1]:80");
	assert_true(config.tick_ns == 500 * NS_PER_MS);
	assert_string_equal(config.log.format, "json");
	assert_int_equal(config.limits.series, 1000);
	assert_false(config.syscalls.enabled);
	assert_true(config.audit.max_bytes == 65536);
	assert_true(config.audit.max_age_ns == 7200 * NS_PER_SEC);
	assert_true(config.health.latency_factor == 2.5);
	assert_int_equal(config.guard.mode, KILTER_GUARD_OFF);
	assert_int_equal(config.guard.policies_count, 2);
	assert_string_equal(config.guard.policies[0].name, "a");
	assert_int_equal(config.guard.policies[0].mode, KILTER_GUARD_ENFORCE);
	/* inherited from the defaults */
	assert_true(config.guard.policies[0].base_open_ns == 60 * NS_PER_SEC);
	assert_int_equal(config.guard.policies[0].failures.outcomes,
			 KILTER_FAIL_ON_CONNECT | KILTER_FAIL_ON_NO_ANSWER);
	assert_int_equal(config.guard.policies[0].line, 19);
	assert_string_equal(config.guard.policies[1].name, "policy-2");
	assert_int_equal(config.guard.policies[1].mode, KILTER_GUARD_OBSERVE);
	assert_int_equal(config.guard.policies[1].failures.outcomes, 0);
	assert_true(fails_on(&config.guard.policies[1], 503));
	assert_true(config.guard.policies[1].base_open_ns == 7 * NS_PER_SEC);
}

static void a_second_file_replaces_the_policies(void **state)
{
	(void)state;
	expect_good("guard: {policies: [{name: a}, {name: b}]}");
	expect_good("guard: {policies: [{name: c}]}");
	assert_int_equal(config.guard.policies_count, 1);
	assert_string_equal(config.guard.policies[0].name, "c");
}

static void broken_syntax_is_named_with_its_line_and_column(void **state)
{
	static const struct {
		const char *text, *what;
	} rows[] = {
	    {"log: {level: info\n", "k.yaml:2:1: "},
	    {"log:\n\tlevel: info\n", "k.yaml:2:1: "},
	    {"tick: '1s': x\n", "k.yaml:1:11: "},
	    {"log: 'info\n", "k.yaml:2:1: "},
	    {"log:\n  level: \"\\q\"\n", "k.yaml:2:11: "},
	    {"tick: 1s\n]\n", "k.yaml:2:1: "},
	    {"\xff\xfe\xff", "k.yaml:1:1: "},
	    {"tick: \x01\n", "k.yaml:1:"},
	    {"tick: &a 1s\n", "k.yaml:1:7: anchors, aliases and tags are not used"},
	    {"tick: *a\n", "k.yaml:1:7: anchors, aliases and tags"},
	    {"tick: !!str 1s\n", "k.yaml:1:7: anchors, aliases and tags"},
	    {"- tick\n", "k.yaml:1:1: a mapping of keys to values is expected here"},
	    {"tick\n", "k.yaml:1:1: a mapping of keys to values"},
	    {"tick: 1s\n---\ntick: 2s\n", "k.yaml:2:1: a second document"},
	    {"[a, b]: c\n", "k.yaml:1:1: a key must be a plain name"},
	    {"? {a: b}\n: c\n", "k.yaml:1:3: a key must be a plain name"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		expect_fault(rows[i].text, rows[i].what);
}

static void unknown_keys_are_named_and_the_nearest_is_proposed(void **state)
{
	static const struct {
		const char *text, *what;
	} rows[] = {
	    {"lisen: x\n", "k.yaml:1:1: unknown key 'lisen', did you mean 'listen'?"},
	    {"\nlog:\n  levle: info\n",
	     "k.yaml:3:3: unknown key 'log.levle', did you mean 'log.level'?"},
	    {"nothing_like_it: {a: [b, {c: d}]}\n",
	     "k.yaml:1:1: unknown key 'nothing_like_it'; `kilter config show`"},
	    {"guard:\n  policies:\n    - mod: enforce\n",
	     "k.yaml:3:7: unknown key 'mod', did you mean 'mode'?"},
	    {"guard:\n  defaults:\n    name: x\n", "k.yaml:3:5: unknown key 'name'"},
	    {"tick:\n  tock: 1\n", "k.yaml:2:3: tick: a single value is expected here"},
	    {"\"listen\\0x\": y\n", "k.yaml:1:1: unknown key ''"},
	    {"log: {\"level\\0\": info}\n", "k.yaml:1:7: unknown key 'log.'"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		expect_fault(rows[i].text, rows[i].what);
}

static void a_value_of_another_type_is_told_what_would_be_right(void **state)
{
	static const struct {
		const char *text, *what;
	} rows[] = {
	    {"tick: fast\n",
	     "k.yaml:1:7: tick: 'fast' is not a duration from 0.1s to 60s, such as"},
	    {"tick: 10\n", "tick: '10' is not a duration"},
	    {"tick: 1 s\n", "tick: '1 s' is not a duration"},
	    {"tick: -1s\n", "tick: '-1s' is not a duration"},
	    {"tick: nans\n", "is not a duration"},
	    {"tick: [1s]\n", "k.yaml:1:7: tick: a single value is expected here, not a list"},
	    {"tick: {a: 1s}\n", "tick: a single value is expected here, not a mapping"},
	    {"tick:\n", "tick: '' is not a duration"},
	    {"audit:\n  max_size: big\n",
	     "k.yaml:2:13: audit.max_size: 'big' is not a size from 4096 to"},
	    {"audit: {max_size: 1mb}\n", "is not a size"},
	    {"audit: {compress: yes}\n", "audit.compress: 'yes' is not true or false"},
	    {"audit: {keep: 1.5}\n", "audit.keep: '1.5' is not a whole number from 1 to 10000"},
	    {"audit: {keep: 0x10}\n", "audit.keep: '0x10' is not a whole number"},
	    {"audit: {keep: -3}\n", "audit.keep: '-3' is not a whole number"},
	    {"health: {error_ratio_degraded: 5%}\n", "'5%' is not a number from 0 to 1"},
	    {"health: {error_ratio_degraded: .inf}\n", "is not a number from 0 to 1"},
	    {"health: {error_ratio_degraded: inf}\n", "is not a number from 0 to 1"},
	    {"health: {error_ratio_degraded: nan}\n", "is not a number from 0 to 1"},
	    {"log: {level: loud}\n", "log.level: 'loud' is not one of: debug info warn error"},
	    {"log: {level: inf}\n", "'inf' is not one of: debug info warn error"},
	    {"log: info\n", "k.yaml:1:6: log: a mapping is expected here"},
	    {"log: [level]\n", "log: a mapping is expected here"},
	    {"guard: {mode: on}\n", "guard.mode: 'on' is not one of: off observe enforce"},
	    {"guard: {policies: {a: b}}\n", "guard.policies: a list of policies is expected here"},
	    {"guard: {policies: x}\n", "guard.policies: a list of policies is expected here"},
	    {"guard: {policies: [x]}\n", "k.yaml:1:20: guard.policies: each entry is a mapping"},
	    {"guard: {defaults: 5}\n", "guard.defaults: a mapping is expected here"},
	    {"guard: {defaults: [5]}\n", "guard.defaults: a mapping is expected here"},
	    {"guard: {policies: [{failures: [x]}]}\n",
	     "failures: 'x' is not a list of: connect no_answer http_5xx http_400..http_599 "
	     "grpc_errors grpc_CODE"},
	    {"guard: {policies: [{failures: [connect, grpc_ok]}]}\n",
	     "failures: 'connect grpc_ok' is not a list of: connect no_answer http_5xx "
	     "http_400..http_599 grpc_errors grpc_CODE; CODE is one of: cancelled unknown "
	     "invalid_argument deadline_exceeded not_found already_exists permission_denied "
	     "resource_exhausted failed_precondition aborted out_of_range unimplemented internal "
	     "unavailable data_loss unauthenticated"},
	    {"guard: {policies: [{failures: [grpc_UNKNOWN]}]}\n",
	     "failures: 'grpc_UNKNOWN' is not a list of: "},
	    {"guard: {policies: [{failures: [grpc_14]}]}\n", "CODE is one of: cancelled"},
	    {"guard: {policies: [{failures: [grpc_]}]}\n", "CODE is one of: cancelled"},
	    {"guard: {policies: [{failures: [http_614]}]}\n",
	     "failures: 'http_614' is not a list of"},
	    {"guard: {policies: [{failures: []}]}\n", "failures: '' is not a list of"},
	    {"guard: {policies: [{failures: [http_399]}]}\n",
	     "failures: 'http_399' is not a list of"},
	    {"guard: {policies: [{window_type: calls}]}\n",
	     "window_type: 'calls' is not one of: time count"},
	    {"guard: {policies: [{force: yes}]}\n", "force: 'yes' is not one of: auto open closed"},
	    {"guard: {policies: [{on_open: close}]}\n",
	     "on_open: 'close' is not one of: keep close_connections"},
	    {"guard: {policies: [{window_type: ''}]}\n",
	     "window_type: '' is not one of: time count"},
	    {"guard: {policies: [{slow_call_duration: 100}]}\n",
	     "slow_call_duration: '100' is not a duration from 0.0001s to 3600s, such as \"1s\""},
	    {"guard: {policies: [{rate_limit: 10/s}]}\n",
	     "rate_limit: '10/s' is not a number from 0 to 1e+06"},
	    {"guard: {policies: [{max_connections: none}]}\n",
	     "max_connections: 'none' is not a whole number from 0 to 1000000"},
	    {"guard: {policies: [{executable: [a, b]}]}\n",
	     "executable: a single value is expected here, not a list"},
	    {"guard: {defaults: {executable: nginx}}\n", "unknown key 'executable'"},
	    {"guard: {defaults: {cgroup: /x}}\n", "unknown key 'cgroup'"},
	    {"guard: {policies: [{standby: somewhere:80}]}\n",
	     "standby: 'somewhere:80' is not ADDR:PORT or [V6]:PORT"},
	    {"guard: {policies: [{standby: 10.0.0.1}]}\n",
	     "standby: '10.0.0.1' is not ADDR:PORT or [V6]:PORT"},
	    {"guard: {policies: [{standby: ':80'}]}\n", "standby: ':80' is not ADDR:PORT"},
	    {"guard: {policies: [{standby: '*'}]}\n", "standby: '*' is not ADDR:PORT"},
	    {"guard: {policies: [{standby: 10.0.0.0/8:80}]}\n",
	     "standby: '10.0.0.0/8:80' is not ADDR:PORT"},
	    {"guard: {policies: [{standby: 'udp://10.0.0.1:80'}]}\n",
	     "standby: 'udp://10.0.0.1:80' is not ADDR:PORT"},
	    {"guard: {defaults: {standby: '2001:db8::1'}}\n",
	     "standby: '2001:db8::1' is not ADDR:PORT"},
	    {"guard: {policies: [{destination: not here}]}\n",
	     "destination: 'not here' is not ADDR:PORT, [V6]:PORT, ADDR, CIDR, CIDR:PORT, NAME, "
	     "NAME:PORT, :PORT or *; udp:// before it: of UDP"},
	    {"socket: \"a\\0b\"\n", "k.yaml:1:9: socket: a NUL character has no place in a value"},
	    {"listen: 9470\n", "listen: '9470' is not a loopback address and a port"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		expect_fault(rows[i].text, rows[i].what);
}

static void a_value_out_of_range_is_told_the_range(void **state)
{
	static const struct {
		const char *text, *what;
	} rows[] = {
	    {"tick: 99ms\n", "tick: '99ms' is not a duration from 0.1s to 60s, such as \"1s\""},
	    {"tick: 61s\n", "tick: '61s' is not a duration from 0.1s to 60s"},
	    {"tick: 99999999999999999999999d\n", "is not a duration from 0.1s to 60s"},
	    {"limits: {series: 63}\n",
	     "limits.series: '63' is not a whole number from 64 to 1048576"},
	    {"limits: {series: 1048577}\n", "is not a whole number from 64 to 1048576"},
	    {"limits: {series: 4294967360}\n", "is not a whole number from 64 to 1048576"},
	    {"limits: {series: 18446744073709551680}\n", "is not a whole number"},
	    {"audit: {max_size: 4095}\n", "is not a size from 4096 to 1000000000000 bytes"},
	    {"audit: {max_size: 1e300GiB}\n", "is not a size"},
	    {"health: {error_ratio_degraded: 1.01}\n", "'1.01' is not a number from 0 to 1"},
	    {"health: {error_ratio_degraded: -0.1}\n", "is not a number from 0 to 1"},
	    {"guard: {lease: 61s}\n", "guard.lease: '61s' is not a duration from 1s to 60s"},
	};
	static const char *const good[] = {"tick: 100ms\n",
					   "tick: 5s\n",
					   "limits: {series: 64}\n",
					   "limits: {series: 1048576}\n",
					   "audit: {max_size: 4096}\n",
					   "health: {error_ratio_degraded: 0}\n"};
	char text[CONFIG_PATH_LEN + 64];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		expect_fault(rows[i].text, rows[i].what);
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		setup(NULL);
		expect_good(good[i]);
	}
	snprintf(text, sizeof(text), "socket: /%0*d\n", CONFIG_PATH_LEN - 1, 0);
	expect_fault(text, "k.yaml:1:9: socket: longer than 255 characters");
	snprintf(text, sizeof(text), "front_user: %0*d\n", CONFIG_NAME_LEN, 0);
	expect_fault(text, "is not at most 63 characters");
}

/* Both bounds of each number of a policy, and what is just beyond. */
static void the_numbers_of_a_policy_have_bounds(void **state)
{
	static const struct {
		const char *key, *below, *least, *most, *beyond;
	} rows[] = {
	    {"consecutive_failures", "-1", "0", "1000000", "1000001"},
	    {"failure_ratio", "-0.01", "0", "1", "1.01"},
	    {"slow_call_ratio", "-0.01", "0", "1", "1.01"},
	    {"slow_call_duration", "99999ns", "100us", "1h", "3601s"},
	    {"minimum_requests", "0", "1", "1000000", "1000001"},
	    {"window", "999ms", "1s", "1h", "3601s"},
	    {"window_calls", "0", "1", "1024", "1025"},
	    {"base_open", "99ms", "100ms", "2m", "3601s"}, /* up to max_open */
	    {"max_open", "99ms", "5s", "1d", "86401s"},	   /* from base_open on */
	    {"jitter", "-0.01", "0", "1", "1.01"},
	    {"half_open_permits", "0", "1", "1000", "1001"},
	    {"half_open_successes", "0", "1", "1000", "1001"},
	    {"half_open_timeout", "99ms", "100ms", "1h", "3601s"},
	    {"ramp_up", "-1s", "0s", "1h", "3601s"},
	    {"rate_limit", "-0.01", "0", "1000000", "1000000.5"},
	    {"burst", "0", "1", "1000000", "1000001"},
	    {"max_connections", "-1", "0", "1000000", "1000001"},
	};
	static const char *const where[][2] = {{"defaults: {", "}"}, {"policies: [{", "}]"}};
	char text[256], what[128];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *const good[] = {rows[i].least, rows[i].most};
		const char *const bad[] = {rows[i].below, rows[i].beyond};

		for (size_t form = 0; form < 2; form++) {
			for (size_t k = 0; k < 2; k++) {
				setup(NULL);
				snprintf(text, sizeof(text), "guard: {%s%s: %s%s}\n",
					 where[form][0], rows[i].key, good[k], where[form][1]);
				expect_good(text);
				snprintf(text, sizeof(text), "guard: {%s%s: %s%s}\n",
					 where[form][0], rows[i].key, bad[k], where[form][1]);
				snprintf(what, sizeof(what), "%s: '%s' is not a", rows[i].key,
					 bad[k]);
				expect_fault(text, what);
			}
		}
	}
	expect_good("guard: {max_open: 0}\n");
	expect_good("guard: {max_open: 16384}\n");
	expect_fault("guard: {max_open: 16385}\n",
		     "guard.max_open: '16385' is not a whole number from 0 to 16384");
	expect_fault("guard: {max_open: -1}\n", "guard.max_open: '-1' is not a whole number");
}

static void a_policy_takes_each_of_its_keys(void **state)
{
	const struct config_policy *p = &config.guard.policies[0];

	(void)state;
	expect_good("guard:\n"
		    "  policies:\n"
		    "    - name: all\n      workload: web-*\n      executable: nginx\n"
		    "      cgroup: /system.slice/*\n      destination: '*.Internal:443'\n"
		    "      mode: enforce\n      force: open\n      slow_call_ratio: 0.75\n"
		    "      slow_call_duration: 250ms\n      window_type: count\n"
		    "      window_calls: 50\n      ramp_up: 30s\n      on_open: close_connections\n"
		    "      standby: '[2001:db8::9]:443'\n      rate_limit: 12.5\n      burst: 7\n"
		    "      max_connections: 100\n      failures: [http_429, http_503]\n"
		    "    - name: none\n");
	assert_string_equal(p->executable, "nginx");
	assert_string_equal(p->cgroup, "/system.slice/*");
	assert_string_equal(p->destination, "*.Internal:443"); /* as it was written */
	assert_int_equal(p->force, CONFIG_FORCE_OPEN);
	assert_true(p->slow_call_ratio == 0.75 && p->slow_call_ns == 250 * NS_PER_MS);
	assert_true(p->window_counts && p->window_calls == 50);
	assert_true(p->ramp_up_ns == 30 * NS_PER_SEC && p->close_connections);
	assert_string_equal(p->standby, "[2001:db8::9]:443");
	assert_true(p->rate_limit == 12.5 && p->burst == 7 && p->max_connections == 100);
	assert_true(fails_on(p, 429) && fails_on(p, 503));
	assert_false(fails_on(p, 428) || fails_on(p, 500) || p->failures.outcomes);
	p++; /* by default all of it is off */
	assert_string_equal(p->executable, "*");
	assert_string_equal(p->cgroup, "*");
	assert_int_equal(p->force, CONFIG_FORCE_AUTO);
	assert_true(p->slow_call_ratio == 0 && !p->window_counts && !p->ramp_up_ns);
	assert_true(!p->close_connections && !p->standby[0]);
	assert_true(p->rate_limit == 0 && !p->max_connections);
}

struct failures {
	const char *written;
	unsigned int told;
};

static void on_failures(void *ctx, const char *path, const char *value, const char *origin,
			const char *doc)
{
	struct failures *f = ctx;

	(void)origin;
	(void)doc;
	if (strcmp(path, "guard.policies[0].failures") != 0)
		return;
	assert_string_equal(value, f->written);
	f->told++;
}

static void failures_are_written_as_they_are_read(void **state)
{
#define ALL_BUT_ERRORS                                                             \
	"grpc_cancelled grpc_invalid_argument grpc_not_found grpc_already_exists " \
	"grpc_permission_denied grpc_resource_exhausted grpc_failed_precondition " \
	"grpc_aborted grpc_out_of_range grpc_unauthenticated"
	static const struct {
		const char *given, *written;
	} rows[] = {
	    {"grpc_errors", "grpc_errors"},
	    {"http_5xx, grpc_unavailable connect", "connect http_5xx grpc_unavailable"},
	    {"grpc_aborted grpc_errors grpc_internal", "grpc_errors grpc_aborted"},
	    {"grpc_unknown grpc_deadline_exceeded grpc_unimplemented grpc_internal "
	     "grpc_unavailable",
	     "grpc_unknown grpc_deadline_exceeded grpc_unimplemented grpc_internal "
	     "grpc_unavailable"},
	    {"grpc_data_loss grpc_unknown grpc_deadline_exceeded grpc_unimplemented "
	     "grpc_internal grpc_unavailable",
	     "grpc_errors"},
	    /* The longest there is of gRPC: nothing is cut on either way. */
	    {"connect no_answer http_5xx http_429 grpc_unknown grpc_deadline_exceeded "
	     "grpc_unimplemented grpc_internal grpc_unavailable grpc_data_loss " ALL_BUT_ERRORS,
	     "connect no_answer http_5xx http_429 grpc_errors " ALL_BUT_ERRORS},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct failures f = {.written = rows[i].written};
		char text[1024];

		for (int again = 0; again < 2; again++) {
			snprintf(text, sizeof(text), "guard: {policies: [{failures: '%s'}]}\n",
				 again ? rows[i].written : rows[i].given);
			expect_good(text);
			config_walk(&config, on_failures, &f);
		}
		assert_int_equal(f.told, 2);
	}
	expect_good("guard: {policies: [{failures: [grpc_aborted, http_429]}]}\n");
	assert_true(fails_on(&config.guard.policies[0], KILTER_STATUS_GRPC + 10));
	assert_true(fails_on(&config.guard.policies[0], 429));
	assert_false(fails_on(&config.guard.policies[0], KILTER_STATUS_GRPC + 14));
	assert_false(fails_on(&config.guard.policies[0], KILTER_STATUS_GRPC));
}

static void a_key_that_is_there_twice_is_refused(void **state)
{
	static const struct {
		const char *text, *what;
	} rows[] = {
	    {"tick: 1s\ntick: 1s\n", "k.yaml:2:1: key 'tick' is there twice"},
	    {"log: {level: info, level: warn}\n", "key 'log.level' is there twice"},
	    {"log: {level: info}\nlog: {format: json}\n", "k.yaml:2:1: key 'log' is there twice"},
	    {"log:\nlog: {format: json}\n", "k.yaml:2:1: key 'log' is there twice"},
	    {"log: {level: info}\nlog.level: warn\n", "key 'log.level' is there twice"},
	    {"guard:\n  policies: [{name: a}]\n  policies: [{name: b}]\n",
	     "k.yaml:3:3: key 'guard.policies' is there twice"},
	    {"guard:\n  defaults: {jitter: 0}\n  defaults: {jitter: 1}\n",
	     "k.yaml:3:3: key 'guard.defaults' is there twice"},
	    {"guard: {policies: [{mode: off, mode: observe}]}\n", "key 'mode' is there twice"},
	    {"guard:\n  policies:\n    - name: a\n    - name: a\n",
	     "k.yaml:4: policy 'a' is there twice; the other is in line 3"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		expect_fault(rows[i].text, rows[i].what);
}

#define POLICY(keys) "guard:\n  policies: [{name: a, " keys "}]\n"
#define FAMILY	     "k.yaml:2: policy 'a': standby must be of the destination's address family"
#define UDP	     "k.yaml:2: policy 'a': of UDP a policy takes one address and port, and any caller"

static void values_that_contradict_each_other_are_named_with_a_line(void **state)
{
	static const struct {
		const char *text, *what;
	} rows[] = {
	    {"syscalls:\n  window: 5s\n",
	     "k.yaml:2: syscalls.window must not be longer than syscalls.period"},
	    {"syscalls:\n  window: 2s\n  period: 1s\n", "k.yaml:3: syscalls.window must not"},
	    {"health:\n  error_ratio_degraded: 0.5\n",
	     "k.yaml:2: health.error_ratio_degraded must not be above"},
	    {"\nhealth:\n  connect_failure_ratio: 0.6\n",
	     "k.yaml:3: health.connect_failure_ratio must not be above"},
	    {"tick: 6s\n", "k.yaml:1: guard.lease must be at least two ticks"},
	    {"guard:\n  policies:\n    - name: a\n      base_open: 1h\n",
	     "k.yaml:3: policy 'a': base_open must not be longer than max_open"},
	    {"guard:\n  defaults:\n    base_open: 1h\n",
	     "k.yaml:3: guard.defaults: base_open must not be longer than max_open"},
	    {"guard:\n  policies: [{name: a}]\n  defaults: {jitter: 0}\n",
	     "k.yaml:3:3: guard.defaults must stand before guard.policies"},
	    {POLICY("window_type: count, window_calls: 19"),
	     "k.yaml:2: policy 'a': minimum_requests must not be above window_calls"},
	    {POLICY("window_type: count, minimum_requests: 101"),
	     "k.yaml:2: policy 'a': minimum_requests must not be above window_calls"},
	    {"guard:\n  defaults: {window_type: count, window_calls: 10}\n",
	     "k.yaml:2: guard.defaults: minimum_requests must not be above window_calls"},
	    {POLICY("destination: '10.0.0.1:80', standby: '[2001:db8::1]:80'"), FAMILY},
	    {POLICY("destination: 10.0.0.0/8, standby: '[2001:db8::1]:80'"), FAMILY},
	    {POLICY("destination: '[2001:db8::1]:80', standby: 10.0.0.1:80"), FAMILY},
	    {POLICY("destination: '::/0', standby: 10.0.0.1:80"), FAMILY},
	    {POLICY("destination: '2001:db8::1', standby: '[::ffff:10.0.0.1]:80'"), FAMILY},
	    {POLICY("destination: '[::ffff:10.0.0.1]:80', standby: '[2001:db8::1]:80'"), FAMILY},
	    {POLICY("destination: 'udp://10.0.0.1:53', standby: 10.0.0.2:53"),
	     "k.yaml:2: policy 'a': standby is for TCP alone"},
	    {POLICY("destination: 'udp://10.0.0.1'"), UDP},
	    {POLICY("destination: 'udp://:53'"), UDP},
	    {POLICY("destination: 'udp://*'"), UDP},
	    {POLICY("destination: 'udp://10.0.0.0/31:53'"), UDP},
	    {POLICY("destination: 'udp://[2001:db8::/127]:53'"), UDP},
	    {POLICY("destination: 'udp://[2001:db8::/32]:53'"), UDP},
	    {POLICY("destination: 'udp://dns.internal:53'"), UDP},
	    {POLICY("destination: 'udp://10.0.0.1:53', workload: x"), UDP},
	    {POLICY("destination: 'udp://10.0.0.1:53', executable: x"), UDP},
	    {POLICY("destination: 'udp://10.0.0.1:53', cgroup: /x"), UDP},
	};
	static const char *const good[] = {
	    POLICY("window_type: count, window_calls: 20"),
	    POLICY("window_type: time, window_calls: 10"), /* of the other type */
	    POLICY("destination: '10.0.0.1:80', standby: 10.0.0.2:81"),
	    POLICY("destination: '[2001:db8::1]:80', standby: '[2001:db8::2]:80'"),
	    POLICY("destination: '10.0.0.1:80', standby: '[::ffff:10.0.0.2]:80'"),
	    POLICY("destination: '[::ffff:10.0.0.1]:80', standby: 10.0.0.2:80"),
	    POLICY("destination: ':80', standby: 10.0.0.2:80"), /* where the family is that */
	    POLICY("destination: db.internal, standby: '[2001:db8::2]:80'"),
	    POLICY("destination: here"), /* a name */
	    POLICY("destination: 'udp://10.0.0.1:53'"),
	    POLICY("destination: 'udp://[2001:db8::1]:53'"),
	    "guard: {defaults: {standby: 10.0.0.2:80}}\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		expect_fault(rows[i].text, rows[i].what);
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		expect_good(good[i]);
	/* 0 switches a rule off: it is no upper bound then. */
	expect_good("health:\n  error_ratio_unhealthy: 0\n  connect_failure_unhealthy: 0\n");
}

static void all_faults_are_reported_in_one_run(void **state)
{
	(void)state;
	assert_int_equal(
	    parse("tick: no\nlisen: x\nlog:\n  level: loud\naudit: {keep: 0, file: [a]}\n"
		  "tick: 2s\nguard:\n  policies:\n    - mode: maybe\n      x: y\n"),
	    -EINVAL);
	assert_int_equal(faults_count, 8);
	for (int line = 1; line <= 10; line++) {
		char at[32];

		snprintf(at, sizeof(at), "k.yaml:%d:", line);
		if (line == 3 || line == 7 || line == 8)
			assert_null(strstr(faults, at));
		else
			assert_non_null(strstr(faults, at));
	}
	assert_memory_equal(&config, &before, sizeof(config));
}

static void a_fault_never_carries_control_characters_out(void **state)
{
	(void)state;
	assert_int_equal(parse("\"\\x1b[31m\\n\": 1\nlog: {level: \"a\\nb\\e\"}\n"), -EINVAL);
	for (const char *s = faults; *s; s++)
		assert_true((unsigned char)*s >= 0x20 || *s == '\n');
	assert_int_equal(faults_count, 2);
}

static void policies_have_a_maximum(void **state)
{
	size_t size = 64 + (CONFIG_POLICIES_MAX + 1) * 24;
	char *text = malloc(size);
	size_t n;

	(void)state;
	assert_non_null(text);
	n = (size_t)snprintf(text, size, "guard:\n  policies:\n");
	for (int i = 0; i < CONFIG_POLICIES_MAX; i++)
		n += (size_t)snprintf(text + n, size - n, "  - name: p%d\n", i);
	expect_good(text);
	assert_int_equal(config.guard.policies_count, CONFIG_POLICIES_MAX);
	snprintf(text + n, size - n, "  - name: more\n");
	expect_fault(text, "k.yaml:259:5: more than 256 policies");
	free(text);
}

static const char *shown_labels;

static void note_labels(void *ctx, const char *p, const char *value, const char *origin,
			const char *doc)
{
	static char text[CONFIG_LABELS_LEN];

	(void)ctx;
	(void)origin;
	(void)doc;
	if (strcmp(p, "guard.policies[0].labels"))
		return;
	snprintf(text, sizeof(text), "%s", value);
	shown_labels = text;
}

static void labels_are_pairs_of_a_key_and_a_glob(void **state)
{
	static const char *const rows[][2] = {
	    {"labels: {app: shop}", "app=shop"},
	    {"labels: {app: \"shop*\", app.kubernetes.io/part-of: '', '1': 2}",
	     "app=shop* app.kubernetes.io/part-of= 1=2"},
	    {"labels:\n        app: a=b\n        tier: \"*\"", "app=a=b tier=*"},
	    {"labels: {}", ""},
	    {"workload: x", ""},
	};
	static struct config other;
	char text[512], diff[64];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		snprintf(text, sizeof(text), "guard:\n  policies:\n    - name: a\n      %s\n",
			 rows[i][0]);
		expect_good(text);
		config_walk(&config, note_labels, NULL);
		assert_string_equal(shown_labels, rows[i][1]);
	}
	/* Of two policies each has its own, and a reload sees that one is another. */
	expect_good("guard: {policies: [{name: a, labels: {app: x}}, {name: b}]}");
	assert_string_equal(config.guard.policies[0].labels, "app");
	assert_string_equal(config_labels_glob(config.guard.policies[0].labels), "x");
	assert_string_equal(config.guard.policies[1].labels, "");
	other = config;
	expect_good("guard: {policies: [{name: a, labels: {app: y}}, {name: b}]}");
	assert_string_equal(config_diff(&other, &config, diff, sizeof(diff)), "guard.policies");
}

static void labels_that_are_none_are_named_with_their_place(void **state)
{
	static const char *const rows[][2] = {
	    {"labels: app=shop", "1:29: labels: a mapping of keys to globs is expected here"},
	    {"labels: [app]", "1:29: labels: a mapping of keys to globs is expected here"},
	    {"labels: {app: [x]}", "1:35: labels: of 'app' a glob on its value is expected"},
	    {"labels: {app: {x: y}}", "1:35: labels: of 'app' a glob on its value is expected"},
	    {"labels: {app: x, tier: y, app: z}", "1:47: labels: 'app' is there twice"},
	    {"labels: {a b: x}", "1:30: labels: 'a b: x' is not a key and a glob of printable"},
	    {"labels: {a=b: x}", "1:30: labels: 'a=b: x' is not a key and a glob of printable"},
	    {"labels: {'': x}", "1:30: labels: ': x' is not a key and a glob of printable"},
	    {"labels: {a: x y}", "1:30: labels: 'a: x y' is not a key and a glob of printable"},
	    {"labels: {a: \"\\u00e4\"}", "is not a key and a glob of printable"},
	    {"labels: {a: \"x\\0y\"}", "1:33: labels: of 'a' a glob on its value is expected"},
	    {"labels: {a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7, h: 8, i: 9}",
	     "1:78: labels: 'i' has no room: at most 8 labels, of 512 bytes together"},
	    {"labels: {a: x}, labels: {b: x}", "1:37: key 'labels' is there twice"},
	    {"labels: {a: x}, destination: 'udp://10.0.0.1:53'",
	     "k.yaml:1: policy 'policy-1': of UDP a policy takes one address and port, and any "
	     "caller"},
	    {"label: {a: x}", "unknown key 'label', did you mean 'labels'?"},
	};
	char text[1024];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		snprintf(text, sizeof(text), "guard: {policies: [{%s}]}\n", rows[i][0]);
		expect_fault(text, rows[i][1]);
	}
	expect_fault("guard: {defaults: {labels: {a: x}}}\n", "1:20: unknown key 'labels'");
	/* What a list is the key of ends the reading: there is no telling what comes after it. */
	assert_int_equal(parse("guard: {policies: [{labels: {[a]: x}}]}\n"), -EINVAL);
	assert_non_null(strstr(faults, "labels: a key must be a plain name"));
	for (size_t n = 0; n < 3; n++) { /* to the last byte of the room */
		static char labels[CONFIG_LABELS_LEN];
		char glob[CONFIG_LABELS_LEN];

		memset(labels, 0, sizeof(labels));
		memset(glob, 'x', sizeof(glob));
		glob[CONFIG_LABELS_LEN - 5 + n] = '\0';
		assert_int_equal(config_labels_add(labels, "a", glob), n < 2 ? 0 : -E2BIG);
	}
}

static void deep_nesting_is_refused(void **state)
{
	static char text[400000];

	(void)state;
	memset(text, '[', 100000);
	memset(text + 100000, ']', 100000);
	assert_int_equal(parse_n(text, 200000), -EINVAL);
	snprintf(text, sizeof(text), "a: ");
	memset(text + 3, '{', 1000);
	assert_int_equal(parse_n(text, 1003), -EINVAL);
	assert_memory_equal(&config, &before, sizeof(config));
}

/* Files. */

static char dir[64], path[128];

static int file_setup(void **state)
{
	setup(state);
	snprintf(dir, sizeof(dir), "/tmp/kilter-config-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/kilter.yaml", dir);
	return 0;
}

static int file_teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

static void write_file(const char *text, size_t n)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static void a_file_is_read_and_remembered(void **state)
{
	(void)state;
	write_file("tick: 2s\n", 9);
	assert_int_equal(config_load(&config, path, note, &config), 0);
	assert_true(config.tick_ns == 2 * NS_PER_SEC);
	assert_string_equal(config.file, path);
}

static void a_file_that_cannot_be_read_is_named_with_the_reason(void **state)
{
	char want[256];

	(void)state;
	before = config;
	assert_int_equal(config_load(&config, path, note, &config), -ENOENT);
	snprintf(want, sizeof(want), "%s: No such file or directory\n", path);
	assert_string_equal(faults, want);
	faults[0] = '\0';
	assert_int_equal(config_load(&config, dir, note, &config), -EISDIR);
	snprintf(want, sizeof(want), "%s: Is a directory\n", dir);
	assert_string_equal(faults, want);
	assert_memory_equal(&config, &before, sizeof(config));
}

static void a_file_beyond_a_mebibyte_is_refused(void **state)
{
	size_t n = 1 << 20;
	char *text = malloc(n + 1);

	(void)state;
	assert_non_null(text);
	memset(text, '#', n + 1);
	write_file(text, n);
	assert_int_equal(config_load(&config, path, note, &config), 0);
	before = config;
	write_file(text, n + 1);
	assert_int_equal(config_load(&config, path, note, &config), -EINVAL);
	assert_non_null(strstr(faults, path));
	assert_non_null(strstr(faults, "larger than 1 MiB"));
	assert_memory_equal(&config, &before, sizeof(config));
	free(text);
}

/* Flags and variables. */

static void flags_and_variables_set_fields_and_name_themselves_in_faults(void **state)
{
	(void)state;
	assert_int_equal(
	    config_set(&config, "tick", "2s", CONFIG_ORIGIN_FLAG, "--tick", note, &config), 0);
	assert_true(config.tick_ns == 2 * NS_PER_SEC);
	before = config;
	assert_int_equal(
	    config_set(&config, "tick", "soon", CONFIG_ORIGIN_FLAG, "--tick", note, &config),
	    -EINVAL);
	assert_non_null(strstr(faults, "--tick: 'soon' is not a duration from 0.1s to 60s"));
	assert_int_equal(
	    config_set(&config, "tock", "1s", CONFIG_ORIGIN_FLAG, "--tock", note, &config),
	    -EINVAL);
	assert_memory_equal(&config, &before, sizeof(config));

	assert_int_equal(setenv("KILTER_LOG_LEVEL", "warn", 1), 0);
	assert_int_equal(setenv("KILTER_LIMITS_ROUTES_PER_WORKLOAD", "many", 1), 0);
	faults[0] = '\0';
	assert_int_equal(config_env(&config, note, &config), -EINVAL);
	assert_non_null(strstr(faults, "KILTER_LIMITS_ROUTES_PER_WORKLOAD: 'many' is not a whole "
				       "number from 1 to 8192"));
	assert_string_equal(config.log.level, "warn");
	assert_int_equal(unsetenv("KILTER_LOG_LEVEL"), 0);
	assert_int_equal(unsetenv("KILTER_LIMITS_ROUTES_PER_WORKLOAD"), 0);
}

struct wanted {
	const char *path;
	char value[512], origin[300];
};

static void on_row(void *ctx, const char *field, const char *value, const char *origin,
		   const char *doc)
{
	struct wanted *w = ctx;

	assert_true(strlen(doc) > 5);
	if (strcmp(field, w->path))
		return;
	snprintf(w->value, sizeof(w->value), "%s", value);
	snprintf(w->origin, sizeof(w->origin), "%s", origin);
}

static void a_walk_tells_each_value_and_where_it_came_from(void **state)
{
	static const struct {
		const char *path, *value, *origin;
	} rows[] = {
	    {"listen", "127.0.0.1:9470", "default"},
	    {"tick", "500ms", "k.yaml:1"},
	    {"audit.max_age", "120m", "k.yaml:4"},
	    {"audit.keep", "3", "flag"},
	    {"guard.mode", "observe", "environment"},
	    {"guard.defaults.mode", "observe", "default"},
	    {"guard.policies[0].destination", ":80", "k.yaml:7"},
	    {"guard.policies[0].failures", "connect no_answer http_5xx grpc_errors", "k.yaml:7"},
	};

	(void)state;
	expect_good("tick: 500ms\n\naudit:\n  max_age: 2h\nguard:\n  policies:\n"
		    "    - destination: ':80'\n");
	assert_int_equal(
	    config_set(&config, "audit.keep", "3", CONFIG_ORIGIN_FLAG, "--keep", note, &config), 0);
	assert_int_equal(
	    config_set(&config, "guard.mode", "observe", CONFIG_ORIGIN_ENV, "K", note, &config), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct wanted w = {.path = rows[i].path};

		config_walk(&config, on_row, &w);
		assert_string_equal(w.value, rows[i].value);
		assert_string_equal(w.origin, rows[i].origin);
	}
}

/* What a walk shows can be written into a file again and means the same. */
static void set_again(void *ctx, const char *field, const char *value, const char *origin,
		      const char *doc)
{
	(void)origin;
	(void)doc;
	if (strncmp(field, "guard.defaults", 14) && strncmp(field, "guard.policies", 14))
		assert_int_equal(config_set(ctx, field, value, 0, field, note, &config), 0);
}

static void shown_values_read_back(void **state)
{
	static struct config copy;
	const char *changed = NULL;

	(void)state;
	expect_good("tick: 333ms\naudit: {max_size: 123457, max_age: 90s}\n"
		    "health: {latency_factor: 1.2345678, latency_p95: 1234567us}\n");
	config_defaults(&copy);
	config_walk(&config, set_again, &copy);
	assert_false(config_needs_restart(&config, &copy, &changed));
	assert_true(copy.tick_ns == config.tick_ns);
	assert_true(copy.audit.max_bytes == 123457 && copy.audit.max_age_ns == 90 * NS_PER_SEC);
	assert_true(copy.health.latency_factor == 1.2345678);
	assert_true(copy.health.latency_p95_ns == 1234567000);
}

static void a_reload_keeps_what_only_a_restart_changes(void **state)
{
	static struct config fresh;
	const char *field = NULL;

	(void)state;
	config_defaults(&fresh);
	fresh.audit.keep = 3; /* SIGHUP */
	assert_false(config_needs_restart(&config, &fresh, &field));
	fresh.limits.series = 99; /* restart */
	assert_true(config_needs_restart(&config, &fresh, &field));
	assert_string_equal(field, "limits.series");
	config_keep(&fresh, &config);
	assert_int_equal(fresh.limits.series, config.limits.series);
	assert_int_equal(fresh.audit.keep, 3);
	assert_false(config_needs_restart(&config, &fresh, &field));
}

static void a_change_is_told_by_its_keys(void **state)
{
	static struct config fresh;
	char text[512], cut[10];

	(void)state;
	expect_good("guard: {policies: [{name: a}]}\n");
	fresh = config;
	assert_string_equal(config_diff(&config, &fresh, text, sizeof(text)), "");
	fresh.guard.policies[0].line = 99; /* moved, not changed */
	assert_string_equal(config_diff(&config, &fresh, text, sizeof(text)), "");
	fresh.audit.keep++;
	fresh.guard.lease_ns++;
	fresh.guard.defaults.jitter = 0.25;
	fresh.guard.policies[0].mode = KILTER_GUARD_ENFORCE;
	assert_string_equal(config_diff(&config, &fresh, text, sizeof(text)),
			    "audit.keep, guard.lease, guard.defaults, guard.policies");
	assert_string_equal(config_diff(&config, &fresh, cut, sizeof(cut)), "audit.kee");
}

/* Values. */

static void durations_and_sizes_have_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t want;
	} durations[] = {{"1ns", 1},
			 {"1.5us", 1500},
			 {"250ms", 250000000},
			 {"0s", 0},
			 {".5s", 500000000},
			 {"1m", 60000000000},
			 {"1h", 3600000000000},
			 {"1d", 86400000000000}},
	  sizes[] = {{"4096", 4096}, {"1B", 1},		{"1KiB", 1024},	  {"1.5KiB", 1536},
		     {"1kB", 1000},  {"2MiB", 2097152}, {"1MB", 1000000}, {"1GiB", 1073741824}};
	static const char *const bad[] = {"",	 "s",	"1",   "1x", "-1s", "+1s",
					  " 1s", "1s ", "1 s", "1S", "nan", "infs"};
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
		assert_int_equal(config_parse_duration(durations[i].text, &v), 0);
		assert_true(v == durations[i].want);
	}
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_int_equal(config_parse_size(sizes[i].text, &v), 0);
		assert_true(v == sizes[i].want);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(config_parse_duration(bad[i], &v), -EINVAL);
	assert_int_equal(config_parse_duration("1000000d", &v), -ERANGE);
	assert_int_equal(config_parse_size("1mb", &v), -EINVAL);
	assert_int_equal(config_parse_size("", &v), -EINVAL);
	assert_int_equal(config_parse_size("9999999999GiB", &v), -ERANGE);
}

static void destinations_are_read_in_every_form(void **state)
{
	static const struct {
		const char *text;
		int family, prefix, port;
	} rows[] = {
	    {"*", 0, 0, 0},
	    {":80", 0, 0, 80},
	    {"10.0.0.1", KILTER_FAMILY_V4, 32, 0},
	    {"10.0.0.1:65535", KILTER_FAMILY_V4, 32, 65535},
	    {"10.0.0.0/8", KILTER_FAMILY_V4, 8, 0},
	    {"10.0.0.0/8:80", KILTER_FAMILY_V4, 8, 80},
	    {"::1", KILTER_FAMILY_V6, 128, 0},
	    {"[::1]:80", KILTER_FAMILY_V6, 128, 80},
	    {"2001:db8::/32", KILTER_FAMILY_V6, 32, 0},
	    {"[2001:db8::/32]:1", KILTER_FAMILY_V6, 32, 1},
	};
	static const struct {
		const char *text, *name;
		int family, port, transport;
	} others[] = {
	    {"udp://10.0.0.1:53", "", KILTER_FAMILY_V4, 53, KILTER_TRANSPORT_UDP},
	    {"db.internal:5432", "db.internal", 0, 5432, 0},
	    {"DB.Internal.", "db.internal", 0, 0, 0},
	    {"*.internal:80", "*.internal", 0, 80, 0},
	    {"localhost", "localhost", 0, 0, 0},
	    {"0.pool.internal:123", "0.pool.internal", 0, 123, 0},
	};
	static const char *const bad[] = {"",	       ":",	      ":0",	  ":65536",
					  ":80x",      "10.0.0.1:",   "10.0.0",	  "10.0.0.1/33",
					  "10.0.0.1/", "10.0.0.1/-1", "[::1",	  "[::1]80",
					  "[::1]:",    "::1/129",     "a b:80",	  "a.b/8",
					  "*:80",      "1.2.3.4 ",    "[]:80x",	  "udp://",
					  "a.b:0",     "10.0.0.x:80", "10.0.0.l", "tcp://a:80"};
	struct config_destination d;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(config_parse_destination(rows[i].text, &d), 0);
		assert_int_equal(d.family, rows[i].family);
		assert_int_equal(d.prefix_len, rows[i].prefix);
		assert_int_equal(d.port, rows[i].port);
		assert_int_equal(d.transport, KILTER_TRANSPORT_TCP);
		assert_string_equal(d.name, "");
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		assert_int_equal(config_parse_destination(others[i].text, &d), 0);
		assert_string_equal(d.name, others[i].name);
		assert_int_equal(d.family, others[i].family);
		assert_int_equal(d.port, others[i].port);
		assert_int_equal(d.transport, others[i].transport);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (config_parse_destination(bad[i], &d) != -EINVAL)
			fail_msg("'%s' is taken for a destination", bad[i]);
}

/* TCP asks nobody who they are: it must not be reached from elsewhere. */
static void the_server_listens_on_loopback_alone(void **state)
{
	static const char *const good[] = {"", "127.0.0.1:9470", "127.1.2.3:1", "[::1]:9470",
					   "localhost:9470"};
	static const char *const bad[] = {"0.0.0.0:9470",
					  ":9470",
					  "*:9470",
					  "*",
					  "[::]:9470",
					  "10.0.0.1:80",
					  "127.0.0.1",
					  "127.0.0.1:0",
					  "127.0.0.1:x",
					  "localhost",
					  "localhost:0",
					  "host:80",
					  "[::1]",
					  "127.0.0.0/8:80",
					  "[::ffff:127.0.0.1]:80"};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(config_check_listen(good[i]), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (config_check_listen(bad[i]) != -EINVAL)
			fail_msg("'%s' is taken", bad[i]);
	expect_fault("listen: 0.0.0.0:9470\n",
		     "k.yaml:1:9: listen: '0.0.0.0:9470' is not a loopback address and a port, "
		     "such as \"127.0.0.1:9470\"");
}

static void the_runtime_is_a_socket_by_its_path(void **state)
{
	static const char *const bad[] = {"run/x.sock",	   "unix://run/x.sock", "unix:/run/x.sock",
					  "http://[::1]/", "tcp://127.0.0.1:1", "unix://",
					  "@abstract"};
	char text[256];

	(void)state;
	expect_good("runtime_endpoint: unix:///run/containerd/containerd.sock\n");
	assert_string_equal(config_runtime_path(config.runtime_endpoint),
			    "/run/containerd/containerd.sock");
	assert_string_equal(config_runtime_path("/run/crio/crio.sock"), "/run/crio/crio.sock");
	setup(NULL);
	expect_good("runtime_endpoint: ''\n");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (config_runtime_path(bad[i]))
			fail_msg("'%s' is taken", bad[i]);
	expect_fault("runtime_endpoint: run/x.sock\n",
		     "k.yaml:1:19: runtime_endpoint: 'run/x.sock' is not unix:// and the absolute "
		     "path of a socket, at most 107 characters, or empty");
	/* struct sockaddr_un has 108 bytes. */
	snprintf(text, sizeof(text), "runtime_endpoint: unix:///%0*d\n", 107, 0);
	expect_fault(text, "at most 107 characters");
	snprintf(text, sizeof(text), "runtime_endpoint: unix:///%0*d\n", 106, 0);
	setup(NULL);
	expect_good(text);
}

#define T(f) cmocka_unit_test_setup(f, setup)
#define F(f) cmocka_unit_test_setup_teardown(f, file_setup, file_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(the_defaults_are_good),
	    T(an_empty_file_changes_nothing),
	    T(every_type_is_read),
	    T(a_second_file_replaces_the_policies),
	    T(broken_syntax_is_named_with_its_line_and_column),
	    T(unknown_keys_are_named_and_the_nearest_is_proposed),
	    T(a_value_of_another_type_is_told_what_would_be_right),
	    T(a_value_out_of_range_is_told_the_range),
	    T(the_numbers_of_a_policy_have_bounds),
	    T(a_policy_takes_each_of_its_keys),
	    T(failures_are_written_as_they_are_read),
	    T(a_key_that_is_there_twice_is_refused),
	    T(values_that_contradict_each_other_are_named_with_a_line),
	    T(all_faults_are_reported_in_one_run),
	    T(a_fault_never_carries_control_characters_out),
	    T(policies_have_a_maximum),
	    T(labels_are_pairs_of_a_key_and_a_glob),
	    T(labels_that_are_none_are_named_with_their_place),
	    T(deep_nesting_is_refused),
	    F(a_file_is_read_and_remembered),
	    F(a_file_that_cannot_be_read_is_named_with_the_reason),
	    F(a_file_beyond_a_mebibyte_is_refused),
	    T(flags_and_variables_set_fields_and_name_themselves_in_faults),
	    T(a_walk_tells_each_value_and_where_it_came_from),
	    T(shown_values_read_back),
	    T(a_reload_keeps_what_only_a_restart_changes),
	    T(a_change_is_told_by_its_keys),
	    T(durations_and_sizes_have_units),
	    T(destinations_are_read_in_every_form),
	    T(the_server_listens_on_loopback_alone),
	    T(the_runtime_is_a_socket_by_its_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
