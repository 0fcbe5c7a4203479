/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are written whole. */
#ifndef KILTER_CORE_FILE_H
#define KILTER_CORE_FILE_H

#include <stddef.h>

/*
 * Writes path.new, mode 0640, and renames it: a reader sees the old text or the new one. No fsync:
 * a tick must not wait for a disk, and what is kept so can be done without after a power cut.
 * Negative errno, and path is as it was.
 */
int file_replace(const char *path, const char *buf, size_t len);

#endif
