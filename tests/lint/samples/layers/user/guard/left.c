/* SPDX-License-Identifier: Apache-2.0 */
#include "core/log.h"
#include "guard/guard.h"
