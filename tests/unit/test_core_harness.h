/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The real core on a real ledger, with a holder that is the test: it hears what the broker says and answers what it likes,
 * also what no holder would. The process that the broker may kill is a child that only sleeps.
 *
 *   core_start(); struct holder *h = holder_open("alpha");
 *   struct asked *a = ask_map(h, ...);  holder_expect(h, LINK_MAP);  holder_done(h);  assert_done(a);
 *
 * Nothing here is thread-safe: one test, one thread. What a test leaves open is closed by core_teardown().
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "auth/peer.h"
#include "core/broker.h"
#include "core/broker_private.h"
#include "core/requests.h"
#include "core/session.h"
#include "holder/protocol.h"
#include "ledger.h"
#include "util/cleanup.h"
#include "util/fdmsg.h"
#include "util/log.h"

#define PAGE 0x1000ULL
#define WAIT_MS 10000           /* how long a test waits for what must come */
#define SILENCE_MS 80           /* ... and for what must not */
#define HOLDERS_MAX 8U

static struct {
        char directory[96], ledger_path[128], holder_socket[128], link_socket[128];
        struct ledger *ledger;
        struct broker *broker;
        int listener;
        struct ledger_tenant tenants[2];
        struct broker_options options;
} core;

struct holder {
        int link, connection, client;   /* our end of the link; the client's connection as handed over; its other end */
        int given;                      /* number of the connection that the broker got, which is the broker's */
        pid_t child;
        int child_control;              /* a byte to it: it connects to the broker and sends what it has; see holder_return() */
        struct peer peer;
        struct link_setup setup;
        char token[2 * SESSION_TOKEN_BYTES + 1];
        struct session *session;
        struct {                        /* what came last */
                struct link_header header;
                uint8_t payload[LINK_MESSAGE_MAX - sizeof(struct link_header)];
        } got;
        int fds[FDMSG_MAX_FDS];
};

static struct holder *holders[HOLDERS_MAX];

/* ---- the core ---- */

static inline int core_remove_entry(const char *path, const struct stat *st, int type, struct FTW *at) {
        (void)st, (void)type, (void)at;
        return remove(path);
}

static inline void core_listen(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        (void)snprintf(address.sun_path, sizeof address.sun_path, "%.100s", core.holder_socket);
        core.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(core.listener, (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(listen(core.listener, 16), 0);
}

/* core.options may be changed between core_setup() and this. */
static inline void core_start(void) {
        const struct ledger_options where = { .directory = core.ledger_path };
        struct refusal r;

        if (ledger_open(&where, &core.ledger, &r) < 0 || broker_new(core.ledger, &core.options, &core.broker, &r) < 0 ||
            broker_start(core.broker, &r) < 0)
                fail_msg("%s", r.text);
}

static inline int core_setup(void **state) {
        const char *tmp = getenv("TMPDIR");

        (void)state;
        memset(&core, 0, sizeof core);
        (void)snprintf(core.directory, sizeof core.directory, "%.60s/iommud-core-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(core.directory))
                return -1;
        (void)snprintf(core.ledger_path, sizeof core.ledger_path, "%s/ledger", core.directory);
        (void)snprintf(core.holder_socket, sizeof core.holder_socket, "%s/holder", core.directory);
        (void)snprintf(core.link_socket, sizeof core.link_socket, "%s/link", core.directory);
        for (size_t i = 0; i < ARRAY_SIZE(core.tenants); i++) {
                (void)snprintf(core.tenants[i].name, sizeof core.tenants[i].name, "%s", i == 0 ? "alpha" : "beta");
                for (size_t k = 0; k < _RESOURCE_N; k++)
                        core.tenants[i].quota[k] = UINT64_MAX;
        }
        core.options = (struct broker_options){
                .backend = BACKEND_SOFT, .vfio_directory = core.directory, .sysfs = core.directory,
                .holder_program = "/bin/true", .holder_socket = core.holder_socket, .link_socket = core.link_socket,
                .tenant_directory = core.directory, .ledger_path = core.ledger_path, .holder_uid_first = 1,
                .holder_gid = UINT32_MAX, .max_sessions = 64, .starts_per_second = 1000, .register_deadline_ms = WAIT_MS,
                .operation_deadline_ms = WAIT_MS, .unclaimed_seconds = 60, .recover_seconds = 1, .orphan_seconds = 1,
                .soft = { .page_sizes = 1ULL << 12 | 1ULL << 21, .aperture_last = (1ULL << 48) - 1, .reserved_first = 0xfee00000,
                          .reserved_last = 0xfeefffff },
                .file_tenants = core.tenants, .n_file_tenants = ARRAY_SIZE(core.tenants),
        };
        log_set_max_level(LOG_EMERG);
        core_listen();
        return 0;
}

static inline void core_end(void) {
        if (core.broker)
                broker_stop(core.broker, true);
        core.broker = broker_free(core.broker);
        core.ledger = ledger_close(core.ledger);
}

static inline void holder_free(struct holder *h) {
        h->session = session_unref(h->session);
        fd_close(h->link);
        fd_close(h->connection);
        fd_close(h->client);
        fd_close(h->child_control);
        peer_clear(&h->peer);
        if (h->child > 0) {
                kill(h->child, SIGKILL);
                waitpid(h->child, NULL, 0);     /* ECHILD: the broker has reaped it */
        }
        free(h);
}

static inline int core_teardown(void **state) {
        (void)state;
        for (size_t i = 0; i < HOLDERS_MAX; i++)
                if (holders[i]) {
                        holders[i]->session = session_unref(holders[i]->session);
                        if (holders[i]->child > 0)
                                kill(holders[i]->child, SIGKILL);       /* it ignores LINK_END: the broker would wait */
                }
        core_end();
        for (size_t i = 0; i < HOLDERS_MAX; i++)
                if (holders[i]) {
                        holder_free(holders[i]);
                        holders[i] = NULL;
                }
        fd_close(core.listener);
        return nftw(core.directory, core_remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* Waits until condition is true. */
#define EVENTUALLY(condition)                                                                                          \
        do {                                                                                                           \
                unsigned waited_ = 0;                                                                                  \
                bool met_; /* evaluated once a round: it may take what it finds */                                     \
                while (!(met_ = (condition)) && waited_ < WAIT_MS) {                                                   \
                        usleep(2000);                                                                                  \
                        waited_ += 2;                                                                                  \
                }                                                                                                      \
                if (!met_)                                                                                             \
                        fail_msg("not within %u ms: %s", WAIT_MS, #condition);                                         \
        } while (0)

/* ---- the ledger and the balances, as they are now ---- */

static inline int64_t sql(const char *query) {
        sqlite3_stmt *statement;
        char path[160];
        sqlite3 *db;
        int64_t n;

        (void)snprintf(path, sizeof path, "%s/state.db", core.ledger_path);
        assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_prepare_v2(db, query, -1, &statement, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
        n = sqlite3_column_int64(statement, 0);
        sqlite3_finalize(statement);
        sqlite3_close(db);
        return n;
}

static inline uint64_t charged(const char *tenant, enum resource what) {
        uint64_t limit[_RESOURCE_N], used[_RESOURCE_N];
        struct tenant *t;

        pthread_mutex_lock(&core.broker->lock);
        t = tenant_find(core.broker, tenant);
        pthread_mutex_unlock(&core.broker->lock);
        assert_non_null(t);
        quota_account_read(&t->account, limit, used);
        return used[what];
}

/* ---- the holder ---- */

static inline bool holder_receive(struct holder *h, int timeout_ms) {
        const uint64_t end = monotonic_ms() + (uint64_t)timeout_ms;
        struct pollfd p = { .fd = h->link, .events = POLLIN };
        struct link_header last = h->got.header;
        ssize_t n;

        for (uint64_t now = monotonic_ms(); now <= end; now = monotonic_ms()) {
                if (poll(&p, 1, (int)(end - now)) != 1)
                        return false;
                n = fdmsg_receive(h->link, &h->got, sizeof h->got, h->fds, 0);
                if (n <= 0)
                        return false;
                if (h->got.header.type != LINK_SETTLED)
                        return true;
                h->got.header = last;   /* that comes at any time, and nobody answers it */
        }
        return false;
}

static inline void holder_expect(struct holder *h, enum link_type type) {
        if (!holder_receive(h, WAIT_MS))
                fail_msg("no message, where one of type %u was to come", (unsigned)type);
        assert_int_equal(h->got.header.type, type);
}

static inline void holder_expect_silence(struct holder *h) {
        if (holder_receive(h, SILENCE_MS))
                fail_msg("a message of type %u, where none was to come", h->got.header.type);
}

static inline void holder_send(struct holder *h, enum link_type type, uint64_t seq, const void *payload, size_t size) {
        struct {
                struct link_header header;
                uint8_t payload[sizeof(struct link_result)];
        } m = { .header = { .version = LINK_VERSION, .type = (uint16_t)type, .seq = seq } };

        assert_true(size <= sizeof m.payload);
        memcpy(m.payload, payload, size);
        assert_int_equal(fdmsg_send(h->link, &m, sizeof m.header + size, NULL, 0, 0), 0);
}

/* Answers what came last. */
static inline void holder_answer(struct holder *h, const struct link_result *result) {
        holder_send(h, LINK_RESULT, h->got.header.seq, result, sizeof *result);
}

static inline void holder_done(struct holder *h) {
        holder_answer(h, &(struct link_result){ .refusal = { .element = -1, .conflict_first = 1 } });
}

static inline void holder_refuse(struct holder *h, enum refusal_reason reason, uint32_t flags) {
        struct link_result result = { .flags = flags };

        refuse(&result.refusal, reason, "the holder says no");
        holder_answer(h, &result);
}

/* The child connects for us when it is asked: the kernel then names it to the broker, and not the test. */
static inline void child_main(int control) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char byte;

        prctl(PR_SET_PDEATHSIG, SIGKILL);       /* or it would outlive a test that crashes */
        if (control != 3)
                control = dup2(control, 3);
        close_range(4, UINT_MAX, 0);            /* the ledger's lock among them */
        (void)snprintf(address.sun_path, sizeof address.sun_path, "%.100s", core.link_socket);
        while (recv(control, &byte, 1, 0) == 1) {
                int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

                while (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
                        usleep(1000);
                fdmsg_send(control, "", 1, &fd, 1, 0);
                fd_close(fd);
        }
        for (;;)
                pause();
}

/* A session as far as the holder's greeting, which the test sends when it likes. */
static inline struct holder *holder_connect(const char *tenant) {
        struct holder *h = calloc(1, sizeof *h);
        size_t i = 0;
        int pair[2], control[2];

        assert_non_null(h);
        while (i < HOLDERS_MAX && holders[i])
                i++;
        assert_true(i < HOLDERS_MAX);
        holders[i] = h;
        h->link = h->connection = -1;
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control), 0);
        h->child = fork();
        if (h->child == 0) {
                fd_close(control[0]);
                child_main(control[1]);
        }
        fd_close(control[1]);
        h->child_control = control[0];
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        h->client = pair[0];
        h->given = pair[1];
        assert_int_equal(peer_from_socket(pair[1], PEER_SOCKET_TENANT, tenant, &h->peer), 0);
        session_start(core.broker, pair[1], &h->peer);
        h->link = accept4(core.listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(h->link >= 0);
        holder_expect(h, LINK_SETUP);
        memcpy(&h->setup, h->got.payload, sizeof h->setup);
        return h;
}

static inline void holder_greet(struct holder *h) {
        const struct link_hello hello = { .session = h->setup.session, .pid = (uint32_t)h->child, .sandboxed = 1 };

        holder_send(h, LINK_HELLO, 0, &hello, sizeof hello);
}

static inline void holder_take_client(struct holder *h) {
        struct refusal r;

        holder_expect(h, LINK_CLIENT);
        h->connection = fd_steal(&h->fds[0]);
        fd_close(h->fds[1]);
        holder_expect(h, LINK_GO);
        holder_expect(h, LINK_TOKEN);
        memcpy(h->token, h->got.payload, sizeof h->token);
        if (session_authenticate(core.broker, h->token, &h->peer, &h->session, &r) < 0)
                fail_msg("%s", r.text);
}

/* A live session, whose client is this process. */
static inline struct holder *holder_open(const char *tenant) {
        struct holder *h = holder_connect(tenant);

        holder_greet(h);
        holder_take_client(h);
        return h;
}

static inline bool child_is_alive(const struct holder *h) {
        char path[64], state = 'X';
        FILE *f;

        (void)snprintf(path, sizeof path, "/proc/%d/stat", h->child);
        f = fopen(path, "re");
        if (!f)
                return false;
        if (fscanf(f, "%*d %*s %c", &state) != 1)
                state = 'X';
        fclose(f);
        return state != 'Z' && state != 'X';
}

/* ---- requests ---- */

struct asked {
        struct reply reply;             /* first */
        pthread_mutex_t lock;
        bool answered, refused;
        unsigned times;
        struct refusal refusal;
        struct answer answer;
};

static inline void asked_done(struct reply *reply, const struct refusal *refusal, const struct answer *answer) {
        struct asked *a = (struct asked *)reply;
        LOCK_SCOPE(&a->lock);

        a->answered = true;
        a->times++;
        a->refused = refusal != NULL;
        if (refusal)
                a->refusal = *refusal;
        if (answer)
                a->answer = *answer;
}

static inline struct asked asked_new(void) {
        return (struct asked){ .reply.done = asked_done, .lock = PTHREAD_MUTEX_INITIALIZER };
}

static inline bool is_answered(struct asked *a) {
        LOCK_SCOPE(&a->lock);
        return a->answered;
}

static inline void assert_done(struct asked *a) {
        EVENTUALLY(is_answered(a));
        if (a->refused)
                fail_msg("%s: %s", refusal_reason_name(a->refusal.reason), a->refusal.text);
        assert_int_equal(a->times, 1);
}

static inline void assert_refused(struct asked *a, enum refusal_reason reason) {
        EVENTUALLY(is_answered(a));
        if (!a->refused || a->refusal.reason != reason)
                fail_msg("%s, where %s was to come", a->refused ? refusal_reason_name(a->refusal.reason) : "done",
                         refusal_reason_name(reason));
        assert_int_equal(a->times, 1);
}

static inline struct request_key key_of(uint8_t n) {
        struct request_key key = { .present = n != 0 };

        memset(key.bytes, n, sizeof key.bytes);
        return key;
}

/* key 0: none */
/* What the played holder says of memory: unsealed memory is charged for each mapping, sealed pages once. */
static bool memory_is_unsealed;

static inline void ask_map(struct holder *h, uint64_t domain, uint64_t memory, uint64_t iova, uint64_t length, uint8_t key,
                           struct asked *a) {
        const uint64_t offset = 0;
        const uint32_t access = BACKEND_ACCESS_READ;
        const struct map_request request = { .key = key_of(key), .domain = domain, .n = 1, .iova = &iova, .length = &length,
                                             .offset = &offset, .memory = &memory, .n_memory = 1, .access = &access,
                                             .n_access = 1 };

        *a = asked_new();
        map_request_start(h->session, &request, &a->reply);
}

static inline void ask_unmap(struct holder *h, uint64_t domain, uint64_t iova, uint64_t length, uint8_t key, struct asked *a) {
        const struct unmap_request request = { .key = key_of(key), .domain = domain, .n = length ? 1 : 0, .iova = &iova,
                                               .length = &length };

        *a = asked_new();
        unmap_request_start(h->session, &request, &a->reply);
}

static inline void ask_register(struct holder *h, uint64_t size, struct asked *a) {
        const struct register_request request = { .ticket = 1, .size = size };

        *a = asked_new();
        memory_register_request(h->session, &request, &a->reply);
}

static inline uint64_t make_domain_as(struct holder *h, const struct create_domain_request *request) {
        struct asked a = asked_new();

        domain_create_request(h->session, request, &a.reply);
        holder_expect(h, LINK_DOMAIN_CREATE);
        holder_done(h);
        assert_done(&a);
        return a.answer.id;
}

static inline uint64_t make_domain(struct holder *h) {
        return make_domain_as(h, &(struct create_domain_request){ .label = "test" });
}

#define SOFT_DEVICE "edu0"

/* Instead of core_start(): with a device, which may be attached at once. */
static inline void core_start_with_device(void) {
        core.options.n_soft_devices = 1;
        strcpy(core.options.soft_devices[0], SOFT_DEVICE);
        core_start();
        EVENTUALLY(!broker_is_recovering(core.broker));
}

static inline void holder_expect_ack(struct holder *h, uint64_t attachment) {
        struct link_attachment ack;

        holder_expect(h, LINK_ATTACH_ACK);
        memcpy(&ack, h->got.payload, sizeof ack);
        assert_int_equal(ack.attachment, attachment);
}

/* Attaches it to the domain; info: what its IOMMU is like. */
static inline uint64_t attach_device(struct holder *h, uint64_t domain, const struct container_info *info) {
        const struct attach_request request = { .domain = domain, .device = SOFT_DEVICE };
        struct asked a = asked_new();

        device_attach_request(h->session, &request, &a.reply);
        holder_expect(h, LINK_ATTACH);
        holder_answer(h, &(struct link_result){ .refusal = { .element = -1, .conflict_first = 1 }, .info = *info });
        assert_done(&a);
        holder_expect_ack(h, a.answer.id);
        return a.answer.id;
}

static inline uint64_t make_memory(struct holder *h, uint64_t size) {
        struct link_result result = { .refusal = { .element = -1, .conflict_first = 1 },
                                      .memory = { .size = size, .page_size = PAGE, .dev = 1, .ino = 1,
                                                  .sealed = !memory_is_unsealed,
                                                  .writable = 1 } };
        struct asked a;

        ask_register(h, size, &a);
        holder_expect(h, LINK_REGISTER);
        holder_answer(h, &result);
        assert_done(&a);
        return a.answer.id;
}

static inline void map(struct holder *h, uint64_t domain, uint64_t memory, uint64_t iova, uint64_t length) {
        struct asked a;

        ask_map(h, domain, memory, iova, length, 0, &a);
        holder_expect(h, LINK_MAP);
        holder_done(h);
        assert_done(&a);
}
