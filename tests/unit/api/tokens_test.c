// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/tokens.h"

#include <cmocka.h>

#define A32 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define B32 "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
#define C32 "a-._~+/Z0123456789abcdefghijk==="

static char why[TOKENS_WHY_LEN];

static int parse(const char *text, struct tokens *ret)
{
	size_t len = strlen(text);
	char *copy = malloc(len ? len : 1); /* exactly so long: ASan watches its end */
	int err;

	assert_non_null(copy);
	memcpy(copy, text, len);
	*why = '\0';
	err = tokens_parse(copy, len, ret, why);
	free(copy);
	return err;
}

static void each_line_is_a_role_a_token_and_perhaps_a_name(void **state)
{
	static const char text[] = "# made by hand\n"
				   "\n"
				   "viewer " A32 " prometheus\n"
				   "\toperator\t" B32 "  # no name\n"
				   "admin " C32 " deploy.1 # a name";
	const struct token *found;
	struct tokens t;

	(void)state;
	assert_int_equal(parse(text, &t), 0);
	assert_int_equal(t.count, 3);
	found = tokens_find(&t, A32, 32);
	assert_non_null(found);
	assert_int_equal(found->role, ROLE_VIEWER);
	assert_string_equal(found->name, "prometheus");
	found = tokens_find(&t, B32, 32);
	assert_non_null(found);
	assert_int_equal(found->role, ROLE_OPERATOR);
	assert_string_equal(found->name, "line-4");
	found = tokens_find(&t, C32, 32);
	assert_non_null(found);
	assert_int_equal(found->role, ROLE_ADMIN);
	assert_string_equal(found->name, "deploy.1");
	assert_int_equal(parse("", &t), 0);
	assert_int_equal(t.count, 0);
	assert_int_equal(parse("# nobody\n\n", &t), 0);
	assert_int_equal(t.count, 0);
}

static void only_the_whole_token_is_found(void **state)
{
	char longest[TOKEN_MAX + 2], text[2 * TOKEN_MAX], one[33] = A32;
	struct tokens t;

	(void)state;
	memset(longest, 'x', sizeof(longest));
	snprintf(text, sizeof(text), "viewer " A32 "\nadmin %.*s\n", (int)TOKEN_MAX, longest);
	assert_int_equal(parse(text, &t), 0);
	assert_ptr_equal(tokens_find(&t, longest, TOKEN_MAX), &t.rows[1]);
	assert_null(tokens_find(&t, longest, TOKEN_MAX + 1));
	assert_null(tokens_find(&t, longest, TOKEN_MAX - 1));
	assert_null(tokens_find(&t, A32, 31));
	assert_null(tokens_find(&t, A32 "A", 33));
	assert_null(tokens_find(&t, "", 0));
	for (size_t i = 0; i < 32; i++) { /* each character counts, in each bit */
		for (int bit = 0; bit < 8; bit++) {
			one[i] = (char)(one[i] ^ (1 << bit));
			assert_null(tokens_find(&t, one, 32));
			one[i] = 'A';
		}
	}
	assert_ptr_equal(tokens_find(&t, one, 32), &t.rows[0]);
}

static void a_bad_line_is_named_and_nothing_of_it_told(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
	    {"viewer " A32 "\nroot " B32 "\n", "2: the role must be viewer, operator or admin"},
	    {"\n\nViewer " A32, "3: the role must be viewer, operator or admin"},
	    {"viewer", "1: a line is ROLE TOKEN [NAME]"},
	    {A32, "1: a line is ROLE TOKEN [NAME]"},
	    {"viewer " A32 " a b", "1: a line is ROLE TOKEN [NAME]"},
	    {"viewer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	     "1: the token must have 32 to 128 characters"},
	    {"viewer " A32 A32 A32 A32 "A", "1: the token must have 32 to 128 characters"},
	    {"viewer " A32 ":",
	     "1: the token may have letters, digits and -._~+/ alone, and = at its end"},
	    {"viewer " A32 "=a",
	     "1: the token may have letters, digits and -._~+/ alone, and = at its end"},
	    {"viewer " A32 "\r\n",
	     "1: the token may have letters, digits and -._~+/ alone, and = at its end"},
	    {"viewer " A32 "\xc3\xa9",
	     "1: the token may have letters, digits and -._~+/ alone, and = at its end"},
	    {"viewer " A32 " a/b", "1: the name must be 1 to 63 of A-Za-z0-9._-"},
	    {"viewer " A32 " " A32 A32, "1: the name must be 1 to 63 of A-Za-z0-9._-"},
	    {"viewer " A32 "\nviewer " B32 "\nadmin " A32, "3: this token is there twice"},
	};
	struct tokens t;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(parse(cases[i].text, &t), -EINVAL);
		assert_string_equal(why, cases[i].why);
		assert_int_equal(t.count, 0);
	}
	assert_int_equal(tokens_parse("viewer " A32 "\0", 40, &t, why), -EINVAL);
	assert_string_equal(why, "1: a NUL byte");
}

static void there_is_a_limit(void **state)
{
	static char text[(TOKENS_MAX + 1) * 48];
	struct tokens t;
	size_t n = 0;

	(void)state;
	for (unsigned int i = 0; i < TOKENS_MAX; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "viewer %032u\n", i);
	assert_int_equal(parse(text, &t), 0);
	assert_int_equal(t.count, TOKENS_MAX);
	assert_non_null(tokens_find(&t, "00000000000000000000000000000063", 32));
	snprintf(text + n, sizeof(text) - n, "viewer " A32 "\n");
	assert_int_equal(parse(text, &t), -EINVAL);
	assert_string_equal(why, "65: more than 64 tokens");
}

static void a_file_that_others_could_read_is_refused(void **state)
{
	char path[] = "/tmp/kilter-tokens-XXXXXX", link[64], text[TOKENS_WHY_LEN];
	static const char line[] = "viewer " A32 "\n";
	static char large[TOKENS_FILE_MAX + 1];
	int fd = mkstemp(path);
	struct tokens t;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, line, sizeof(line) - 1), sizeof(line) - 1);
	if (geteuid()) { /* no file of ours is root's */
		snprintf(text, sizeof(text), " belongs to uid %u: it must be root's", geteuid());
		assert_int_equal(tokens_read(path, &t, why), -EPERM);
		assert_string_equal(why, text);
	} else {
		assert_int_equal(tokens_read(path, &t, why), 0);
		assert_int_equal(t.count, 1);
		assert_int_equal(fchmod(fd, 0640), 0);
		assert_int_equal(tokens_read(path, &t, why), -EPERM);
		assert_string_equal(why, " has mode 0640: group and others must have no right to "
					 "it, as with 0600");
		assert_int_equal(fchmod(fd, 0601), 0);
		assert_int_equal(tokens_read(path, &t, why), -EPERM);
		assert_int_equal(fchmod(fd, 0400), 0);
		assert_int_equal(fchown(fd, 65534, 0), 0);
		assert_int_equal(tokens_read(path, &t, why), -EPERM);
		assert_string_equal(why, " belongs to uid 65534: it must be root's");
		assert_int_equal(fchown(fd, 0, 0), 0);
		snprintf(link, sizeof(link), "%s.link", path);
		assert_int_equal(symlink(path, link), 0);
		assert_int_equal(tokens_read(link, &t, why), 0); /* its end counts */
		unlink(link);
		memset(large, '\n', sizeof(large));
		assert_int_equal(pwrite(fd, large, sizeof(large), 0), sizeof(large));
		assert_int_equal(tokens_read(path, &t, why), -EFBIG);
		assert_int_equal(ftruncate(fd, TOKENS_FILE_MAX), 0);
		assert_int_equal(tokens_read(path, &t, why), 0);
	}
	close(fd);
	unlink(path);
	assert_int_equal(tokens_read(path, &t, why), -ENOENT);
	assert_string_equal(why, " cannot be read: No such file or directory");
	assert_int_equal(tokens_read("/dev/null", &t, why), -EINVAL);
	assert_string_equal(why, " is not a regular file");
	assert_int_equal(mkfifo(path, 0600), 0); /* and does not wait for a writer */
	assert_int_equal(tokens_read(path, &t, why), -EINVAL);
	unlink(path);
}

/* In a child: the tokens are mapped once, and no mprotect() makes that writable. */
static int cannot_write(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512], mode[5];
	unsigned long from, to;
	int seen = 0;

	while (f && fgets(line, sizeof(line), f)) {
		if (!strstr(line, "kilter-tokens"))
			continue;
		if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) != 3 || strcmp(mode, "r--s") ||
		    !mprotect((void *)from, to - from, PROT_READ | PROT_WRITE) || errno != EACCES)
			return 0;
		seen++;
	}
	if (f)
		fclose(f);
	return seen == 1;
}

/* Has the child find A32 `count` times, while its parent sets tables that all have it. */
static void a_child_sees_what_is_set_later(void **state)
{
	struct token_store *s = NULL;
	struct tokens t, other;
	struct token row;
	int status = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(token_store_new(&s), 0);
	assert_false(token_store_find(s, A32, 32, &row));
	assert_int_equal(parse("viewer " A32 " one\n", &t), 0);
	assert_int_equal(parse("viewer " B32 "\nadmin " A32 " two\n", &other), 0);
	token_store_set(s, &t);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		if (!cannot_write())
			_exit(3);
		while (!token_store_find(s, B32, 32, &row)) /* the reload comes through */
			if (!token_store_find(s, A32, 32, &row) ||
			    (strcmp(row.name, "one") && strcmp(row.name, "two")) || row.value[0])
				_exit(1);
		for (int i = 0; i < 100000; i++)
			if (!token_store_find(s, A32, 32, &row) ||
			    row.role != (strcmp(row.name, "two") ? ROLE_VIEWER : ROLE_ADMIN))
				_exit(2);
		_exit(0);
	}
	while (!waitpid(pid, &status, WNOHANG)) {
		token_store_set(s, &other);
		usleep(100);
		token_store_set(s, &t);
		usleep(100);
	}
	assert_int_equal(status, 0);
	token_store_set(s, &other);
	assert_true(token_store_find(s, A32, 32, &row));
	assert_string_equal(row.name, "two");
	assert_int_equal(parse("", &t), 0);
	token_store_set(s, &t);
	assert_false(token_store_find(s, A32, 32, &row));
	token_store_free(&s);
	assert_null(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_line_is_a_role_a_token_and_perhaps_a_name),
	    cmocka_unit_test(only_the_whole_token_is_found),
	    cmocka_unit_test(a_bad_line_is_named_and_nothing_of_it_told),
	    cmocka_unit_test(there_is_a_limit),
	    cmocka_unit_test(a_file_that_others_could_read_is_refused),
	    cmocka_unit_test(a_child_sees_what_is_set_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
