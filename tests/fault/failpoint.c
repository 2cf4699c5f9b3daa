/* SPDX-License-Identifier: Apache-2.0 */
/* Linked into the programs of $BUILD/failpoints/ alone: counts what is passed, and dies where it is told to. */
#include "fault/failpoints.h"

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fault/failpoint_file.h"

static struct failpoints *file;

struct failpoints *failpoint_file(void) {
        return file;
}

/* Before main(): a holder closes what it inherits and locks itself in, and what is mapped by then stays mapped. */
__attribute__((constructor)) static void open_file(void) {
        const char *path = getenv(FAILPOINTS_VARIABLE);
        int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
        void *p;

        if (fd < 0)
                return;
        p = mmap(NULL, sizeof *file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        (void)close(fd);
        if (p == MAP_FAILED || ((struct failpoints *)p)->magic != FAILPOINTS_MAGIC)
                abort();
        file = p;
}

/* By tgkill(2), which the holder's sandbox allows. */
static void die(void) {
        for (;;)
                (void)syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), SIGKILL);
}

void failpoint_hit(enum failpoint point) {
        unsigned hit, at;
        int nobody = 0;

        if (!file)
                return;
        if (atomic_load(&file->fired) != 0 && atomic_load(&file->victims) == KILL_ALL)
                die();
        hit = atomic_fetch_add(&file->hits[point], 1) + 1;
        at = atomic_load(&file->kill_at[point]);
        /* Who disarms it dies, and no other who had seen it armed, even if everything has been made ready for the next by the time
         * that he goes on. The victim before the rest: who sees that somebody has died wants to know who. */
        if (at == 0 || hit < at || !atomic_compare_exchange_strong(&file->kill_at[point], &at, 0) ||
            !atomic_compare_exchange_strong(&file->victim, &nobody, (int)getpid()))
                return;
        atomic_store(&file->fired, (unsigned)point + 1);
        die();
}
