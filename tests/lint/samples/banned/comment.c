/* SPDX-License-Identifier: Apache-2.0 */
/* strcpy(a, b) in a comment
 * and sprintf(c) in its second line */
const char *text = "system(\"x\")";
int my_atoi(int x);
int use(int x)
{
	return my_atoi(x); /* not atoi() */
}
