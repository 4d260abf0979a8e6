/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Units of the configuration.  Inside the program durations are nanoseconds in
 * a uint64_t (names end in _ns or come from the clock) and sizes are bytes.
 */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)
#define GIB (UINT64_C(1024) * MIB)

/* All parsers: 0, -EINVAL (not of the form) or -ERANGE (does not fit); the
 * whole text must be used up. */

/* "250ms", "3s", "10min", "1h", also us, m, d; a bare "0" is zero. */
int units_parse_duration(const char *text, uint64_t *ns);
/* "4096", "64KiB", "1MiB", "2TiB", also K M G T as powers of 1024. */
int units_parse_size(const char *text, uint64_t *bytes);
int units_parse_u64(const char *text, uint64_t *out);
/* "0.3": at least 0; the range is the table's matter. */
int units_parse_ratio(const char *text, double *out);
/* "true", "false" (also yes/no, on/off, 1/0): stores 1 or 0. */
int units_parse_bool(const char *text, int *out);

/* Shortest exact form in the configuration's own syntax; returns buf. */
char *units_format_duration(uint64_t ns, char *buf, size_t len);
char *units_format_size(uint64_t bytes, char *buf, size_t len);

#endif
