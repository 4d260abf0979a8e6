/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "peer/peer_priv.h"

#define LISTEN_AGAIN (NS_PER_S)

/* --- What others are told */

/* HOST:PORT as a URL has it. */
static bool address_ok(const char *a)
{
	const char *colon = strrchr(a, ':');
	size_t n = strlen(a);

	if (colon == NULL || colon == a || colon[1] == '\0' || n > META_NODE_ADDRESS_MAX ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return false;
	if (a[0] == '[')
		return colon[-1] == ']' &&
		       strspn(a + 1, "0123456789abcdefABCDEF:.") == (size_t)(colon - a) - 2;
	return strspn(a, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_") ==
	       (size_t)(colon - a);
}

static int set_address(struct peers *p, struct errtext *et)
{
	const char *listen = p->env.cfg->node_listen, *a = p->env.cfg->node_address;

	if (listen[0] == '\0')
		return a[0] == '\0' ? 0
				    : errtext_set(et, -EINVAL,
					  "node.address %s: node.listen is not set, so nobody "
					  "would answer there",
					  a);
	if (p->key.len == 0)
		return errtext_set(et, -EINVAL,
		    "node.listen %s: node.key.file is not set, and without the key of the cluster "
		    "nobody is given anything",
		    listen);
	if (a[0] == '\0' &&
	    (strncmp(listen, "0.0.0.0:", 8) == 0 || strncmp(listen, "[::]:", 5) == 0))
		return errtext_set(et, -EINVAL,
		    "node.listen %s: is all addresses: set node.address to the one at which other "
		    "nodes reach this one",
		    listen);
	a = a[0] != '\0' ? a : listen;
	if (!address_ok(a))
		return errtext_set(et, -EINVAL, "%s %s: must be HOST:PORT, of up to %d bytes",
		    a == listen ? "node.listen" : "node.address", a, META_NODE_ADDRESS_MAX);
	memcpy(p->address, a, strlen(a) + 1);
	return 0;
}

const char *peers_address(const struct peers *p)
{
	return p->address;
}

/* --- Listening */

static int listen_now(struct peers *p, struct errtext *et)
{
	const char *listen = p->env.cfg->node_listen;
	int err = httpd_listen(p->httpd, listen, et);

	if (err == 0) {
		p->error[0] = '\0';
		return 0;
	}
	(void)errtext_prefix(et, err, "node.listen %s", listen);
	snprintf(p->error, sizeof(p->error), "%.*s", (int)sizeof(p->error) - 1, et->s);
	timer_arm(&p->again, LISTEN_AGAIN);
	return err;
}

static void listen_again(struct timer *t)
{
	struct peers *p = container_of(t, struct peers, again);
	struct errtext et = {.s = ""};

	if (listen_now(p, &et) == 0)
		log_info("node.listen %s: other nodes are listened to now", p->env.cfg->node_listen);
}

int peers_begin(struct peers *p, struct errtext *et)
{
	CHECK_OBJ(p, PEERS_MAGIC);
	if (p->address[0] == '\0' || p->begun)
		return 0;
	p->begun = true;
	return listen_now(p, et);
}

void peers_end(struct peers *p)
{
	CHECK_OBJ(p, PEERS_MAGIC);
	p->begun = false;
	timer_cancel(&p->again);
	peer_serve_none(p);
	httpd_close(p->httpd);
}

void peers_status(const struct peers *p, struct peers_status *out)
{
	*out = (struct peers_status){.key = p->key.len > 0,
	    .listening = httpd_listens(p->httpd),
	    .conns = httpd_conns(p->httpd)};
	memcpy(out->error, p->error, sizeof(out->error));
}

/* --- Life */

struct ufs *peers_ufs(struct peers *p)
{
	return p->ufs;
}

int peers_new(struct peers **out, const struct peers_env *env, struct errtext *et)
{
	struct httpd_env henv = {.loop = env->loop,
	    .conns_max = PEER_CONNS_MAX,
	    .request = peer_serve_request};
	struct peers *p;
	int err = 0;

	ALLOC_OBJ(p, PEERS_MAGIC);
	*out = p;
	if (p == NULL)
		return errtext_set(et, -ENOMEM, "node.listen: %s", strerror(ENOMEM));
	p->env = *env;
	TAILQ_INIT(&p->serving);
	TAILQ_INIT(&p->waiting);
	TAILQ_INIT(&p->reading);
	TAILQ_INIT(&p->queued);
	timer_init(&p->again, env->loop, listen_again);
	henv.user = p;
	if (env->cfg->node_key_file[0] != '\0')
		err = peer_key_load(&p->key, env->cfg->node_key_file, et);
	if (err == 0)
		err = set_address(p, et);
	if (err == 0 && (httpd_new(&p->httpd, &henv) != 0 || peer_ufs_new(&p->ufs, p) != 0))
		err = errtext_set(et, -ENOMEM, "node.listen: %s", strerror(ENOMEM));
	if (err != 0)
		peers_free(out);
	return err;
}

void peers_stop(struct peers *p)
{
	CHECK_OBJ(p, PEERS_MAGIC);
	peer_ufs_stop(p);
}

void peers_free(struct peers **pp)
{
	struct peers *p;

	if (*pp == NULL)
		return;
	TAKE_OBJ(p, pp, PEERS_MAGIC);
	timer_cancel(&p->again);
	httpd_free(&p->httpd);
	assert(p->nserving == 0 && TAILQ_EMPTY(&p->waiting));
	ufs_free(&p->ufs);
	peer_key_forget(&p->key);
	FREE_OBJ(p);
}
