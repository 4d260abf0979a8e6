/* SPDX-License-Identifier: BSD-2-Clause */
/* Counters: one table (counters.def); written by the loop's thread only. */
#ifndef BASE_COUNTERS_H
#define BASE_COUNTERS_H

#include <stdint.h>

enum counter_id {
#define CTR(id, name, kind, help) CTR_##id,
#include "base/counters.def"
#undef CTR
	CTR_MAX
};

enum counter_kind { CTR_KIND_COUNTER, CTR_KIND_GAUGE };

struct counter_desc {
	const char *name;
	enum counter_kind kind;
	const char *help;
};

struct counters {
	uint64_t v[CTR_MAX];
};

extern const struct counter_desc counter_table[CTR_MAX];

#endif
