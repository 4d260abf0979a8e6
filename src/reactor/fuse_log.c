/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor/fuse_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include "base/log.h"

static struct errtext *catch_log;

static void library_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[512];
	size_t len;

	vsnprintf(line, sizeof(line), fmt, ap);
	len = strlen(line);
	if (len > 0 && line[len - 1] == '\n')
		line[len - 1] = '\0';
	if (catch_log != NULL)
		errtext_set(catch_log, 0, "%s", line);
	else if (level <= FUSE_LOG_WARNING)
		log_warn("%s", line);
	else
		log_debug("%s", line);
}

void fuse_log_install(void)
{
	fuse_set_log_func(library_log);
}

void fuse_log_catch(struct errtext *et)
{
	catch_log = et;
}
