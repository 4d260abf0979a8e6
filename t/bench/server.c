/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An S3 server that is never the bottleneck unless told to be: one object of a given
 * size under every key, from memory with sendfile(2), without signatures; all
 * connections together at most RATE bytes a second (0: no limit), each answer DELAY
 * milliseconds after its request.
 *
 *	bench_server PORT SIZE [RATE [DELAY]]	(on 127.0.0.1; until killed)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000ull
#define PIECE (128u * 1024)
#define BURST_NS (5 * NS / 1000)
#define HEAD_MAX 16384
#define COMMON "ETag: \"00000000000000000000000000000001\"\r\n" \
	"Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n"

static uint64_t size, bytes_a_second, delay_ns;
static int blob;

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS + (uint64_t)ts.tv_nsec;
}

/* Each piece takes its place on one time line; who is early waits. */
static void pay(uint64_t bytes)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static uint64_t due;
	struct timespec ts;
	uint64_t at;

	if (bytes_a_second == 0)
		return;
	pthread_mutex_lock(&lock);
	at = now();
	if (due + BURST_NS < at)
		due = at - BURST_NS;
	due += bytes * NS / bytes_a_second;
	at = due;
	pthread_mutex_unlock(&lock);
	ts.tv_sec = (time_t)(at / NS);
	ts.tv_nsec = (long)(at % NS);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static void delay(void)
{
	struct timespec ts = {(time_t)(delay_ns / NS), (long)(delay_ns % NS)};

	while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
		;
}

static int send_all(int s, const char *p, size_t len, int flags)
{
	while (len > 0) {
		ssize_t n = send(s, p, len, flags | MSG_NOSIGNAL);

		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int send_range(int s, uint64_t from, uint64_t to)
{
	off_t off = (off_t)from;

	while ((uint64_t)off < to) {
		uint64_t left = to - (uint64_t)off;
		size_t piece = left < PIECE ? (size_t)left : PIECE;

		pay(piece);
		while (piece > 0) {
			ssize_t n = sendfile(s, blob, &off, piece);

			if (n <= 0)
				return -1;
			piece -= (size_t)n;
		}
	}
	return 0;
}

static int reply_list(int s)
{
	static const char xml[] =
	    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>"
	    "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
	    "<Name>b</Name><Prefix></Prefix><KeyCount>0</KeyCount><MaxKeys>1</MaxKeys>"
	    "<IsTruncated>false</IsTruncated></ListBucketResult>";
	char head[128];
	int n = snprintf(head, sizeof(head),
	    "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %zu\r\n\r\n",
	    sizeof(xml) - 1);

	if (send_all(s, head, (size_t)n, MSG_MORE) != 0)
		return -1;
	return send_all(s, xml, sizeof(xml) - 1, 0);
}

/* One request, its head in h (terminated). */
static int reply(int s, char *h)
{
	unsigned long long from = 0, last = size - 1;
	const char *range = strcasestr(h, "\nrange: bytes="), *query;
	char head[512];
	int n;

	h[strcspn(h, "\n")] = '\0';
	query = strchr(h, '?');
	if (query != NULL && strstr(query, "list-type") != NULL)
		return reply_list(s);
	if (range != NULL && sscanf(range + strlen("\nrange: bytes="), "%llu-%llu", &from, &last) < 1)
		return -1;
	if (from >= size)
		return -1;
	if (last >= size)
		last = size - 1;
	n = snprintf(head, sizeof(head), "HTTP/1.1 %s\r\n" COMMON "Accept-Ranges: bytes\r\n"
	    "Content-Type: application/octet-stream\r\nContent-Length: %llu\r\n",
	    range != NULL ? "206 Partial Content" : "200 OK", last - from + 1);
	if (range != NULL)
		n += snprintf(head + n, sizeof(head) - (size_t)n,
		    "Content-Range: bytes %llu-%llu/%llu\r\n", from, last, (unsigned long long)size);
	n += snprintf(head + n, sizeof(head) - (size_t)n, "\r\n");
	if (strncmp(h, "HEAD ", 5) == 0)
		return send_all(s, head, (size_t)n, 0);
	if (send_all(s, head, (size_t)n, MSG_MORE) != 0)
		return -1;
	return send_range(s, from, last + 1);
}

static void *serve(void *arg)
{
	int s = (int)(intptr_t)arg;
	char h[HEAD_MAX + 1];
	size_t have = 0;

	for (;;) {
		ssize_t n;
		char *end;

		h[have] = '\0';
		end = strstr(h, "\r\n\r\n");
		if (end != NULL) {
			size_t used = (size_t)(end - h) + 4;

			end[2] = '\0';
			delay();
			if (reply(s, h) != 0)
				break;
			memmove(h, h + used, have - used);
			have -= used;
			continue;
		}
		n = have < HEAD_MAX ? recv(s, h + have, HEAD_MAX - have, 0) : 0;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	close(s);
	return NULL;
}

static int make_blob(void)
{
	static uint64_t words[PIECE / 8];
	uint64_t x = 1;

	blob = memfd_create("blob", MFD_CLOEXEC);
	if (blob < 0)
		return -1;
	for (uint64_t at = 0; at < size; at += PIECE) {
		size_t n = size - at < PIECE ? (size_t)(size - at) : PIECE;

		for (size_t i = 0; i < PIECE / 8; i++)
			words[i] = x = x * 6364136223846793005ull + 1442695040888963407ull;
		if (write(blob, words, n) != (ssize_t)n)
			return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};
	int l, one = 1;

	if (argc < 3 || argc > 5) {
		fprintf(stderr, "usage: bench_server PORT SIZE [RATE [DELAY]]\n");
		return 2;
	}
	size = strtoull(argv[2], NULL, 10);
	bytes_a_second = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
	delay_ns = argc > 4 ? strtoull(argv[4], NULL, 10) * 1000000 : 0;
	sa.sin_port = htons((uint16_t)atoi(argv[1]));
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	signal(SIGPIPE, SIG_IGN);
	l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (size == 0 || make_blob() != 0 || l < 0 ||
	    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    bind(l, (struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(l, 128) != 0) {
		perror("bench_server");
		return 1;
	}
	for (;;) {
		int s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
		pthread_t th;

		if (s < 0)
			continue;
		setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (pthread_create(&th, NULL, serve, (void *)(intptr_t)s) != 0)
			close(s);
		else
			pthread_detach(th);
	}
}
