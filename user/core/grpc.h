/* SPDX-License-Identifier: Apache-2.0 */
/* The codes of gRPC by name: https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
#ifndef KILTER_CORE_GRPC_H
#define KILTER_CORE_GRPC_H

/* As gRPC and OpenTelemetry write it, "DEADLINE_EXCEEDED"; NULL from KILTER_GRPC_CODES on. */
const char *grpc_code_str(unsigned int code);
/* As the configuration does, "deadline_exceeded"; NULL from KILTER_GRPC_CODES on. */
const char *grpc_code_word(unsigned int code);
/* The code of such a word; -1: of none. */
int grpc_code_from_word(const char *word);

#endif
