/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Going to the background: `batonfsd` without -f, outside a service manager, starts
 * batonfs-keeper with itself as the daemon, waits until the mount serves and ends
 * with 0, or with the daemon's exit code after its words on stderr.
 */
#ifndef BACKGROUND_H
#define BACKGROUND_H

/* argv as it was given, the mount point last.  Returns the exit code. */
int background_start(char *const *argv);

#endif
