// SPDX-License-Identifier: Apache-2.0
/* Messages are taken apart by the resolver library of libc: see resolver(3). */
#include "model/dns.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collect/table.h"
#include "core/cleanup.h"
#include "core/file.h"
#include "core/selfstat.h"

struct address {
	uint8_t bytes[16];
	uint8_t family;
	uint8_t pad[3];
};

struct entry {
	struct table_node node;
	struct address address;
	unsigned int count;
	char names[DNS_NAMES_MAX][DNS_NAME_LEN]; /* the latest is the last */
};

struct dns {
	struct table addresses;
	uint32_t hand; /* of the clock: whose turn it is to go */
	uint64_t generation, answers, malformed, evicted, save_errors;
	char file[256];
	uint64_t saved_generation, save_ns;
	struct selfstat stats[4];
};

static void stat_answers(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	emit(emit_ctx, "", (double)((const struct dns *)ctx)->answers);
}

static void stat_malformed(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	emit(emit_ctx, "", (double)((const struct dns *)ctx)->malformed);
}

static void stat_evicted(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	emit(emit_ctx, "", (double)((const struct dns *)ctx)->evicted);
}

static void stat_save_errors(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	emit(emit_ctx, "", (double)((const struct dns *)ctx)->save_errors);
}

int dns_new(struct dns **ret)
{
	struct dns *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	table_init(&d->addresses, sizeof(struct address), sizeof(struct entry), DNS_ADDRESSES_MAX);
	d->stats[0] = (struct selfstat){.name = "kilter_dns_answers_total",
					.help = "DNS answers that gave addresses a name.",
					.type = SELFSTAT_COUNTER,
					.collect = stat_answers};
	d->stats[1] = (struct selfstat){.name = "kilter_dns_malformed_total",
					.help = "DNS messages that could not be read.",
					.type = SELFSTAT_COUNTER,
					.collect = stat_malformed};
	d->stats[2] =
	    (struct selfstat){.name = "kilter_dns_evicted_total",
			      .help = "Addresses whose names were forgotten for want of room.",
			      .type = SELFSTAT_COUNTER,
			      .collect = stat_evicted};
	d->stats[3] = (struct selfstat){.name = "kilter_dns_save_errors_total",
					.help = "Failed writes of the file of names.",
					.type = SELFSTAT_COUNTER,
					.collect = stat_save_errors};
	for (unsigned int i = 0; i < 4; i++) {
		d->stats[i].ctx = d;
		selfstat_register(&d->stats[i]);
	}
	*ret = d;
	return 0;
}

/* A line for each name of an address, the oldest first, so that reading it again gives the same. */
static void write_names(const struct dns *d, FILE *f)
{
	char text[INET6_ADDRSTRLEN];
	const struct entry *e;
	uint32_t pos = 0;

	while ((e = table_next(&d->addresses, &pos))) {
		int family = e->address.family == KILTER_FAMILY_V4 ? AF_INET : AF_INET6;

		if (!inet_ntop(family, e->address.bytes, text, sizeof(text)))
			continue;
		for (unsigned int i = 0; i < e->count; i++)
			fprintf(f, "%s %s\n", text, e->names[i]);
	}
}

static void save(struct dns *d)
{
	_cleanup_free_ char *text = NULL;
	size_t len;
	FILE *f;
	int err;

	if (!d->file[0] || d->generation == d->saved_generation)
		return;
	f = open_memstream(&text, &len);
	if (f)
		write_names(d, f);
	err = !f || fclose(f) ? -ENOMEM : file_replace(d->file, text, len);
	if (err)
		d->save_errors++;
	else
		d->saved_generation = d->generation;
}

void dns_tick(struct dns *d, uint64_t now_ns)
{
	if (now_ns < d->save_ns)
		return;
	d->save_ns = now_ns + DNS_SAVE_NS;
	save(d);
}

void dns_free(struct dns **dp)
{
	struct dns *d = *dp;

	if (!d)
		return;
	save(d);
	for (unsigned int i = 0; i < 4; i++)
		selfstat_unregister(&d->stats[i]);
	table_done(&d->addresses);
	free(d);
	*dp = NULL;
}

/* Nothing is searched for: a message may bring many addresses, and anybody may bring messages. */
static void evict(struct dns *d)
{
	struct entry *e = table_next(&d->addresses, &d->hand);

	if (!e) {
		d->hand = 0;
		e = table_next(&d->addresses, &d->hand);
	}
	if (e) {
		table_remove(&d->addresses, e);
		d->evicted++;
	}
}

static void add_name(struct dns *d, const struct address *a, const char *name)
{
	struct entry *e = table_find(&d->addresses, a);
	unsigned int i = 0;

	if (!e && d->addresses.count >= DNS_ADDRESSES_MAX)
		evict(d);
	if (!e)
		e = table_add(&d->addresses, a);
	if (!e)
		return;
	while (i < e->count && strcmp(e->names[i], name))
		i++;
	if (i == e->count) {
		if (e->count < DNS_NAMES_MAX)
			e->count++;
		else
			i = 0; /* the oldest goes */
		d->generation++;
	}
	memmove(e->names + i, e->names + i + 1, (e->count - 1 - i) * sizeof(e->names[0]));
	snprintf(e->names[e->count - 1], DNS_NAME_LEN, "%s", name);
}

/* Lower case, no dot at the end; false: not a host's name, or too long for us. */
static bool clean_name(const char *from, char ret[static DNS_NAME_LEN])
{
	size_t n = strlen(from);

	if (n && from[n - 1] == '.')
		n--;
	if (!n || n >= DNS_NAME_LEN)
		return false;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)from[i];

		if (!isalnum(c) && c != '-' && c != '.' && c != '_')
			return false;
		ret[i] = (char)tolower(c);
	}
	ret[n] = '\0';
	return true;
}

/* The file may have been edited: what is no address and name is passed over. */
int dns_keep(struct dns *d, const char *file)
{
	char line[INET6_ADDRSTRLEN + DNS_NAME_LEN + 2], name[DNS_NAME_LEN];
	_cleanup_fclose_ FILE *f = NULL;

	if (strlen(file) >= sizeof(d->file))
		return -ENAMETOOLONG;
	snprintf(d->file, sizeof(d->file), "%s", file);
	f = fopen(file, "re");
	if (!f)
		return errno == ENOENT ? 0 : -errno;
	for (unsigned int i = 0; i < DNS_ADDRESSES_MAX * DNS_NAMES_MAX; i++) {
		struct address a = {.family = KILTER_FAMILY_V4};
		char *space;

		if (!fgets(line, sizeof(line), f))
			break;
		if (!strchr(line, '\n'))
			continue; /* cut off, with the power perhaps: another name */
		line[strcspn(line, "\n")] = '\0';
		space = strchr(line, ' ');
		if (!space || !clean_name(space + 1, name))
			continue;
		*space = '\0';
		if (inet_pton(AF_INET, line, a.bytes) != 1) {
			a.family = KILTER_FAMILY_V6;
			if (inet_pton(AF_INET6, line, a.bytes) != 1)
				continue;
		}
		add_name(d, &a, name);
	}
	d->saved_generation = d->generation;
	return 0;
}

static bool rr_address(const ns_rr *rr, struct address *ret)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	const unsigned char *data = ns_rr_rdata(*rr);
	unsigned int n = ns_rr_rdlen(*rr);

	memset(ret, 0, sizeof(*ret));
	if (ns_rr_class(*rr) != ns_c_in)
		return false;
	if (ns_rr_type(*rr) == ns_t_a && n == 4) {
		ret->family = KILTER_FAMILY_V4;
	} else if (ns_rr_type(*rr) == ns_t_aaaa && n == 16) {
		ret->family = KILTER_FAMILY_V6;
		if (!memcmp(data, mapped, sizeof(mapped))) { /* as the kernel side has it */
			ret->family = KILTER_FAMILY_V4;
			data += sizeof(mapped);
			n -= sizeof(mapped);
		}
	} else {
		return false;
	}
	memcpy(ret->bytes, data, n);
	return true;
}

int dns_answer(struct dns *d, const unsigned char *msg, size_t len)
{
	char asked[DNS_NAME_LEN], owner[DNS_NAME_LEN];
	int taken = 0;
	ns_msg m;
	ns_rr rr;

	if (len > NS_MAXMSG || ns_initparse(msg, (int)len, &m) || !ns_msg_getflag(m, ns_f_qr) ||
	    ns_msg_count(m, ns_s_qd) != 1 || ns_parserr(&m, ns_s_qd, 0, &rr)) {
		d->malformed++;
		return -EINVAL;
	}
	if (!clean_name(ns_rr_name(rr), asked))
		return 0;
	for (int i = 0; i < ns_msg_count(m, ns_s_an) && taken < DNS_ANSWER_MAX; i++) {
		struct address a;

		if (ns_parserr(&m, ns_s_an, i, &rr)) {
			d->malformed++;
			return -EINVAL;
		}
		if (!rr_address(&rr, &a))
			continue;
		if (clean_name(ns_rr_name(rr), owner) && strcmp(owner, asked))
			add_name(d, &a, owner); /* behind a CNAME */
		add_name(d, &a, asked);		/* the latest: what callers say */
		taken++;
	}
	d->answers += taken > 0;
	return taken;
}

static const struct entry *find(const struct dns *d, const struct kilter_peer *p)
{
	struct address a = {.family = p->family};

	memcpy(a.bytes, p->addr, sizeof(a.bytes));
	return table_find(&d->addresses, &a);
}

bool dns_is_called(const struct dns *d, const struct kilter_peer *p, const char *glob)
{
	const struct entry *e = find(d, p);

	for (unsigned int i = 0; e && i < e->count; i++)
		if (!fnmatch(glob, e->names[i], FNM_NOESCAPE))
			return true;
	return false;
}

const char *dns_name_of(const struct dns *d, const struct kilter_peer *p)
{
	const struct entry *e = find(d, p);

	return e ? e->names[e->count - 1] : NULL;
}

uint64_t dns_generation(const struct dns *d)
{
	return d->generation;
}
