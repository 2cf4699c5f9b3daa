/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <sys/types.h>
#include <time.h>

#include "iommud.pb-c.h"

/*
 * A service of the test's own: the programs as they are built, a fresh folder, a configuration that the test writes.
 *
 *   static void test(void **state) {
 *           struct service *s = service_start(&(struct service_options){ .tenants = ONE_TENANT });
 *           ... clients with .directory = s->client ...
 *           service_end(s);
 *   }
 *   cmocka_unit_test_teardown(test, harness_teardown)
 *
 * service_end() demands what must be true after every test (nothing owned: balances zero, the ledger's check finds
 * nothing, exit code 0, no process left). After a failed assertion harness_teardown() ends what is still running and
 * shows the service's log. Only processes that the harness started are ever ended, by pid.
 *
 * One thread calls this; clients may have as many as they like. gRPC does not survive fork(): a client that is to be
 * killed, or to be somebody else, is an agent (tests/lib/agent.h).
 */
struct service {
        char directory[64];             /* everything is below it */
        char config[80], log[80];
        char state[80], runtime[80];
        char client[96];                /* for iommud_connect_options.directory */
        char operator_socket[112];
        uid_t run_as;
        const char *programs;           /* folder of the build that they are in: "", "failpoints/" */
        pid_t pid;                      /* -1: not running */
        struct service *next;
};

/* Lines for the sections of the configuration; NULL: none. */
struct service_options {
        const char *backend;            /* NULL: soft */
        const char *service, *limits, *soft, *defaults;
        const char *tenants;            /* whole sections; NULL: the tenant "me" for our uid */
        bool own_holder_uids;           /* as root: holders get uids of their own */
        uid_t run_as;                   /* as root: the service runs as this user; 0: as we do */
        bool failpoints;                /* the programs that tests/lib/faults.h controls */
};

/* Makes folder and configuration, starts the service and waits until it serves. */
struct service *service_start(const struct service_options *o);
/* The first half of it. */
struct service *service_new(const struct service_options *o);
void service_write_config(struct service *s, const struct service_options *o);
/* Replaces the whole file. */
void service_write_text(struct service *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Starts it; false if it ended by itself (its exit code in *ret_code). */
bool service_try_launch(struct service *s, int *ret_code);
void service_launch(struct service *s);
/* Until its state is "serving": no holder is missing any more. */
void service_wait_recovered(struct service *s);
/* SIGKILL, and gone. */
void service_kill(struct service *s);
/* SIGTERM; exit code 0 is demanded. Sessions go on in their holders. */
void service_stop(struct service *s);
/* What is demanded at the end of every test; see above. A ledger whose service has gone is checked offline. */
void service_end(struct service *s);
/* Has the log this text? */
bool service_logged(const struct service *s, const char *text);

int harness_teardown(void **state);

/* ---- operator ---- */

/* Freed by iommud__v1__get_status_response__free_unpacked(). */
Iommud__V1__GetStatusResponse *service_status(const struct service *s);
unsigned service_sessions(const struct service *s);
/* The holder of the session whose client is that pid; 0: there is none. */
pid_t service_holder_of(const struct service *s, pid_t client);
/* Kills it and waits until it is dead. */
void service_kill_holder(const struct service *s, pid_t client);
void service_wait_sessions(const struct service *s, unsigned n);
/* What a tenant is charged; UINT64_MAX: there is no such tenant. */
uint64_t service_used(const struct service *s, const char *tenant, unsigned resource);
void service_assert_nothing_used(const struct service *s, const char *tenant);
/* `iommuctl ledger check`: nothing found. */
void service_assert_ledger(const struct service *s);
/* An RPC of the operator's; the request is packed, the answer unpacked (NULL unless status is 0). Returns the gRPC
 * status. */
int service_operate(const struct service *s, const char *method, const ProtobufCMessage *request,
                    const ProtobufCMessageDescriptor *answer, ProtobufCMessage **ret_answer, char *message,
                    size_t size);
/* As service_operate() with an own-socket tenant; the folder of its sockets into directory. */
void service_add_tenant(const struct service *s, const char *name, char *directory, size_t size);
/* How many rows of the audit trail have this event. Only when the service has stopped. */
unsigned service_audit_rows(const struct service *s, const char *event);

/* ---- processes and time ---- */

/* $BUILD/NAME of the build that this test belongs to. */
void harness_program(const char *name, char *path, size_t size);
/* Starts a program of the build, that dies with this process; fds -1: /dev/null, log appended to when given. */
pid_t harness_spawn(char *const argv[], int in, int out, const char *log);
/* As another user (0: as we are). */
pid_t harness_spawn_as(uid_t uid, char *const argv[], int in, int out, const char *log);
/* Waits for a child; -1 when it does not end in time, else as WEXITSTATUS, or 128 + signal. */
int harness_wait(pid_t pid, unsigned timeout_ms);
/* Processes called iommud-holder among our own descendants that have lost their service, and those of that service. */
unsigned harness_holders(const struct service *s);
/* Is it still there (not a zombie)? */
bool process_lives(pid_t pid);

uint64_t harness_ms(void);
void harness_pause(void);
bool running_as_root(void);

/* From IOMMUD_TEST_SEED or fresh; printed either way. */
uint64_t harness_seed(void);
/* Next number of a sequence. */
uint64_t harness_random(uint64_t *seed);

/* How long something may take that happens by itself: 20 s, or IOMMUD_TEST_PATIENCE of them, for machines that are slow. */
unsigned harness_patience_ms(void);
#define HARNESS_PATIENCE_MS harness_patience_ms()
/* Polls, never sleeps for a fixed time. */
#define wait_for(condition)                                                                                            \
        do {                                                                                                           \
                uint64_t until_ = harness_ms() + HARNESS_PATIENCE_MS;                                                  \
                while (!(condition)) {                                                                                 \
                        if (harness_ms() > until_)                                                                     \
                                fail_msg("did not happen within %u ms: %s", HARNESS_PATIENCE_MS, #condition);          \
                        harness_pause();                                                                               \
                }                                                                                                      \
        } while (0)

/* A reason that the runner shows. */
#define skip_because(...)                                                                                              \
        do {                                                                                                           \
                print_message("skipped: " __VA_ARGS__);                                                                \
                print_message("\n");                                                                                   \
                skip();                                                                                                \
        } while (0)
