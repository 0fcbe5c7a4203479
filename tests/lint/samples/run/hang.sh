#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 1
sleep 20
