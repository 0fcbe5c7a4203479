// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/cleanup.h"

#define PAGES_MAX 200 /* of 1000 rows */

int cli_encode(const char *s, char *buf, size_t size)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t n = strlen(buf);

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			     (c >= '0' && c <= '9') || strchr("-._~", c);

		if (n + 4 > size)
			return -ENAMETOOLONG;
		if (plain) {
			buf[n++] = (char)c;
		} else {
			buf[n++] = '%';
			buf[n++] = hex[c >> 4];
			buf[n++] = hex[c & 15];
		}
		buf[n] = '\0';
	}
	return 0;
}

/* What the daemon said of an error: problem+json's detail or title. */
static int told(const struct cli_response *r, const char *path)
{
	json_t *j = json_loads(r->body, 0, NULL);
	const char *detail = cli_text(j, "detail"), *title = cli_text(j, "title");
	char safe[256];

	cli_safe(*detail ? detail : *title ? title : "no reason given", safe, sizeof(safe));
	if (r->status == 404)
		fprintf(stderr, "kilter: not found: %s: %s\n", path, safe);
	else
		fprintf(stderr, "kilter: the daemon answered %d: %s\n", r->status, safe);
	json_decref(j);
	return r->status == 404 ? CLI_NOT_FOUND : CLI_FAILED;
}

static int exchange(struct cli *c, const char *method, const char *path, json_t **ret, int *ret_err)
{
	struct cli_response r = {0};
	json_error_t error;
	int status = CLI_DONE;

	*ret_err = cli_http(c->socket, method, path, &r);
	c->http_status = *ret_err ? 0 : r.status;
	if (*ret_err == -EBADMSG || *ret_err == -EMSGSIZE) { /* someone is there, but who? */
		fprintf(stderr, "kilter: what answers at %s does not speak HTTP as kilterd does\n",
			c->socket);
		return CLI_FAILED;
	}
	if (*ret_err)
		return CLI_UNREACHABLE;
	if (r.status < 200 || r.status > 299) {
		status = told(&r, path);
	} else {
		*ret = json_loadb(r.body, r.length, 0, &error);
		if (!*ret) {
			char safe[256];

			cli_safe(error.text, safe, sizeof(safe)); /* it quotes the answer */
			fprintf(stderr,
				"kilter: the daemon's answer to %s is not JSON: line %d: %s\n",
				path, error.line, safe);
			status = CLI_FAILED;
		} else if (!json_is_object(*ret)) {
			fprintf(stderr, "kilter: the daemon's answer to %s is no JSON object\n",
				path);
			json_decref(*ret);
			*ret = NULL;
			status = CLI_FAILED;
		}
	}
	free(r.body);
	return status;
}

/* The other pages of a list: "next" is a cursor, or null on the last. */
static int more_pages(struct cli *c, const char *path, json_t *list)
{
	json_t *items = json_object_get(list, "items");
	int err, status = CLI_DONE;

	for (int page = 0; items && page < PAGES_MAX; page++) {
		const char *next = cli_text(list, "next");
		char url[1024];
		json_t *rest = NULL;

		if (!*next)
			break;
		snprintf(url, sizeof(url), "%s?limit=1000&cursor=", path);
		if (cli_encode(next, url, sizeof(url))) {
			fprintf(stderr,
				"kilter: the daemon's answer to %s names too long a next page\n",
				path);
			return CLI_FAILED;
		}
		status = exchange(c, "GET", url, &rest, &err);
		if (status == CLI_UNREACHABLE)
			fprintf(stderr, "kilter: the daemon at %s went away within %s: %s\n",
				c->socket, path, strerror(-err));
		if (status)
			break;
		if (!strcmp(next, cli_text(rest, "next"))) {
			fprintf(stderr,
				"kilter: the daemon's answer to %s comes back to its own page\n",
				path);
			json_decref(rest);
			return CLI_FAILED;
		}
		json_array_extend(items, json_object_get(rest, "items"));
		if (json_object_set(list, "next", json_object_get(rest, "next")))
			json_object_del(list, "next"); /* none is the end as well */
		json_decref(rest);
	}
	return status;
}

int cli_get(struct cli *c, const char *path, json_t **ret)
{
	static bool warned;
	int err, status = exchange(c, "GET", path, ret, &err);

	if (status == CLI_DONE)
		return more_pages(c, path, *ret);
	if (status != CLI_UNREACHABLE)
		return status;
	if (err != -EACCES && !cli_maps_get(c, path, ret)) {
		if (!warned)
			fprintf(
			    stderr,
			    "kilter: no daemon at %s (%s): read from the maps pinned below %s\n",
			    c->socket, strerror(-err), c->bpffs);
		warned = true;
		return CLI_DONE;
	}
	fprintf(stderr, "kilter: cannot reach the daemon at %s: %s%s\n", c->socket, strerror(-err),
		err == -EACCES ? "; be root or in the socket's group"
			       : "; is kilterd running, and is --socket right?");
	return CLI_UNREACHABLE;
}

int cli_post(struct cli *c, const char *path, json_t **ret)
{
	int err, status = exchange(c, "POST", path, ret, &err);

	if (status == CLI_UNREACHABLE)
		fprintf(stderr, "kilter: cannot reach the daemon at %s: %s\n", c->socket,
			strerror(-err));
	return status;
}
