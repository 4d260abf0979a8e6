/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stand-in's server for a test, in a directory of its own; or, with
 * BATONFS_TEST_FDB_CLUSTER_FILE set, that cluster and the library
 * BATONFS_TEST_FDB_LIBRARY (libfdb_c.so).
 */
#ifndef T_FDB_STANDIN_H
#define T_FDB_STANDIN_H

#include <stdbool.h>
#include <sys/types.h>

extern char standin_dir[64];
extern pid_t standin_server; /* 0: it does not run */

bool standin_real(void); /* a real cluster: no faults, no clock, no server */
const char *standin_library(void);
const char *standin_cluster_file(void);

void standin_start(void); /* the directory, and its server; the clock stands still */
void standin_serve(void); /* the server of the directory, again */
void standin_kill(void);
void standin_stop(void); /* and removes the directory; no-op without one */
void standin_write(const char *name, const char *text); /* a file of the directory, at once */
unsigned standin_fired(const char *line); /* how often, a line's beginning in "fired" */
void standin_wait_fired(const char *line, unsigned n);

/* Ends the test: whatever lacks here is not what it is about. */
void standin_must(bool good, const char *what);

#endif
