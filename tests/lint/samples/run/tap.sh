#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
echo 1..4; echo ok 1 - a; echo ok 2 - b; echo not ok 3 - c; echo ok 4 '# SKIP d'; exit 1
