/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I10: a client makes the inode of its memory hang (a write to it whose source page never comes), then registers it.
 * Its session ends after the deadline, everybody else goes on as if nothing were.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "lib/edu.h"
#include "lib/job.h"

#define ROUNDS 100

/* ---- an inode that hangs ---- */

struct hang {
        int memfd, uffd;
        void *missing;                  /* a page that nobody will bring */
        pthread_t writer;
};

static void *write_it(void *arg) {
        struct hang *h = arg;

        /* takes the inode's lock and waits for the page with it */
        if (pwrite(h->memfd, h->missing, PAGE, 0) < 0)
                return h;
        return NULL;
}

/* Is the thread in the kernel, waiting for the fault? A message of it is in the queue then. */
static bool fault_has_come(const struct hang *h) {
        struct uffd_msg m;

        return read(h->uffd, &m, sizeof m) == sizeof m;
}

/* False: the kernel does not let us. */
static bool hang_begin(struct hang *h) {
        struct uffdio_api api = { .api = UFFD_API };
        struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };

        h->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
        if (h->uffd < 0)
                return false;
        assert_int_equal(ioctl(h->uffd, UFFDIO_API, &api), 0);
        h->missing = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(h->missing != MAP_FAILED);
        range.range.start = (uintptr_t)h->missing;
        range.range.len = PAGE;
        assert_int_equal(ioctl(h->uffd, UFFDIO_REGISTER, &range), 0);
        h->memfd = memfd_create("hangs", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_true(h->memfd >= 0);
        assert_int_equal(ftruncate(h->memfd, (off_t)16 * PAGE), 0);
        assert_int_equal(fallocate(h->memfd, 0, 0, (off_t)16 * PAGE), 0);
        assert_int_equal(pthread_create(&h->writer, NULL, write_it, h), 0);
        wait_for(fault_has_come(h));
        return true;
}

static void hang_end(struct hang *h) {
        struct uffdio_zeropage zero = { .range = { (uintptr_t)h->missing, PAGE } };

        assert_int_equal(ioctl(h->uffd, UFFDIO_ZEROPAGE, &zero), 0);
        pthread_join(h->writer, NULL);
        close(h->uffd);
        close(h->memfd);
        munmap(h->missing, PAGE);
}

/* ---- the victim and the others ---- */

struct registration {
        struct iommud_client *client;
        int fd, result;
        struct iommud_error error;
        _Atomic bool done;
};

static void *register_it(void *arg) {
        struct registration *g = arg;
        const struct iommud_memory_options o = { .size = sizeof o, .populate = 1 };
        struct iommud_memory *m;

        g->result = iommud_memory_import(g->client, g->fd, (uint64_t)16 * PAGE, &o, &m);
        g->error.size = sizeof g->error;
        (void)iommud_error_detail(&g->error);
        g->done = true;
        return NULL;
}

static uint64_t now_us(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int compare(const void *a, const void *b) {
        const uint64_t *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

struct latency {
        uint64_t median_us, worst_us;
};

static struct latency measure(struct job *j) {
        uint64_t us[ROUNDS];

        for (size_t i = 0; i < ROUNDS; i++) {
                uint64_t begin = now_us();

                must(iommud_map(j->domain, JOB_IOVA, j->memory, 0, PAGE, IOMMUD_READ_WRITE));
                must(iommud_unmap(j->domain, JOB_IOVA, PAGE));
                us[i] = now_us() - begin;
        }
        qsort(us, ROUNDS, sizeof us[0], compare);
        return (struct latency){ us[ROUNDS / 2], us[ROUNDS - 1] };
}

/* The session is over, also for its next calls: first they hear that, then why. */
static bool says_stalled(struct iommud_client *c) {
        struct iommud_error e = { .size = sizeof e };
        struct iommud_domain *d;

        assert_int_equal(iommud_domain_create(c, NULL, &d), -ECONNRESET);
        assert_int_equal(iommud_error_detail(&e), 0);
        if (e.reason != IOMMUD_REASON_MEMORY_STALLED)
                assert_int_equal(e.reason, IOMMUD_REASON_UNKNOWN_SESSION);
        return e.reason == IOMMUD_REASON_MEMORY_STALLED;
}

static void test_others_do_not_notice(void **state) {
        struct service *s;
        struct registration g = { 0 };
        struct latency before, during = { 0 };
        struct hang h = { 0 };
        pthread_t thread;
        struct job j;
        char directory[128];
        int rounds = 0;

        (void)state;
        s = service_start(&(struct service_options){
                .limits = "session_starts_per_second = 1000\nregister_deadline_ms = 1000\n" });
        service_add_tenant(s, "stalled", directory, sizeof directory);
        if (!hang_begin(&h)) {
                int error = errno;

                service_end(s);
                skip_because("userfaultfd: %s (root, or vm.unprivileged_userfaultfd = 1)", strerror(error));
        }
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        before = measure(&j);
        g.client = job_connect(directory);
        g.fd = h.memfd;
        assert_int_equal(pthread_create(&thread, NULL, register_it, &g), 0);
        while (!g.done) {
                struct latency now = measure(&j);

                during.worst_us = now.worst_us > during.worst_us ? now.worst_us : during.worst_us;
                during.median_us = now.median_us > during.median_us ? now.median_us : during.median_us;
                rounds++;
        }
        pthread_join(thread, NULL);
        print_message("map+unmap: median %llu us before, at most %llu us during; worst %llu, %llu\n",
                      (unsigned long long)before.median_us, (unsigned long long)during.median_us,
                      (unsigned long long)before.worst_us, (unsigned long long)during.worst_us);
        assert_true(rounds > 1);
        assert_true(during.median_us < 5 * before.median_us + 2000);
        assert_true(during.worst_us < 500000);
        assert_true(g.result == -ETIMEDOUT || g.result == -ECONNRESET);
        assert_int_equal(g.error.reason, IOMMUD_REASON_MEMORY_STALLED);
        assert_true(strlen(g.error.text) > 20);

        wait_for(says_stalled(g.client));       /* what cannot be taken back yet stays charged */
        hang_end(&h);
        iommud_close(g.client);
        service_wait_sessions(s, 1);
        service_assert_nothing_used(s, "stalled");
        job_end(&j);
        service_end(s);
}

/* A service that is killed and started while a holder hangs: it serves the others at once. */
static void test_restart_while_it_hangs(void **state) {
        struct registration g = { 0 };
        struct hang h = { 0 };
        struct service *s;
        pthread_t thread;
        struct job j;

        (void)state;
        s = service_start(&(struct service_options){
                .limits = "session_starts_per_second = 1000\nregister_deadline_ms = 1000\nrecover_seconds = 2\n" });
        if (!hang_begin(&h)) {
                int error = errno;

                service_end(s);
                skip_because("userfaultfd: %s (root, or vm.unprivileged_userfaultfd = 1)", strerror(error));
        }
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        g.client = job_connect(s->client);
        g.fd = h.memfd;
        assert_int_equal(pthread_create(&thread, NULL, register_it, &g), 0);
        wait_for(service_used(s, "me", IOMMUD_RESOURCE_MEMORY_OBJECTS) == 2);
        service_kill(s);
        service_launch(s);
        must(iommud_map(j.domain, 0x800000, j.memory, 0, PAGE, IOMMUD_READ));
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        hang_end(&h);
        pthread_join(thread, NULL);
        service_wait_recovered(s);
        iommud_close(g.client);
        service_wait_sessions(s, 1);
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_others_do_not_notice, harness_teardown),
                cmocka_unit_test_teardown(test_restart_while_it_hangs, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
