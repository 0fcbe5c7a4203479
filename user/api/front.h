/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front: HTTP for the world, in a child process of its own user, without capabilities,
 * under a seccomp filter. It reads the snapshot and sends commands; nothing it does can
 * delay the agent.
 */
#ifndef KILTER_API_FRONT_H
#define KILTER_API_FRONT_H

#include <sys/types.h>

#include <stdint.h>

#include "core/config.h"

struct front;

/*
 * Called in the agent before BPF is loaded and while it is still root: opens the TCP and the
 * Unix socket (so that a busy port is an error at start: -EADDRINUSE, reported through
 * log_err with the address), forks the supervisor, which drops to config.front_user, and
 * which forks, watches and restarts (with back-off 100 ms .. 10 s) the worker.
 * snapshot_fd: see snapshot_writer_fd().
 */
int front_start(struct front **ret, const struct config *c, int snapshot_fd);
/* Non-blocking SOCK_SEQPACKET end to read command_request from and write command_reply to. */
int front_command_fd(const struct front *f);
/*
 * Reads api.token_file again, for the worker that serves and all later ones. ret_text: how
 * many tokens there are, or what is wrong with the file and in which line: then a negative errno,
 * and nothing has changed. -ENODATA: none is configured.
 */
#define FRONT_TEXT_LEN 448 /* of ret_text: a path and what is wrong with it */
int front_reload_tokens(struct front *f, char ret_text[static FRONT_TEXT_LEN]);
pid_t front_supervisor_pid(const struct front *f);
/* Non-blocking pipe: the supervisor writes a uint32_t pid of each new worker, 0 when one died. */
int front_notice_fd(const struct front *f);
/* SIGTERM, then SIGKILL after grace_ns; removes the Unix socket. */
void front_stop(struct front **f, uint64_t grace_ns);

#endif
