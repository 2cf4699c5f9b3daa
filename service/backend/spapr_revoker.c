/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/spapr_revoker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "backend/vfio_container.h"
#include "util/cleanup.h"
#include "util/log.h"

#define STACK_SIZE 65536U
#define START_SECONDS 10
#define REPLACEMENTS 3U         /* somebody who kills it more often means it */

struct spapr_revoker {
        struct spapr_revocation *what;
        int control_read, control_write;        /* ends when the holder does; a byte: end without doing anything */
        int status_read, status_write;          /* a byte: revoked */
        pthread_t thread;                       /* waits while the child lives */
        void *stack;
        sem_t ready;                            /* the child sleeps, or there will be none */
        _Atomic int error;                      /* errno of the clone */
        _Atomic bool stopping;
        bool started;                           /* there is a thread */
};

/* --- revoking -----------------------------------------------------------------------------------------------------*/

bool spapr_revocation_add(struct spapr_revocation *what, uint64_t start) {
        uint32_t n = atomic_load(&what->n_places);

        for (uint32_t i = 0; i < n; i++)
                if (atomic_load(&what->places[i]) == start)
                        return true;
        if (n == SPAPR_PLACES_MAX)
                return false;
        atomic_store(&what->places[n], start);
        atomic_store(&what->n_places, n + 1);
        return true;
}

/* EINVAL: no window begins there. ENXIO, ENODEV: the group has left the container, and its windows with it. */
static bool remove_window(int fd, uint64_t start) {
        struct vfio_iommu_spapr_tce_remove remove = { .argsz = sizeof remove, .start_addr = start };
        int k = vfio_ioctl(fd, VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove);

        return k == 0 || k == -EINVAL || k == -ENXIO || k == -ENODEV;
}

/* EPERM: it was never enabled, so nothing was ever mapped. */
static bool unmap_initial(const struct spapr_revocation *what) {
        struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof unmap, .iova = what->initial.start,
                                                    .size = what->initial.size };
        int k = vfio_ioctl(what->container_fd, VFIO_IOMMU_UNMAP_DMA, &unmap);

        return k == 0 || k == -ENXIO || k == -EPERM;
}

bool spapr_revocation_do(struct spapr_revocation *what) {
        bool gone;

        if (!what->v2)
                return unmap_initial(what);
        gone = remove_window(what->container_fd, what->initial.start);
        gone = remove_window(what->container_fd, what->create.start_addr) && gone;
        for (uint32_t i = 0; i < atomic_load(&what->n_places); i++)
                gone = remove_window(what->container_fd, atomic_load(&what->places[i])) && gone;
        /* What is still mapped would be leaked by unregistering it. */
        if (gone)
                (void)spapr_memory_abandon(&what->memory, what->container_fd);
        return gone;
}

/* --- the child ----------------------------------------------------------------------------------------------------*/

/* The holder's fds were copied with everything else: its link, its client's connection, memory. Nobody may wait for them
 * to be closed because of us. */
static void close_all_but(int a, int b, int c) {
        unsigned keep[3] = { (unsigned)a, (unsigned)b, (unsigned)c }, from = 0;

        for (unsigned i = 0; i < 3; i++)
                for (unsigned j = i + 1; j < 3; j++)
                        if (keep[j] < keep[i]) {
                                unsigned other = keep[i];

                                keep[i] = keep[j];
                                keep[j] = other;
                        }
        for (unsigned i = 0; i < 3; i++) {
                if (keep[i] > from)
                        (void)close_range(from, keep[i] - 1, 0);
                from = keep[i] + 1;
        }
        (void)close_range(from, UINT_MAX, 0);
}

/* Lives in the holder's memory after the holder: no lock that it may have died with, no allocation, no log. Its
 * thread-local storage is that of the thread which waits for it. */
static int child(void *arg) {
        struct spapr_revoker *v = arg;
        struct pollfd control = { .fd = v->control_read, .events = POLLIN };

        close_all_but(v->control_read, v->status_write, v->what->container_fd);
        (void)prctl(PR_SET_NAME, "iommud-revoker", 0, 0, 0);
        sem_post(&v->ready);
        while (poll(&control, 1, -1) < 0)
                if (errno != EINTR)
                        return EXIT_FAILURE;
        if (control.revents & POLLIN)
                return EXIT_SUCCESS;
        if (!spapr_revocation_do(v->what))
                return EXIT_FAILURE;
        return write(v->status_write, "R", 1) == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- the thread ---------------------------------------------------------------------------------------------------*/

static void *keep_child(void *arg) {
        struct spapr_revoker *v = arg;

        for (unsigned n = 0; n <= REPLACEMENTS; n++) {
                int pid = clone(child, (char *)v->stack + STACK_SIZE, CLONE_VM | SIGCHLD, v);

                if (pid < 0) {
                        atomic_store(&v->error, errno);
                        break;
                }
                (void)waitpid(pid, NULL, 0);    /* no signal interrupts it, and nobody looks at errno: it is the child's */
                if (atomic_load(&v->stopping))
                        return NULL;
                log_warning("the process that would revoke a container after this one's death was killed; there will be %s",
                            n < REPLACEMENTS ? "another one" : "no other");
        }
        sem_post(&v->ready);
        return NULL;
}

/* Signals are the others' business; the child inherits the mask. */
static int start_thread(struct spapr_revoker *v) {
        sigset_t all, before;
        int e;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        e = pthread_create(&v->thread, NULL, keep_child, v);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        v->started = e == 0;
        return -e;
}

static int wait_ready(struct spapr_revoker *v) {
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += START_SECONDS;
        while (sem_clockwait(&v->ready, CLOCK_MONOTONIC, &until) < 0)
                if (errno != EINTR)
                        return -errno;
        return -atomic_load(&v->error);
}

static int make_pipe(int *ret_read, int *ret_write) {
        int fds[2];

        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
                return -errno;
        *ret_read = fds[0];
        *ret_write = fds[1];
        return 0;
}

static int start(struct spapr_revoker *v) {
        int k = make_pipe(&v->control_read, &v->control_write);

        if (k == 0)
                k = make_pipe(&v->status_read, &v->status_write);
        if (k < 0)
                return k;
        v->stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        if (v->stack == MAP_FAILED)
                return -ENOMEM;
        k = start_thread(v);
        return k < 0 ? k : wait_ready(v);
}

int spapr_revoker_start(struct spapr_revocation *what, struct spapr_revoker **ret, struct refusal *r) {
        struct spapr_revoker *v = malloc(sizeof *v);
        int k;

        if (!v)
                return refuse(r, REFUSAL_INTERNAL, "no memory for the revoker of a container");
        *v = (struct spapr_revoker){ .what = what, .control_read = -1, .control_write = -1, .status_read = -1,
                                     .status_write = -1, .stack = MAP_FAILED };
        sem_init(&v->ready, 0, 0);
        k = start(v);
        if (k < 0) {
                spapr_revoker_stop(v, false);
                return refuse(r, REFUSAL_INTERNAL,
                              "the process that would revoke a container after this one's death does not start: %s",
                              strerrordesc_np(-k));
        }
        *ret = v;
        return 0;
}

struct spapr_revoker *spapr_revoker_stop(struct spapr_revoker *v, bool revoked) {
        if (!v)
                return NULL;
        atomic_store(&v->stopping, true);
        if (v->started) {
                (void)!write(v->control_write, "q", 1);
                pthread_join(v->thread, NULL);
        }
        if (revoked && v->status_write >= 0)
                (void)!write(v->status_write, "R", 1);
        fd_close(v->control_read);
        fd_close(v->control_write);
        fd_close(v->status_read);
        fd_close(v->status_write);
        if (v->stack != MAP_FAILED)
                munmap(v->stack, STACK_SIZE);
        sem_destroy(&v->ready);
        free(v);
        return NULL;
}

int spapr_revoker_status_fd(const struct spapr_revoker *v) {
        return v->status_read;
}
