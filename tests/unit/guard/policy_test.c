// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guard/policy.h"

#include <cmocka.h>

static struct config config;
static struct policy_table table;

static void policies(size_t n, const char *const (*rows)[2])
{
	config_defaults(&config);
	for (size_t i = 0; i < n; i++) {
		struct config_policy *p = &config.guard.policies[i];

		*p = config.guard.defaults;
		snprintf(p->workload, sizeof(p->workload), "%s", rows[i][0]);
		snprintf(p->destination, sizeof(p->destination), "%s", rows[i][1]);
		p->mode = KILTER_GUARD_ENFORCE;
	}
	config.guard.policies_count = (uint32_t)n;
	policy_table_init(&table, &config);
}

static struct kilter_peer peer(const char *addr, uint16_t port)
{
	struct kilter_peer p = {.port_be = htons(port)};

	if (inet_pton(AF_INET, addr, p.addr) == 1)
		p.family = KILTER_FAMILY_V4;
	else if (inet_pton(AF_INET6, addr, p.addr) == 1)
		p.family = KILTER_FAMILY_V6;
	assert_int_not_equal(p.family, 0);
	return p;
}

/* The row that is taken, or -1. */
static int match(const char *workload, const char *addr, uint16_t port)
{
	const struct policy_entry *e =
	    policy_match(&table, &(struct policy_subject){.workload = workload,
							  .executable = "exe",
							  .cgroup = "/cg",
							  .destination = peer(addr, port)});

	return e ? (int)(e->policy - config.guard.policies) : -1;
}

static void the_most_specific_destination_wins(void **state)
{
	static const char *const rows[][2] = {
	    {"*", ":443"},     {"*", "10.0.0.0/8"},   {"*", "10.1.0.0/16"},
	    {"*", "10.1.2.3"}, {"*", "10.1.2.3:443"}, {"*", "10.1.0.0/16:443"},
	};

	(void)state;
	policies(sizeof(rows) / sizeof(rows[0]), rows);
	assert_int_equal(match("x", "10.1.2.3", 443), 4);
	assert_int_equal(match("x", "10.1.2.3", 80), 3);
	assert_int_equal(match("x", "10.1.2.4", 443), 5);
	assert_int_equal(match("x", "10.1.2.4", 80), 2);
	assert_int_equal(match("x", "10.2.0.0", 80), 1);
	assert_int_equal(match("x", "10.2.0.0", 443), 1);
	assert_int_equal(match("x", "11.0.0.0", 443), 0);
	assert_int_equal(match("x", "11.0.0.0", 80), -1);
	assert_int_equal(match("x", "2001:db8::1", 443), 0);
}

static void of_equal_destinations_the_named_workload_wins_then_the_first(void **state)
{
	static const char *const rows[][2] = {
	    {"*", "10.0.0.0/8"},
	    {"web-*", "10.0.0.0/8"},
	    {"web-?", "10.0.0.0/8"},
	    {"*", "10.0.0.1:80"},
	};

	(void)state;
	policies(4, rows);
	assert_int_equal(match("db", "10.0.0.2", 80), 0);
	assert_int_equal(match("web-1", "10.0.0.2", 80), 1);
	assert_int_equal(match("web-1", "10.0.0.1", 80), 3); /* the destination comes first */
}

static void prefixes_are_compared_bit_by_bit(void **state)
{
	static const char *const rows[][2] = {{"*", "10.0.0.128/25"}, {"*", "2001:db8:8000::/33"}};

	(void)state;
	policies(2, rows);
	assert_int_equal(match("x", "10.0.0.128", 1), 0);
	assert_int_equal(match("x", "10.0.0.255", 1), 0);
	assert_int_equal(match("x", "10.0.0.127", 1), -1);
	assert_int_equal(match("x", "2001:db8:8000::1", 1), 1);
	assert_int_equal(match("x", "2001:db8:7fff::1", 1), -1);
}

static void only_one_address_and_port_for_any_caller_is_exact(void **state)
{
	static const char *const rows[][2] = {
	    {"*", "10.0.0.1:80"},	   {"w", "10.0.0.1:80"}, {"*", "10.0.0.1"},
	    {"*", "10.0.0.0/24:80"},	   {"*", ":80"},	 {"*", "*"},
	    {"*", "[::ffff:10.0.0.2]:80"},
	};
	static const bool exact[] = {true, false, false, false, false, false, true};
	struct kilter_peer p, v4 = peer("10.0.0.2", 80);

	(void)state;
	policies(sizeof(rows) / sizeof(rows[0]), rows);
	assert_int_equal(table.count, 7);
	for (unsigned int i = 0; i < table.count; i++)
		assert_int_equal(policy_is_exact(&table.entries[i]), exact[i]);
	assert_false(policy_is_exact(NULL));
	policy_peer(&table.entries[6], &p);
	assert_memory_equal(&p, &v4, sizeof(p)); /* a mapped address is an IPv4 address */
}

static enum kilter_guard_mode mode(const char *addr, uint16_t port, const char **reason)
{
	struct kilter_peer p = peer(addr, port);

	const struct policy_subject s = {
	    .workload = "x", .executable = "exe", .cgroup = "/cg", .destination = p};

	return policy_mode(&table, policy_match(&table, &s), &p, reason);
}

static void protected_destinations_are_only_observed_unless_named(void **state)
{
	static const char *const wide[][2] = {{"*", "*"}};
	static const char *const named[][2] = {
	    {"*", "127.0.0.1:9000"}, {"*", "127.0.0.2"}, {"*", "8.8.8.8:53"}};
	const char *reason;

	(void)state;
	setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1", 1);
	setenv("KUBERNETES_SERVICE_PORT", "443", 1);
	policies(1, wide);
	assert_int_equal(mode("10.0.0.1", 80, &reason), KILTER_GUARD_ENFORCE);
	assert_null(reason);
	assert_int_equal(mode("127.1.2.3", 80, &reason), KILTER_GUARD_OBSERVE);
	assert_non_null(strstr(reason, "loopback"));
	assert_int_equal(mode("::1", 80, &reason), KILTER_GUARD_OBSERVE);
	assert_int_equal(mode("8.8.8.8", 53, &reason), KILTER_GUARD_OBSERVE);
	assert_non_null(strstr(reason, "DNS"));
	assert_int_equal(mode("10.96.0.1", 443, &reason), KILTER_GUARD_OBSERVE);
	assert_non_null(strstr(reason, "API server"));
	assert_int_equal(mode("10.96.0.1", 444, &reason), KILTER_GUARD_ENFORCE);
	config.guard.protect_loopback = false;
	assert_int_equal(mode("127.1.2.3", 80, &reason), KILTER_GUARD_ENFORCE);
	assert_int_equal(mode("127.0.0.1", 9470, &reason), KILTER_GUARD_OBSERVE);
	assert_non_null(strstr(reason, "kilter"));
	policies(3, named);
	assert_int_equal(mode("127.0.0.1", 9000, &reason), KILTER_GUARD_ENFORCE);
	assert_int_equal(mode("127.0.0.2", 1, &reason), KILTER_GUARD_ENFORCE);
	assert_int_equal(mode("8.8.8.8", 53, &reason), KILTER_GUARD_ENFORCE);
	unsetenv("KUBERNETES_SERVICE_HOST");
}

static void a_listener_on_every_address_protects_its_port(void **state)
{
	static const char *const wide[][2] = {{"*", "*"}};
	const char *reason;

	(void)state;
	policies(1, wide);
	snprintf(config.listen, sizeof(config.listen), "0.0.0.0:9470");
	policy_table_init(&table, &config);
	assert_int_equal(mode("10.0.0.1", 9470, &reason), KILTER_GUARD_OBSERVE);
	assert_int_equal(mode("2001:db8::1", 9470, &reason), KILTER_GUARD_OBSERVE);
	assert_int_equal(mode("10.0.0.1", 9471, &reason), KILTER_GUARD_ENFORCE);
}

static void guard_mode_is_an_upper_bound(void **state)
{
	static const char *const rows[][2] = {{"*", "10.0.0.1:80"}};
	const char *reason;

	(void)state;
	policies(1, rows);
	config.guard.mode = KILTER_GUARD_OBSERVE;
	assert_int_equal(mode("10.0.0.1", 80, &reason), KILTER_GUARD_OBSERVE);
	assert_string_equal(reason, "guard.mode is observe");
	config.guard.mode = KILTER_GUARD_OFF;
	assert_int_equal(mode("10.0.0.1", 80, &reason), KILTER_GUARD_OFF);
	config.guard.mode = KILTER_GUARD_ENFORCE;
	/* Where no policy is, the defaults observe. */
	assert_int_equal(mode("10.0.0.9", 80, &reason), KILTER_GUARD_OBSERVE);
	assert_null(reason);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_most_specific_destination_wins),
	    cmocka_unit_test(of_equal_destinations_the_named_workload_wins_then_the_first),
	    cmocka_unit_test(prefixes_are_compared_bit_by_bit),
	    cmocka_unit_test(only_one_address_and_port_for_any_caller_is_exact),
	    cmocka_unit_test(protected_destinations_are_only_observed_unless_named),
	    cmocka_unit_test(a_listener_on_every_address_protects_its_port),
	    cmocka_unit_test(guard_mode_is_an_upper_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
