#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
cat << 'E'
# Configuration

| key | default |
|---|---|
| `tick` | `1s` |
| `listen` | `""` |
E
