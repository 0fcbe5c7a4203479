/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

int number(const char *s)
{
	return atoi(s);
}
