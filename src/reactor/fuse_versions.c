/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor/fuse_versions.h"

#include <curl/curl.h>
#include <event2/event.h>
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <lmdb.h>
#include <stdio.h>

char *fuse_versions_text(char *buf, size_t len)
{
	snprintf(buf, len, "libfuse %s, libevent %s, libcurl %s, LMDB %d.%d.%d", fuse_pkgversion(),
	    event_get_version(), curl_version_info(CURLVERSION_NOW)->version, MDB_VERSION_MAJOR,
	    MDB_VERSION_MINOR, MDB_VERSION_PATCH);
	return buf;
}
