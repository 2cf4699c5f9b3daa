/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I6, I12: broker, holder or both die at every failpoint (util/failpoint.h) under random work of several clients. Afterwards
 * ledger, holders, what clients were told, what they are charged and where their devices' DMA arrives must agree; sessions whose
 * holder lives go on. Each client repeats what was not answered, with the same key (fault/crash_client.c).
 *
 * IOMMUD_TEST_SEED replays the order, IOMMUD_TEST_SECONDS says how long to go on when each point had its turn,
 * IOMMUD_TEST_POINT names the only one. A failpoint that is never passed fails.
 *
 *   test_crash_points [DEVICE...]    on VFIO type1 with devices that vfio-pci has (tests/vm/lanes/crash.sh), as root, with
 *                                    clients that have no privilege. There I12 shows, too: a session that ended while its
 *                                    client has the device open leaves an orphan, that is lent to nobody, reaches nothing,
 *                                    and is free when the client lets go of it.
 */
#include <errno.h>
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
#include "lib/job.h"
#include "util/cleanup.h"

#define CLIENTS 3
#define HEAR_MS (HARNESS_PATIENCE_MS / 2 * 7)   /* longer than a client's own patience, twice */
#define FIRE_MS 3000U           /* for a point that is some hits ahead; then the very next one counts */
#define LAST_MS HARNESS_PATIENCE_MS
#define MORE_SECONDS 10U        /* of rounds at random when each point had its turn */
#define DEVICE_NAME 16
#define FIRST_USER 54321U       /* on real devices clients are users with nothing to say, and their tenants go by uid */

struct client {
        pid_t pid, holder;
        uid_t uid;              /* 0: as we are */
        FILE *to, *from;
        char tenant[8], line[1000];
        char device[DEVICE_NAME];       /* "-": none */
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
        bool real;              /* the kernel's VFIO */
        unsigned kills[_FAILPOINT_N];
        unsigned long requests, repeated, lost, transfers, over, orphans, orphans_of_both;
        char what[120];         /* of this round, for messages */
};

static const char *real_devices[CLIENTS];       /* of the command line: not all clients have one */
static size_t n_real_devices;

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

        if (poll(&p, 1, (int)HEAR_MS) != 1 || !fgets(c->line, sizeof c->line, c->from))
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
        c->pid = harness_spawn_as(c->uid, argv, in[0], out[1], NULL);
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
        char own[128];

        (void)snprintf(own, sizeof own, "%s/tenants/%s", t->s->runtime, c->tenant);
        tell(c, "begin %s %s %llu", c->uid ? t->s->client : own, c->device, (unsigned long long)harness_random(&t->seed));
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

/* The client has its session, or somebody has died: then it waits for us to see to that. */
static bool fires_before_begun(struct trial *t, struct client *c) {
        uint64_t until = harness_ms() + HEAR_MS;

        while (c->beginning && atomic_load(&t->f->fired) == 0) {
                struct pollfd p = { .fd = fileno(c->from), .events = POLLIN };

                if (poll(&p, 1, 10) == 1 || harness_ms() > until)
                        await_begun(t, c);
        }
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
                if (fires_before_begun(t, c))
                        return;
                if (stimulus == LEAVE && !c->session) {
                        begin(t, c);
                        if (fires_before_begun(t, c))
                                return;
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

/* ---- a session that ended while its client has the device open ---- */

static bool device_is(struct trial *t, const char *device, const char *state) {
        Iommud__V1__ListDevicesRequest request = IOMMUD__V1__LIST_DEVICES_REQUEST__INIT;
        Iommud__V1__ListDevicesResponse *list;
        ProtobufCMessage *answer = NULL;
        bool is = false;

        if (service_operate(t->s, "ListAllDevices", &request.base, &iommud__v1__list_devices_response__descriptor, &answer, NULL,
                            0) != 0)
                return false;
        list = (Iommud__V1__ListDevicesResponse *)answer;
        for (size_t i = 0; i < list->n_devices; i++)
                is |= strcmp(list->devices[i]->name, device) == 0 && strcmp(list->devices[i]->state, state) == 0;
        protobuf_c_message_free_unpacked(answer, NULL);
        return is;
}

/* To nobody, whoever asks: here it is another tenant. */
static void assert_not_lent(struct trial *t, const char *device) {
        struct iommud_attachment *attachment = NULL;
        struct iommud_client *client = job_connect(t->s->client);
        struct iommud_domain *domain;

        must(iommud_domain_create(client, "other", &domain));
        refused(iommud_device_attach(domain, device, &attachment), EBUSY, IOMMUD_REASON_DEVICE_ORPHANED, NULL);
        iommud_close(client);
}

/* With broker and holder gone nobody was left to cut the device off: then it is only named, and not lent. So it is when the
 * broker died first, and the holder before it had given the next one what cuts off. */
static void check_orphan(struct trial *t, struct client *c, enum failpoint p, enum failpoint_victims victims) {
        t->orphans++;
        wait_for(device_is(t, c->device, "orphaned"));
        assert_not_lent(t, c->device);
        if (victims == KILL_ALL || stimulus_for(p) == RESTART) {
                t->orphans_of_both++;
                return;
        }
        tell(c, "cut");
        if (strcmp(hear(t, c), "ok") != 0)
                fail_msg("%s: the client of %s: %s", t->what, c->tenant, c->line);
}

static void session_over(struct trial *t, struct client *c, enum failpoint p, enum failpoint_victims victims) {
        unsigned devices;

        c->session = false;
        t->over++;
        if (!t->real || sscanf(c->line, "over %u", &devices) != 1 || devices == 0)
                return;
        check_orphan(t, c, p, victims);
        tell(c, "leave");
        assert_string_equal(hear(t, c), "ok");
        wait_for(device_is(t, c->device, "free"));
}

/* What each client found; whoever lost its session had lost its holder. */
static unsigned compare(struct trial *t, enum failpoint p, enum failpoint_victims victims, pid_t victim) {
        unsigned sessions = 0;

        for (size_t i = 0; i < CLIENTS; i++) {
                struct client *c = &t->clients[i];
                unsigned long n[4];

                await_begun(t, c);
                if (!c->session)
                        continue;
                tell(c, "sync");
                c->working = false;
                if (sscanf(hear(t, c), "ok %lu %lu %lu %lu", &n[0], &n[1], &n[2], &n[3]) == 4) {
                        t->requests += n[0];
                        t->repeated += n[1];
                        t->lost += n[2];
                        t->transfers += n[3];
                        sessions++;
                        continue;
                }
                if (strncmp(c->line, "over", 4) != 0)
                        fail_msg("%s: the client of %s: %s", t->what, c->tenant, c->line);
                if (victims == KILL_SELF && (failpoint_is_brokers(p) || c->holder != victim))
                        fail_msg("%s: the session of %s ended, and its holder %d had not died, %d had: %s", t->what, c->tenant,
                                 c->holder, victim, c->line);
                session_over(t, c, p, victims);
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
        if (t->real)
                print_message("ok: killed at %s\n", t->what);
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

/* Real machines are slow: there one round is for everybody who passes the point in a third of the cases. */
static enum failpoint_victims some_victims(struct trial *t) {
        return t->real && harness_random(&t->seed) % 3 == 0 ? KILL_ALL : KILL_SELF;
}

static void rounds(struct trial *t) {
        const char *more = getenv("IOMMUD_TEST_SECONDS");
        enum failpoint order[_FAILPOINT_N], only = chosen_point();
        uint64_t seed = t->seed, until;

        shuffle(t, order);
        for (unsigned i = 0; i < _FAILPOINT_N; i++) {
                t->seed = seed + i;     /* how much a round uses depends on when things happen: the next one does not */
                if (only == _FAILPOINT_N || only == order[i])
                        one_round(t, order[i], some_victims(t));
        }
        until = harness_ms() + (more ? (unsigned)atoi(more) : t->real ? 0 : MORE_SECONDS) * 1000ULL;
        while (harness_ms() < until) {
                enum failpoint p = only == _FAILPOINT_N ? (enum failpoint)(harness_random(&t->seed) % _FAILPOINT_N) : only;

                one_round(t, p, harness_random(&t->seed) % 3 ? KILL_ALL : KILL_SELF);
        }
}

static void print_result(struct trial *t) {
        unsigned never = 0;

        for (unsigned i = 0; i < _FAILPOINT_N; i++) {
                unsigned hits = atomic_load(&t->f->hits[i]);

                print_message("failpoint %-24s %8u hits %3u kills\n", failpoint_name((enum failpoint)i), hits, t->kills[i]);
                never += hits == 0;
        }
        print_message("%lu requests, %lu lost answers repeated, %lu answered requests repeated, %lu transfers\n", t->requests,
                      t->lost, t->repeated, t->transfers);
        print_message("%lu sessions ended with their holders, %lu devices were orphans meanwhile, %lu of broker and holder\n",
                      t->over, t->orphans, t->orphans_of_both);
        if (chosen_point() != _FAILPOINT_N)
                return;
        if (never > 0)
                fail_msg("%u failpoints were never passed", never);
        assert_true(t->lost > 0 && t->transfers > 0 && t->over > 0);
        assert_true(!t->real || t->orphans_of_both > 0);
}

static const char *write_tenants(const struct trial *t, char *text, size_t size) {
        size_t n = 0;

        for (size_t i = 0; i < CLIENTS; i++)
                n += (size_t)(t->real ? snprintf(text + n, size - n, "[tenant c%zu]\nrule = uid:%zu\n", i, FIRST_USER + i)
                                      : snprintf(text + n, size - n, "[tenant c%zu]\nown_socket = yes\n", i));
        if (t->real)    /* asks for orphans */
                (void)snprintf(text + n, size - n, "[tenant other]\nrule = uid:0\n");
        return text;
}

static struct service *new_service(const struct trial *t) {
        char tenants[CLIENTS * 64 + 64];

        return service_new(&(struct service_options){
                .failpoints = true, .backend = t->real ? "vfio-type1" : NULL,
                .limits = "session_starts_per_second = 1000\nrecover_seconds = 10\n",
                .soft = "dma_delay_us = 1\ndevices = edu0 edu1 edu2\n",
                .tenants = write_tenants(t, tenants, sizeof tenants) });
}

static void name_device(struct trial *t, size_t i) {
        char *name = t->clients[i].device;

        if (!t->real)
                (void)snprintf(name, DEVICE_NAME, "edu%zu", i);
        else
                (void)snprintf(name, DEVICE_NAME, "%s", i < n_real_devices ? real_devices[i] : "-");
}

static void test_every_point(void **state) {
        struct trial t = { .seed = harness_seed(), .real = n_real_devices > 0 };

        (void)state;
        t.s = new_service(&t);
        t.f = faults_open(t.s);
        service_launch(t.s);
        for (size_t i = 0; i < CLIENTS; i++) {
                (void)snprintf(t.clients[i].tenant, sizeof t.clients[i].tenant, "c%zu", i);
                name_device(&t, i);
                t.clients[i].uid = t.real ? FIRST_USER + (uid_t)i : 0;
                client_start(&t.clients[i]);
                begin(&t, &t.clients[i]);
        }
        for (size_t i = 0; i < CLIENTS; i++)
                await_begun(&t, &t.clients[i]);
        rounds(&t);
        print_result(&t);
        for (size_t i = 0; i < CLIENTS; i++)
                client_kill(&t.clients[i]);
        service_end(t.s);
        faults_close(t.f);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_every_point, harness_teardown),
        };

        for (int i = 1; i < argc && n_real_devices < CLIENTS; i++)
                real_devices[n_real_devices++] = argv[i];
        return cmocka_run_group_tests(tests, NULL, NULL);
}
