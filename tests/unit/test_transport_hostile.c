/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker proto util testlib */
/* I10: what a client sends, or stops sending, costs a bounded amount and nobody else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <errno.h>
#include <poll.h>
#include <sys/un.h>

#include "../lib/fakes/fake_core.c"
#include "../lib/fakes/served.c"

#define CHECK "/grpc.health.v1.Health/Check"
#define UNMAP_ALL "/iommud.v1.Client/UnmapAll"
#define SILENT_MS 1200U
#define PER_OWNER 6U

static char token[2 * SESSION_TOKEN_BYTES + 1];

static int start(void **state) {
        (void)state;
        fake_token(getpid(), token);
        served_start(&(struct transport_options){
                .first_call_ms = SILENT_MS,
                .limits = { .per_role = 16, .per_owner = PER_OWNER, .sessions_burst = 3, .sessions_per_second = 1 } });
        fake_set(FAKE_NOW, 0);
        return 0;
}

static int stop(void **state) {
        (void)state;
        served_stop();
        fake_end();
        for (int i = 0; i < 200 && fake.sessions_live != 0; i++)
                sleep_ms(10);
        return fake.sessions_live == 0 ? 0 : -1;
}

static int nobody_connected(void **state) {
        (void)state;
        fake_set(FAKE_NOW, 0);
        for (int i = 0; i < 500 && transport_connections(served.transport) > 0; i++)
                sleep_ms(10);
        return transport_connections(served.transport) == 0 ? 0 : -1;
}

static int raw_connect(const char *path, int type) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

        (void)strcpy(a.sun_path, path);
        assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
        return fd;
}

/* Has the service ended this connection, within ms. */
static bool is_ended(int fd, unsigned ms) {
        char buffer[4096];

        for (unsigned waited = 0; waited <= ms; waited += 10) {
                struct pollfd p = { .fd = fd, .events = POLLIN };

                if (poll(&p, 1, 10) > 0) {
                        ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);

                        if (n == 0 || (n < 0 && errno != EAGAIN))
                                return true;
                }
        }
        return false;
}

static void assert_works(struct grpc_client *c, const char *method) {
        struct grpc_client_answer a;

        grpc_client_unary(c, method, token, "", 0, 10000, &a);
        if (a.status != 0)
                fail_msg("%s: %d %s", method, a.status, a.message);
        grpc_client_answer_clear(&a);
}

static void test_garbage_ends_only_its_connection(void **state) {
        struct grpc_client *c = grpc_client_connect(served.client);
        char garbage[8192];

        (void)state;
        assert_works(c, UNMAP_ALL);
        for (unsigned seed = 0; seed < 20; seed++) {
                int fd = raw_connect(served.client, SOCK_STREAM);

                for (size_t i = 0; i < sizeof garbage; i++)
                        garbage[i] = (char)rand_r(&seed);
                if (seed % 2)           /* a good beginning, then nonsense */
                        memcpy(garbage, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
                (void)send(fd, garbage, sizeof garbage, MSG_NOSIGNAL);
                assert_true(is_ended(fd, 5000));
                close(fd);
                assert_works(c, UNMAP_ALL);
        }
        (void)grpc_client_free(c);
}

static void test_silent_connection_is_dropped(void **state) {
        struct grpc_client *working = grpc_client_connect(served.client);
        int silent = raw_connect(served.client, SOCK_STREAM), greeted = raw_connect(served.client, SOCK_STREAM);

        (void)state;
        assert_works(working, CHECK);
        /* a complete HTTP/2 greeting is not a call */
        assert_true(send(greeted, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33, MSG_NOSIGNAL) == 33);
        assert_false(is_ended(silent, SILENT_MS / 2));
        assert_true(is_ended(silent, 5000));
        assert_true(is_ended(greeted, 5000));
        close(silent);
        close(greeted);
        sleep_ms(2 * SILENT_MS);
        assert_works(working, UNMAP_ALL);       /* had made a call: may be idle as long as it likes */
        (void)grpc_client_free(working);
}

/* A refused peer cannot keep its connection by calling. */
static void test_refused_connection_is_dropped(void **state) {
        struct grpc_client *c;
        struct grpc_client_answer a;

        (void)state;
        fake_refuse_peers();
        c = grpc_client_connect(served.client);
        grpc_client_unary(c, CHECK, NULL, "", 0, 10000, &a);
        assert_int_equal(a.status, 7);
        grpc_client_answer_clear(&a);
        for (int i = 0; i < 500 && transport_connections(served.transport) > 0; i++)
                sleep_ms(10);
        assert_int_equal(transport_connections(served.transport), 0);
        (void)grpc_client_free(c);
}

static void test_connections_of_one_owner_are_limited(void **state) {
        struct grpc_client *c[PER_OWNER], *other;
        int over;

        (void)state;
        for (size_t i = 0; i < PER_OWNER; i++) {
                c[i] = grpc_client_connect(served.client);
                assert_works(c[i], UNMAP_ALL);
        }
        over = raw_connect(served.client, SOCK_STREAM);
        assert_true(is_ended(over, SILENT_MS / 3));     /* at once, not by its silence */
        close(over);
        other = grpc_client_connect(served.tenant);     /* the same uid, another tenant */
        assert_works(other, UNMAP_ALL);
        (void)grpc_client_free(other);
        other = grpc_client_connect(served.operator);
        assert_works(other, CHECK);
        (void)grpc_client_free(other);
        assert_works(c[0], UNMAP_ALL);
        (void)grpc_client_free(c[0]);
        for (int i = 0; i < 500 && transport_connections(served.transport) > PER_OWNER - 1; i++)
                sleep_ms(10);
        c[0] = grpc_client_connect(served.client);      /* room again */
        assert_works(c[0], UNMAP_ALL);
        for (size_t i = 0; i < PER_OWNER; i++)
                (void)grpc_client_free(c[i]);
}

/* Users that are no tenant have an eighth of the room together. */
static void test_nobodys_leave_room(void **state) {
        int fd[4];

        (void)state;
        fake_refuse_peers();
        for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
                fd[i] = raw_connect(served.client, SOCK_STREAM);
        assert_true(is_ended(fd[3], SILENT_MS / 3));
        assert_false(is_ended(fd[0], 20));
        for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
                close(fd[i]);
}

static void receive_text(int fd, char text[64]) {
        struct pollfd p = { .fd = fd, .events = POLLIN };

        assert_int_equal(poll(&p, 1, 5000), 1);
        assert_true(recv(fd, text, 63, 0) > 0);
        text[63] = '\0';
        close(fd);
}

static void test_session_connections(void **state) {
        char text[64] = "";
        unsigned refused = 0;

        (void)state;
        for (int i = 0; i < 3; i++) {
                receive_text(raw_connect(served.client_session, SOCK_SEQPACKET), text);
                assert_string_equal(text, token);       /* handed over, with the right peer */
        }
        receive_text(raw_connect(served.client_session, SOCK_SEQPACKET), text);
        assert_string_equal(text, "LIMIT_EXCEEDED");
        receive_text(raw_connect(served.tenant_session, SOCK_SEQPACKET), text);
        assert_string_equal(text, token);               /* another owner has its own rate */
        sleep_ms(1100);
        receive_text(raw_connect(served.client_session, SOCK_SEQPACKET), text);
        assert_string_equal(text, token);
        fake_refuse_peers();
        refused = fake.connections_refused;
        receive_text(raw_connect(served.client_session, SOCK_SEQPACKET), text);
        assert_string_equal(text, "UNKNOWN_PEER");
        while (fake.connections_refused == refused)
                sleep_ms(1);
}

/* A flood of refusals must not push everything else out of the audit trail. */
static void test_audit_of_refusals_is_limited(void **state) {
        unsigned before = fake.audits, refused = fake.connections_refused;
        char text[64];

        (void)state;
        fake_refuse_peers();
        for (int i = 0; i < 60; i++)
                receive_text(raw_connect(served.client_session, SOCK_SEQPACKET), text);
        while (fake.connections_refused < refused + 60)
                sleep_ms(1);
        assert_in_range(fake.audits - before, 5, 20);
}

static unsigned count_entries(const char *path) {
        DIR *d = opendir(path);
        unsigned n = 0;

        assert_non_null(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

/* Memory of this process that is its own, in kB. */
static unsigned long own_memory(void) {
        unsigned long size, resident, shared = 0;
        FILE *f = fopen("/proc/self/statm", "re");

        assert_non_null(f);
        assert_int_equal(fscanf(f, "%lu %lu %lu", &size, &resident, &shared), 3);
        fclose(f);
        return (resident - shared) * 4;
}

static void churn(unsigned times) {
        for (unsigned i = 0; i < times; i++) {
                struct grpc_client *c;
                struct grpc_client_call *call;
                struct grpc_client_answer a;

                if (i % 4 == 3) {       /* comes and goes without a word */
                        close(raw_connect(served.client, SOCK_STREAM));
                        continue;
                }
                c = grpc_client_connect(served.client);
                assert_non_null(c);
                call = grpc_client_start(c, UNMAP_ALL, token, "", 0, 10000, false);
                if (i % 4 == 2)         /* leaves in the middle of a call */
                        grpc_client_cancel(call);
                grpc_client_wait(call, &a);
                grpc_client_answer_clear(&a);
                (void)grpc_client_free(c);
        }
}

/* Connections that came and went leave nothing: no descriptor, no thread, no memory. CHURN=10000 in the environment
 * for the long run. */
static void test_churn_leaves_nothing(void **state) {
        unsigned times = getenv("CHURN") ? (unsigned)atoi(getenv("CHURN")) : 500, descriptors, threads;
        unsigned long memory;

        churn(200);
        assert_int_equal(nobody_connected(state), 0);
        descriptors = count_entries("/proc/self/fd");
        threads = count_entries("/proc/self/task");
        memory = own_memory();
        churn(times);
        assert_int_equal(nobody_connected(state), 0);
        assert_in_range(count_entries("/proc/self/fd"), 0, descriptors + 2);
        assert_in_range(count_entries("/proc/self/task"), 0, threads + 4);
        print_message("%u connections: descriptors %u to %u, threads %u to %u, memory %lu to %lu kB\n", times,
                      descriptors, count_entries("/proc/self/fd"), threads, count_entries("/proc/self/task"), memory,
                      own_memory());
        if (times >= 5000)
                assert_in_range(own_memory(), 0, memory + 4096);
}

/* A client cannot queue descriptors where the service would have to close them. */
static void test_descriptors_cannot_be_sent(void **state) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = { 0 };
        struct iovec iov = { .iov_base = (void *)(uintptr_t)"x", .iov_len = 1 };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes };
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        int fd, file;

        (void)state;
        if (transport_degraded()) {
                print_message("skipped: %s\n", transport_degraded());
                skip();
        }
        fd = raw_connect(served.client, SOCK_STREAM);
        file = dup(fd);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &file, sizeof file);
        assert_int_equal(sendmsg(fd, &m, MSG_NOSIGNAL), -1);    /* right after connect: the listener's setting counts */
        assert_int_equal(errno, EPERM);
        close(file);
        close(fd);
}

static void test_tenant_is_removed(void **state) {
        struct grpc_client *c = grpc_client_connect(served.tenant);
        int fd;

        (void)state;
        assert_works(c, UNMAP_ALL);
        transport_remove_tenant(served.transport, "blue");
        assert_int_equal(nobody_connected(state), 0);
        (void)grpc_client_free(c);
        for (int i = 0; i < 500; i++) {
                struct sockaddr_un a = { .sun_family = AF_UNIX };

                (void)strcpy(a.sun_path, served.tenant);
                fd = socket(AF_UNIX, SOCK_STREAM, 0);
                if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
                        close(fd);
                        break;
                }
                close(fd);
                assert_true(i < 400);
                sleep_ms(10);
        }
        /* and comes back, over the stale file */
        fd = listener_create(served.tenant, SOCK_STREAM, 0600, (gid_t)-1);
        assert_true(fd >= 0);
        assert_int_equal(transport_add_listener(served.transport, fd, LISTENER_TENANT, "blue"), 0);
        c = grpc_client_connect(served.tenant);
        assert_works(c, UNMAP_ALL);
        (void)grpc_client_free(c);
}

static void test_listeners_must_fit(void **state) {
        char path[128];
        struct stat before, after;
        int fd, pair[2];

        (void)state;
        (void)snprintf(path, sizeof path, "%s/x.sock", served.directory);
        assert_int_equal(listener_create(served.client, SOCK_STREAM, 0600, (gid_t)-1), -EADDRINUSE);
        fd = listener_create(path, SOCK_SEQPACKET, 0640, (gid_t)-1);
        assert_true(fd >= 0);
        {
                struct stat st;

                assert_int_equal(stat(path, &st), 0);
                assert_int_equal(st.st_mode & 07777, 0640);
        }
        assert_int_equal(fstat(fd, &before), 0);
        assert_int_equal(transport_add_listener(served.transport, fd, LISTENER_CLIENT, NULL), -EPROTOTYPE);
        /* taken in every case; another thread may have the number by now */
        assert_true(fstat(fd, &after) < 0 || after.st_ino != before.st_ino);
        fd = listener_create(path, SOCK_STREAM, 0600, (gid_t)-1);
        assert_int_equal(transport_add_listener(served.transport, fd, LISTENER_TENANT, NULL), -EINVAL);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        assert_int_equal(transport_add_listener(served.transport, pair[0], LISTENER_CLIENT, NULL), -EPROTOTYPE);
        close(pair[1]);
        unlink(path);
        fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        assert_int_equal(listener_create(path, SOCK_STREAM, 0600, (gid_t)-1), -EEXIST);
        close(fd);
        unlink(path);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_garbage_ends_only_its_connection, nobody_connected),
                cmocka_unit_test_setup(test_silent_connection_is_dropped, nobody_connected),
                cmocka_unit_test_setup(test_refused_connection_is_dropped, nobody_connected),
                cmocka_unit_test_setup(test_connections_of_one_owner_are_limited, nobody_connected),
                cmocka_unit_test_setup(test_nobodys_leave_room, nobody_connected),
                cmocka_unit_test_setup(test_session_connections, nobody_connected),
                cmocka_unit_test_setup(test_audit_of_refusals_is_limited, nobody_connected),
                cmocka_unit_test_setup(test_descriptors_cannot_be_sent, nobody_connected),
                cmocka_unit_test_setup(test_churn_leaves_nothing, nobody_connected),
                cmocka_unit_test_setup(test_tenant_is_removed, nobody_connected),
                cmocka_unit_test_setup(test_listeners_must_fit, nobody_connected),
        };
        return cmocka_run_group_tests(tests, start, stop);
}
