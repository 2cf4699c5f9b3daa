/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker proto util testlib */
/* I8: a call's identity is its connection's, however many processes call at once, and a token is good for its owner
 * only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/wait.h>

#include "../lib/fakes/fake_core.c"
#include "../lib/fakes/served.c"
#include "iommud.pb-c.h"

#define PROCESSES 4
#define CALLS 300

/* What a client process checks: 0, or the line that failed. gRPC is started in the process that uses it: it does not
 * survive a fork. */
static int one_call(struct grpc_client *c, const char *token, uint64_t *ret_id) {
        struct grpc_client_answer a;
        Iommud__V1__CreateDomainResponse *r;

        grpc_client_unary(c, "/iommud.v1.Client/CreateDomain", token, "", 0, 10000, &a);
        *ret_id = 0;
        if (a.status == 0) {
                r = iommud__v1__create_domain_response__unpack(NULL, a.body_size, a.body);
                *ret_id = r->domain;
                iommud__v1__create_domain_response__free_unpacked(r, NULL);
        }
        grpc_client_answer_clear(&a);
        return a.status;
}

static int tenant_of_call(struct grpc_client *c, const char *token, const char *expected) {
        struct grpc_client_answer a;
        Iommud__V1__GetQuotaResponse *r;
        int same = 0;

        grpc_client_unary(c, "/iommud.v1.Client/GetQuota", token, "", 0, 10000, &a);
        if (a.status == 0) {
                r = iommud__v1__get_quota_response__unpack(NULL, a.body_size, a.body);
                same = strcmp(r->tenant, expected) == 0;
                iommud__v1__get_quota_response__free_unpacked(r, NULL);
        }
        grpc_client_answer_clear(&a);
        return same;
}

static int client_process(pid_t other, bool change_uid) {
        char own[2 * SESSION_TOKEN_BYTES + 1], foreign[2 * SESSION_TOKEN_BYTES + 1], tenant[32];
        uid_t uid = change_uid ? 20000U + (uid_t)(getpid() % 10000) : getuid();
        struct grpc_client *c;
        uint64_t id;
        int line = 0;

        if (change_uid && setresuid(uid, uid, uid) < 0)
                return __LINE__ % 256;
        (void)snprintf(tenant, sizeof tenant, "tenant-%u", uid);
        fake_token(getpid(), own);
        fake_token(other, foreign);
        c = grpc_client_connect(served.client);
        if (!c)
                return __LINE__ % 256;
        for (int i = 0; i < CALLS && !line; i++) {
                if (one_call(c, own, &id) != 0 || id != (uint64_t)getpid())
                        line = __LINE__;
                if (i % 10 == 0 && one_call(c, foreign, &id) != 16)
                        line = __LINE__;
                if (i % 10 == 5 && !tenant_of_call(c, own, tenant))
                        line = __LINE__;
                if (i % 50 == 49) {     /* a new connection, often with a descriptor that another process had */
                        (void)grpc_client_free(c);
                        c = grpc_client_connect(served.client);
                }
        }
        (void)grpc_client_free(c);
        return line % 256;
}

/* The service runs in a process of its own; the parent only counts. */
static int service_process(int ready, int stop) {
        char c;

        fake_set(FAKE_LATER, 0);
        served_start(&(struct transport_options){ 0 });
        if (write(ready, served.directory, sizeof served.directory) < 0)
                return 1;
        while (read(stop, &c, 1) > 0)
                ;
        served_stop();
        fake_end();
        return fake.sessions_live == 0 ? 0 : 1;
}

static void test_processes_never_mix(void **state) {
        int ready[2], stop[2], status;
        pid_t service, clients[PROCESSES];

        (void)state;
        assert_int_equal(pipe(ready), 0);
        assert_int_equal(pipe(stop), 0);
        service = fork();
        if (service == 0) {
                close(stop[1]);
                _exit(service_process(ready[1], stop[0]));
        }
        close(stop[0]);
        assert_true(read(ready[0], served.directory, sizeof served.directory) > 0);
        (void)snprintf(served.client, sizeof served.client, "%s/grpc.sock", served.directory);
        for (int i = 0; i < PROCESSES; i++) {
                clients[i] = fork();
                if (clients[i] == 0) {
                        close(stop[1]);
                        /* half of them try with the service's pid, the others with a sibling's */
                        _exit(client_process(i % 2 || i == 0 ? service : clients[0], geteuid() == 0 && i > 0));
                }
        }
        for (int i = 0; i < PROCESSES; i++) {
                assert_int_equal(waitpid(clients[i], &status, 0), clients[i]);
                if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                        fail_msg("client %d: status 0x%x (exit code: line %% 256)", i, status);
        }
        close(stop[1]);
        assert_int_equal(waitpid(service, &status, 0), service);
        assert_int_equal(status, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_processes_never_mix),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
