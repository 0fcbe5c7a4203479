/* SPDX-License-Identifier: Apache-2.0 */
/* What kilterd is told when it starts: its flags, and with them the configuration. */
#ifndef KILTER_KILTERD_FLAGS_H
#define KILTER_KILTERD_FLAGS_H

#include <stdbool.h>

#include "core/config.h"

/* Exit statuses. */
#define EXIT_RUNTIME 1
#define EXIT_USAGE   2
#define EXIT_KERNEL  3

struct flags {
	const char *file;
	const char *values[16]; /* parallel to flag_fields */
	bool check, unpin;
};

/* Returns an exit status, or -1 to go on. The texts are argv's. */
int flags_parse(int argc, char **argv, struct flags *f);
/* File, then environment, then flags: the later wins. 0, or a negative errno after reporting. */
int flags_read_config(struct config *c, const struct flags *f, config_fault_fn fault, void *ctx);

#endif
