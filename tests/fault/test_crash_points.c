/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I6, I12: broker, holder or both die at every failpoint (util/failpoint.h) under random work of several clients. Afterwards
 * ledger, holders, what clients were told, what they are charged and where their devices' DMA arrives must agree; sessions whose
 * holder lives go on. Each client repeats what was not answered, with the same key (fault/crash_client.c).
 *
 * IOMMUD_TEST_SEED replays the order, IOMMUD_TEST_SECONDS asks for more than each point once, IOMMUD_TEST_POINT for one point
 * only. A failpoint that is never passed fails.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/faults.h"
#include "lib/harness.h"
#include "util/cleanup.h"

#define CLIENTS 3
#define HEAR_MS 70000
#define FIRE_MS 3000U           /* for a point that is some hits ahead; then the very next one counts */
#define LAST_MS 20000U

struct client {
        pid_t pid, holder;
        FILE *to, *from;
        char tenant[8], line[1000];
        bool session;           /* it has one, as far as we know */
        bool beginning;         /* it was told to begin and has not said that it did */
        bool working;
};

enum stimulus { WORK, MANY, BEGIN, LEAVE, RESTART };

struct trial {
        struct service *s;
        struct failpoints *f;
        struct client clients[CLIENTS];
        uint64_t seed;
        unsigned kills[_FAILPOINT_N];
        unsigned long requests, repeated, lost, over;
        char what[120];         /* of this round, for messages */
};

/* ---- clients ---- */

__attribute__((format(printf, 2, 3))) static void tell(struct client *c, const char *format, ...) {
        va_list args;

        va_start(args, format);
        (void)vfprintf(c->to, format, args);
        va_end(args);
        (void)fputc('\n', c->to);
        assert_int_equal(fflush(c->to), 0);
}

static const char *hear(struct trial *t, struct client *c) {
        struct pollfd p = { .fd = fileno(c->from), .events = POLLIN };

        if (poll(&p, 1, HEAR_MS) != 1 || !fgets(c->line, sizeof c->line, c->from))
                fail_msg("%s: the client of %s says nothing", t->what, c->tenant);
        c->line[strcspn(c->line, "\n")] = '\0';
        return c->line;
}

static void client_start(struct client *c) {
        char program[PATH_MAX];
        char *argv[] = { program, NULL };
        int in[2], out[2];

        harness_program("tests/crash_client", program, sizeof program);
        assert_int_equal(pipe2(in, O_CLOEXEC), 0);
        assert_int_equal(pipe2(out, O_CLOEXEC), 0);
        c->pid = harness_spawn(argv, in[0], out[1], NULL);
        (void)close(in[0]);
        (void)close(out[1]);
        c->to = fdopen(in[1], "w");
        c->from = fdopen(out[0], "r");
        c->session = c->beginning = c->working = false;
}

static void client_kill(struct client *c) {
        assert_int_equal(kill(c->pid, SIGKILL), 0);
        assert_int_equal(harness_wait(c->pid, HARNESS_PATIENCE_MS), 128 + SIGKILL);
        (void)fclose(c->to);
        (void)fclose(c->from);
}

static void begin(struct trial *t, struct client *c) {
        tell(c, "begin %s/tenants/%s edu%d %llu", t->s->runtime, c->tenant, (int)(c - t->clients),
             (unsigned long long)harness_random(&t->seed));
        c->beginning = true;
        c->working = false;
}

static void await_begun(struct trial *t, struct client *c) {
        if (!c->beginning)
                return;
        if (strcmp(hear(t, c), "ok") != 0)
                fail_msg("%s: the client of %s gets no session: %s", t->what, c->tenant, c->line);
        c->beginning = false;
        c->session = true;
}

static void work(struct trial *t) {
        for (size_t i = 0; i < CLIENTS; i++)
                if (t->clients[i].session && !t->clients[i].working) {
                        tell(&t->clients[i], "go");
                        t->clients[i].working = true;
                }
}

static void leave(struct trial *t, struct client *c) {
        if (harness_random(&t->seed) % 2) {
                tell(c, "leave");
                assert_string_equal(hear(t, c), "ok");
        } else {
                client_kill(c);
                client_start(c);
        }
        c->session = c->working = false;
}

/* ---- a round ---- */

static enum stimulus stimulus_for(enum failpoint p) {
        const char *name = failpoint_name(p);

        if (p == FAILPOINT_next_part)
                return MANY;
        if (p >= FAILPOINT_session_admitted && p <= FAILPOINT_session_claimed)
                return BEGIN;
        if (p >= FAILPOINT_holder_started && p <= FAILPOINT_holder_token_sent)
                return BEGIN;
        if (strncmp(name, "revoke_", 7) == 0 || strncmp(name, "holder_client", 13) == 0 || strncmp(name, "holder_end", 10) == 0)
                return LEAVE;
        if (strncmp(name, "recover", 7) == 0 || strncmp(name, "reconcile", 9) == 0 || strncmp(name, "holder_link", 11) == 0 ||
            strncmp(name, "holder_dump", 11) == 0)
                return RESTART;
        return WORK;
}

/* The broker, when it has died; what else it may end with is a failure. */
static bool reap_broker(struct trial *t) {
        int code = t->s->pid > 0 ? harness_wait(t->s->pid, 0) : -1;

        if (code < 0)
                return t->s->pid < 0;
        if (code != 128 + SIGKILL)
                fail_msg("%s: the service ended by itself with %d", t->what, code);
        t->s->pid = -1;
        return true;
}

/* It may die at the point before it serves. */
static void launch(struct trial *t) {
        int code;

        if (!service_try_launch(t->s, &code) && (code != 128 + SIGKILL || atomic_load(&t->f->fired) == 0))
                fail_msg("%s: the service ends with %d instead of serving", t->what, code);
}

static void stimulate(struct trial *t, enum stimulus stimulus, struct client *c) {
        work(t);
        switch (stimulus) {
        case MANY:
                tell(c, "many");
                break;
        case BEGIN:
                leave(t, c);
                begin(t, c);
                break;
        case LEAVE:
                leave(t, c);
                break;
        case RESTART:
                if (!reap_broker(t))
                        service_kill(t->s);
                launch(t);
                break;
        case WORK:
        default:
                if (c->session && harness_random(&t->seed) % 4 == 0)
                        tell(c, "many");
        }
}

static bool fires_within(struct trial *t, unsigned ms) {
        uint64_t until = harness_ms() + ms;

        while (atomic_load(&t->f->fired) == 0 && harness_ms() < until)
                harness_pause();
        return atomic_load(&t->f->fired) != 0;
}

static unsigned compare(struct trial *t, enum failpoint p, enum failpoint_victims victims, pid_t victim);

/* Somebody has died at the point; with KILL_ALL, so has everybody who passed one since. */
static void provoke(struct trial *t, enum failpoint p, enum failpoint_victims victims, struct client *c) {
        enum stimulus stimulus = stimulus_for(p);
        unsigned ahead = stimulus == WORK ? 1 + (unsigned)(harness_random(&t->seed) % 12) : 1;

        faults_arm(t->f, p, ahead, victims);
        stimulate(t, stimulus, c);
        if (fires_within(t, FIRE_MS))
                return;
        faults_arm(t->f, p, 1, victims);
        for (uint64_t until = harness_ms() + LAST_MS; harness_ms() < until;) {
                await_begun(t, c);
                if (stimulus == LEAVE && !c->session) {
                        begin(t, c);
                        await_begun(t, c);
                }
                stimulate(t, stimulus, c);
                if (fires_within(t, 1000))
                        return;
        }
        (void)compare(t, p, victims, 0);        /* a client that has given up says why */
        fail_msg("nobody passes the failpoint %s", failpoint_name(p));
}

/* Waits for the dead, as far as they are known, and has a service serve again. */
static void bring_up(struct trial *t, enum failpoint p, enum failpoint_victims victims) {
        for (uint64_t until = harness_ms() + HARNESS_PATIENCE_MS;
             (failpoint_is_brokers(p) || victims == KILL_ALL) && !reap_broker(t); harness_pause())
                if (harness_ms() > until)
                        fail_msg("%s: pid %d died there, and the service lives", t->what, atomic_load(&t->f->victim));
        if (victims == KILL_ALL)
                for (int i = 0; i < 40 && harness_holders(t->s) > 0; i++)
                        harness_pause();
        faults_disarm(t->f);
        (void)reap_broker(t);
        if (t->s->pid < 0)
                launch(t);
        service_wait_recovered(t->s);
}

/* What each client found; whoever lost its session had lost its holder. */
static unsigned compare(struct trial *t, enum failpoint p, enum failpoint_victims victims, pid_t victim) {
        unsigned sessions = 0;

        for (size_t i = 0; i < CLIENTS; i++) {
                struct client *c = &t->clients[i];
                unsigned long n[3];

                await_begun(t, c);
                if (!c->session)
                        continue;
                tell(c, "sync");
                c->working = false;
                if (sscanf(hear(t, c), "ok %lu %lu %lu", &n[0], &n[1], &n[2]) == 3) {
                        sessions++;
                        continue;
                }
                if (strncmp(c->line, "over", 4) != 0)
                        fail_msg("%s: the client of %s: %s", t->what, c->tenant, c->line);
                if (victims == KILL_SELF && (failpoint_is_brokers(p) || c->holder != victim))
                        fail_msg("%s: the session of %s ended, and its holder had not died: %s", t->what, c->tenant, c->line);
                c->session = false;
                t->over++;
        }
        return sessions;
}

static void note_holders(struct trial *t) {
        for (size_t i = 0; i < CLIENTS; i++)
                t->clients[i].holder = t->clients[i].session ? service_holder_of(t->s, t->clients[i].pid) : 0;
}

static void one_round(struct trial *t, enum failpoint p, enum failpoint_victims victims) {
        struct client *c = &t->clients[harness_random(&t->seed) % CLIENTS];
        unsigned sessions;
        pid_t victim;

        (void)snprintf(t->what, sizeof t->what, "%s, %s", failpoint_name(p),
                       victims == KILL_ALL ? "both" : failpoint_is_brokers(p) ? "broker" : "holder");
        print_message("%s\n", t->what);
        note_holders(t);
        provoke(t, p, victims, c);
        t->kills[p]++;
        victim = atomic_load(&t->f->victim);
        bring_up(t, p, victims);
        sessions = compare(t, p, victims, victim);
        service_wait_sessions(t->s, sessions);
        service_assert_ledger(t->s);
        for (size_t i = 0; i < CLIENTS; i++)
                if (!t->clients[i].session) {
                        service_assert_nothing_used(t->s, t->clients[i].tenant);
                        begin(t, &t->clients[i]);
                }
        for (size_t i = 0; i < CLIENTS; i++)
                await_begun(t, &t->clients[i]);
}

/* ---- the whole ---- */

static enum failpoint chosen_point(void) {
        const char *name = getenv("IOMMUD_TEST_POINT");

        for (unsigned i = 0; name && i < _FAILPOINT_N; i++)
                if (strcmp(name, failpoint_name((enum failpoint)i)) == 0)
                        return (enum failpoint)i;
        return _FAILPOINT_N;
}

static void shuffle(struct trial *t, enum failpoint order[_FAILPOINT_N]) {
        for (unsigned i = 0; i < _FAILPOINT_N; i++)
                order[i] = (enum failpoint)i;
        for (unsigned i = _FAILPOINT_N - 1; i > 0; i--) {
                unsigned k = (unsigned)(harness_random(&t->seed) % (i + 1));
                enum failpoint swap = order[i];

                order[i] = order[k];
                order[k] = swap;
        }
}

static void rounds(struct trial *t, unsigned seconds) {
        uint64_t until = harness_ms() + seconds * 1000ULL;
        enum failpoint order[_FAILPOINT_N], only = chosen_point();

        shuffle(t, order);
        for (unsigned i = 0; i < _FAILPOINT_N; i++)
                if (only == _FAILPOINT_N || only == order[i])
                        one_round(t, order[i], KILL_SELF);
        while (harness_ms() < until) {
                enum failpoint p = only == _FAILPOINT_N ? (enum failpoint)(harness_random(&t->seed) % _FAILPOINT_N) : only;

                one_round(t, p, harness_random(&t->seed) % 3 ? KILL_ALL : KILL_SELF);
        }
}

static void print_hits(struct trial *t) {
        unsigned never = 0;

        for (unsigned i = 0; i < _FAILPOINT_N; i++) {
                unsigned hits = atomic_load(&t->f->hits[i]);

                print_message("failpoint %-24s %8u hits %3u kills\n", failpoint_name((enum failpoint)i), hits, t->kills[i]);
                never += hits == 0;
        }
        print_message("%lu sessions ended with their holders\n", t->over);
        if (never > 0 && chosen_point() == _FAILPOINT_N)
                fail_msg("%u failpoints were never passed", never);
}

static void test_every_point(void **state) {
        const char *seconds = getenv("IOMMUD_TEST_SECONDS");
        struct trial t = { .seed = harness_seed() };

        (void)state;
        t.s = service_new(&(struct service_options){
                .failpoints = true, .limits = "session_starts_per_second = 1000\nrecover_seconds = 10\n",
                .soft = "dma_delay_us = 1\ndevices = edu0 edu1 edu2\n",
                .tenants = "[tenant c0]\nown_socket = yes\n[tenant c1]\nown_socket = yes\n[tenant c2]\nown_socket = yes\n" });
        t.f = faults_open(t.s);
        service_launch(t.s);
        for (size_t i = 0; i < CLIENTS; i++) {
                (void)snprintf(t.clients[i].tenant, sizeof t.clients[i].tenant, "c%zu", i);
                client_start(&t.clients[i]);
                begin(&t, &t.clients[i]);
        }
        for (size_t i = 0; i < CLIENTS; i++)
                await_begun(&t, &t.clients[i]);
        rounds(&t, seconds ? (unsigned)atoi(seconds) : 0);
        print_hits(&t);
        for (size_t i = 0; i < CLIENTS; i++)
                client_kill(&t.clients[i]);
        service_end(t.s);
        faults_close(t.f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_every_point, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
