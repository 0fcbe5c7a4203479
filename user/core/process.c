// SPDX-License-Identifier: Apache-2.0
#include "core/process.h"

#include <sys/resource.h>

#include <stdio.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/selfstat.h"

static uint64_t start_ns;

static void cpu(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	struct rusage ru;

	(void)ctx;
	if (!getrusage(RUSAGE_SELF, &ru))
		emit(emit_ctx, "",
		     (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
			 (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
}

static void rss(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/statm", "re");
	unsigned long long size, pages;

	(void)ctx;
	if (f && fscanf(f, "%llu %llu", &size, &pages) == 2)
		emit(emit_ctx, "", (double)pages * (double)sysconf(_SC_PAGESIZE));
}

static void start(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	(void)ctx;
	emit(emit_ctx, "", (double)start_ns / 1e9);
}

void process_register_stats(uint64_t start_real_ns)
{
	static struct selfstat stats[] = {
	    {.name = "process_cpu_seconds_total",
	     .help = "CPU time of the agent.",
	     .type = SELFSTAT_COUNTER,
	     .collect = cpu},
	    {.name = "process_resident_memory_bytes",
	     .help = "Resident memory of the agent.",
	     .type = SELFSTAT_GAUGE,
	     .collect = rss},
	    {.name = "process_start_time_seconds",
	     .help = "Start of the agent, Unix time.",
	     .type = SELFSTAT_GAUGE,
	     .collect = start},
	};

	start_ns = start_real_ns;
	for (unsigned int i = 0; i < sizeof(stats) / sizeof(stats[0]); i++)
		selfstat_register(&stats[i]);
}
