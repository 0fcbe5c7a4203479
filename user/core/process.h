/* SPDX-License-Identifier: Apache-2.0 */
/* process_* of this process, as every Prometheus client has them. */
#ifndef KILTER_CORE_PROCESS_H
#define KILTER_CORE_PROCESS_H

#include <stdint.h>

/* Once, for as long as the process lives. start_real_ns: Unix time. */
void process_register_stats(uint64_t start_real_ns);

#endif
