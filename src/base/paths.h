/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the sockets and the state of a mount lie.
 *
 * A mount point becomes one directory name as `systemd-escape --path` makes it:
 * "/mnt/data" is "mnt-data", "/" is "-", any byte but A-Z a-z 0-9 : _ . and a
 * leading '.' is \xNN.  A name too long for a socket address keeps its beginning
 * and gets "~" (which no escaped name has) and the hash of the whole.
 *
 * The mount point must be absolute (-EINVAL); repeated and trailing slashes do
 * not matter, links and ".." are the caller's to resolve.  Any thread.  All
 * return 0, -EINVAL or -ENAMETOOLONG (the buffer is too small).
 */
#ifndef BASE_PATHS_H
#define BASE_PATHS_H

#include <stddef.h>
#include <sys/types.h>

#define PATHS_RUN_ROOT "/run/batonfs"
#define PATHS_STATE_ROOT "/dev/shm/batonfs"
#define PATHS_DATA_ROOT "/var/lib/batonfs"
#define PATHS_CONTROL_NAME "control"
#define PATHS_TAKEOVER_NAME "takeover"
/* Longest directory name, without the final NUL: "takeover" below it still fits
 * into sockaddr_un.sun_path (108 bytes). */
#define PATHS_NAME_MAX 85
/* Large enough for every path made here. */
#define PATHS_MAX 128
/* The same for paths_data_dir(). */
#define PATHS_DATA_MAX 4096

/* Only the directory name. */
int paths_escape(const char *mountpoint, char *buf, size_t len);
/* The mount point of an escaped name; -EINVAL if it is none or was shortened. */
int paths_unescape(const char *name, char *buf, size_t len);

int paths_run_dir(const char *mountpoint, char *buf, size_t len);
int paths_control_socket(const char *mountpoint, char *buf, size_t len);
int paths_takeover_socket(const char *mountpoint, char *buf, size_t len);
int paths_state_dir(const char *mountpoint, char *buf, size_t len);
/* What must outlive the machine's uptime where no directory is configured; of users
 * other than root below $XDG_STATE_HOME or ~/.local/state, -ENOENT if neither is known. */
int paths_data_dir(const char *mountpoint, char *buf, size_t len);

/* Makes dir and what is missing above it: what is above gets 0755, dir itself
 * `mode`, whatever the umask.  An existing dir is left as it is, but must belong
 * to us or root and be writable by nobody else (-EPERM); a link in its last
 * component is refused (-ENOTDIR).  0 or a negative errno. */
int paths_make_dir(const char *dir, mode_t mode);

/* Makes dir and what is missing above it, for us alone (0700); what exists is left as it
 * is, links too.  0 or a negative errno. */
int paths_make_private(const char *dir);

#endif
