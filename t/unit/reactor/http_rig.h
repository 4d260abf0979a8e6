/* SPDX-License-Identifier: BSD-2-Clause */
/* A loop with HTTP and a scripted server, and requests that note what comes of them. */
#ifndef T_UNIT_REACTOR_HTTP_RIG_H
#define T_UNIT_REACTOR_HTTP_RIG_H

#include "../../lib/http_script.h"
#include "base/options.h"
#include "reactor/http.h"
#include "reactor/loop.h"

extern struct http_rig {
	struct loop *lp;
	struct config *cfg;
	struct http *h;
	struct http_script *hs;
} http_rig;

/* A suite's .init and .fini. */
void http_rig_up(void);
void http_rig_down(void);
/* The HTTP side anew, after a property or variable that it reads at its start. */
void http_rig_again(void);

/* A request and what came of it. */
struct http_probe {
	struct http_req r;
	char url[256];
	unsigned heads, datas, dones;
	size_t got;
	char body[64]; /* its beginning */
	int fail_head, fail_data;
	struct http_probe *abort_in_head, *abort_in_data, *abort_in_done;
	struct http_probe *start_in_head, *start_in_done;
	bool again;
};

void http_probe_url(struct http_probe *p, const char *url);
/* A path of the scripted server. */
void http_probe_init(struct http_probe *p, const char *path);
void http_probe_start(struct http_probe *p);
/* Turns the loop until the request has ended so often. */
void http_probe_run(struct http_probe *p, unsigned dones);
void http_probe_go(struct http_probe *p);
void http_probe_expect(const struct http_probe *p, enum http_fail fail);
void http_probe_done(struct http_req *r);
/* The connection must be of use after whatever happened before. */
void http_rig_alive(void);

#endif
