/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

void copy(char *to, const char *from)
{
	strcpy(to, from);
}
