/* SPDX-License-Identifier: Apache-2.0 */
/* Capabilities of this process, capabilities(7). */
#ifndef KILTER_CORE_RIGHTS_H
#define KILTER_CORE_RIGHTS_H

#include <sys/capability.h>

#include <stdbool.h>

/* Are all of them in effect? False also where that cannot be told. */
bool rights_has(const cap_value_t *caps, int n);
/* Gives up every capability but these, for good: no program it runs gets any back. n 0: all.
 * Negative errno. */
int rights_keep(const cap_value_t *caps, int n);

#endif
