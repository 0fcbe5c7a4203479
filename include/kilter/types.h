/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/* The fixed-width kernel types, from vmlinux.h in BPF and from <linux/types.h> elsewhere. */
#ifndef KILTER_TYPES_H
#define KILTER_TYPES_H

#ifndef __bpf__
#include <linux/types.h>
#endif

#endif
