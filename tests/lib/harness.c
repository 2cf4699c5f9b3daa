/* SPDX-License-Identifier: Apache-2.0 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "grpc_client.h"
#include "transport/tsan.h"
#include "util/cleanup.h"

#define START_MS at_least(30000)        /* of what is not waited for by itself */
#define STOP_MS START_MS
#define SHOWN 6000U                     /* bytes of the log, after a failure */
#define LEDGER_VIOLATIONS 4             /* exit status of iommuctl ledger check */

static struct service *services;        /* not ended yet */

/* gRPC is not instrumented; what it does with memory of its own is its own. Here, and in the programs that we start. */
#define TSAN_SETTINGS "ignore_noninstrumented_modules=1"
#ifdef TRANSPORT_TSAN
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
        return TSAN_SETTINGS;
}
#endif

/* ---- time ---- */

uint64_t harness_ms(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void harness_pause(void) {
        static const struct timespec moment = { .tv_nsec = 5000000 };

        nanosleep(&moment, NULL);
}

unsigned harness_patience_ms(void) {
        const char *given = getenv("IOMMUD_TEST_PATIENCE");
        unsigned long seconds = given ? strtoul(given, NULL, 0) : 20;

        return seconds > 0 && seconds < 3600 ? (unsigned)seconds * 1000U : 20000U;
}

static unsigned at_least(unsigned ms) {
        return harness_patience_ms() > ms ? harness_patience_ms() : ms;
}

bool running_as_root(void) {
        return geteuid() == 0;
}

uint64_t harness_seed(void) {
        const char *given = getenv("IOMMUD_TEST_SEED");
        uint64_t seed = given ? (uint64_t)strtoull(given, NULL, 0) : (harness_ms() * 2654435761U) ^ (uint64_t)getpid();

        print_message("seed: IOMMUD_TEST_SEED=%" PRIu64 "\n", seed);
        return seed;
}

/* splitmix64 */
uint64_t harness_random(uint64_t *seed) {
        uint64_t z = *seed += 0x9e3779b97f4a7c15ULL;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
        return z ^ z >> 31;
}

/* ---- processes ---- */

void harness_program(const char *name, char *path, size_t size) {
        char self[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

        assert_true(n > 0);
        self[n] = '\0';
        for (int i = 0; i < 3; i++)             /* BUILD/tests/e2e/test_x */
                *strrchr(self, '/') = '\0';
        assert_true((size_t)snprintf(path, size, "%s/%s", self, name) < size);
}

/* Through the agent, which asks to die with us and becomes the program: a test that crashes leaves nothing behind. */
pid_t harness_spawn_as(uid_t uid, char *const argv[], int in, int out, const char *log) {
        posix_spawn_file_actions_t actions;
        char launcher[PATH_MAX], user[16];
        char *args[16] = { launcher, (char *)"--exec", user };
        pid_t pid;
        int r;

        (void)snprintf(user, sizeof user, "%u", uid);
        harness_program("tests/client_agent", launcher, sizeof launcher);
        for (size_t i = 0; argv[i]; i++) {
                assert_true(i + 4 < ARRAY_SIZE(args));
                args[i + 3] = argv[i];
        }
        posix_spawn_file_actions_init(&actions);
        if (in >= 0)
                posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
        else
                posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (log)
                posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (out >= 0)
                posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
        else if (log)
                posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
        r = posix_spawn(&pid, launcher, &actions, NULL, args, environ);
        posix_spawn_file_actions_destroy(&actions);
        if (r != 0)
                fail_msg("cannot start %s: %s", argv[0], strerror(r));
        return pid;
}

pid_t harness_spawn(char *const argv[], int in, int out, const char *log) {
        return harness_spawn_as(0, argv, in, out, log);
}

int harness_wait(pid_t pid, unsigned timeout_ms) {
        uint64_t until = harness_ms() + timeout_ms;
        int status;

        while (waitpid(pid, &status, WNOHANG) == 0) {
                if (harness_ms() > until)
                        return -1;
                harness_pause();
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* What /proc/PID/stat says; false: there is none, or it is only waited for. */
static bool process_facts(pid_t pid, pid_t *ret_parent, char name[32]) {
        char path[64], text[512], *before, *after, state;
        int parent, fd;
        ssize_t n;

        (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
        fd_close(fd);
        if (n <= 0)
                return false;
        text[n] = '\0';
        before = strchr(text, '(');
        after = strrchr(text, ')');
        if (!before || !after || sscanf(after + 1, " %c %d", &state, &parent) != 2 || state == 'Z' || state == 'X')
                return false;
        (void)snprintf(name, 32, "%.*s", (int)(after - before - 1), before + 1);
        *ret_parent = parent;
        return true;
}

bool process_lives(pid_t pid) {
        char name[32];
        pid_t parent;

        return process_facts(pid, &parent, name);
}

/* Holders are children of their service, or ours when it is gone: we are the subreaper. kill: also end them. */
static unsigned each_holder(pid_t service, bool end) {
        struct dirent *e;
        unsigned n = 0;
        DIR *d = opendir("/proc");

        while (d && (e = readdir(d))) {
                pid_t pid = (pid_t)strtol(e->d_name, NULL, 10), parent;
                char name[32];

                if (pid <= 0 || !process_facts(pid, &parent, name) || strcmp(name, "iommud-holder") != 0 ||
                    (parent != getpid() && (service <= 0 || parent != service)))
                        continue;
                n++;
                if (end)
                        kill(pid, SIGKILL);
        }
        if (d)
                closedir(d);
        return n;
}

/* Holders that were inherited from a killed service and have ended. */
static void reap_inherited(void) {
        DIR *d = opendir("/proc/self/task");
        struct dirent *e;

        while (d && (e = readdir(d))) {
                char path[300];
                FILE *f;
                int pid;

                (void)snprintf(path, sizeof path, "/proc/self/task/%s/children", e->d_name);
                f = fopen(path, "re");
                while (f && fscanf(f, "%d", &pid) == 1) {
                        char comm[64] = "", name_path[64];
                        FILE *c;

                        (void)snprintf(name_path, sizeof name_path, "/proc/%d/comm", pid);
                        c = fopen(name_path, "re");
                        if (c && fscanf(c, "%63s", comm) == 1 && strcmp(comm, "iommud-holder") == 0)
                                (void)waitpid(pid, NULL, WNOHANG);
                        if (c)
                                (void)fclose(c);
                }
                if (f)
                        (void)fclose(f);
        }
        if (d)
                closedir(d);
}

unsigned harness_holders(const struct service *s) {
        reap_inherited();
        return each_holder(s ? s->pid : -1, false);
}

/* ---- folder and configuration ---- */

static void write_file(const char *path, const char *text) {
        FILE *f = fopen(path, "we");

        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

void service_write_text(struct service *s, const char *format, ...) {
        _cleanup_free_ char *text = NULL;
        va_list args;
        int n;

        va_start(args, format);
        n = vasprintf(&text, format, args);
        va_end(args);
        assert_true(n >= 0);
        write_file(s->config, text);
}

void service_write_config(struct service *s, const struct service_options *o) {
        char me[128];

        (void)snprintf(me, sizeof me, "[tenant me]\nrule = uid:%u\n", getuid());
        service_write_text(s, "[service]\nbackend = %s\nstate_directory = %s\nruntime_directory = %s\n%s%s\n"
                              "[limits]\n%s%s\n[soft]\n%s\n[defaults]\n%s\n%s\n",
                           o->backend ? o->backend : "soft", s->state, s->runtime, o->own_holder_uids ? "" : "holder_uids =\n",
                           o->service ? o->service : "",
                           /* holders of a test that crashed do not wait for ever */
                           o->limits && strstr(o->limits, "orphan_seconds") ? "" : "orphan_seconds = 300\n",
                           o->limits ? o->limits : "session_starts_per_second = 1000\n",
                           o->soft ? o->soft : "dma_delay_us = 1\n",
                           o->defaults ? o->defaults : "", o->tenants ? o->tenants : me);
}

struct service *service_new(const struct service_options *o) {
        struct service *s = calloc(1, sizeof *s);
        const char *tmp = getenv("TMPDIR");

        assert_non_null(s);
        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
        (void)setenv("TSAN_OPTIONS", TSAN_SETTINGS, 0);
        (void)snprintf(s->directory, sizeof s->directory, "%s/iommud-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
        assert_non_null(mkdtemp(s->directory));
        assert_int_equal(chmod(s->directory, 0755), 0);         /* tests are clients of other uids, too */
        (void)snprintf(s->config, sizeof s->config, "%s/iommud.conf", s->directory);
        (void)snprintf(s->log, sizeof s->log, "%s/log", s->directory);
        (void)snprintf(s->state, sizeof s->state, "%s/state", s->directory);
        (void)snprintf(s->runtime, sizeof s->runtime, "%s/run", s->directory);
        (void)snprintf(s->client, sizeof s->client, "%s/run/client", s->directory);
        (void)snprintf(s->operator_socket, sizeof s->operator_socket, "%s/run/operator/operator.sock", s->directory);
        s->pid = -1;
        s->run_as = o->run_as;
        s->programs = o->failpoints ? "failpoints/" : "";
        if (s->run_as)
                assert_int_equal(chown(s->directory, s->run_as, s->run_as), 0);
        s->next = services;
        services = s;
        service_write_config(s, o);
        return s;
}

static void assert_all_balances_zero(const struct service *s);

/* ---- life ---- */

/* Serving: somebody answers on the operator's socket. A socket file of a killed one says nothing. */
static bool answers(const struct service *s) {
        struct grpc_client *c = grpc_client_connect(s->operator_socket);
        struct grpc_client_answer a = { .status = -1 };

        if (!c)
                return false;
        grpc_client_unary(c, "/iommud.v1.Operator/GetStatus", NULL, "", 0, HARNESS_PATIENCE_MS, &a);
        grpc_client_answer_clear(&a);
        grpc_client_free(c);
        return a.status == 0;
}

bool service_try_launch(struct service *s, int *ret_code) {
        char program[PATH_MAX], option[128], name[32];
        char *argv[] = { program, option, NULL };
        uint64_t until = harness_ms() + START_MS;

        assert_true(s->pid < 0);
        (void)snprintf(name, sizeof name, "%siommud", s->programs);
        harness_program(name, program, sizeof program);
        (void)snprintf(option, sizeof option, "--config=%s", s->config);
        s->pid = harness_spawn_as(s->run_as, argv, -1, -1, s->log);
        while (!answers(s)) {
                int code = harness_wait(s->pid, 0);

                if (code >= 0) {
                        s->pid = -1;
                        *ret_code = code;
                        return false;
                }
                if (harness_ms() > until)
                        fail_msg("the service does not serve after %u ms", START_MS);
                harness_pause();
        }
        return true;
}

void service_launch(struct service *s) {
        int code;

        if (!service_try_launch(s, &code))
                fail_msg("the service ended with %d instead of serving", code);
}

struct service *service_start(const struct service_options *o) {
        struct service *s = service_new(o);

        service_launch(s);
        return s;
}

static bool is_serving(const struct service *s) {
        Iommud__V1__GetStatusResponse *status = service_status(s);
        bool serving = strcmp(status->state, "serving") == 0;

        iommud__v1__get_status_response__free_unpacked(status, NULL);
        return serving;
}

void service_wait_recovered(struct service *s) {
        wait_for(is_serving(s));
}

void service_kill(struct service *s) {
        assert_true(s->pid > 0);
        assert_int_equal(kill(s->pid, SIGKILL), 0);
        assert_int_equal(harness_wait(s->pid, STOP_MS), 128 + SIGKILL);
        s->pid = -1;
}

void service_stop(struct service *s) {
        int code;

        assert_true(s->pid > 0);
        assert_int_equal(kill(s->pid, SIGTERM), 0);
        code = harness_wait(s->pid, STOP_MS);
        if (code < 0)
                fail_msg("the service did not stop within %u ms of SIGTERM", STOP_MS);
        s->pid = -1;
        assert_int_equal(code, 0);
}

static char *read_log(const struct service *s) {
        char *text = NULL;
        size_t size = 0;
        FILE *f = fopen(s->log, "re");

        if (f && getdelim(&text, &size, '\0', f) < 0) {
                free(text);
                text = NULL;
        }
        if (f)
                (void)fclose(f);
        return text;
}

bool service_logged(const struct service *s, const char *text) {
        _cleanup_free_ char *log = read_log(s);

        return log && strstr(log, text);
}

/* Sentences that no test may cause, whatever else it demands. */
static void assert_log_is_clean(const struct service *s) {
        static const char *const bad[] = { "Sanitizer", "runtime error:", "still charged", "exceeds the", "differ in",
                                           "that the ledger does not know" };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                if (service_logged(s, bad[i]))
                        fail_msg("the service's log has '%s'", bad[i]);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        (void)st;
        (void)type;
        (void)ftw;
        return remove(path);
}

static void forget(struct service *s) {
        for (struct service **p = &services; *p; p = &(*p)->next)
                if (*p == s) {
                        *p = s->next;
                        break;
                }
        (void)nftw(s->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
        free(s);
}

/* Of a ledger that no service has open. One that is none, or was never made, has nothing to say. */
static void assert_dead_ledger(const struct service *s) {
        char program[PATH_MAX], option[128];
        char *argv[] = { program, (char *)"ledger", (char *)"check", option, NULL };

        harness_program("iommuctl", program, sizeof program);
        (void)snprintf(option, sizeof option, "--offline=%s", s->state);
        if (harness_wait(harness_spawn(argv, -1, -1, s->log), STOP_MS) == LEDGER_VIOLATIONS)
                fail_msg("iommuctl ledger check %s finds violations: see the log", option);
}

void service_end(struct service *s) {
        if (s->pid < 0)
                assert_dead_ledger(s);
        else {
                service_wait_recovered(s);
                service_wait_sessions(s, 0);
                service_assert_ledger(s);
                assert_all_balances_zero(s);
                service_stop(s);
        }
        wait_for(harness_holders(s) == 0);
        assert_log_is_clean(s);
        forget(s);
}

int harness_teardown(void **state) {
        (void)state;
        while (services) {
                struct service *s = services;
                _cleanup_free_ char *log = read_log(s);
                size_t length = log ? strlen(log) : 0;

                /* cmocka's own words end after 1000 bytes */
                (void)printf("---- the service's log\n%s----\n", log ? log + (length > SHOWN ? length - SHOWN : 0) : "");
                (void)fflush(stdout);
                (void)each_holder(s->pid, true);
                if (s->pid > 0) {
                        kill(s->pid, SIGKILL);
                        (void)harness_wait(s->pid, STOP_MS);
                        s->pid = -1;
                }
                (void)each_holder(-1, true);
                reap_inherited();
                forget(s);
        }
        return 0;
}

/* ---- operator ---- */

int service_operate(const struct service *s, const char *method, const ProtobufCMessage *request,
                    const ProtobufCMessageDescriptor *answer, ProtobufCMessage **ret_answer, char *message,
                    size_t size) {
        size_t n = protobuf_c_message_get_packed_size(request);
        struct grpc_client *c = grpc_client_connect(s->operator_socket);
        struct grpc_client_answer a = { .status = -1 };
        uint8_t *packed = malloc(n + 1);
        char path[96];

        assert_non_null(packed);
        assert_non_null(c);
        (void)protobuf_c_message_pack(request, packed);
        (void)snprintf(path, sizeof path, "/iommud.v1.Operator/%s", method);
        grpc_client_unary(c, path, NULL, packed, n, HARNESS_PATIENCE_MS, &a);
        if (ret_answer)
                *ret_answer = a.status == 0 ? protobuf_c_message_unpack(answer, NULL, a.body_size, a.body) : NULL;
        if (message)
                (void)snprintf(message, size, "%s", a.message);
        grpc_client_answer_clear(&a);
        grpc_client_free(c);
        free(packed);
        return a.status;
}

/* One that must work; the answer is the caller's. */
static ProtobufCMessage *operate(const struct service *s, const char *method, const ProtobufCMessage *request,
                                 const ProtobufCMessageDescriptor *answer) {
        ProtobufCMessage *got;
        char message[512];

        if (service_operate(s, method, request, answer, &got, message, sizeof message) != 0)
                fail_msg("%s: %s", method, message);
        assert_non_null(got);
        return got;
}

static Iommud__V1__ListTenantsResponse *list_tenants(const struct service *s) {
        Iommud__V1__ListTenantsRequest request = IOMMUD__V1__LIST_TENANTS_REQUEST__INIT;

        return (Iommud__V1__ListTenantsResponse *)operate(s, "ListTenants", &request.base,
                                                          &iommud__v1__list_tenants_response__descriptor);
}

uint64_t service_used(const struct service *s, const char *tenant, unsigned resource) {
        Iommud__V1__ListTenantsResponse *list = list_tenants(s);
        uint64_t used = UINT64_MAX;

        for (size_t i = 0; i < list->n_tenants; i++)
                for (size_t k = 0; k < list->tenants[i]->n_quotas; k++)
                        if (strcmp(list->tenants[i]->name, tenant) == 0 &&
                            (unsigned)list->tenants[i]->quotas[k]->resource == resource)
                                used = list->tenants[i]->quotas[k]->used;
        iommud__v1__list_tenants_response__free_unpacked(list, NULL);
        return used;
}

static void assert_all_balances_zero(const struct service *s) {
        Iommud__V1__ListTenantsResponse *list = list_tenants(s);

        for (size_t i = 0; i < list->n_tenants; i++)
                for (size_t k = 0; k < list->tenants[i]->n_quotas; k++)
                        if (list->tenants[i]->quotas[k]->used != 0)
                                fail_msg("tenant '%s' owns nothing and is charged %" PRIu64 " of resource %d",
                                         list->tenants[i]->name, list->tenants[i]->quotas[k]->used,
                                         (int)list->tenants[i]->quotas[k]->resource);
        iommud__v1__list_tenants_response__free_unpacked(list, NULL);
}

Iommud__V1__GetStatusResponse *service_status(const struct service *s) {
        Iommud__V1__GetStatusRequest request = IOMMUD__V1__GET_STATUS_REQUEST__INIT;

        return (Iommud__V1__GetStatusResponse *)operate(s, "GetStatus", &request.base,
                                                        &iommud__v1__get_status_response__descriptor);
}

unsigned service_sessions(const struct service *s) {
        Iommud__V1__GetStatusResponse *status = service_status(s);
        unsigned n = (unsigned)status->sessions;

        iommud__v1__get_status_response__free_unpacked(status, NULL);
        reap_inherited();
        return n;
}

void service_wait_sessions(const struct service *s, unsigned n) {
        wait_for(service_sessions(s) == n);
}

pid_t service_holder_of(const struct service *s, pid_t client) {
        Iommud__V1__GetStatusResponse *status = service_status(s);
        pid_t holder = 0;

        for (size_t i = 0; i < status->n_session_list; i++)
                if (status->session_list[i]->pid == (uint32_t)client)
                        holder = (pid_t)status->session_list[i]->holder_pid;
        iommud__v1__get_status_response__free_unpacked(status, NULL);
        return holder;
}

void service_kill_holder(const struct service *s, pid_t client) {
        pid_t holder = service_holder_of(s, client);

        assert_true(holder > 0);
        assert_int_equal(kill(holder, SIGKILL), 0);
        wait_for(!process_lives(holder));
}

void service_assert_nothing_used(const struct service *s, const char *tenant) {
        for (unsigned r = IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES; r <= IOMMUD__V1__RESOURCE__RESOURCE_WINDOWS; r++)
                assert_int_equal(service_used(s, tenant, r), 0);
}

void service_assert_ledger(const struct service *s) {
        Iommud__V1__CheckLedgerRequest request = IOMMUD__V1__CHECK_LEDGER_REQUEST__INIT;
        Iommud__V1__CheckLedgerResponse *check;
        size_t n;

        check = (Iommud__V1__CheckLedgerResponse *)operate(s, "CheckLedger", &request.base,
                                                           &iommud__v1__check_ledger_response__descriptor);
        n = check->n_violations;
        for (size_t i = 0; i < n; i++)
                print_error("%s: %s\n", check->violations[i]->invariant, check->violations[i]->text);
        iommud__v1__check_ledger_response__free_unpacked(check, NULL);
        assert_int_equal(n, 0);
}

void service_add_tenant(const struct service *s, const char *name, char *directory, size_t size) {
        Iommud__V1__UpsertTenantRequest request = IOMMUD__V1__UPSERT_TENANT_REQUEST__INIT;
        Iommud__V1__Tenant tenant = IOMMUD__V1__TENANT__INIT;
        ProtobufCMessage *answer;

        tenant.name = (char *)name;
        tenant.own_socket = true;
        request.tenant = &tenant;
        request.create_only = true;
        answer = operate(s, "UpsertTenant", &request.base, &iommud__v1__upsert_tenant_response__descriptor);
        (void)snprintf(directory, size, "%s", ((Iommud__V1__UpsertTenantResponse *)answer)->tenant->socket_directory);
        protobuf_c_message_free_unpacked(answer, NULL);
}

unsigned service_audit_rows(const struct service *s, const char *event) {
        char path[128];
        sqlite3_stmt *q;
        sqlite3 *db;
        unsigned n;

        (void)snprintf(path, sizeof path, "%s/config.db", s->state);
        assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
        if (sqlite3_prepare_v2(db, "SELECT count(*) FROM audit WHERE event = ?", -1, &q, NULL) != SQLITE_OK)
                fail_msg("%s", sqlite3_errmsg(db));
        sqlite3_bind_text(q, 1, event, -1, SQLITE_STATIC);
        assert_int_equal(sqlite3_step(q), SQLITE_ROW);
        n = (unsigned)sqlite3_column_int(q, 0);
        sqlite3_finalize(q);
        sqlite3_close(db);
        return n;
}
