/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bearer tokens of the API over TCP. The agent reads them from api.token_file, as root; the
 * front, which has no rights, sees them in memory that it cannot write. A line each:
 *
 *	ROLE TOKEN [NAME]	# viewer, operator or admin
 *
 * Tokens are never logged, and messages about the file quote nothing of it.
 */
#ifndef KILTER_API_TOKENS_H
#define KILTER_API_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/command.h"

#define TOKENS_MAX	64u    /* lines with one */
#define TOKENS_FILE_MAX 32768u /* bytes of the file */
#define TOKEN_MIN	32u    /* characters: of base64, 192 bits */
#define TOKEN_MAX	128u
#define TOKEN_NAME_LEN	64u /* with its NUL: struct command_request.user */
#define TOKENS_WHY_LEN	160u

struct token {
	char value[TOKEN_MAX]; /* zeros up to its end; not ended by one */
	char name[TOKEN_NAME_LEN];
	enum command_role role;
};
struct tokens {
	uint32_t count;
	struct token rows[TOKENS_MAX];
};

/* Takes the text of such a file apart. 0, or -EINVAL with "LINE: what is wrong" in reterr_why. */
int tokens_parse(const char *buf, size_t len, struct tokens *ret,
		 char reterr_why[static TOKENS_WHY_LEN]);
/* The same of a file, which must be a regular one, root's, and closed to group and others. 0, or a
 * negative errno with what is wrong, beginning after the file's name: "3: ..." or " ...". */
int tokens_read(const char *path, struct tokens *ret, char reterr_why[static TOKENS_WHY_LEN]);
/* The row of this token or NULL, after as long a time for any token of its length. */
const struct token *tokens_find(const struct tokens *t, const char *value, size_t len);

/* What the agent writes and its children read. */
struct token_store;
int token_store_new(struct token_store **ret);
void token_store_free(struct token_store **s);
/* In the process that made it, not in its children. */
void token_store_set(struct token_store *s, const struct tokens *t);
/* Copies the row of this token, without the token. False: there is none. */
bool token_store_find(const struct token_store *s, const char *value, size_t len,
		      struct token *ret);

#endif
