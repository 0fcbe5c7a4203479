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
static struct dns *names;

static int group_setup(void **state)
{
	(void)state;
	return dns_new(&names);
}

static int group_teardown(void **state)
{
	(void)state;
	dns_free(&names);
	return 0;
}

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

/* One more policy: the destination for any caller; ready() makes the table. */
static struct config_policy *add(const char *destination)
{
	struct config_policy *p = &config.guard.policies[config.guard.policies_count];

	*p = config.guard.defaults;
	p->mode = KILTER_GUARD_ENFORCE;
	snprintf(p->destination, sizeof(p->destination), "%s", destination);
	snprintf(p->name, sizeof(p->name), "p%u", config.guard.policies_count++);
	return p;
}

static void ready(void)
{
	policy_table_init(&table, &config);
	assert_int_equal(table.count, config.guard.policies_count);
}

/* A DNS answer: from now on the address is called so. */
static void name_address(const char *name, const char *addr)
{
	static const unsigned char head[12] = {[2] = 0x80, [5] = 1, [7] = 1};
	static const unsigned char to_name[2] = {0xc0, sizeof(head)};
	struct kilter_peer p = peer(addr, 0);
	unsigned char data = p.family == KILTER_FAMILY_V4 ? 4 : 16;
	unsigned char type = p.family == KILTER_FAMILY_V4 ? 1 : 28;
	unsigned char msg[256];
	size_t n = sizeof(head);

	memcpy(msg, head, n);
	for (size_t label; *name; name += label + (name[label] == '.')) {
		label = strcspn(name, ".");
		msg[n++] = (unsigned char)label;
		memcpy(msg + n, name, label);
		n += label;
	}
	msg[n++] = 0;
	memcpy(msg + n, (unsigned char[]){0, type, 0, 1}, 4);
	memcpy(msg + n + 4, to_name, 2);
	memcpy(msg + n + 6, (unsigned char[]){0, type, 0, 1, 0, 0, 0, 60, 0, data}, 10);
	memcpy(msg + n + 16, p.addr, data);
	assert_int_equal(dns_answer(names, msg, n + 16 + data), 1);
}

/* Somebody who calls addr:port over TCP; tests change what they are about. */
static struct policy_subject caller_of(const char *addr, uint16_t port)
{
	return (struct policy_subject){.workload = "web-1",
				       .executable = "nginx",
				       .cgroup = "/system.slice/web.service",
				       .destination = peer(addr, port),
				       .dns = names};
}

/* The number of the policy, or -1. */
static int matched(const struct policy_subject *s)
{
	const struct policy_entry *e = policy_match(&table, s);

	return e ? (int)(e->policy - config.guard.policies) : -1;
}

static const char *explained(const struct policy_subject *s)
{
	static char text[160];

	policy_explain(&table, s, policy_match(&table, s), text, sizeof(text));
	return text;
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

/* All of them are for 10.1.2.3:443, or 2001:db8::3:443, from the most specific to the least. */
static const char *const ranks[][16] = {
    {"10.1.2.3:443", "10.1.2.3", "db.eu.internal:443", "db.eu.internal", "*.eu.internal:443",
     "*.eu.internal", "*.internal:443", "*.internal", "10.1.0.0/16:443", "10.1.0.0/16",
     "10.0.0.0/8:443", "10.0.0.0/8", "0.0.0.0/0:443", "0.0.0.0/0", ":443", "*"},
    {"[2001:db8::3]:443", "2001:db8::3", "db.eu.internal:443", "db.eu.internal",
     "d?.eu.internal:443", "d?.eu.internal", "d*.internal:443", "d*.internal",
     "[2001:db8::/64]:443", "2001:db8::/64", "[2001:db8::/32]:443", "2001:db8::/32", "[::/0]:443",
     "::/0", ":443", "*"},
};
static const char *const ranked[] = {"10.1.2.3", "2001:db8::3"};

/* The less specific one wins nothing by all that it says of the caller, nor by being the first. */
static void one_wins(const struct policy_subject *s, const char *more, const char *less, bool swap)
{
	struct config_policy *p;

	config_defaults(&config);
	if (!swap)
		add(more);
	p = add(less);
	snprintf(p->workload, sizeof(p->workload), "web-1");
	snprintf(p->executable, sizeof(p->executable), "nginx");
	snprintf(p->cgroup, sizeof(p->cgroup), "/system.slice/*");
	if (swap)
		add(more);
	ready();
	if (matched(s) != (int)swap)
		fail_msg("%s wins against %s", less, more);
}

static void of_two_that_match_the_more_specific_wins_in_either_order(void **state)
{
	(void)state;
	for (unsigned int family = 0; family < 2; family++) {
		const struct policy_subject s = caller_of(ranked[family], 443);
		const char *const *of = ranks[family];

		name_address("db.eu.internal", ranked[family]);
		for (unsigned int more = 0; more < 16; more++) {
			for (unsigned int less = more + 1; less < 16; less++) {
				one_wins(&s, of[more], of[less], false);
				one_wins(&s, of[more], of[less], true);
			}
		}
	}
}

/* Each way into the table: forwards, backwards, and dealt like cards. */
static void of_all_that_match_the_most_specific_wins_in_any_order(void **state)
{
	(void)state;
	for (unsigned int family = 0; family < 2; family++) {
		struct policy_subject s = caller_of(ranked[family], 443);

		name_address("db.eu.internal", ranked[family]);
		for (unsigned int step = 1; step < 16; step += 2) {
			for (unsigned int best = 0; best < 16; best++) {
				config_defaults(&config);
				/* An odd step comes to each of sixteen. */
				for (unsigned int i = 0, k = step; i < 16; i++, k += step)
					if (k % 16 >= best)
						add(ranks[family][k % 16]);
				ready();
				assert_string_equal(config.guard.policies[matched(&s)].destination,
						    ranks[family][best]);
			}
		}
	}
}

static void a_port_that_is_another_is_no_match(void **state)
{
	struct policy_subject s = caller_of("10.1.2.3", 444);

	(void)state;
	name_address("db.eu.internal", "10.1.2.3");
	for (unsigned int i = 0; i < 16; i++) {
		config_defaults(&config);
		add(ranks[0][i]);
		ready();
		assert_int_equal(matched(&s), i % 2 ? 0 : -1); /* with a port, without */
	}
}

static void names_are_those_of_the_answers_so_far(void **state)
{
	struct policy_subject s = caller_of("10.9.0.1", 443);

	(void)state;
	config_defaults(&config);
	add("10.0.0.0/8");
	ready();
	assert_false(table.names);
	add("late.internal");
	add("*.late.internal:443");
	ready();
	assert_true(table.names);
	assert_int_equal(matched(&s), 0);
	name_address("late.internal", "10.9.0.2"); /* of another address */
	assert_int_equal(matched(&s), 0);
	name_address("a.late.internal", "10.9.0.1");
	assert_int_equal(matched(&s), 2);
	s.destination.port_be = htons(80);
	assert_int_equal(matched(&s), 0);
	name_address("late.internal", "10.9.0.1");
	assert_int_equal(matched(&s), 1);
	s.dns = NULL; /* nobody listens to answers */
	assert_int_equal(matched(&s), 0);
	/* A name is folded, here as there, and has no dot at its end. */
	config_defaults(&config);
	add("LATE.Internal.");
	ready();
	s.dns = names;
	name_address("Late.internaL", "10.9.0.3");
	s.destination = peer("10.9.0.3", 1);
	assert_int_equal(matched(&s), 0);
	s.destination = peer("10.9.0.4", 1);
	assert_int_equal(matched(&s), -1);
}

static void a_name_is_one_of_either_family(void **state)
{
	struct policy_subject four = caller_of("10.9.1.1", 443),
			      six = caller_of("2001:db8::9:1", 443);

	(void)state;
	name_address("both.internal", "10.9.1.1");
	name_address("both.internal", "2001:db8::9:1");
	config_defaults(&config);
	add("0.0.0.0/0");
	add("::/0");
	add("both.internal:443");
	ready();
	assert_int_equal(matched(&four), 2);
	assert_int_equal(matched(&six), 2);
	four.destination.port_be = six.destination.port_be = 0;
	assert_int_equal(matched(&four), 0);
	assert_int_equal(matched(&six), 1);
}

static void callers_are_matched_by_globs_on_all_three(void **state)
{
	static const struct {
		const char *workload, *executable, *cgroup;
		bool match;
	} rows[] = {
	    {"*", "*", "*", true},
	    {"web-1", "nginx", "/system.slice/web.service", true},
	    {"web-?", "ng*", "/system.slice/*", true},
	    {"web-*", "*", "*.service", true},
	    {"*", "*", "/*", true}, /* a glob goes over slashes */
	    {"web-2", "nginx", "/system.slice/web.service", false},
	    {"web-1", "nginy", "/system.slice/web.service", false},
	    {"web-1", "nginx", "/system.slice/db.service", false},
	    {"WEB-1", "*", "*", false},
	    {"web", "*", "*", false},
	    {"*", "?", "*", false},
	    {"*", "*", "/system.slice", false},
	    {"*", "*", "system.slice/*", false},
	};
	struct policy_subject s = caller_of("10.0.0.1", 80),
			      nobody = {.workload = "",
					.executable = "",
					.cgroup = "",
					.destination = s.destination};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct config_policy *p;

		config_defaults(&config);
		p = add("10.0.0.1:80");
		snprintf(p->workload, sizeof(p->workload), "%s", rows[i].workload);
		snprintf(p->executable, sizeof(p->executable), "%s", rows[i].executable);
		snprintf(p->cgroup, sizeof(p->cgroup), "%s", rows[i].cgroup);
		ready();
		if (matched(&s) != (rows[i].match ? 0 : -1))
			fail_msg("row %zu", i);
		/* Who stands for any caller is none of those that are named. */
		assert_int_equal(matched(&nobody), i ? -1 : 0);
		assert_true(policy_is_exact(&table.entries[0]) == !i);
	}
}

static void of_equal_destinations_the_one_that_says_more_of_the_caller_wins(void **state)
{
	struct policy_subject s = caller_of("10.0.0.1", 80);

	(void)state;
	for (unsigned int order = 0; order < 2; order++) {
		config_defaults(&config);
		for (unsigned int k = 0; k < 4; k++) {
			unsigned int says = order ? 3 - k : k;
			struct config_policy *p = add("10.0.0.0/24:80");

			if (says > 0)
				snprintf(p->executable, sizeof(p->executable), "nginx");
			if (says > 1)
				snprintf(p->cgroup, sizeof(p->cgroup), "/*");
			if (says > 2)
				snprintf(p->workload, sizeof(p->workload), "web-?");
		}
		ready();
		assert_int_equal(matched(&s), order ? 0 : 3);
		s.workload = "db";
		assert_int_equal(matched(&s), order ? 1 : 2);
		s.cgroup = "";
		assert_int_equal(matched(&s), order ? 2 : 1);
		s.executable = "curl";
		assert_int_equal(matched(&s), order ? 3 : 0);
		s = caller_of("10.0.0.1", 80);
	}
	/* Of those that say as much, whatever it is, the first. */
	config_defaults(&config);
	snprintf(add("*")->cgroup, CONFIG_NAME_LEN, "/*");
	snprintf(add("*")->workload, CONFIG_NAME_LEN, "web-1");
	snprintf(add("*")->executable, CONFIG_NAME_LEN, "nginx");
	ready();
	assert_int_equal(matched(&s), 0);
}

/* "app=shop tier=front" */
static void label(struct config_policy *p, const char *pairs)
{
	char text[128], *save = NULL;

	snprintf(text, sizeof(text), "%s", pairs);
	for (char *k = strtok_r(text, " ", &save); k; k = strtok_r(NULL, " ", &save)) {
		char *glob = strchr(k, '=');

		assert_non_null(glob);
		*glob++ = '\0';
		assert_int_equal(config_labels_add(p->labels, k, glob), 0);
	}
}

static struct labels *labels_of_shop(void)
{
	struct labels *l = labels_new();

	assert_non_null(l);
	assert_int_equal(labels_add(l, "app", "shop"), 0);
	assert_int_equal(labels_add(l, "tier", "front-end"), 0);
	assert_int_equal(labels_add(l, "empty", ""), 0);
	return l;
}

static void all_labels_of_a_policy_have_to_match(void **state)
{
	static const struct {
		const char *labels;
		bool match;
	} rows[] = {
	    {"", true},
	    {"app=shop", true},
	    {"app=shop tier=front-end", true},
	    {"tier=front* app=sh?p", true},
	    {"app=*", true},
	    {"empty=", true},
	    {"empty=*", true},
	    {"app=sho", false},
	    {"app=Shop", false},
	    {"app=", false},
	    {"App=shop", false},
	    {"shop=*", false}, /* it is a value */
	    {"app=shop tier=back*", false},
	    {"app=shop other=*", false},
	    {"ap=*", false},
	};
	struct labels *shop = labels_of_shop(), *none = labels_new();
	struct policy_subject s = caller_of("10.0.0.1", 80);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		config_defaults(&config);
		label(add("10.0.0.1:80"), rows[i].labels);
		ready();
		assert_true(table.labels == !!i);
		s.labels = shop;
		if (matched(&s) != (rows[i].match ? 0 : -1))
			fail_msg("row %zu", i);
		/* Who has none, and of whom none are known. */
		s.labels = none;
		assert_int_equal(matched(&s), i ? -1 : 0);
		s.labels = NULL;
		assert_int_equal(matched(&s), i ? -1 : 0);
		assert_true(policy_is_exact(&table.entries[0]) == !i);
	}
	labels_free(&shop);
	labels_free(&none);
}

/* Each row before those below it, wherever it stands in the file. */
static void labels_say_as_much_as_another_matcher_and_more_labels_more(void **state)
{
	static const struct {
		const char *destination, *workload, *executable, *labels, *text;
	} rows[] = {
	    {"10.0.0.1:80", "*", "*", "", "by address and port"},
	    {"10.0.0.0/24:80", "web-?", "nginx", "", "by prefix and port, workload, executable"},
	    {"10.0.0.0/24:80", "*", "*", "app=* tier=*",
	     "by prefix and port, label app, label tier"},
	    {"10.0.0.0/24:80", "*", "*", "app=shop", "by prefix and port, label app"},
	    {"10.0.0.0/24:80", "*", "*", "", "by prefix and port"},
	    {"10.0.0.0/24", "*", "*", "app=* empty=* tier=*",
	     "by prefix, label app, label empty, label tier"},
	    {"10.0.0.0/24", "web-1", "*", "", "by prefix, workload"},
	    {"*", "web-1", "nginx", "app=*", "by any destination, workload, executable, label app"},
	};
	const size_t n = sizeof(rows) / sizeof(rows[0]);
	struct labels *shop = labels_of_shop();
	struct policy_subject s = caller_of("10.0.0.1", 80);

	(void)state;
	s.labels = shop;
	for (size_t more = 0; more < n; more++) {
		for (size_t less = more + 1; less < n; less++) {
			for (unsigned int order = 0; order < 2; order++) {
				const size_t first = order ? more : less,
					     pair[2] = {first, more + less - first};
				char want[128];

				config_defaults(&config);
				for (unsigned int i = 0; i < 2; i++) {
					struct config_policy *p = add(rows[pair[i]].destination);

					snprintf(p->workload, CONFIG_NAME_LEN, "%s",
						 rows[pair[i]].workload);
					snprintf(p->executable, CONFIG_NAME_LEN, "%s",
						 rows[pair[i]].executable);
					label(p, rows[pair[i]].labels);
				}
				ready();
				snprintf(want, sizeof(want), "%s; before p%u", rows[more].text,
					 order);
				assert_string_equal(explained(&s), want);
			}
		}
	}
	labels_free(&shop);
}

static void tcp_and_udp_never_meet(void **state)
{
	struct policy_subject s = caller_of("10.1.2.3", 443);
	struct kilter_peer p;

	(void)state;
	name_address("db.eu.internal", "10.1.2.3");
	for (unsigned int i = 0; i < 16; i++) {
		char udp[CONFIG_NAME_LEN];

		snprintf(udp, sizeof(udp), "udp://%s", ranks[0][i]);
		config_defaults(&config);
		add(ranks[0][i]);
		ready();
		s.destination.transport = KILTER_TRANSPORT_TCP;
		assert_int_equal(matched(&s), 0);
		s.destination.transport = KILTER_TRANSPORT_UDP;
		assert_int_equal(matched(&s), -1);
		config_defaults(&config);
		add(udp);
		ready();
		assert_int_equal(matched(&s), 0);
		s.destination.transport = KILTER_TRANSPORT_TCP;
		assert_int_equal(matched(&s), -1);
		/* Side by side each has its own. */
		add(ranks[0][i]);
		ready();
		assert_int_equal(matched(&s), 1);
		s.destination.transport = KILTER_TRANSPORT_UDP;
		assert_int_equal(matched(&s), 0);
	}
	config_defaults(&config);
	add("udp://10.1.2.3:443");
	add("udp://[::ffff:10.1.2.3]:443");
	ready();
	for (unsigned int i = 0; i < 2; i++) {
		assert_true(policy_is_exact(&table.entries[i]));
		policy_peer(&table.entries[i], &p);
		assert_memory_equal(&p, &s.destination, sizeof(p));
	}
}

static void names_and_globs_are_never_exact(void **state)
{
	(void)state;
	config_defaults(&config);
	add("db.internal:5432");
	add("*.internal:5432");
	add("10.0.0.1:5432");
	snprintf(add("10.0.0.1:5432")->executable, CONFIG_NAME_LEN, "x");
	snprintf(add("10.0.0.1:5432")->cgroup, CONFIG_NAME_LEN, "x");
	ready();
	for (unsigned int i = 0; i < table.count; i++)
		assert_int_equal(policy_is_exact(&table.entries[i]), i == 2);
}

/* Only an address is naming it: who writes answers must not decide what is protected. */
static void a_name_does_not_lift_protection(void **state)
{
	const char *reason;
	struct policy_subject s = caller_of("127.0.0.1", 8080);

	(void)state;
	name_address("here.internal", "127.0.0.1");
	name_address("resolver.internal", "10.0.0.53");
	config_defaults(&config);
	add("*.internal");
	add("here.internal:8080");
	ready();
	assert_int_equal(matched(&s), 1);
	assert_int_equal(policy_mode(&table, &table.entries[1], &s.destination, &reason),
			 KILTER_GUARD_OBSERVE);
	assert_non_null(strstr(reason, "loopback"));
	s.destination = peer("10.0.0.53", 53);
	assert_int_equal(policy_mode(&table, &table.entries[0], &s.destination, &reason),
			 KILTER_GUARD_OBSERVE);
	assert_non_null(strstr(reason, "DNS"));
	s.destination.transport = KILTER_TRANSPORT_UDP; /* most of it */
	assert_non_null(policy_protected(&table, NULL, &s.destination));
	s.destination.port_be = htons(54);
	assert_null(policy_protected(&table, &table.entries[0], &s.destination));
}

static void a_listener_on_localhost_is_protected(void **state)
{
	struct kilter_peer p = peer("127.0.0.1", 9470), other = peer("127.0.0.1", 9471);

	(void)state;
	config_defaults(&config);
	config.guard.protect_loopback = false;
	snprintf(config.listen, sizeof(config.listen), "localhost:9470");
	ready();
	assert_non_null(policy_protected(&table, NULL, &p));
	assert_null(policy_protected(&table, NULL, &other));
	config.listen[0] = '\0'; /* no TCP at all */
	ready();
	assert_null(policy_protected(&table, NULL, &p));
}

static void it_is_explained_why_a_policy_was_taken(void **state)
{
	static const struct {
		const char *destination, *workload, *executable, *cgroup, *text;
	} rows[] = {
	    {"10.1.2.3:443", "*", "*", "*", "by address and port"},
	    {"10.1.2.3", "*", "*", "*", "by address"},
	    {"db.eu.internal:443", "*", "*", "*", "by db.eu.internal and port"},
	    {"DB.eu.internal.", "*", "*", "*", "by db.eu.internal"},
	    {"*.internal:443", "*", "*", "*", "by *.internal and port"},
	    {"*.internal", "*", "*", "*", "by *.internal"},
	    {"10.1.0.0/16:443", "*", "*", "*", "by prefix and port"},
	    {"0.0.0.0/0", "*", "*", "*", "by prefix"},
	    {":443", "*", "*", "*", "by port"},
	    {"*", "*", "*", "*", "by any destination"},
	    {"*", "web-1", "*", "*", "by any destination, workload"},
	    {"*", "*", "nginx", "*", "by any destination, executable"},
	    {"*", "*", "*", "/*", "by any destination, cgroup"},
	    {"10.1.2.3:443", "web-*", "ngin?", "/system.slice/*",
	     "by address and port, workload, executable, cgroup"},
	};
	struct policy_subject s = caller_of("10.1.2.3", 443);

	(void)state;
	name_address("db.eu.internal", "10.1.2.3");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct config_policy *p;

		config_defaults(&config);
		p = add(rows[i].destination);
		snprintf(p->workload, sizeof(p->workload), "%s", rows[i].workload);
		snprintf(p->executable, sizeof(p->executable), "%s", rows[i].executable);
		snprintf(p->cgroup, sizeof(p->cgroup), "%s", rows[i].cgroup);
		ready();
		assert_string_equal(explained(&s), rows[i].text);
	}
}

static void it_is_explained_which_others_matched(void **state)
{
	struct policy_subject s = caller_of("10.1.2.3", 443);
	char cut[12];

	(void)state;
	name_address("db.eu.internal", "10.1.2.3");
	config_defaults(&config);
	add("*");
	add("10.1.2.3:80");    /* not of this port */
	add("db.eu.internal"); /* p2 */
	add("10.0.0.0/8");     /* p3 */
	add("udp://10.1.2.3");
	snprintf(add("10.1.2.3")->workload, CONFIG_NAME_LEN, "db");
	add("*.internal"); /* p6 */
	ready();
	assert_string_equal(explained(&s), "by db.eu.internal; before p0, p3, p6");
	s.dns = NULL;
	assert_string_equal(explained(&s), "by prefix; before p0");
	s.workload = "db";
	assert_string_equal(explained(&s), "by address, workload; before p0, p3");
	s.destination.port_be = htons(80);
	assert_string_equal(explained(&s), "by address and port; before p0, p3, p5");
	s.destination = peer("2001:db8::1", 80);
	assert_string_equal(explained(&s), "by any destination");
	s.destination.transport = KILTER_TRANSPORT_UDP;
	assert_string_equal(explained(&s), "no policy matches");
	/* What has no room is left out. */
	s = caller_of("10.1.2.3", 443);
	policy_explain(&table, &s, policy_match(&table, &s), cut, sizeof(cut));
	assert_string_equal(cut, "by db.eu.in");
	policy_explain(&table, &s, NULL, cut, 1);
	assert_string_equal(cut, "");
	config_defaults(&config);
	for (unsigned int i = 0; i < CONFIG_POLICIES_MAX; i++)
		add("10.1.2.3:443");
	ready();
	assert_int_equal(strlen(explained(&s)), 159);
	assert_memory_equal(explained(&s), "by address and port; before p1, p2, p3,", 39);
}

static void a_stand_by_is_known_as_the_kernel_has_it(void **state)
{
	static const struct kilter_peer none;
	const struct kilter_peer v4 = peer("10.0.0.9", 8443), v6 = peer("2001:db8::9", 443);

	(void)state;
	config_defaults(&config);
	add("*");
	ready();
	assert_memory_equal(&table.standby, &none, sizeof(none));
	assert_memory_equal(&table.entries[0].standby, &none, sizeof(none));
	snprintf(add("10.0.0.1:443")->standby, CONFIG_NAME_LEN, "10.0.0.9:8443");
	snprintf(add("[2001:db8::1]:443")->standby, CONFIG_NAME_LEN, "[2001:db8::9]:443");
	snprintf(add("10.0.0.2")->standby, CONFIG_NAME_LEN, "[::ffff:10.0.0.9]:8443");
	snprintf(config.guard.defaults.standby, CONFIG_NAME_LEN, "10.0.0.9:8443");
	ready();
	assert_memory_equal(&table.entries[0].standby, &none, sizeof(none));
	assert_memory_equal(&table.entries[1].standby, &v4, sizeof(v4));
	assert_memory_equal(&table.entries[2].standby, &v6, sizeof(v6));
	assert_memory_equal(&table.entries[3].standby, &v4, sizeof(v4));
	assert_memory_equal(&table.standby, &v4, sizeof(v4)); /* of what no policy is for */
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
	    cmocka_unit_test(of_two_that_match_the_more_specific_wins_in_either_order),
	    cmocka_unit_test(of_all_that_match_the_most_specific_wins_in_any_order),
	    cmocka_unit_test(a_port_that_is_another_is_no_match),
	    cmocka_unit_test(names_are_those_of_the_answers_so_far),
	    cmocka_unit_test(a_name_is_one_of_either_family),
	    cmocka_unit_test(callers_are_matched_by_globs_on_all_three),
	    cmocka_unit_test(of_equal_destinations_the_one_that_says_more_of_the_caller_wins),
	    cmocka_unit_test(all_labels_of_a_policy_have_to_match),
	    cmocka_unit_test(labels_say_as_much_as_another_matcher_and_more_labels_more),
	    cmocka_unit_test(tcp_and_udp_never_meet),
	    cmocka_unit_test(names_and_globs_are_never_exact),
	    cmocka_unit_test(a_name_does_not_lift_protection),
	    cmocka_unit_test(a_listener_on_localhost_is_protected),
	    cmocka_unit_test(it_is_explained_why_a_policy_was_taken),
	    cmocka_unit_test(it_is_explained_which_others_matched),
	    cmocka_unit_test(a_stand_by_is_known_as_the_kernel_has_it),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
