/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/obj.h"

/* In the order of their numbers, from 0. */
static const char *const names[] = {"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID",
    "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE",
    "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO",
    "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE",
    "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM",
    "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"};

struct caps {
	struct __user_cap_header_struct head;
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
};

static int caps_get(struct caps *c)
{
	memset(c, 0, sizeof(*c));
	c->head.version = _LINUX_CAPABILITY_VERSION_3;
	return syscall(SYS_capget, &c->head, c->data) == 0 ? 0 : -errno;
}

uint64_t caps_effective(void)
{
	struct caps c;

	if (caps_get(&c) != 0)
		return 0;
	return c.data[0].effective | (uint64_t)c.data[1].effective << 32;
}

int caps_keep(uint64_t keep)
{
	struct caps c;
	unsigned i;
	int err = caps_get(&c);

	if (err != 0)
		return err;
	for (i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		c.data[i].effective &= (uint32_t)(keep >> 32 * i);
		c.data[i].permitted &= (uint32_t)(keep >> 32 * i);
	}
	return syscall(SYS_capset, &c.head, c.data) == 0 ? 0 : -errno;
}

const char *caps_next(uint64_t *set, char *buf, size_t len)
{
	unsigned n;

	if (*set == 0)
		return NULL;
	n = (unsigned)__builtin_ctzll(*set);
	*set &= *set - 1;
	if (n < ARRAY_LEN(names))
		snprintf(buf, len, "CAP_%s", names[n]);
	else
		snprintf(buf, len, "CAP_%u", n);
	return buf;
}
