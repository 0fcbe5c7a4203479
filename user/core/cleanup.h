/* SPDX-License-Identifier: Apache-2.0 */
/* Ownership by scope: an owning local carries _cleanup_*_, and leaves through take_*. */
#ifndef KILTER_CORE_CLEANUP_H
#define KILTER_CORE_CLEANUP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}
static inline void cleanup_close(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
static inline void cleanup_fclose(FILE **f)
{
	if (*f)
		fclose(*f);
}
static inline void cleanup_closedir(DIR **d)
{
	if (*d)
		closedir(*d);
}
static inline int take_fd(int *fd)
{
	int ret = *fd;

	*fd = -1;
	return ret;
}
static inline void *take_ptr_(void **p)
{
	void *ret = *p;

	*p = NULL;
	return ret;
}

#define _cleanup_free_	   __attribute__((cleanup(cleanup_free)))
#define _cleanup_close_	   __attribute__((cleanup(cleanup_close)))
#define _cleanup_fclose_   __attribute__((cleanup(cleanup_fclose)))
#define _cleanup_closedir_ __attribute__((cleanup(cleanup_closedir)))
#define take_ptr(p)	   ((__typeof__(p))take_ptr_((void **)&(p)))

#endif
