// SPDX-License-Identifier: Apache-2.0
/* What addresses are called: answers good, odd, cut and hostile, each built here byte by byte. */
#include <arpa/inet.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/selfstat.h"
#include "model/dns.h"

#include <cmocka.h>

#define MESSAGE_MAX 65536
#define HEADER	    12 /* where the question begins */

enum {
	QUESTIONS = 4, /* where the counts stand */
	ANSWERS = 6,
	AUTHORITIES = 8,
	ADDITIONAL = 10,
};

enum {
	TYPE_A = 1,
	TYPE_CNAME = 5,
	TYPE_PTR = 12,
	TYPE_TXT = 16,
	TYPE_AAAA = 28,
	TYPE_OPT = 41,
	TYPE_HTTPS = 65,
	CLASS_IN = 1,
	CLASS_CHAOS = 3,
};

struct message {
	size_t n;
	unsigned char bytes[MESSAGE_MAX];
};

static struct dns *dns;
static struct message m;

static int setup(void **state)
{
	(void)state;
	return dns_new(&dns);
}

static int teardown(void **state)
{
	(void)state;
	dns_free(&dns);
	assert_null(dns);
	dns_free(&dns); /* of nothing: nothing */
	return 0;
}

/* Building messages. */

static void put(const void *bytes, size_t n)
{
	assert_true(m.n + n <= sizeof(m.bytes));
	memcpy(m.bytes + m.n, bytes, n);
	m.n += n;
}

static void put8(unsigned int v)
{
	put(&(unsigned char){(unsigned char)v}, 1);
}

static void put16(unsigned int v)
{
	put8(v >> 8);
	put8(v & 0xff);
}

static void set_count(unsigned int which, unsigned int v)
{
	m.bytes[which] = (unsigned char)(v >> 8);
	m.bytes[which + 1] = (unsigned char)v;
}

static void one_more(unsigned int which)
{
	set_count(which, ((unsigned int)m.bytes[which] << 8 | m.bytes[which + 1]) + 1);
}

static void put_label(const char *bytes, size_t n)
{
	put8((unsigned int)n);
	put(bytes, n);
}

/* "a.b": two labels and the root; "": the root. */
static void put_name(const char *name)
{
	while (*name) {
		size_t n = strcspn(name, ".");

		put_label(name, n);
		name += n + (name[n] == '.');
	}
	put8(0);
}

static void put_pointer(size_t to)
{
	put16(0xc000 | (unsigned int)to);
}

static void begin(void)
{
	m.n = 0;
	put16(0x4b4c); /* id */
	put16(0x8180); /* an answer; recursion was asked for and is there */
	for (int i = 0; i < 4; i++)
		put16(0); /* counts */
}

/* Behind the name that was put. */
static void question_rest(unsigned int type)
{
	put16(type);
	put16(CLASS_IN);
	one_more(QUESTIONS);
}

/* An answer to a question for the name. */
static void asked(const char *name)
{
	begin();
	put_name(name);
	question_rest(TYPE_A);
}

/* Behind the owner's name: type, class, time to live, length. */
static void record_head(unsigned int type, unsigned int class, size_t length)
{
	put16(type);
	put16(class);
	put16(0);
	put16(300);
	put16((unsigned int)length);
}

static void record_rest(unsigned int type, unsigned int class, const void *data, size_t n)
{
	record_head(type, class, n);
	put(data, n);
	one_more(ANSWERS);
}

static void address_rest(const char *address)
{
	unsigned char bytes[16];

	if (inet_pton(AF_INET, address, bytes) == 1)
		record_rest(TYPE_A, CLASS_IN, bytes, 4);
	else if (inet_pton(AF_INET6, address, bytes) == 1)
		record_rest(TYPE_AAAA, CLASS_IN, bytes, 16);
	else
		fail_msg("%s", address);
}

static void address_of(const char *owner, const char *address)
{
	put_name(owner);
	address_rest(address);
}

/* Of the name that was asked for, by a pointer to the question. */
static void address(const char *text)
{
	put_pointer(HEADER);
	address_rest(text);
}

static void cname(const char *owner, const char *target)
{
	size_t at;

	put_name(owner);
	record_head(TYPE_CNAME, CLASS_IN, 0);
	at = m.n;
	put_name(target);
	m.bytes[at - 1] = (unsigned char)(m.n - at);
	one_more(ANSWERS);
}

/* What comes of them. */

/* In memory of its own length, so that ASan sees whoever reads on. */
static int learn_n(size_t n)
{
	unsigned char *copy = malloc(n ? n : 1);
	int ret;

	assert_non_null(copy);
	memcpy(copy, m.bytes, n);
	ret = dns_answer(dns, copy, n);
	free(copy);
	return ret;
}

static int learn(void)
{
	return learn_n(m.n);
}

/* The address has this name from now on. */
static void name_address(const char *name, const char *text)
{
	asked(name);
	address(text);
	assert_int_equal(learn(), 1);
}

static struct kilter_peer peer(const char *text)
{
	struct kilter_peer p = {.port_be = htons(443)};

	if (inet_pton(AF_INET, text, p.addr) == 1)
		p.family = KILTER_FAMILY_V4;
	else if (inet_pton(AF_INET6, text, p.addr) == 1)
		p.family = KILTER_FAMILY_V6;
	assert_int_not_equal(p.family, 0);
	return p;
}

static bool is_called(const char *text, const char *glob)
{
	struct kilter_peer p = peer(text);

	return dns_is_called(dns, &p, glob);
}

static const char *name_of(const char *text)
{
	struct kilter_peer p = peer(text);

	return dns_name_of(dns, &p);
}

struct wanted {
	const char *name;
	double value;
	unsigned int found;
};

static void on_value(void *emit_ctx, const char *labels, double value)
{
	assert_string_equal(labels, "");
	((struct wanted *)emit_ctx)->value = value;
	((struct wanted *)emit_ctx)->found++;
}

static void on_stat(void *ctx, const struct selfstat *s)
{
	struct wanted *w = ctx;

	assert_int_equal(s->type, SELFSTAT_COUNTER);
	if (!strcmp(s->name, w->name))
		s->collect(s->ctx, on_value, w);
}

static unsigned int figure(const char *name)
{
	struct wanted w = {.name = name};

	selfstat_walk(on_stat, &w);
	assert_int_equal(w.found, 1);
	return (unsigned int)w.value;
}

/* Refused, counted, and nothing was learnt of it. */
static void expect_refused(size_t n)
{
	unsigned int malformed = figure("kilter_dns_malformed_total");
	uint64_t generation = dns_generation(dns);

	if (learn_n(n) != -EINVAL)
		fail_msg("%zu of %zu bytes are taken for an answer", n, m.n);
	assert_int_equal(figure("kilter_dns_malformed_total"), malformed + 1);
	assert_true(dns_generation(dns) == generation);
}

/* It can be read, but has no address for us. */
static void expect_nothing(void)
{
	uint64_t generation = dns_generation(dns);
	unsigned int answers = figure("kilter_dns_answers_total");

	assert_int_equal(learn(), 0);
	assert_true(dns_generation(dns) == generation);
	assert_int_equal(figure("kilter_dns_answers_total"), answers);
	assert_int_equal(figure("kilter_dns_malformed_total"), 0);
}

/* Tests. */

static void before_any_answer_nothing_has_a_name(void **state)
{
	(void)state;
	assert_null(name_of("10.0.0.1"));
	assert_false(is_called("10.0.0.1", "*"));
	assert_true(dns_generation(dns) == 0);
}

static void addresses_are_called_what_was_asked_for(void **state)
{
	(void)state;
	asked("db.internal");
	address("10.0.0.1");
	address("10.0.0.2");
	address("2001:db8::1");
	address_of("db.internal", "10.0.0.3"); /* without a pointer */
	assert_int_equal(learn(), 4);
	assert_string_equal(name_of("10.0.0.1"), "db.internal");
	assert_string_equal(name_of("10.0.0.2"), "db.internal");
	assert_string_equal(name_of("10.0.0.3"), "db.internal");
	assert_string_equal(name_of("2001:db8::1"), "db.internal");
	assert_null(name_of("10.0.0.4"));
	assert_null(name_of("2001:db8::2"));
	/* The first four bytes are those of 10.0.0.1, but it is none. */
	assert_null(name_of("a00:1::"));
	assert_int_equal(figure("kilter_dns_answers_total"), 1);
	assert_int_equal(figure("kilter_dns_malformed_total"), 0);
}

static void behind_cnames_both_ends_are_names(void **state)
{
	(void)state;
	asked("www.example.com");
	cname("www.example.com", "cdn.example.net");
	cname("cdn.example.net", "edge-7.example.org");
	address_of("edge-7.example.org", "192.0.2.7");
	address_of("edge-7.example.org", "2001:db8::7");
	assert_int_equal(learn(), 2);
	assert_true(is_called("192.0.2.7", "www.example.com"));
	assert_true(is_called("192.0.2.7", "edge-7.example.org"));
	assert_true(is_called("2001:db8::7", "www.example.com"));
	assert_true(is_called("2001:db8::7", "edge-7.example.org"));
	assert_false(is_called("192.0.2.7", "cdn.example.net"));
	/* A chain that leads to no address. */
	asked("gone.example.com");
	cname("gone.example.com", "nowhere.example.net");
	expect_nothing();
}

static void capitals_are_folded(void **state)
{
	uint64_t generation;

	(void)state;
	asked("DB.Internal");
	address_of("Node-1.INTERNAL", "10.0.0.1");
	assert_int_equal(learn(), 1);
	assert_true(is_called("10.0.0.1", "db.internal"));
	assert_true(is_called("10.0.0.1", "node-1.internal"));
	assert_false(is_called("10.0.0.1", "DB.Internal")); /* globs are lower case */
	generation = dns_generation(dns);
	asked("dB.iNTERNAL"); /* as resolvers do against forgery */
	address("10.0.0.1");
	assert_int_equal(learn(), 1);
	assert_true(dns_generation(dns) == generation);
}

static void bytes_that_no_host_has_in_its_name_give_none(void **state)
{
	static const char bad[] = {' ', '\0', '\n', '\x7f', '\xff', '\xc3', '.', '\\', '/',    '*',
				   '?', '[',  ']',  '!',    '"',    '\'',   '$', '@',  '\x1b', ';',
				   '(', ')',  ',',  ':',    '%',    '<',    '&', '=',  '+',    '~'};

	(void)state;
	for (size_t i = 0; i < sizeof(bad); i++) {
		const char label[] = {'a', bad[i], 'b'}, last[] = {'a', bad[i]};

		begin();
		put_label(label, sizeof(label));
		put_name("internal");
		question_rest(TYPE_A);
		address("10.0.0.1");
		expect_nothing();
		begin();
		put_name("");
		m.n--;
		put_label(last, sizeof(last)); /* at the very end of the name */
		put_name("");
		question_rest(TYPE_A);
		address("10.0.0.1");
		expect_nothing();
	}
	assert_null(name_of("10.0.0.1"));
	/* Such an owner is no name either; what was asked for is. */
	asked("good.internal");
	put_label("a b", 3);
	put_name("internal");
	address_rest("10.0.0.1");
	assert_int_equal(learn(), 1);
	assert_string_equal(name_of("10.0.0.1"), "good.internal");
	assert_false(is_called("10.0.0.1", "a*"));
	/* Those of services and of sloppy hosts are names. */
	name_address("_grpc._tcp.a-b_c.0-9.x", "10.0.0.2");
	assert_string_equal(name_of("10.0.0.2"), "_grpc._tcp.a-b_c.0-9.x");
}

static void the_root_is_no_name(void **state)
{
	(void)state;
	asked("");
	address("10.0.0.1");
	expect_nothing();
	asked("good.internal");
	address_of("", "10.0.0.1");
	assert_int_equal(learn(), 1);
	assert_string_equal(name_of("10.0.0.1"), "good.internal");
	assert_false(is_called("10.0.0.1", ""));
}

/* n bytes in labels of 49; n must not leave a dot at the end. */
static void long_name(char *buf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = i % 50 == 49 ? '.' : 'x';
	buf[n] = '\0';
}

static void a_name_that_is_too_long_is_left_out(void **state)
{
	char name[256], folded[DNS_NAME_LEN];

	(void)state;
	long_name(name, DNS_NAME_LEN - 1);
	long_name(folded, DNS_NAME_LEN - 1);
	name_address(name, "10.0.0.1");
	assert_string_equal(name_of("10.0.0.1"), folded);
	assert_true(is_called("10.0.0.1", folded));
	long_name(name, DNS_NAME_LEN);
	asked(name);
	address("10.0.0.2");
	expect_nothing();
	long_name(name, 253); /* the longest that DNS has */
	asked(name);
	address("10.0.0.2");
	expect_nothing();
	assert_null(name_of("10.0.0.2"));
	asked("short.internal");
	address_of(name, "10.0.0.2");
	assert_int_equal(learn(), 1);
	assert_string_equal(name_of("10.0.0.2"), "short.internal");
	long_name(name, 255); /* longer than DNS has */
	asked(name);
	address("10.0.0.3");
	expect_refused(m.n);
}

static void what_is_no_answer_to_one_question_is_refused(void **state)
{
	(void)state;
	asked("db.internal");
	address("10.0.0.1");
	m.bytes[2] &= 0x7f; /* a query */
	expect_refused(m.n);
	begin(); /* no question */
	address_of("db.internal", "10.0.0.1");
	expect_refused(m.n);
	begin();
	expect_refused(m.n);
	asked("db.internal"); /* two of them */
	put_name("web.internal");
	question_rest(TYPE_A);
	address("10.0.0.1");
	expect_refused(m.n);
	asked("db.internal");
	address("10.0.0.1");
	expect_refused(0);
	memset(m.bytes, 0xff, sizeof(m.bytes));
	expect_refused(1);
	expect_refused(HEADER);
	expect_refused(MESSAGE_MAX); /* longer than messages are */
	memset(m.bytes, 0, sizeof(m.bytes));
	expect_refused(HEADER);
	expect_refused(MESSAGE_MAX);
	assert_null(name_of("10.0.0.1"));
}

/* All that answers have: a chain, both kinds of address, an authority, EDNS. */
static void a_full_answer(void)
{
	asked("www.example.com");
	cname("www.example.com", "cdn.example.net");
	address_of("cdn.example.net", "192.0.2.7");
	address_of("cdn.example.net", "2001:db8::7");
	put_name("example.net");
	record_head(TYPE_TXT, CLASS_IN, 3);
	put_label("ns", 2);
	one_more(AUTHORITIES);
	put_name("");
	record_head(TYPE_OPT, 1232, 0);
	one_more(ADDITIONAL);
}

static void every_prefix_of_an_answer_is_refused(void **state)
{
	(void)state;
	a_full_answer();
	for (size_t n = 0; n < m.n; n++)
		expect_refused(n);
	assert_null(name_of("192.0.2.7"));
	assert_int_equal(learn(), 2);
	put8(0); /* and so is what has more than it says */
	expect_refused(m.n);
}

/* Whatever byte a hostile hand turns: refused or read, never a name that is none. */
static void any_byte_may_be_another(void **state)
{
	static const char *const of[] = {"192.0.2.7", "2001:db8::7"};

	(void)state;
	a_full_answer();
	for (size_t at = 0; at < m.n; at++) {
		unsigned char was = m.bytes[at];

		for (unsigned int v = 0; v < 256; v++) {
			int ret;

			m.bytes[at] = (unsigned char)v;
			ret = learn();
			assert_true(ret == -EINVAL || (ret >= 0 && ret <= 2));
			for (size_t i = 0; i < 2; i++) {
				const char *name = name_of(of[i]);

				for (const char *c = name ? name : ""; *c; c++)
					assert_non_null(
					    strchr("abcdefghijklmnopqrstuvwxyz0123456789-._", *c));
			}
		}
		m.bytes[at] = was;
	}
}

static void pointers_that_lead_nowhere_are_refused(void **state)
{
	size_t at;

	(void)state;
	begin(); /* a question that is its own name */
	put_pointer(HEADER);
	question_rest(TYPE_A);
	address("10.0.0.1");
	expect_refused(m.n);
	begin(); /* two labels that are each other's rest */
	put_label("a", 1);
	put_pointer(HEADER + 4);
	put_label("b", 1);
	put_pointer(HEADER);
	question_rest(TYPE_A);
	expect_refused(m.n);
	begin(); /* beyond the end */
	put_pointer(0x3fff);
	question_rest(TYPE_A);
	expect_refused(m.n);
	asked("db.internal"); /* an owner that is its own name */
	put_pointer(m.n);
	address_rest("10.0.0.1");
	expect_refused(m.n);
	asked("db.internal"); /* the same with a label before it: it would grow for ever */
	at = m.n;
	put_label("x", 1);
	put_pointer(at);
	address_rest("10.0.0.1");
	expect_refused(m.n);
	asked("db.internal"); /* labels of neither kind */
	put8(0x80);
	put8(1);
	address_rest("10.0.0.1");
	expect_refused(m.n);
	assert_null(name_of("10.0.0.1"));
	/* Data that points in circles is not ours to follow. */
	asked("db.internal");
	put_pointer(HEADER);
	record_head(TYPE_CNAME, CLASS_IN, 2);
	put_pointer(m.n);
	one_more(ANSWERS);
	address("10.0.0.1");
	assert_int_equal(learn(), 1);
}

static void a_broken_record_ends_the_answer(void **state)
{
	(void)state;
	asked("db.internal");
	address("10.0.0.1");
	put_pointer(m.n);
	address_rest("10.0.0.2");
	address("10.0.0.3");
	assert_int_equal(learn(), -EINVAL);
	assert_int_equal(figure("kilter_dns_malformed_total"), 1);
	assert_null(name_of("10.0.0.2"));
	assert_null(name_of("10.0.0.3"));
}

static void counts_that_lie_are_found_out(void **state)
{
	static const unsigned int counts[] = {QUESTIONS, ANSWERS, AUTHORITIES, ADDITIONAL};
	static const unsigned int more[] = {3, 100, 65535};

	(void)state;
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		for (size_t k = 0; k < sizeof(more) / sizeof(more[0]); k++) {
			asked("db.internal");
			address("10.0.0.1");
			address("10.0.0.2");
			set_count(counts[i], more[k]);
			expect_refused(m.n);
		}
	}
	for (unsigned int fewer = 0; fewer < 2; fewer++) {
		asked("db.internal");
		address("10.0.0.1");
		address("10.0.0.2");
		set_count(ANSWERS, fewer);
		expect_refused(m.n);
	}
	assert_null(name_of("10.0.0.1"));
}

static void lengths_that_lie_are_found_out(void **state)
{
	static const unsigned char zeros[17];
	static const size_t of_a[] = {0, 3, 5, 16}, of_aaaa[] = {0, 4, 15, 17};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		asked("db.internal");
		put_pointer(HEADER);
		record_rest(TYPE_A, CLASS_IN, zeros, of_a[i]);
		put_pointer(HEADER);
		record_rest(TYPE_AAAA, CLASS_IN, zeros, of_aaaa[i]);
		expect_nothing();
	}
	asked("db.internal"); /* to beyond the end */
	put_pointer(HEADER);
	record_head(TYPE_A, CLASS_IN, 4);
	put16(0);
	one_more(ANSWERS);
	expect_refused(m.n);
	asked("db.internal");
	put_pointer(HEADER);
	record_head(TYPE_A, CLASS_IN, 65535);
	put(zeros, 4);
	one_more(ANSWERS);
	expect_refused(m.n);
}

static void other_classes_types_and_sections_name_nothing(void **state)
{
	static const unsigned char v4[4] = {10, 0, 0, 1};

	(void)state;
	asked("db.internal");
	put_pointer(HEADER);
	record_rest(TYPE_A, CLASS_CHAOS, v4, 4);
	put_pointer(HEADER);
	record_rest(TYPE_A, 255, v4, 4);
	put_pointer(HEADER);
	record_rest(TYPE_PTR, CLASS_IN, v4, 4);
	put_pointer(HEADER);
	record_rest(TYPE_TXT, CLASS_IN, v4, 4);
	put_pointer(HEADER);
	record_rest(TYPE_HTTPS, CLASS_IN, v4, 4);
	put_pointer(HEADER);
	record_rest(65535, CLASS_IN, v4, 4);
	expect_nothing();
	/* Glue is for resolvers. */
	asked("db.internal");
	put_pointer(HEADER);
	record_head(TYPE_A, CLASS_IN, 4);
	put(v4, 4);
	one_more(AUTHORITIES);
	put_pointer(HEADER);
	record_head(TYPE_A, CLASS_IN, 4);
	put(v4, 4);
	one_more(ADDITIONAL);
	expect_nothing();
	assert_null(name_of("10.0.0.1"));
}

static void an_address_keeps_its_latest_names(void **state)
{
	char name[32];

	(void)state;
	for (int i = 0; i < DNS_NAMES_MAX; i++) {
		snprintf(name, sizeof(name), "n%d.internal", i);
		name_address(name, "10.0.0.1");
		assert_string_equal(name_of("10.0.0.1"), name);
	}
	for (int i = 0; i < DNS_NAMES_MAX; i++) {
		snprintf(name, sizeof(name), "n%d.internal", i);
		assert_true(is_called("10.0.0.1", name));
	}
	name_address("more.internal", "10.0.0.1");
	assert_string_equal(name_of("10.0.0.1"), "more.internal");
	assert_false(is_called("10.0.0.1", "n0.internal"));
	for (int i = 1; i < DNS_NAMES_MAX; i++) {
		snprintf(name, sizeof(name), "n%d.internal", i);
		assert_true(is_called("10.0.0.1", name));
	}
}

static void a_name_that_is_heard_again_is_the_latest(void **state)
{
	uint64_t generation;

	(void)state;
	name_address("a.internal", "10.0.0.1");
	name_address("b.internal", "10.0.0.1");
	name_address("c.internal", "10.0.0.1");
	generation = dns_generation(dns);
	name_address("a.internal", "10.0.0.1");
	assert_string_equal(name_of("10.0.0.1"), "a.internal");
	assert_true(dns_generation(dns) == generation);
	name_address("d.internal", "10.0.0.1");
	name_address("e.internal", "10.0.0.1"); /* there is no room: b goes */
	assert_true(is_called("10.0.0.1", "a.internal"));
	assert_false(is_called("10.0.0.1", "b.internal"));
	assert_true(is_called("10.0.0.1", "c.internal"));
	name_address("c.internal", "10.0.0.1");
	name_address("f.internal", "10.0.0.1"); /* a goes */
	assert_false(is_called("10.0.0.1", "a.internal"));
	assert_true(is_called("10.0.0.1", "c.internal"));
	assert_true(is_called("10.0.0.1", "d.internal"));
	assert_true(is_called("10.0.0.1", "e.internal"));
	assert_string_equal(name_of("10.0.0.1"), "f.internal");
}

/* Of one answer both ends of the chain are among the latest, however many there were. */
static void an_answer_never_pushes_out_its_own_name(void **state)
{
	(void)state;
	name_address("asked.internal", "10.0.0.1");
	name_address("b.internal", "10.0.0.1");
	name_address("c.internal", "10.0.0.1");
	name_address("d.internal", "10.0.0.1");
	asked("asked.internal");
	cname("asked.internal", "owner.internal");
	address_of("owner.internal", "10.0.0.1");
	assert_int_equal(learn(), 1);
	assert_true(is_called("10.0.0.1", "asked.internal"));
	assert_true(is_called("10.0.0.1", "owner.internal"));
	assert_false(is_called("10.0.0.1", "b.internal"));
}

static const char *nth_address(unsigned int i)
{
	static char text[INET_ADDRSTRLEN];

	snprintf(text, sizeof(text), "10.%u.%u.%u", i >> 16 & 0xff, i >> 8 & 0xff, i & 0xff);
	return text;
}

/* How many of the n addresses from the first on have a name. */
static unsigned int named(unsigned int first, unsigned int n)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < n; i++)
		count += name_of(nth_address(first + i)) != NULL;
	return count;
}

static void when_addresses_are_too_many_one_goes_for_each_that_comes(void **state)
{
	const unsigned int more = 0x20000;

	(void)state;
	for (unsigned int i = 0; i < DNS_ADDRESSES_MAX; i++)
		name_address("a.internal", nth_address(i));
	assert_int_equal(figure("kilter_dns_evicted_total"), 0);
	assert_int_equal(named(0, DNS_ADDRESSES_MAX), DNS_ADDRESSES_MAX);
	name_address("a.internal", "192.0.2.1");
	assert_int_equal(figure("kilter_dns_evicted_total"), 1);
	assert_non_null(name_of("192.0.2.1"));
	assert_int_equal(named(0, DNS_ADDRESSES_MAX), DNS_ADDRESSES_MAX - 1);
	/* Another name of one that is there needs no room. */
	name_address("b.internal", "192.0.2.1");
	assert_int_equal(figure("kilter_dns_evicted_total"), 1);
	/* In turn: after as many again, many in one answer, they are left and nothing else. */
	for (unsigned int i = 0; i < DNS_ADDRESSES_MAX; i++) {
		if (i % DNS_ANSWER_MAX == 0)
			asked("c.internal");
		address(nth_address(more + i));
		if (i % DNS_ANSWER_MAX == DNS_ANSWER_MAX - 1)
			assert_int_equal(learn(), DNS_ANSWER_MAX);
	}
	assert_int_equal(figure("kilter_dns_evicted_total"), 1 + DNS_ADDRESSES_MAX);
	assert_null(name_of("192.0.2.1"));
	assert_int_equal(named(0, DNS_ADDRESSES_MAX), 0);
	assert_int_equal(named(more, DNS_ADDRESSES_MAX), DNS_ADDRESSES_MAX);
}

static void of_an_answer_so_many_addresses_are_taken(void **state)
{
	(void)state;
	asked("many.internal");
	for (unsigned int i = 0; i < 1000; i++)
		address(nth_address(i));
	assert_int_equal(learn(), DNS_ANSWER_MAX);
	assert_int_equal(named(0, DNS_ANSWER_MAX), DNS_ANSWER_MAX);
	assert_int_equal(named(DNS_ANSWER_MAX, 1000), 0);
}

static void the_generation_moves_with_what_is_new_alone(void **state)
{
	uint64_t generation = dns_generation(dns);

	(void)state;
	name_address("a.internal", "10.0.0.1");
	assert_true(dns_generation(dns) > generation);
	generation = dns_generation(dns);
	name_address("a.internal", "10.0.0.1");
	assert_true(dns_generation(dns) == generation);
	name_address("b.internal", "10.0.0.1"); /* another name */
	assert_true(dns_generation(dns) > generation);
	generation = dns_generation(dns);
	name_address("a.internal", "10.0.0.1");
	name_address("b.internal", "10.0.0.1");
	assert_true(dns_generation(dns) == generation);
	name_address("a.internal", "10.0.0.2"); /* another address */
	assert_true(dns_generation(dns) > generation);
	generation = dns_generation(dns);
	asked("www.internal");
	cname("www.internal", "a.internal");
	address_of("a.internal", "10.0.0.1");
	assert_int_equal(learn(), 1);
	assert_true(dns_generation(dns) > generation);
	generation = dns_generation(dns);
	assert_int_equal(learn(), 1);
	assert_true(dns_generation(dns) == generation);
	asked("nothing.internal");
	expect_nothing();
}

static void globs_are_matched_against_each_name(void **state)
{
	static const char *const yes[] = {"www.example.com", "*",	   "*.example.com",
					  "www.*",	     "*.com",	   "w?w.example.com",
					  "*.example.net",   "cdn-??.*.*", "*example*"};
	static const char *const no[] = {
	    "example.com", "www.example.co",  "*.example.org",	  "",	    "?", "www?example.comm",
	    "*.internal",  "WWW.example.com", "www.example.com.", "*.www.*"};

	(void)state;
	asked("www.example.com");
	cname("www.example.com", "cdn-12.example.net");
	address_of("cdn-12.example.net", "192.0.2.7");
	assert_int_equal(learn(), 1);
	for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
		if (!is_called("192.0.2.7", yes[i]))
			fail_msg("'%s' does not match", yes[i]);
	for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
		if (is_called("192.0.2.7", no[i]))
			fail_msg("'%s' matches", no[i]);
	assert_false(is_called("192.0.2.8", "*"));
}

static void ports_and_transports_have_no_names_of_their_own(void **state)
{
	struct kilter_peer p = peer("10.0.0.1");

	(void)state;
	name_address("db.internal", "10.0.0.1");
	assert_true(dns_is_called(dns, &p, "db.internal"));
	p.transport = KILTER_TRANSPORT_UDP;
	assert_true(dns_is_called(dns, &p, "db.internal"));
	p.port_be = 0;
	assert_string_equal(dns_name_of(dns, &p), "db.internal");
	p.port_be = 0xffff;
	assert_true(dns_is_called(dns, &p, "db.*"));
	/* The server's side has no address. */
	memset(&p, 0, sizeof(p));
	p.family = KILTER_FAMILY_LOCAL;
	name_address("any.internal", "0.0.0.0");
	name_address("any.internal", "::");
	assert_false(dns_is_called(dns, &p, "*"));
	assert_null(dns_name_of(dns, &p));
}

/* A connect to ::ffff:a.b.c.d is one to a.b.c.d, and so the kernel side interns it. */
static void a_mapped_address_is_the_ipv4_address(void **state)
{
	struct kilter_peer v6 = {.family = KILTER_FAMILY_V6};

	(void)state;
	name_address("mapped.internal", "::ffff:10.0.0.1");
	assert_true(is_called("10.0.0.1", "mapped.internal"));
	assert_int_equal(inet_pton(AF_INET6, "::ffff:10.0.0.1", v6.addr), 1);
	assert_null(dns_name_of(dns, &v6)); /* no such peer is ever interned */
	/* What only looks like it. */
	name_address("six.internal", "::10.0.0.2");
	name_address("six.internal", "::fffe:10.0.0.2");
	name_address("six.internal", "64:ff9b::10.0.0.2");
	assert_null(name_of("10.0.0.2"));
	assert_non_null(name_of("::10.0.0.2"));
	assert_non_null(name_of("64:ff9b::10.0.0.2"));
}

/* The file that names are kept in. */

static char dir[] = "/tmp/kilter-dns.XXXXXX", file[64];

static void write_file(const char *text)
{
	FILE *f = fopen(file, "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* Another life: what the file has, and no more. */
static void start_again(void)
{
	dns_free(&dns);
	assert_int_equal(dns_new(&dns), 0);
	assert_int_equal(dns_keep(dns, file), 0);
}

static void names_are_kept_over_restarts(void **state)
{
	(void)state;
	assert_int_equal(dns_keep(dns, file), 0); /* there is none yet */
	for (unsigned int i = 0; i < DNS_NAMES_MAX + 1; i++) {
		char name[32];

		snprintf(name, sizeof(name), "n%u.internal", i);
		name_address(name, "10.0.0.1");
	}
	name_address("n1.internal", "10.0.0.1"); /* the latest from here on */
	name_address("six.internal", "2001:db8::1");
	for (unsigned int life = 0; life < 3; life++) {
		start_again();
		assert_string_equal(name_of("10.0.0.1"), "n1.internal");
		assert_string_equal(name_of("2001:db8::1"), "six.internal");
		assert_false(is_called("10.0.0.1", "n0.internal"));
		for (unsigned int i = 1; i < DNS_NAMES_MAX + 1; i++) {
			char name[32];

			snprintf(name, sizeof(name), "n%u.internal", i);
			assert_true(is_called("10.0.0.1", name));
		}
	}
	name_address("new.internal", "10.0.0.1"); /* in the order they had: n2 goes */
	assert_false(is_called("10.0.0.1", "n2.internal"));
	assert_true(is_called("10.0.0.1", "n1.internal"));
}

static void names_are_written_when_there_are_new_ones_and_not_too_often(void **state)
{
	(void)state;
	assert_int_equal(dns_keep(dns, file), 0);
	dns_tick(dns, 1);
	assert_int_equal(access(file, F_OK), -1); /* there is nothing to say */
	name_address("a.internal", "10.0.0.1");
	dns_tick(dns, DNS_SAVE_NS);
	assert_int_equal(access(file, F_OK), -1); /* not yet again */
	dns_tick(dns, 1 + DNS_SAVE_NS);
	assert_int_equal(access(file, F_OK), 0);
	assert_int_equal(unlink(file), 0);
	name_address("a.internal", "10.0.0.1");
	dns_tick(dns, 10 * DNS_SAVE_NS);
	assert_int_equal(access(file, F_OK), -1);
	assert_int_equal(figure("kilter_dns_save_errors_total"), 0);
}

static void what_is_no_address_and_name_is_passed_over(void **state)
{
	char longer[1024];

	(void)state;
	snprintf(longer, sizeof(longer), "10.0.0.9 %0*d\n10.0.0.2 b.internal\n", 600, 0);
	write_file("\n \nx\n10.0.0.1\n10.0.0.1 \n10.0.0.1 a b\n10.0.0.1  a\nten a.internal\n"
		   "10.0.0.256 a.internal\n10.0.0.0/8 a.internal\n10.0.0.3 C.Internal.\n"
		   "2001:db8::1 d.internal\n");
	start_again();
	assert_null(name_of("10.0.0.1"));
	assert_string_equal(name_of("10.0.0.3"), "c.internal");
	assert_string_equal(name_of("2001:db8::1"), "d.internal");
	write_file(longer);
	/* What was read is written at the end: not over this one. */
	assert_int_equal(dns_keep(dns, file), 0);
	assert_null(name_of("10.0.0.9"));
	assert_string_equal(name_of("10.0.0.2"), "b.internal");
}

static void a_place_that_cannot_be_written_is_counted(void **state)
{
	char longer[300];

	(void)state;
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(dns_keep(dns, longer), -ENAMETOOLONG);
	assert_int_equal(dns_keep(dns, "/nonexistent/dns"), 0);
	name_address("a.internal", "10.0.0.1");
	dns_tick(dns, 1);
	assert_int_equal(figure("kilter_dns_save_errors_total"), 1);
	dns_tick(dns, 1 + DNS_SAVE_NS); /* it is tried again */
	assert_int_equal(figure("kilter_dns_save_errors_total"), 2);
}

static int file_setup(void **state)
{
	unlink(file);
	return setup(state);
}

static int group_setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(file, sizeof(file), "%s/names", dir);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	unlink(file);
	return rmdir(dir);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define F(f) cmocka_unit_test_setup_teardown(f, file_setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(before_any_answer_nothing_has_a_name),
	    T(addresses_are_called_what_was_asked_for),
	    T(behind_cnames_both_ends_are_names),
	    T(capitals_are_folded),
	    T(bytes_that_no_host_has_in_its_name_give_none),
	    T(the_root_is_no_name),
	    T(a_name_that_is_too_long_is_left_out),
	    T(what_is_no_answer_to_one_question_is_refused),
	    T(every_prefix_of_an_answer_is_refused),
	    T(any_byte_may_be_another),
	    T(pointers_that_lead_nowhere_are_refused),
	    T(a_broken_record_ends_the_answer),
	    T(counts_that_lie_are_found_out),
	    T(lengths_that_lie_are_found_out),
	    T(other_classes_types_and_sections_name_nothing),
	    T(an_address_keeps_its_latest_names),
	    T(a_name_that_is_heard_again_is_the_latest),
	    T(an_answer_never_pushes_out_its_own_name),
	    T(when_addresses_are_too_many_one_goes_for_each_that_comes),
	    T(of_an_answer_so_many_addresses_are_taken),
	    T(the_generation_moves_with_what_is_new_alone),
	    T(globs_are_matched_against_each_name),
	    T(ports_and_transports_have_no_names_of_their_own),
	    T(a_mapped_address_is_the_ipv4_address),
	    F(names_are_kept_over_restarts),
	    F(names_are_written_when_there_are_new_ones_and_not_too_often),
	    F(what_is_no_address_and_name_is_passed_over),
	    F(a_place_that_cannot_be_written_is_counted),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
