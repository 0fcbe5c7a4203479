// SPDX-License-Identifier: Apache-2.0
#include "core/rights.h"

#include <sys/prctl.h>

#include <errno.h>

bool rights_has(const cap_value_t *caps, int n)
{
	cap_t now = cap_get_proc();
	bool all = now;

	for (int i = 0; now && i < n; i++) {
		cap_flag_value_t v;

		all = all && !cap_get_flag(now, caps[i], CAP_EFFECTIVE, &v) && v == CAP_SET;
	}
	if (now)
		cap_free(now);
	return all;
}

int rights_keep(const cap_value_t *caps, int n)
{
	cap_t kept = cap_init();
	int err = 0;

	if (!kept)
		return -ENOMEM;
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (n && (cap_set_flag(kept, CAP_PERMITTED, n, caps, CAP_SET) ||
		  cap_set_flag(kept, CAP_EFFECTIVE, n, caps, CAP_SET)))
		err = -errno;
	if (!err && cap_set_proc(kept))
		err = -errno;
	cap_free(kept);
	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err = -errno;
	return err;
}
