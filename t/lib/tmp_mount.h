/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A directory for a test's mount, its storage and its state, which is cleaned up
 * whatever becomes of the test: a child process waits for the test's end, then
 * unmounts and removes everything.
 */
#ifndef T_LIB_TMP_MOUNT_H
#define T_LIB_TMP_MOUNT_H

#include <stdbool.h>
#include <sys/types.h>

struct tmp_mount {
	char mnt[64], src[64], state[64]; /* state: on a tmpfs */
	int guard;			  /* its closing wakes the child */
	pid_t guard_pid;
};

/* Aborts the test program on failure.  Nothing of the caller's may be mounted yet. */
void tmp_mount_new(struct tmp_mount *tm);
/* Waits until everything is gone. */
void tmp_mount_free(struct tmp_mount *tm);

/* Runs fn in a child process that has none of our descriptors, so that it gets
 * errors and does not hang if the test dies. */
pid_t tmp_mount_client(int (*fn)(const struct tmp_mount *tm, void *arg),
    const struct tmp_mount *tm, void *arg);

#endif
