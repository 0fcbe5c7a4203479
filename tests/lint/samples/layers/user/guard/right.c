/* SPDX-License-Identifier: Apache-2.0 */
/* Breaks the layer rule: audit stands to the right of guard. */
#include "audit/audit.h"
