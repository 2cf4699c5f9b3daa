/* SPDX-License-Identifier: Apache-2.0 */
#include "faults.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct failpoints *faults_open(const struct service *s) {
        char path[128];
        struct failpoints *f;
        int fd;

        (void)snprintf(path, sizeof path, "%s/failpoints", s->directory);
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, sizeof *f), 0);
        f = mmap(NULL, sizeof *f, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(f != MAP_FAILED);
        (void)close(fd);
        f->magic = FAILPOINTS_MAGIC;
        assert_int_equal(setenv(FAILPOINTS_VARIABLE, path, 1), 0);
        return f;
}

void faults_close(struct failpoints *f) {
        (void)unsetenv(FAILPOINTS_VARIABLE);
        (void)munmap(f, sizeof *f);
}

const char *failpoint_name(enum failpoint point) {
#define X(name, process) [FAILPOINT_##name] = #name,
        static const char *const names[] = { FAILPOINTS(X) };
#undef X

        return names[point];
}

bool failpoint_is_brokers(enum failpoint point) {
        enum { HOLDER, BROKER };
#define X(name, process) [FAILPOINT_##name] = process,
        static const int processes[] = { FAILPOINTS(X) };
#undef X

        return processes[point] == BROKER;
}

void faults_arm(struct failpoints *f, enum failpoint point, unsigned ahead, enum failpoint_victims victims) {
        atomic_store(&f->victims, victims);
        atomic_store(&f->kill_at[point], atomic_load(&f->hits[point]) + ahead);
}

void faults_disarm(struct failpoints *f) {
        for (unsigned i = 0; i < _FAILPOINT_N; i++)
                atomic_store(&f->kill_at[i], 0);
        atomic_store(&f->victims, KILL_SELF);
        atomic_store(&f->fired, 0);
        atomic_store(&f->victim, 0);            /* last: with it the next one may die */
}

void faults_ledger(struct failpoints *f, enum ledger_fault fault, unsigned files, unsigned after) {
        atomic_store(&f->fault_files, files);
        atomic_store(&f->fault_after, after);
        atomic_store(&f->fault, fault);
}

void faults_clear(struct failpoints *f) {
        atomic_store(&f->fault, FAULT_NONE);
}
