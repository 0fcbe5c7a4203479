/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What addresses are called: the node's own DNS answers (RFC 1035), as its sockets received them.
 * An address keeps its names beyond their time to live, for connections outlive it; when
 * there is no room, one goes, whichever comes next in turn, and is counted.
 */
#ifndef KILTER_MODEL_DNS_H
#define KILTER_MODEL_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kilter/identity.h>

#define DNS_ADDRESSES_MAX 16384
#define DNS_NAMES_MAX	  4 /* of one address: those given last */
#define DNS_NAME_LEN	  128
#define DNS_SAVE_NS	  10000000000ull
#define DNS_ANSWER_MAX	  32 /* addresses that are taken from one message */

struct dns;
int dns_new(struct dns **ret);
void dns_free(struct dns **d);
/*
 * Keeps names in `file` over restarts, or policies by name would be without theirs until the next
 * answer: reads it now (negative errno; 0 without one), writes it in dns_tick() when there is
 * something new, at most once in DNS_SAVE_NS, and in dns_free().
 */
int dns_keep(struct dns *d, const char *file);
void dns_tick(struct dns *d, uint64_t now_ns);
/* One message as it came over UDP: an attacker may have written it. Takes the addresses of an
 * answer for names of the question, over CNAMEs, at most DNS_ANSWER_MAX. Returns how many, or
 * -EINVAL: no answer that can be read (counted). */
int dns_answer(struct dns *d, const unsigned char *msg, size_t len);
/* Is the address of p, whatever the port, called by a name that the glob (fnmatch(3), lower case)
 * matches? */
bool dns_is_called(const struct dns *d, const struct kilter_peer *p, const char *glob);
/* The name that the address was given last, or NULL; borrowed until the next answer. */
const char *dns_name_of(const struct dns *d, const struct kilter_peer *p);
/* Goes up whenever an address gets a name that it did not have. */
uint64_t dns_generation(const struct dns *d);

#endif
