/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/counters.h"

const struct counter_desc counter_table[CTR_MAX] = {
#define CTR(id, name_, kind_, help_)                                                               \
	[CTR_##id] = {.name = (name_), .kind = CTR_KIND_##kind_, .help = (help_)},
#include "base/counters.def"
#undef CTR
};
