// SPDX-License-Identifier: Apache-2.0
/* The configuration as an attacker would write it: parsed, or refused with a fault told. */
#include <errno.h>
#include <stdlib.h>

#include "core/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void count(void *ctx, const char *text)
{
	(void)text;
	++*(unsigned int *)ctx;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config c;
	unsigned int faults = 0;
	int err;

	config_defaults(&c);
	err = config_parse(&c, (const char *)data, size, "fuzz.yaml", count, &faults);
	if (!err != !faults)
		abort(); /* refused without a reason, or accepted in spite of one */
	return 0;
}
