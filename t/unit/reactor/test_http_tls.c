/* SPDX-License-Identifier: BSD-2-Clause */
/* TLS, against openssl's test server; authorities and proxies from the environment. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/obj.h"
#include "base/units.h"
#include "http_rig.h"

TestSuite(http_tls, .init = http_rig_up, .fini = http_rig_down);

struct tls {
	char dir[64], key[96], cert[96];
	pid_t pid;
	unsigned port;
};

static unsigned free_port(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	cr_assert_eq(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	getsockname(fd, (struct sockaddr *)&sin, &len);
	close(fd);
	return ntohs(sin.sin_port);
}

static void tls_start(struct tls *t)
{
	char port[64];
	int out[2];
	char c[256], cmd[512];

	strcpy(t->dir, "/tmp/batonfs-http-XXXXXX");
	cr_assert_not_null(mkdtemp(t->dir));
	snprintf(t->key, sizeof(t->key), "%s/key", t->dir);
	snprintf(t->cert, sizeof(t->cert), "%s/cert", t->dir);
	snprintf(cmd, sizeof(cmd),
	    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
	    "-keyout %s -out %s -days 2 -subj /CN=localhost "
	    "-addext subjectAltName=IP:127.0.0.1 2>/dev/null",
	    t->key, t->cert);
	cr_assert_eq(system(cmd), 0);
	t->port = free_port();
	snprintf(port, sizeof(port), "127.0.0.1:%u", t->port);
	cr_assert_eq(pipe(out), 0);
	t->pid = fork();
	if (t->pid == 0) {
		dup2(out[1], 1);
		execlp("openssl", "openssl", "s_server", "-accept", port, "-key", t->key, "-cert",
		    t->cert, "-www", NULL);
		_exit(127);
	}
	close(out[1]);
	/* It says ACCEPT once it listens. */
	for (size_t n = 0; n < sizeof(c) - 1;) {
		ssize_t k = read(out[0], c + n, sizeof(c) - 1 - n);

		cr_assert_gt(k, 0);
		n += (size_t)k;
		c[n] = '\0';
		if (strstr(c, "ACCEPT") != NULL)
			break;
	}
	close(out[0]);
}

static void tls_stop(struct tls *t)
{
	kill(t->pid, SIGKILL);
	waitpid(t->pid, NULL, 0);
	unlink(t->key);
	unlink(t->cert);
	rmdir(t->dir);
}

Test(http_tls, tls)
{
	struct tls t;
	struct http_probe p;
	char url[64];

	tls_start(&t);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u/", t.port);
	http_probe_url(&p, url);
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_TLS);
	cr_assert_eq(p.heads, 0);

	free(http_rig.cfg->s3_ca_file);
	http_rig.cfg->s3_ca_file = strdup(t.cert);
	http_rig_again();
	http_probe_url(&p, url);
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_eq(p.r.status, 200);

	/* The right authority for another name: "localhost" is only the subject's. */
	snprintf(url, sizeof(url), "https://localhost:%u/", t.port);
	http_probe_url(&p, url);
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_TLS);
	cr_assert_eq(p.heads, 0);
	tls_stop(&t);

	/* Plain text where TLS should be. */
	http_script_reply(http_rig.hs, NULL, 200, NULL, "x", 1, 0);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u/", http_script_port(http_rig.hs));
	http_probe_url(&p, url);
	p.r.timeout_ns = NS_PER_S;
	http_probe_go(&p);
	cr_assert_neq(p.r.fail, HTTP_OK);
}

Test(http_tls, ca_file_missing)
{
	struct http *other = NULL;
	struct errtext et;

	free(http_rig.cfg->s3_ca_file);
	http_rig.cfg->s3_ca_file = strdup("/nonexistent/ca.pem");
	cr_assert_eq(http_new(&other, http_rig.lp, http_rig.cfg, &et), -ENOENT);
	cr_assert_null(other);
	cr_assert_not_null(strstr(et.s, "/nonexistent/ca.pem"));
}

/* Each variable by itself makes the private authority known. */
Test(http_tls, authorities_from_the_environment)
{
	static const char *const vars[] = { "AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE" };
	struct http_probe p;
	struct tls t;
	char url[64];

	tls_start(&t);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u/", t.port);
	for (size_t i = 0; i < ARRAY_LEN(vars); i++) {
		http_rig_again();
		http_probe_url(&p, url);
		http_probe_go(&p);
		http_probe_expect(&p, HTTP_FAIL_TLS);
		setenv(vars[i], t.cert, 1);
		http_rig_again();
		http_probe_url(&p, url);
		http_probe_go(&p);
		http_probe_expect(&p, HTTP_OK);
		unsetenv(vars[i]);
	}
	/* The property wins over the environment. */
	setenv("SSL_CERT_FILE", t.cert, 1);
	free(http_rig.cfg->s3_ca_file);
	http_rig.cfg->s3_ca_file = strdup("/etc/ssl/certs/ca-certificates.crt");
	if (access(http_rig.cfg->s3_ca_file, R_OK) == 0) {
		http_rig_again();
		http_probe_url(&p, url);
		http_probe_go(&p);
		http_probe_expect(&p, HTTP_FAIL_TLS);
	}
	tls_stop(&t);
}

/* The scripted server as a proxy: it sees the whole URL. */
Test(http_tls, proxies)
{
	struct http_probe p;

	setenv("http_proxy", http_script_url(http_rig.hs), 1);
	unsetenv("no_proxy");
	unsetenv("NO_PROXY");
	http_script_reply(http_rig.hs, "GET http://store.invalid/k", 200, NULL, "far", 3, 0);
	http_probe_url(&p, "http://store.invalid/k");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_str_eq(p.body, "far");
	/* Not for those who must not use one, and not where the user says so. */
	http_probe_url(&p, "http://127.0.0.1:1/k");
	p.r.direct = true;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_CONNECT);
	setenv("no_proxy", ".invalid,127.0.0.1", 1);
	http_probe_url(&p, "http://127.0.0.1:1/k");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_CONNECT);
	cr_assert_eq(http_script_count(http_rig.hs), 1);
}
