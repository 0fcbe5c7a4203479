// SPDX-License-Identifier: Apache-2.0
/* DNS answers as anybody may have written them, several for one table, each behind its length
 * as over TCP (RFC 1035, 4.2.2). A reader of our own, which knows nothing of libc's, says what must
 * come of each. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/dns.h"

/* A small table is always full, even of one answer. */
#undef DNS_ADDRESSES_MAX
#undef DNS_ANSWER_MAX
#define DNS_ADDRESSES_MAX 6
#define DNS_ANSWER_MAX	  9
#include "model/dns.c" /* instead of the library's */

#define WIRE_MAX 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct wire {
	const uint8_t *msg;
	size_t len, at;
};

static void must(bool so)
{
	if (!so)
		abort();
}

static unsigned int get16(struct wire *w)
{
	must(w->len - w->at >= 2);
	w->at += 2;
	return (unsigned int)w->msg[w->at - 2] << 8 | w->msg[w->at - 1];
}

static bool is_clean(const char *name)
{
	size_t n = strlen(name);

	return n && n < DNS_NAME_LEN && name[0] != '.' && name[n - 1] != '.' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-._") == n;
}

/* Lower case and dots; "" is the root, and what has a byte that no name of ours may have. */
static void get_name(struct wire *w, char ret[static WIRE_MAX])
{
	size_t n = 0, at = w->at, labels = 0;
	bool jumped = false, good = true;

	for (;;) {
		must(at < w->len && labels++ < WIRE_MAX + w->len);
		unsigned int c = w->msg[at++];

		if (c >= 0xc0) {
			must(at < w->len);
			c = (c & 0x3f) << 8 | w->msg[at++];
			if (!jumped)
				w->at = at;
			jumped = true;
			at = c;
			continue;
		}
		must(c < 64 && w->len - at >= c && n + c + 1 < WIRE_MAX);
		if (!c)
			break;
		if (n)
			ret[n++] = '.';
		for (; c; c--) {
			ret[n] = (char)w->msg[at++];
			good = good && ret[n] && ret[n] != '.';
			if (ret[n] >= 'A' && ret[n] <= 'Z')
				ret[n] = (char)(ret[n] + ('a' - 'A'));
			n++;
		}
	}
	if (!jumped)
		w->at = at;
	ret[good ? n : 0] = '\0';
}

/* The next record; true: it has an address, the peer as the kernel side has it. */
static bool get_record(struct wire *w, char owner[static WIRE_MAX], struct kilter_peer *ret)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	unsigned int type, class, n;
	const uint8_t *data;

	get_name(w, owner);
	type = get16(w);
	class = get16(w);
	get16(w);
	get16(w); /* time to live */
	n = get16(w);
	must(w->len - w->at >= n);
	data = w->msg + w->at;
	w->at += n;
	memset(ret, 0, sizeof(*ret));
	if (class != 1 || !((type == 1 && n == 4) || (type == 28 && n == 16)))
		return false;
	if (n == 16 && !memcmp(data, mapped, 12)) {
		data += 12;
		n = 4;
	}
	ret->family = n == 4 ? KILTER_FAMILY_V4 : KILTER_FAMILY_V6;
	memcpy(ret->addr, data, n);
	return true;
}

/* What was just learnt is there, and as much as we found ourselves. */
static void check_learnt(const struct dns *d, const uint8_t *msg, size_t len, int taken)
{
	struct wire w = {.msg = msg, .len = len, .at = 4};
	char asked[WIRE_MAX], owner[WIRE_MAX], last_owner[WIRE_MAX] = "";
	struct kilter_peer p, last = {.family = 0};
	unsigned int answers;
	int found = 0;

	must(msg[2] & 0x80 && get16(&w) == 1);
	answers = get16(&w);
	w.at = 12;
	get_name(&w, asked);
	w.at += 4;
	if (!is_clean(asked)) {
		must(!taken);
		return;
	}
	for (; answers && found < DNS_ANSWER_MAX; answers--) {
		if (!get_record(&w, owner, &p))
			continue;
		last = p;
		memcpy(last_owner, owner, sizeof(owner));
		found++;
	}
	must(found == taken);
	if (!found)
		return;
	must(dns_is_called(d, &last, asked) && dns_is_called(d, &last, "*"));
	must(!strcmp(dns_name_of(d, &last), asked));
	must(!is_clean(last_owner) || dns_is_called(d, &last, last_owner));
}

/* As many as there may be, each with names of its own that are names. */
static void check_table(const struct dns *d)
{
	const struct entry *e;
	unsigned int n = 0;
	uint32_t pos = 0;

	while ((e = table_next(&d->addresses, &pos))) {
		must(n++ < DNS_ADDRESSES_MAX);
		must(e->address.family == KILTER_FAMILY_V4 ||
		     e->address.family == KILTER_FAMILY_V6);
		must(table_find(&d->addresses, &e->address) == e);
		must(e->count > 0 && e->count <= DNS_NAMES_MAX);
		for (unsigned int i = 0; i < e->count; i++) {
			must(is_clean(e->names[i]));
			for (unsigned int k = 0; k < i; k++)
				must(strcmp(e->names[i], e->names[k]) != 0);
		}
	}
	must(d->addresses.count == n && d->generation >= n);
	must(!d->evicted || n == DNS_ADDRESSES_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dns *d;

	if (dns_new(&d))
		return 0;
	while (size >= 2) {
		size_t len = (size_t)data[0] << 8 | data[1];
		uint64_t malformed = d->malformed, generation = d->generation;
		unsigned char *msg; /* of its own length, so that ASan sees whoever reads on */
		int taken;

		data += 2;
		size -= 2;
		len = len < size ? len : size;
		msg = malloc(len ? len : 1);
		if (!msg)
			break;
		memcpy(msg, data, len);
		taken = dns_answer(d, msg, len);
		must(taken >= 0 || taken == -EINVAL);
		must(d->malformed == malformed + (taken < 0) && d->generation >= generation);
		must(taken || d->generation == generation);
		if (taken >= 0)
			check_learnt(d, msg, len, taken);
		check_table(d);
		free(msg);
		data += len;
		size -= len;
	}
	dns_free(&d);
	return 0;
}
