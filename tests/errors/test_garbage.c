/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I10: what clients send that is no protocol, or do not send at all, costs themselves at most; others work on
 * meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/job.h"
#include "lib/raw_client.h"
#include "util/cleanup.h"

/* ---- somebody who works meanwhile ---- */

struct other {
        struct job job;
        pthread_t thread;
        atomic_bool stop;
        atomic_ulong rounds;
        atomic_int result;
        uint64_t worst_ms;              /* this and text: when it has ended */
        char text[400];
};

static void *work(void *arg) {
        struct other *o = arg;

        while (!atomic_load(&o->stop) && atomic_load(&o->result) >= 0) {
                uint64_t begin = harness_ms(), took;
                int r;

                r = iommud_map(o->job.domain, JOB_IOVA, o->job.memory, 0, PAGE, IOMMUD_READ_WRITE);
                if (r == 0)
                        r = edu_transfer(o->job.device, JOB_IOVA, EDU_BLOCK, true);
                if (r == 0)
                        r = iommud_unmap(o->job.domain, JOB_IOVA, PAGE);
                if (r < 0)
                        (void)snprintf(o->text, sizeof o->text, "%s", iommud_last_error());
                atomic_store(&o->result, r);
                took = harness_ms() - begin;
                o->worst_ms = took > o->worst_ms ? took : o->worst_ms;
                atomic_fetch_add(&o->rounds, 1);
        }
        return NULL;
}

static struct other other;
static bool other_runs;

static void other_begin(struct other *o, const char *directory) {
        memset(o, 0, sizeof *o);
        job_begin(&o->job, directory, "edu0", PAGE);
        other_runs = true;
        if (pthread_create(&o->thread, NULL, work, o) != 0) {
                other_runs = false;
                fail_msg("no thread");
        }
        wait_for(atomic_load(&o->rounds) > 0 || atomic_load(&o->result) < 0);
}

/* It went on to the end, and never had to wait long. */
static void other_end(struct other *o) {
        unsigned long now = atomic_load(&o->rounds);

        wait_for(atomic_load(&o->rounds) > now + 2 || atomic_load(&o->result) < 0);
        atomic_store(&o->stop, true);
        pthread_join(o->thread, NULL);
        other_runs = false;
        if (atomic_load(&o->result) < 0)
                fail_msg("another client was disturbed: %d %s", atomic_load(&o->result), o->text);
        assert_true(o->worst_ms < 3000);
        job_end(&o->job);
}

/* After a failure it is still there. */
static int teardown(void **state) {
        if (other_runs) {
                atomic_store(&other.stop, true);
                pthread_join(other.thread, NULL);
                other_runs = false;
        }
        return harness_teardown(state);
}

/* ---- garbage ---- */

static void fill_random(uint8_t *bytes, size_t n, uint64_t *seed) {
        for (size_t i = 0; i < n; i++)
                bytes[i] = (uint8_t)harness_random(seed);
}

static void test_garbage_on_the_grpc_socket(void **state) {
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        struct service *s = service_start(&(struct service_options){ 0 });
        uint64_t seed = harness_seed();
        uint8_t bytes[4096];

        (void)state;
        other_begin(&other, s->client);
        for (unsigned i = 0; i < 60; i++) {
                int fd = raw_connect(s->client, false);

                fill_random(bytes, sizeof bytes, &seed);
                if (i % 3 > 0)          /* what looks right at first */
                        memcpy(bytes, preface, sizeof preface - 1);
                if (i % 3 > 1)
                        memcpy(bytes + sizeof preface - 1, "\0\0\0\4\0\0\0\0\0", 9);
                (void)send(fd, bytes, 1 + harness_random(&seed) % sizeof bytes, MSG_NOSIGNAL);
                if (i % 2)
                        (void)shutdown(fd, SHUT_WR);
                close(fd);
        }
        other_end(&other);
        service_end(s);
}

/* The next answer on the channel. */
static void assert_error_answer(struct raw_client *c) {
        struct session_msg m;
        int fd;

        if (!raw_receive(c->session, &m, &fd))
                fail_msg("the session ended");
        assert_int_equal(m.type, SESSION_ERROR);
        assert_true(strlen(m.text) > 10);
        fd_close(fd);
}

static void test_garbage_on_the_session_socket(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = 4711 };
        uint64_t seed = harness_seed(), domain;
        uint8_t bytes[4096];
        struct raw_client c;
        int fd = raw_memfd(PAGE);

        (void)state;
        other_begin(&other, s->client);
        raw_open(&c, s->client);
        raw_send(c.session, &m, sizeof m, -1);          /* a type that is none */
        assert_error_answer(&c);
        raw_send(c.session, &m, sizeof m, fd);          /* the same with a fd */
        assert_error_answer(&c);
        m.version = 99;
        raw_send(c.session, &m, sizeof m, -1);
        assert_error_answer(&c);
        for (unsigned i = 0; i < 50; i++) {             /* any size but the right one */
                size_t n = 1 + harness_random(&seed) % sizeof bytes;

                fill_random(bytes, sizeof bytes, &seed);
                raw_send(c.session, bytes, n == sizeof m ? n + 1 : n, i % 5 ? -1 : fd);
                assert_error_answer(&c);
        }
        raw_must(raw_create_domain(&c, NULL, &domain)); /* the session is as good as before */
        (void)raw_send_memory(&c, fd);
        raw_close(&c);
        close(fd);
        other_end(&other);
        service_end(s);
}

/* A flood without reading the answers ends its own session only. */
static void test_flood_on_the_session_socket(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = 4711 };
        struct raw_client c;

        (void)state;
        other_begin(&other, s->client);
        raw_open(&c, s->client);
        assert_int_equal(fcntl(c.session, F_SETFL, O_NONBLOCK), 0);
        wait_for(send(c.session, &m, sizeof m, MSG_NOSIGNAL) < 0 && errno != EAGAIN);
        service_wait_sessions(s, 1);
        raw_close(&c);
        other_end(&other);
        service_end(s);
}

/* Memory descriptors that are sent and never registered are bounded by what a holder can hold. */
#define TICKETS 1024U

static void test_tickets_are_bounded(void **state) {
        struct service *s;
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = SESSION_MEMORY };
        struct raw_client c;
        int fd = raw_memfd(PAGE), none;

        (void)state;
        s = service_start(&(struct service_options){ 0 });
        raw_open(&c, s->client);
        for (unsigned i = 0; i < TICKETS; i++)
                (void)raw_send_memory(&c, fd);
        raw_send(c.session, &m, sizeof m, fd);
        assert_true(raw_receive(c.session, &m, &none));
        assert_int_equal(m.type, SESSION_TICKET);
        assert_int_equal(m.reason, IOMMUD_REASON_LIMIT_EXCEEDED);
        assert_true(strlen(m.text) > 10);
        raw_close(&c);
        close(fd);
        service_end(s);
}

/* ---- silence ---- */

/* A session that is opened and never claimed ends, and says so. */
static void test_silent_session(void **state) {
        struct service *s = service_start(&(struct service_options){
                .limits = "session_starts_per_second = 1000\nunclaimed_token_seconds = 1\n" });
        struct session_msg m;
        struct raw_client c;
        int fd;

        (void)state;
        other_begin(&other, s->client);
        raw_open_session(&c, s->client);
        assert_int_equal(service_sessions(s), 2);
        assert_true(raw_receive(c.session, &m, &fd));
        assert_int_equal(m.type, SESSION_ENDED);
        assert_true(strlen(m.text) > 10);
        service_wait_sessions(s, 1);
        raw_close(&c);
        other_end(&other);
        service_end(s);
}

/* Silent gRPC connections fill the room of their own tenant, not that of others, nor the operator's. */
static void test_silent_connections(void **state) {
        enum { MANY = 300 };
        struct service *s = service_start(&(struct service_options){ 0 });
        char directory[128];
        int fds[MANY];
        struct job j;

        (void)state;
        service_add_tenant(s, "other", directory, sizeof directory);
        other_begin(&other, directory);
        for (unsigned i = 0; i < MANY; i++)
                fds[i] = raw_connect(s->client, false);
        assert_int_equal(service_sessions(s), 1);               /* the operator is answered */
        job_begin(&j, directory, "edu1", (uint64_t)2 * PAGE);   /* and others come in */
        job_map(&j);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        job_end(&j);
        for (unsigned i = 0; i < MANY; i++)
                close(fds[i]);
        {
                const struct iommud_connect_options options = { .size = sizeof options, .directory = s->client };
                struct iommud_client *c;

                wait_for(iommud_connect(&options, &c) == 0);    /* and when they are gone, so does this tenant */
                iommud_close(c);
        }
        other_end(&other);
        service_end(s);
}

/* Who connects faster than may be is refused, with the limit; the service and the others go on. */
static void test_storm_of_sessions(void **state) {
        struct service *s = service_start(&(struct service_options){ .limits = "session_starts_per_second = 1\n" });
        const struct iommud_connect_options options = { .size = sizeof options, .directory = s->client };
        char directory[128];
        unsigned refusals = 0;

        (void)state;
        service_add_tenant(s, "other", directory, sizeof directory);
        other_begin(&other, directory);
        for (unsigned i = 0; i < 30; i++) {
                struct iommud_error e = { .size = sizeof e };
                struct iommud_client *c;

                if (iommud_connect(&options, &c) == 0) {
                        iommud_close(c);
                        continue;
                }
                assert_int_equal(iommud_error_detail(&e), 0);
                assert_int_equal(e.reason, IOMMUD_REASON_LIMIT_EXCEEDED);
                if (!strstr(e.text, "1 sessions a second") && !strstr(e.text, "1 a second"))
                        fail_msg("'%s' does not tell the limit", e.text);
                refusals++;
        }
        assert_true(refusals >= 5);
        other_end(&other);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_garbage_on_the_grpc_socket, teardown),
                cmocka_unit_test_teardown(test_garbage_on_the_session_socket, teardown),
                cmocka_unit_test_teardown(test_flood_on_the_session_socket, teardown),
                cmocka_unit_test_teardown(test_tickets_are_bounded, teardown),
                cmocka_unit_test_teardown(test_silent_session, teardown),
                cmocka_unit_test_teardown(test_silent_connections, teardown),
                cmocka_unit_test_teardown(test_storm_of_sessions, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
