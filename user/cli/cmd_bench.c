// SPDX-License-Identifier: Apache-2.0
/*
 * What kilter costs here and now: for --interval the kernel accounts the run time of every BPF
 * program (bpf_enable_stats(2), as kernel.bpf_stats_enabled does), and those that use our pinned
 * maps are ours. The accounting itself takes time in each figure; an empty program says how much.
 */
#include <linux/bpf.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include <kilter/series.h>

#include "cli/cli.h"
#include "collect/walk.h"
#include "core/cleanup.h"
#include "core/clock.h"

#define BENCH_PROGRAMS_MAX 64
#define BENCH_MAPS_MAX	   64
#define PROGRAM_MAPS_MAX   32
#define EMPTY_RUNS	   1000000 /* of the empty program; some 50 ms */
#define DEFAULT_SECONDS	   10

struct bench_program {
	uint32_t id;
	char name[BPF_OBJ_NAME_LEN];
	uint64_t ns, runs; /* over the interval */
	uint32_t verified;
};

struct bench {
	uint32_t maps[BENCH_MAPS_MAX]; /* ids of the pinned ones */
	unsigned int maps_count;
	uint64_t map_bytes;
	int series_fd;
	struct bench_program programs[BENCH_PROGRAMS_MAX];
	unsigned int programs_count;
	uint64_t requests;
	double seconds, accounting_ns;
};

/* What the kernel charges for a map (fdinfo's memlock), bytes. */
static uint64_t map_memory(int fd)
{
	char path[64], line[128];
	_cleanup_fclose_ FILE *f = NULL;
	uint64_t bytes = 0;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "memlock: %" SCNu64, &bytes) == 1)
			break;
	return bytes;
}

static int find_maps(struct bench *b, const char *bpffs)
{
	_cleanup_closedir_ DIR *d = opendir(bpffs);
	const struct dirent *e;

	if (!d)
		return -errno;
	while ((e = readdir(d)) && b->maps_count < BENCH_MAPS_MAX) {
		struct bpf_map_info info = {0};
		__u32 len = sizeof(info);
		char path[512];
		int fd;

		/* Our names have no dot; the kernel's own files in a bpffs (maps.debug) do. */
		if (strchr(e->d_name, '.') || e->d_type == DT_DIR)
			continue;
		snprintf(path, sizeof(path), "%.255s/%.200s", bpffs, e->d_name);
		fd = bpf_obj_get(path);
		if (fd < 0)
			return -errno;
		if (!bpf_obj_get_info_by_fd(fd, &info, &len)) {
			b->maps[b->maps_count++] = info.id;
			b->map_bytes += map_memory(fd);
		}
		if (!strcmp(e->d_name, "series"))
			b->series_fd = fd;
		else
			close(fd);
	}
	return b->maps_count ? 0 : -ENOENT;
}

static bool is_ours(const struct bench *b, const uint32_t *ids, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		for (unsigned int k = 0; k < b->maps_count; k++)
			if (ids[i] == b->maps[k])
				return true;
	return false;
}

/* Adds sign * (time and runs) of each of our programs. The daemon makes and frees some meanwhile.
 */
static void look(struct bench *b, int sign)
{
	uint32_t id = 0;

	while (!bpf_prog_get_next_id(id, &id)) {
		_cleanup_close_ int fd = bpf_prog_get_fd_by_id(id);
		struct bpf_prog_info info = {0};
		uint32_t ids[PROGRAM_MAPS_MAX];
		__u32 len = sizeof(info);
		unsigned int i;

		info.map_ids = (uintptr_t)ids;
		info.nr_map_ids = PROGRAM_MAPS_MAX;
		if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len))
			continue;
		if (info.nr_map_ids > PROGRAM_MAPS_MAX)
			info.nr_map_ids = PROGRAM_MAPS_MAX;
		if (!is_ours(b, ids, info.nr_map_ids))
			continue;
		for (i = 0; i < b->programs_count && b->programs[i].id != id; i++)
			;
		if (i == BENCH_PROGRAMS_MAX)
			continue;
		if (i == b->programs_count) {
			memset(&b->programs[i], 0, sizeof(b->programs[i]));
			b->programs[i].id = id;
			memcpy(b->programs[i].name, info.name, sizeof(info.name));
			b->programs_count++;
		}
		b->programs[i].ns += (uint64_t)sign * info.run_time_ns;
		b->programs[i].runs += (uint64_t)sign * info.run_cnt;
	}
}

static void add_requests(void *ctx, const void *key, const void *value)
{
	const struct kilter_series *v = value;
	uint64_t *sum = ctx;

	(void)key;
	for (int i = 0; i < KILTER_CLASSIC_BUCKETS; i++)
		*sum += v->classic[i];
}

static uint64_t count_requests(const struct bench *b)
{
	struct map_walk walk;
	uint64_t sum = 0;

	if (b->series_fd < 0 ||
	    map_walk_init(&walk, b->series_fd, sizeof(struct kilter_series_key),
			  sizeof(struct kilter_series)) ||
	    map_walk_run(&walk, add_requests, &sum))
		return 0;
	return sum;
}

/* What an empty program is accounted for, ns. Statistics must be on. Negative: cannot tell. */
static double measure_accounting(void)
{
	const struct bpf_insn insns[] = {
	    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
	    {.code = BPF_JMP | BPF_EXIT},
	};
	_cleanup_close_ int fd = bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, "kilter_empty", "GPL",
					       insns, sizeof(insns) / sizeof(insns[0]), NULL);
	unsigned char packet[64] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet),
		    .repeat = EMPTY_RUNS);
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);

	if (fd < 0 || bpf_prog_test_run_opts(fd, &opts) ||
	    bpf_obj_get_info_by_fd(fd, &info, &len) || !info.run_cnt)
		return -1;
	return (double)info.run_time_ns / (double)info.run_cnt;
}

static int by_time(const void *pa, const void *pb)
{
	const struct bench_program *a = pa, *b = pb;

	return a->ns < b->ns ? 1 : a->ns > b->ns ? -1 : 0;
}

static int measure(struct bench *b, const struct cli *c)
{
	uint64_t interval = cli_interval(c, DEFAULT_SECONDS * NS_PER_SEC);
	const struct timespec pause = {.tv_sec = (time_t)(interval / NS_PER_SEC),
				       .tv_nsec = (long)(interval % NS_PER_SEC)};
	_cleanup_close_ int stats = -1;
	uint64_t began;
	int err = find_maps(b, c->bpffs);

	if (err)
		return err;
	stats = bpf_enable_stats(BPF_STATS_RUN_TIME);
	if (stats < 0)
		return -errno;
	b->accounting_ns = measure_accounting();
	look(b, -1);
	b->requests -= count_requests(b);
	began = clock_boot_ns();
	nanosleep(&pause, NULL);
	look(b, 1);
	b->requests += count_requests(b);
	b->seconds = (double)(clock_boot_ns() - began) / NS_PER_SEC;
	qsort(b->programs, b->programs_count, sizeof(b->programs[0]), by_time);
	return 0;
}

/* Without the accounting; never below 0, which noise on rare programs would give. */
static double net_ns(const struct bench *b, const struct bench_program *p)
{
	double ns = (double)p->ns - (double)p->runs * (b->accounting_ns > 0 ? b->accounting_ns : 0);

	return ns > 0 ? ns : 0;
}

static double request_path_ns(const struct bench *b)
{
	double ns = 0;

	for (unsigned int i = 0; i < b->programs_count; i++)
		if (!strncmp(b->programs[i].name, "request_", 8))
			ns += net_ns(b, &b->programs[i]);
	return b->requests ? ns / (double)b->requests : 0;
}

static int print_json(const struct bench *b)
{
	json_t *j = json_pack(
	    "{s:f, s:f, s:I, s:f, s:I, s:[]}", "seconds", b->seconds, "accounting_ns",
	    b->accounting_ns, "requests", (json_int_t)b->requests, "ns_per_request_and_side",
	    request_path_ns(b), "map_bytes", (json_int_t)b->map_bytes, "programs");
	int status;

	for (unsigned int i = 0; j && i < b->programs_count; i++) {
		const struct bench_program *p = &b->programs[i];

		json_array_append_new(json_object_get(j, "programs"),
				      json_pack("{s:s, s:I, s:f, s:f}", "name", p->name, "events",
						(json_int_t)p->runs, "ns_per_event",
						p->runs ? net_ns(b, p) / (double)p->runs : 0.0,
						"cores", net_ns(b, p) / (b->seconds * NS_PER_SEC)));
	}
	if (!j)
		return CLI_FAILED;
	status = cli_print_json(j);
	json_decref(j);
	return status;
}

static int print_table(const struct cli *c, const struct bench *b)
{
	static const char *const headers[] = {"PROGRAM", "EVENTS/s", "NS/EVENT", "CORES"};
	struct cli_table *t;
	double cores = 0;
	char buf[64], number[16];

	if (cli_table_new(&t, c, headers, 4))
		return CLI_FAILED;
	cli_table_layout(t, 1u << 1 | 1u << 2 | 1u << 3, 0);
	for (unsigned int i = 0; i < b->programs_count; i++) {
		const struct bench_program *p = &b->programs[i];
		double share = net_ns(b, p) / (b->seconds * NS_PER_SEC);

		cores += share;
		if (!p->runs)
			continue;
		cli_table_cell(t, p->name);
		cli_table_cell(t, cli_number((double)p->runs / b->seconds, number));
		snprintf(buf, sizeof(buf), "%.0f", net_ns(b, p) / (double)p->runs);
		cli_table_cell(t, buf);
		snprintf(buf, sizeof(buf), "%.5f", share);
		cli_table_cell(t, buf);
	}
	cli_table_print(&t, 0);
	printf("\n%.1f s: %.5f cores in the kernel, %.1f MiB of maps", b->seconds, cores,
	       (double)b->map_bytes / (1 << 20));
	if (b->requests)
		printf("; %s requests/s, %.0f ns of kernel time for each and side",
		       cli_number((double)b->requests / b->seconds, number), request_path_ns(b));
	printf("\n");
	if (b->accounting_ns > 0)
		printf("Left out: %.0f ns an event that the accounting itself takes.\n",
		       b->accounting_ns);
	return cli_flush();
}

int cli_bench(struct cli *c)
{
	struct bench b = {.series_fd = -1};
	int err;

	if (c->argc) {
		fprintf(stderr,
			"kilter: bench: no argument is expected, but '%s' is there; "
			"--interval says how long\n",
			c->args[0]);
		return CLI_USAGE;
	}
	err = measure(&b, c);
	if (b.series_fd >= 0)
		close(b.series_fd);
	if (err) {
		fprintf(stderr, "kilter: bench: %s\n",
			err == -EPERM || err == -EACCES
			    ? "needs root: CAP_SYS_ADMIN lets the kernel account programs"
			: err == -ENOENT
			    ? "no maps are pinned: is kilterd running, and is --bpffs right?"
			    : strerror(-err));
		return err == -ENOENT ? CLI_UNREACHABLE : CLI_FAILED;
	}
	return c->output == CLI_JSON ? print_json(&b) : print_table(c, &b);
}
