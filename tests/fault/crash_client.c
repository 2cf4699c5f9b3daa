/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client that is not told before somebody dies: a program of its own, driven line by line from standard input. It makes random
 * requests with keys of its own choice, keeps its own record of what was answered, and when answers are lost finds out what
 * happened, repeats, and says what does not fit.
 *
 *   begin DIRECTORY DEVICE SEED  a session; "ok" when it is claimed, however often the service dies meanwhile
 *   go               works until the next line comes
 *   many             a domain of more mappings than one message unmaps, and an unmap of all; goes on like "go"
 *   sync             resolves what is pending and compares everything. "ok REQUESTS REPEATED LOST TRANSFERS", since the last one;
 *                    "over DEVICES WHY": the session has ended, and so many devices' fds are open; "bad WHAT"
 *   cut              when the session is over: what its devices write to what was mapped arrives nowhere; "ok" or "bad WHAT"
 *   leave            closes the session; "ok"
 *   exit
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "fault/probe.h"
#include "fault/record.h"
#include "lib/grpc_client.h"
#include "lib/harness.h"
#include "session_channel.h"
#include "util/cleanup.h"
#include "util/refusal.h"

#define PATIENCE_MS (HARNESS_PATIENCE_MS / 4 * 5)       /* for the service to come back */
#define CALL_MS HARNESS_PATIENCE_MS
#define SLOW_PROBES 3U          /* mappings, where a transfer takes its time */

static struct record record;
static uint64_t seed;
static char directory[100];
static int session = -1;
static char token[2 * SESSION_TOKEN_BYTES + 1];
static struct grpc_client *grpc;
static uint64_t cookie;
static unsigned long requests, repeated, lost, transfers;

/* How it stands. Once not FINE, nothing more is asked until the next begin. */
static enum outcome { FINE, OVER, BAD } state = OVER;
static char why[700];

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
        va_list args;

        va_start(args, format);
        (void)vprintf(format, args);
        va_end(args);
        (void)putchar('\n');
        (void)fflush(stdout);
}

__attribute__((format(printf, 2, 3))) static void set_state(enum outcome to, const char *format, ...) {
        va_list args;

        if (state != FINE)
                return;
        state = to;
        va_start(args, format);
        (void)vsnprintf(why, sizeof why, format, args);
        va_end(args);
}

static void pause_briefly(void) {
        static const struct timespec moment = { .tv_nsec = 5000000 };

        nanosleep(&moment, NULL);
}

/* ---- the session connection ---- */

static int connect_to(const char *name, int type) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

        (void)snprintf(a.sun_path, sizeof a.sun_path, "%.80s/%s", directory, name);
        if (fd >= 0 && connect(fd, (const struct sockaddr *)&a, sizeof a) < 0)
                fd = fd_close(fd);
        return fd;
}

/* The next message; false: the connection was closed, or nothing came in time (*ret_late). */
static bool receive(struct session_msg *m, int *ret_fd, bool *ret_late) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control;
        struct iovec iov = { m, sizeof *m };
        struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
        struct pollfd p = { .fd = session, .events = POLLIN };
        struct cmsghdr *c;

        *ret_fd = -1;
        *ret_late = poll(&p, 1, (int)PATIENCE_MS) != 1;
        if (*ret_late || recvmsg(session, &h, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof *m)
                return false;
        c = CMSG_FIRSTHDR(&h);
        if (c && c->cmsg_type == SCM_RIGHTS)
                memcpy(ret_fd, CMSG_DATA(c), sizeof *ret_fd);
        return true;
}

/* Sends and waits for the answer of that type; false: the session is over, or bad. */
static bool exchange(struct session_msg *m, int fd, uint32_t type, int *ret_fd) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = { { 0 } };
        struct iovec iov = { m, sizeof *m };
        struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
        uint64_t expected = ++cookie;
        struct cmsghdr *c;
        bool late = false;

        m->version = SESSION_CHANNEL_VERSION;
        m->cookie = expected;
        if (fd >= 0) {
                h.msg_control = &control;
                h.msg_controllen = sizeof control;
                c = CMSG_FIRSTHDR(&h);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof fd);
                memcpy(CMSG_DATA(c), &fd, sizeof fd);
        }
        if (sendmsg(session, &h, MSG_NOSIGNAL) < 0 || !receive(m, ret_fd, &late)) {
                if (late)
                        set_state(BAD, "the session connection says nothing");
                else
                        set_state(OVER, "its connection was closed");
                return false;
        }
        if (m->type == SESSION_ENDED)
                set_state(OVER, "%.300s", m->text);
        else if (m->type != type || m->cookie != expected)
                set_state(BAD, "the session connection answered type %u to cookie %llu", m->type,
                          (unsigned long long)expected);
        return state == FINE;
}

/* ---- calls ---- */

struct answer {
        int status;
        unsigned reason;
        char text[400];
        uint8_t *body;
        size_t size;
};

static void read_details(const struct grpc_client_answer *a, struct answer *ret) {
        Iommud__V1__StatusDetails *d = iommud__v1__status_details__unpack(NULL, a->details_size, a->details);
        Iommud__V1__Refusal *r;

        if (d && d->n_details == 1 && (r = iommud__v1__refusal__unpack(NULL, d->details[0]->value.len,
                                                                       d->details[0]->value.data))) {
                ret->reason = (unsigned)r->reason;
                iommud__v1__refusal__free_unpacked(r, NULL);
        }
        if (d)
                iommud__v1__status_details__free_unpacked(d, NULL);
}

static struct grpc_client_call *start(const char *method, const uint8_t *packed, size_t size) {
        char path[96];

        (void)snprintf(path, sizeof path, "/iommud.v1.Client/%s", method);
        return grpc_client_start(grpc, path, token, packed, size, CALL_MS, false);
}

static void finish(struct grpc_client_call *call, struct answer *ret) {
        struct grpc_client_answer a = { .status = -1 };

        *ret = (struct answer){ .status = -1 };
        grpc_client_wait(call, &a);
        ret->status = a.status;
        (void)snprintf(ret->text, sizeof ret->text, "%.399s", a.message);
        ret->body = a.body;
        ret->size = a.body_size;
        if (a.status != 0)
                read_details(&a, ret);
}

static void answer_clear(struct answer *a) {
        free(a->body);
        a->body = NULL;
}

enum verdict { DONE, LATER, LOST, ENDED, REFUSED };

/* What an answer means for who asked. */
static enum verdict judge(const struct answer *a) {
        if (a->status == 0)
                return DONE;
        switch (a->reason) {
        case 0: return LOST;            /* the connection broke: nobody knows */
        case REFUSAL_RECOVERING:
        case REFUSAL_IN_PROGRESS:
        case REFUSAL_LEDGER_UNAVAILABLE: return LATER;
        case REFUSAL_UNKNOWN_SESSION:
        case REFUSAL_HOLDER_LOST: return ENDED;
        default: return REFUSED;
        }
}

static void reconnect(void) {
        char path[144];

        grpc = grpc_client_free(grpc);
        (void)snprintf(path, sizeof path, "%.100s/grpc.sock", directory);
        grpc = grpc_client_connect(path);
}

/* One call, as often as it takes until a service answers; false: over, bad, or refused (*ret). */
static bool ask(const char *method, const uint8_t *packed, size_t size, struct answer *ret) {
        uint64_t until = harness_ms() + PATIENCE_MS;

        *ret = (struct answer){ .status = -1 };
        for (;;) {
                enum verdict v = LOST;

                if (grpc) {
                        answer_clear(ret);
                        finish(start(method, packed, size), ret);
                        v = judge(ret);
                }
                if (v == DONE)
                        return true;
                if (v == ENDED)
                        set_state(OVER, "%s", ret->text);
                if (v == REFUSED || v == ENDED)
                        return false;
                if (harness_ms() > until) {
                        set_state(BAD, "%s: no answer for %u ms, at last: %s", method, PATIENCE_MS, ret->text);
                        return false;
                }
                pause_briefly();
                if (v == LOST)
                        reconnect();
        }
}

static ProtobufCMessage *query(const char *method, const ProtobufCMessage *request,
                               const ProtobufCMessageDescriptor *descriptor, unsigned *ret_reason) {
        size_t size = protobuf_c_message_get_packed_size(request);
        _cleanup_free_ uint8_t *packed = malloc(size + 1);
        ProtobufCMessage *m = NULL;
        struct answer a;

        (void)protobuf_c_message_pack(request, packed);
        if (ask(method, packed, size, &a))
                m = protobuf_c_message_unpack(descriptor, NULL, a.size, a.body);
        *ret_reason = a.reason;
        answer_clear(&a);
        return m;
}

/* ---- comparing ---- */

/* Everything that is mapped; -1: there is no such domain (any more). */
static ssize_t list_mappings(uint64_t domain, struct held *ret, size_t room) {
        Iommud__V1__ListMappingsRequest q = IOMMUD__V1__LIST_MAPPINGS_REQUEST__INIT;
        _cleanup_free_ char *page = NULL;
        size_t n = 0;

        q.domain = domain;
        do {
                Iommud__V1__ListMappingsResponse *a;
                unsigned reason;

                if (page)
                        q.page_token = page;
                a = (Iommud__V1__ListMappingsResponse *)query("ListMappings", &q.base,
                                                              &iommud__v1__list_mappings_response__descriptor, &reason);
                if (!a) {
                        if (state == FINE && reason != REFUSAL_UNKNOWN_DOMAIN)
                                set_state(BAD, "ListMappings is refused with reason %u", reason);
                        return -1;
                }
                for (size_t i = 0; i < a->n_mappings && n < room; i++)
                        if (strcmp(a->mappings[i]->state, "deferred") != 0)
                                ret[n++] = (struct held){ .iova = a->mappings[i]->iova, .length = a->mappings[i]->length,
                                                  .memory = a->mappings[i]->memory, .offset = a->mappings[i]->offset,
                                                  .access = a->mappings[i]->access };
                free(page);
                page = a->next_page_token[0] ? strdup(a->next_page_token) : NULL;
                iommud__v1__list_mappings_response__free_unpacked(a, NULL);
        } while (page);
        return (ssize_t)n;
}

static struct request *pending_of(size_t domain) {
        for (size_t i = 0; i < record.n_pending; i++) {
                struct request *q = &record.pending[i];

                if (!q->resolved && q->kind != REGISTER && q->kind != UNREGISTER && q->domain == domain)
                        return q;
        }
        return NULL;
}

/* Each domain is as the record says, with what is pending in it wholly there or wholly absent. */
static void compare_domains(void) {
        static struct held seen[HELD_MAX + BATCH_MAX];

        for (size_t i = 0; i < DOMAINS && state == FINE; i++) {
                struct request *q = pending_of(i);
                char text[400];
                ssize_t n;

                if (record.domains[i].id == 0)
                        continue;
                n = list_mappings(record.domains[i].id, seen, ARRAY_SIZE(seen));
                if (n < 0) {
                        if (!q || q->kind != DESTROY)
                                set_state(BAD, "domain %llu is gone", (unsigned long long)record.domains[i].id);
                } else if (domain_compare(&record, i, q, seen, (size_t)n, text, sizeof text) < 0)
                        set_state(BAD, "%s", text);
        }
}

static void compare_one(const Iommud__V1__GetQuotaResponse *a, unsigned resource, uint64_t wanted) {
        for (size_t i = 0; i < a->n_quotas; i++)
                if ((unsigned)a->quotas[i]->resource == resource && a->quotas[i]->used != wanted)
                        set_state(BAD, "charged %llu of resource %u, has %llu", (unsigned long long)a->quotas[i]->used,
                                  resource, (unsigned long long)wanted);
}

/* The tenant is ours alone: its charge is what the record says. Nothing may be pending. */
static void compare_charges(void) {
        Iommud__V1__GetQuotaRequest q = IOMMUD__V1__GET_QUOTA_REQUEST__INIT;
        Iommud__V1__GetQuotaResponse *a;
        unsigned reason;

        a = (Iommud__V1__GetQuotaResponse *)query("GetQuota", &q.base, &iommud__v1__get_quota_response__descriptor, &reason);
        if (!a) {
                set_state(BAD, "GetQuota is refused with reason %u", reason);
                return;
        }
        compare_one(a, RESOURCE_LOCKED_BYTES, record_pages(&record) * PAGE);
        compare_one(a, RESOURCE_MAPPINGS, record_mappings(&record));
        compare_one(a, RESOURCE_DOMAINS, record_domains(&record));
        compare_one(a, RESOURCE_MEMORY_OBJECTS, record_memories(&record));
        compare_one(a, RESOURCE_REGISTERED_BYTES, record_memories(&record) * MEMORY_PAGES * PAGE);
        compare_one(a, RESOURCE_DEVICES, record_attachments(&record));
        iommud__v1__get_quota_response__free_unpacked(a, NULL);
}

/* ---- the device ---- */

/* A device that does not answer: with its session, or by itself? The fds of a dying holder are not closed all at once. */
static void device_failed(void) {
        struct pollfd p = { .fd = session, .events = POLLIN | POLLRDHUP };

        if (poll(&p, 1, 5000) == 1)
                set_state(OVER, "its connection was closed, or it was told so");
        else
                set_state(BAD, "the device does not answer");
}

/* A driver lets go of its device before it gives it back; what the kernel still has open somewhere is not lent again. */
static void let_go_of_device(const struct request *q) {
        struct held_domain *d = &record.domains[q->domain];

        if ((q->kind == DETACH || q->kind == DESTROY) && d->device >= 0)
                d->device = fd_close(d->device);
}

static void fetch_device(struct held_domain *d) {
        struct session_msg m = { .type = SESSION_DEVICE_FD, .id = d->attachment };

        if (!exchange(&m, -1, SESSION_DEVICE, &d->device))
                return;
        if (m.reason != 0)
                set_state(BAD, "no device fd: %.300s", m.text);
        else if (!probe_enable(d->device))
                device_failed();
}

static uint64_t checksum(void) {
        uint64_t sum = 14695981039346656037ULL;

        for (size_t i = 0; i < MEMORIES; i++)
                for (size_t k = 0; record.memories[i].id != 0 && k < MEMORY_PAGES * PAGE; k += 8)
                        sum = (sum ^ *(uint64_t *)(void *)(record.memories[i].bytes + k)) * 1099511628211ULL;
        return sum;
}

/* The device reads a pattern from a page that is mapped, with `source` behind it. Afterwards it is nowhere in memory: wherever it
 * arrives, it is seen. */
static bool load_pattern(const struct held_domain *d, uint64_t from, uint8_t *source, uint64_t *ret_pattern) {
        *ret_pattern = harness_random(&seed);
        memcpy(source, ret_pattern, sizeof *ret_pattern);
        transfers++;
        if (!probe_pull(d->device, from, sizeof *ret_pattern)) {
                device_failed();
                return false;
        }
        memset(source, 0, sizeof *ret_pattern);
        return true;
}

/* One page of the address space: what the device writes there arrives where the record says, or nowhere. */
static void probe_page(const struct held_domain *d, uint64_t page, uint64_t pattern) {
        uint64_t before = checksum();
        uint8_t *to = NULL;
        bool writable = record_page_access(&record, d, page, &to) & 2;

        transfers++;
        if (!probe_push(d->device, page, sizeof pattern))
                device_failed();
        else if (writable && memcmp(to, &pattern, sizeof pattern) != 0)
                set_state(BAD, "domain %llu: DMA to 0x%llx does not arrive", (unsigned long long)d->id,
                          (unsigned long long)page);
        else if (!writable && checksum() != before)
                set_state(BAD, "domain %llu: DMA to 0x%llx, which is not mapped for writing, arrives", (unsigned long long)d->id,
                          (unsigned long long)page);
        if (writable)
                memset(to, 0, sizeof pattern);
}

/* Every page of the small part, mapped or not. */
static void probe_every_page(const struct held_domain *d, uint64_t from, uint8_t *source) {
        uint64_t pattern;

        for (uint64_t i = 0; i < SLOTS + 1 && state == FINE; i++)
                if (load_pattern(d, from, source, &pattern))
                        probe_page(d, FIRST_IOVA - PAGE + i * PAGE, pattern);
}

/* Inside and beside a mapping, at both borders. */
static void probe_borders(const struct held_domain *d, const struct held *h, uint64_t pattern) {
        uint64_t first = h->iova & ~(uint64_t)(PAGE - 1), last = (h->iova + h->length - 1) & ~(uint64_t)(PAGE - 1);
        const uint64_t pages[] = { first - PAGE, first, last, last + PAGE };

        for (size_t i = 0; i < ARRAY_SIZE(pages) && state == FINE; i++)
                if (i != 2 || last != first)
                        probe_page(d, pages[i], pattern);
}

/* Some of its mappings. */
static void probe_some(const struct held_domain *d, uint64_t from, uint8_t *source) {
        size_t first = harness_random(&seed) % d->n;
        uint64_t pattern;

        for (size_t i = 0; i < d->n && i < SLOW_PROBES && state == FINE; i++)
                if (load_pattern(d, from, source, &pattern))
                        probe_borders(d, &d->at[(first + i) % d->n], pattern);
}

static void probe_domain(struct held_domain *d) {
        const struct held *h;
        uint8_t *source = NULL;
        uint64_t from;

        if (d->device < 0)
                fetch_device(d);
        if (d->n == 0 || state != FINE)
                return;
        h = &d->at[harness_random(&seed) % d->n];
        from = (h->iova + h->length - 1) & ~(uint64_t)(PAGE - 1);
        (void)record_page_access(&record, d, from, &source);
        if (probe_is_slow(d->device))
                probe_some(d, from, source);
        else
                probe_every_page(d, from, source);
}

/* ---- working ---- */

static void new_memory(struct request *q) {
        q->fd = memfd_create("crash", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_true(q->fd >= 0);
        assert_int_equal(ftruncate(q->fd, MEMORY_PAGES * PAGE), 0);
        q->bytes = mmap(NULL, MEMORY_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, q->fd, 0);
        assert_true(q->bytes != MAP_FAILED);
        memset(q->bytes, 0x5a, MEMORY_PAGES * PAGE);
}

/* The ticket for new memory; false: the session is over. */
static bool new_ticket(struct request *q) {
        struct session_msg m = { .type = SESSION_MEMORY };
        int none;

        new_memory(q);
        if (!exchange(&m, q->fd, SESSION_TICKET, &none))
                return false;
        q->ticket = m.id;
        if (m.reason != 0)
                set_state(BAD, "no ticket: %.300s", m.text);
        return state == FINE;
}

static void keep(const struct request *q, const struct answer *a) {
        struct kept *k = &record.kept[record.n_kept++ % KEPT];

        free(k->packed);
        free(k->answer);
        *k = (struct kept){ .method = q->method, .packed = malloc(q->size + 1), .size = q->size,
                            .answer = malloc(a->size + 1), .answer_size = a->size };
        memcpy(k->packed, q->packed, q->size);
        if (a->size > 0)
                memcpy(k->answer, a->body, a->size);
}

/* An attach that finds the device with the session that had it before, whose end takes its moment on the kernel's VFIO. */
static bool nothing_happened(struct request *q, const struct answer *a) {
        if (q->kind != ATTACH || !record.slow_device ||
            (a->reason != REFUSAL_DEVICE_BUSY && a->reason != REFUSAL_DEVICE_ORPHANED))
                return false;
        q->resolved = true;
        return true;
}

static void done(struct request *q, const struct answer *a) {
        requests++;
        keep(q, a);
        request_done(&record, q, a->body, a->size);
}

/* What was lost on the way: first what happened is looked at, then each is repeated with its key. */
static void resolve(void) {
        compare_domains();
        for (size_t i = 0; i < record.n_pending && state == FINE; i++) {
                struct request *q = &record.pending[i];
                struct answer a;

                if (q->resolved)
                        continue;
                lost++;
                if (ask(q->method, q->packed, q->size, &a))
                        done(q, &a);
                else if (state == FINE && !nothing_happened(q, &a))
                        set_state(BAD, "%s, repeated with its key, is refused: %u %s", q->method, a.reason, a.text);
                answer_clear(&a);
        }
}

static void forget_pending(void) {
        for (size_t i = 0; i < record.n_pending; i++) {
                struct request *q = &record.pending[i];

                if (q->kind == REGISTER && !q->resolved) {
                        munmap(q->bytes, MEMORY_PAGES * PAGE);
                        (void)close(q->fd);
                }
                request_clear(q);
        }
        record.n_pending = 0;
}

/* All that was chosen, at once; then what has no answer. */
static void run_pending(void) {
        struct grpc_client_call *calls[PENDING_MAX];
        bool unresolved = false;

        if (!grpc)
                reconnect();
        for (size_t i = 0; grpc && i < record.n_pending; i++)
                calls[i] = start(record.pending[i].method, record.pending[i].packed, record.pending[i].size);
        for (size_t i = 0; i < record.n_pending; i++) {
                struct request *q = &record.pending[i];
                struct answer a = { .status = -1 };
                enum verdict v = LOST;

                if (grpc) {
                        finish(calls[i], &a);
                        v = judge(&a);
                }
                if (v == DONE)
                        done(q, &a);
                else if (v == ENDED)
                        set_state(OVER, "%s", a.text);
                else if (v == REFUSED && nothing_happened(q, &a))
                        ;
                else if (v == REFUSED)
                        set_state(BAD, "%s is refused: %u %s", q->method, a.reason, a.text);
                else
                        unresolved = true;
                answer_clear(&a);
        }
        if (unresolved && state == FINE)
                resolve();
        forget_pending();
}

static void choose(size_t n) {
        for (int tries = 0; tries < 40 && record.n_pending < n; tries++) {
                struct request *q = &record.pending[record.n_pending];

                if (!request_choose(&record, q, &seed))
                        continue;
                if (q->kind == REGISTER && !new_ticket(q)) {
                        munmap(q->bytes, MEMORY_PAGES * PAGE);
                        (void)close(q->fd);
                        return;
                }
                request_pack(&record, q, &seed);
                let_go_of_device(q);
                record.n_pending++;
        }
}

/* An answer that was got before comes again, and nothing else happens. */
static void repeat_one(void) {
        size_t n = record.n_kept < KEPT ? record.n_kept : KEPT;
        const struct kept *k;
        struct answer a;

        if (n == 0)
                return;
        k = &record.kept[harness_random(&seed) % n];
        repeated++;
        if (!ask(k->method, k->packed, k->size, &a)) {
                if (state == FINE)
                        set_state(BAD, "an answered %s, repeated, is refused: %u %s", k->method, a.reason, a.text);
        } else if (a.size != k->answer_size || (a.size > 0 && memcmp(a.body, k->answer, a.size) != 0))
                set_state(BAD, "an answered %s, repeated, gives another answer (%zu bytes, %zu before)", k->method, a.size,
                          k->answer_size);
        answer_clear(&a);
}

/* What was unmapped lazily is gone. */
static void sync_domain(struct held_domain *d) {
        Iommud__V1__SyncRequest q = IOMMUD__V1__SYNC_REQUEST__INIT;
        ProtobufCMessage *a;
        unsigned reason;

        q.domain = d->id;
        a = query("Sync", &q.base, &iommud__v1__sync_response__descriptor, &reason);
        if (!a) {
                set_state(BAD, "Sync is refused with reason %u", reason);
                return;
        }
        protobuf_c_message_free_unpacked(a, NULL);
        d->n_away = 0;
}

static void sync_all(void) {
        for (size_t i = 0; i < DOMAINS && state == FINE; i++)
                if (record.domains[i].id != 0 && record.domains[i].lazy)
                        sync_domain(&record.domains[i]);
}

static void step(void) {
        uint64_t what = harness_random(&seed) % 16;

        if (what < 2) {
                repeat_one();
                return;
        }
        if (harness_random(&seed) % 32 == 0)
                sync_all();
        choose(what < 8 ? 1 : 1 + harness_random(&seed) % PENDING_MAX);
        if (state == FINE && record.n_pending > 0)
                run_pending();
        for (size_t i = 0; i < DOMAINS && state == FINE; i++)
                if (record.domains[i].attachment != 0 && record.domains[i].device < 0)
                        fetch_device(&record.domains[i]);
}

/* A domain's place with a domain in it and memory to map; makes what is missing by working on. */
static bool prepare_many(size_t *ret_domain) {
        for (int i = 0; i < 1000 && state == FINE; i++) {
                for (*ret_domain = 0; record_memories(&record) > 0 && *ret_domain < DOMAINS; ++*ret_domain)
                        if (record.domains[*ret_domain].id != 0)
                                return true;
                step();
        }
        return false;
}

static void many(void) {
        const enum request_kind kinds[] = { UNMAP_ALL, MAP, MAP, UNMAP_ALL };   /* with shared pages fewer go at once */
        size_t domain;

        if (!prepare_many(&domain))
                return;
        for (size_t i = 0; i < ARRAY_SIZE(kinds) && state == FINE; i++) {
                struct request *q = &record.pending[0];

                q->kind = kinds[i];
                q->domain = domain;
                if (!request_many(&record, q, i == 1 ? BATCH_MAX : 64, &seed))
                        continue;
                request_pack(&record, q, &seed);
                record.n_pending = 1;
                run_pending();
        }
}

/* ---- commands ---- */

static void close_all(void) {
        grpc = grpc_client_free(grpc);
        session = fd_close(session);
        record_clear(&record);
}

/* One attempt; false: the service went away, or is not there yet. */
static bool open_once(void) {
        Iommud__V1__OpenSessionRequest q = IOMMUD__V1__OPEN_SESSION_REQUEST__INIT;
        struct session_msg m;
        ProtobufCMessage *a;
        unsigned reason;
        bool late;
        int fd;

        session = connect_to("session.sock", SOCK_SEQPACKET);
        if (session < 0)
                return false;
        if (!receive(&m, &fd, &late) || m.type != SESSION_TOKEN) {
                if (late) {
                        state = FINE;
                        set_state(BAD, "a new session connection says nothing");
                }
                return false;
        }
        (void)snprintf(token, sizeof token, "%.32s", m.text);
        state = FINE;
        q.client_name = (char *)"crash";
        a = query("OpenSession", &q.base, &iommud__v1__open_session_response__descriptor, &reason);
        if (!a)
                return false;
        protobuf_c_message_free_unpacked(a, NULL);
        return true;
}

static void begin(char *args) {
        uint64_t until = harness_ms() + 2 * PATIENCE_MS;
        unsigned long long number;

        close_all();
        state = OVER;
        if (sscanf(args, "%99s %15s %llu", directory, record.device, &number) != 3) {
                say("bad begin");
                return;
        }
        seed = number;
        record.slow_device = strchr(record.device, ':') != NULL;        /* a PCI address */
        while (!open_once() && state != BAD) {
                close_all();
                state = OVER;
                if (harness_ms() > until) {
                        say("bad no session");
                        return;
                }
                pause_briefly();
        }
        say(state == FINE ? "ok" : "bad %s", why);
}

static bool line_waits(void) {
        struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };

        return poll(&p, 1, 0) == 1;
}

static void go(void) {
        while (state == FINE && !line_waits())
                step();
}

static unsigned open_devices(void) {
        unsigned n = 0;

        for (size_t i = 0; i < DOMAINS; i++)
                n += record.domains[i].id != 0 && record.domains[i].device >= 0;
        return n;
}

static void report(void) {
        if (state == FINE)
                compare_domains();
        sync_all();
        if (state == FINE)
                compare_charges();
        for (size_t i = 0; i < DOMAINS && state == FINE; i++)
                if (record.domains[i].attachment != 0)
                        probe_domain(&record.domains[i]);
        if (state == FINE)
                say("ok %lu %lu %lu %lu", requests, repeated, lost, transfers);
        else if (state == OVER)
                say("over %u %s", open_devices(), why);
        else
                say("bad %s", why);
        requests = repeated = lost = transfers = 0;
}

static bool is_cut_off(const struct held_domain *d) {
        for (size_t i = 0; i < d->n; i++) {
                uint64_t page = d->at[i].iova & ~(uint64_t)(PAGE - 1), before;
                uint8_t *to;

                if (!(record_page_access(&record, d, page, &to) & 2))
                        continue;
                memset(to, 0xa5, 8);            /* what the device has in its buffer is something else */
                before = checksum();
                transfers++;
                return probe_push(d->device, page, 8) && checksum() == before;
        }
        return true;
}

static void check_cut(void) {
        for (size_t i = 0; i < DOMAINS; i++)
                if (record.domains[i].id != 0 && record.domains[i].device >= 0 && !is_cut_off(&record.domains[i])) {
                        say("bad DMA of an ended session arrives");
                        return;
                }
        say("ok");
}

static bool handle(char *line) {
        char *args = line + strcspn(line, " ");

        if (*args)
                *args++ = '\0';
        if (strcmp(line, "begin") == 0)
                begin(args);
        else if (strcmp(line, "go") == 0)
                go();
        else if (strcmp(line, "many") == 0) {
                many();
                go();
        } else if (strcmp(line, "sync") == 0)
                report();
        else if (strcmp(line, "cut") == 0)
                check_cut();
        else if (strcmp(line, "leave") == 0) {
                close_all();
                state = OVER;
                (void)snprintf(why, sizeof why, "it has left");
                say("ok");
        } else
                return false;
        return true;
}

int main(void) {
        char line[300];

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)setvbuf(stdin, NULL, _IONBF, 0);  /* what is read is handled: poll() sees what waits */
        record.domains[0].device = record.domains[1].device = record.domains[2].device = -1;
        while (fgets(line, sizeof line, stdin)) {
                line[strcspn(line, "\n")] = '\0';
                if (!handle(line))
                        break;
        }
        _exit(0);
}
