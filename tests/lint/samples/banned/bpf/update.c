// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "lib/maps.h"

/* Before Linux 6.4 this is never -17. */
static int breaks(void *map, const void *key, const void *value)
{
	return bpf_map_update_elem(map, key, value, BPF_NOEXIST) == -17;
}
