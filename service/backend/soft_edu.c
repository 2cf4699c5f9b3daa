/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/soft_edu.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "soft_device.h"
#include "util/cleanup.h"

#define REGION_BAR0 0U
#define REGION_CONFIG 7U
#define BAR0_SIZE UINT64_C(0x100000)
#define CONFIG_SIZE UINT64_C(256)

#define REG_ID 0x00U
#define REG_LIVENESS 0x04U
#define REG_FACTORIAL 0x08U
#define REG_STATUS 0x20U
#define REG_DMA_SOURCE 0x80U
#define REG_DMA_DESTINATION 0x88U
#define REG_DMA_COUNT 0x90U
#define REG_DMA_COMMAND 0x98U

#define DMA_RUN 0x1U
#define DMA_TO_MEMORY 0x2U
#define STATUS_IRQ 0x80U
#define BUFFER_START UINT64_C(0x40000)
#define BUFFER_SIZE UINT64_C(4096)

struct edu_client {
        int fd;
        bool answering;                 /* the answer waits for room in the socket; nothing is read until it is sent */
        struct soft_access answer;
};

struct soft_edu {
        struct soft_container *container;
        uint64_t dma_delay_ns;
        pthread_t thread;
        int wake;                       /* eventfd: something changed below `lock` */

        pthread_mutex_t lock;
        bool stop;
        int incoming[SOFT_EDU_CLIENTS]; /* connections that the thread has not taken yet, oldest first */
        size_t n_incoming;

        /* all else is the thread's alone */
        struct edu_client clients[SOFT_EDU_CLIENTS];    /* oldest first */
        size_t n_clients;
        uint8_t config[CONFIG_SIZE];
        uint32_t liveness, factorial, status;
        uint64_t dma_source, dma_destination, dma_count, dma_command;
        uint64_t dma_due;               /* CLOCK_MONOTONIC, ns; while DMA_RUN is in dma_command */
        uint8_t buffer[BUFFER_SIZE];
};

/* --- DMA ----------------------------------------------------------------------------------------------------------*/

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* The piece of the buffer that a transfer touches, or NULL if it leaves it. */
static uint8_t *dma_buffer(struct soft_edu *e, uint64_t address, uint64_t n) {
        if (address < BUFFER_START || n > BUFFER_SIZE || address - BUFFER_START > BUFFER_SIZE - n)
                return NULL;
        return e->buffer + (address - BUFFER_START);
}

static void dma_finish(struct soft_edu *e) {
        bool to_memory = e->dma_command & DMA_TO_MEMORY;
        uint8_t *buffer = dma_buffer(e, to_memory ? e->dma_source : e->dma_destination, e->dma_count);

        if (buffer && (e->config[PCI_COMMAND] & PCI_COMMAND_MASTER)) {
                if (to_memory)
                        (void)soft_dma(e->container, e->dma_destination, buffer, e->dma_count, BACKEND_ACCESS_WRITE);
                else
                        (void)soft_dma(e->container, e->dma_source, buffer, e->dma_count, BACKEND_ACCESS_READ);
        }
        e->dma_command &= ~(uint64_t)DMA_RUN;
}

/* --- registers ----------------------------------------------------------------------------------------------------*/

/* n! modulo 2^32. From 34! on that is 0, so the loop is short whatever a client asks for. */
static uint32_t factorial(uint32_t n) {
        uint32_t product = 1;

        for (; n > 0 && product != 0; n--)
                product *= n;
        return product;
}

static uint64_t bar_read(const struct soft_edu *e, uint64_t offset, uint32_t size) {
        if (size != 4 && (size != 8 || offset < REG_DMA_SOURCE))
                return UINT64_MAX;
        switch (offset) {
        case REG_ID:
                return 0x010000ed;
        case REG_LIVENESS:
                return e->liveness;
        case REG_FACTORIAL:
                return e->factorial;
        case REG_STATUS:
                return e->status;
        case REG_DMA_SOURCE:
                return e->dma_source;
        case REG_DMA_DESTINATION:
                return e->dma_destination;
        case REG_DMA_COUNT:
                return e->dma_count;
        case REG_DMA_COMMAND:
                return e->dma_command;
        default:
                return UINT64_MAX;
        }
}

static void dma_write(struct soft_edu *e, uint64_t offset, uint64_t value) {
        if (e->dma_command & DMA_RUN)
                return;
        if (offset == REG_DMA_SOURCE)
                e->dma_source = value;
        else if (offset == REG_DMA_DESTINATION)
                e->dma_destination = value;
        else if (offset == REG_DMA_COUNT)
                e->dma_count = value;
        else if (value & DMA_RUN) {
                e->dma_command = value;
                e->dma_due = now_ns() + e->dma_delay_ns;
        }
}

static void bar_write(struct soft_edu *e, uint64_t offset, uint32_t size, uint64_t value) {
        if (size != 4 && (size != 8 || offset < REG_DMA_SOURCE))
                return;
        switch (offset) {
        case REG_LIVENESS:
                e->liveness = ~(uint32_t)value;
                break;
        case REG_FACTORIAL:
                e->factorial = factorial((uint32_t)value);
                break;
        case REG_STATUS:
                e->status = (uint32_t)value & STATUS_IRQ;
                break;
        case REG_DMA_SOURCE:
        case REG_DMA_DESTINATION:
        case REG_DMA_COUNT:
        case REG_DMA_COMMAND:
                dma_write(e, offset, value);
                break;
        default:
                break;
        }
}

static void config_init(struct soft_edu *e) {
        static const uint8_t header[] = {
                [PCI_VENDOR_ID] = 0x34, 0x12,
                [PCI_DEVICE_ID] = 0xe8, 0x11,
                [PCI_CLASS_REVISION] = 0x10, 0x00, 0xff, 0x00,  /* revision 0x10, class 0x00ff00 as in QEMU */
        };

        memcpy(e->config, header, sizeof header);
}

static uint64_t config_read(const struct soft_edu *e, uint64_t offset, uint32_t size) {
        uint64_t value = 0;

        for (uint32_t i = size; i-- > 0;)       /* little endian, as PCI is */
                value = value << 8 | e->config[offset + i];
        return value;
}

static void config_write(struct soft_edu *e, uint64_t offset, uint32_t size, uint64_t value) {
        static const uint16_t writable =
                PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE;

        for (uint32_t i = 0; i < size; i++, value >>= 8) {
                if (offset + i == PCI_COMMAND)
                        e->config[PCI_COMMAND] = (uint8_t)(value & writable);
                else if (offset + i == PCI_COMMAND + 1)
                        e->config[PCI_COMMAND + 1] = (uint8_t)(value & (writable >> 8));
        }
}

/* --- requests -----------------------------------------------------------------------------------------------------*/

static uint64_t region_size(uint32_t region) {
        return region == REGION_BAR0 ? BAR0_SIZE : region == REGION_CONFIG ? CONFIG_SIZE : 0;
}

/* The sizes of regions are multiples of 8: an aligned access that begins inside ends inside. */
static bool access_is_good(const struct soft_access *a) {
        return (a->size == 1 || a->size == 2 || a->size == 4 || a->size == 8) && a->offset % a->size == 0 &&
               a->offset < region_size(a->region);
}

/* Turns a request into its answer. */
static void access_perform(struct soft_edu *e, struct soft_access *a) {
        uint64_t mask;

        a->error = 0;
        if (a->op == SOFT_INFO) {
                a->value = region_size(a->region);
                return;
        }
        if ((a->op != SOFT_READ && a->op != SOFT_WRITE) || !access_is_good(a)) {
                a->error = -EINVAL;
                return;
        }
        mask = a->size == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * a->size) - 1;
        if (a->op == SOFT_WRITE && a->region == REGION_CONFIG)
                config_write(e, a->offset, a->size, a->value & mask);
        else if (a->op == SOFT_WRITE)
                bar_write(e, a->offset, a->size, a->value & mask);
        else if (a->region == REGION_CONFIG)
                a->value = config_read(e, a->offset, a->size);
        else
                a->value = bar_read(e, a->offset, a->size) & mask;
}

/* --- connections --------------------------------------------------------------------------------------------------*/

/* False when the connection is over. Fds that a client attaches are dropped by the kernel: recv() takes none. */
static bool client_serve(struct soft_edu *e, struct edu_client *c) {
        if (!c->answering) {
                ssize_t n;

                memset(&c->answer, 0, sizeof c->answer);
                n = recv(c->fd, &c->answer, sizeof c->answer, MSG_DONTWAIT | MSG_TRUNC);
                if (n <= 0)
                        return n < 0 && (errno == EAGAIN || errno == EINTR);
                if (n == sizeof c->answer)
                        access_perform(e, &c->answer);
                else
                        c->answer.error = -EINVAL;
        }
        c->answering = send(c->fd, &c->answer, sizeof c->answer, MSG_DONTWAIT | MSG_NOSIGNAL) < 0;
        return !c->answering || errno == EAGAIN || errno == EINTR;
}

static void clients_drop(struct soft_edu *e, size_t i) {
        fd_close(e->clients[i].fd);
        e->n_clients--;
        memmove(&e->clients[i], &e->clients[i + 1], (e->n_clients - i) * sizeof e->clients[0]);
}

/* Takes new connections over from soft_edu_connect(). False when the device is to stop. */
static bool clients_take(struct soft_edu *e) {
        LOCK_SCOPE(&e->lock);

        for (size_t i = 0; i < e->n_incoming; i++) {
                if (e->n_clients == SOFT_EDU_CLIENTS)
                        clients_drop(e, 0);
                e->clients[e->n_clients++] = (struct edu_client){ .fd = e->incoming[i] };
        }
        e->n_incoming = 0;
        return !e->stop;
}

static void edu_wake(struct soft_edu *e) {
        const uint64_t one = 1;

        (void)!write(e->wake, &one, sizeof one);
}

/* Sleeps until a request comes, a transfer is due or somebody wakes the device. polled: [0] wake, then the clients. */
static void edu_wait(struct soft_edu *e, struct pollfd polled[1 + SOFT_EDU_CLIENTS]) {
        struct timespec timeout, *wait = NULL;
        uint64_t drained;

        polled[0] = (struct pollfd){ .fd = e->wake, .events = POLLIN };
        for (size_t i = 0; i < e->n_clients; i++)
                polled[1 + i] =
                        (struct pollfd){ .fd = e->clients[i].fd, .events = e->clients[i].answering ? POLLOUT : POLLIN };
        if (e->dma_command & DMA_RUN) {
                uint64_t now = now_ns(), left = e->dma_due > now ? e->dma_due - now : 0;

                timeout = (struct timespec){ .tv_sec = (time_t)(left / 1000000000U),
                                             .tv_nsec = (long)(left % 1000000000U) };
                wait = &timeout;
        }
        if (ppoll(polled, 1 + e->n_clients, wait, NULL) < 0)
                for (size_t i = 0; i <= e->n_clients; i++)
                        polled[i].revents = 0;
        if (polled[0].revents)
                (void)!read(e->wake, &drained, sizeof drained);
}

static void *edu_thread(void *arg) {
        struct pollfd polled[1 + SOFT_EDU_CLIENTS];
        struct soft_edu *e = arg;

        while (clients_take(e)) {
                edu_wait(e, polled);
                if ((e->dma_command & DMA_RUN) && now_ns() >= e->dma_due)
                        dma_finish(e);
                for (size_t i = e->n_clients; i-- > 0;)         /* backwards: dropping one moves those behind it */
                        if (polled[1 + i].revents && !client_serve(e, &e->clients[i]))
                                clients_drop(e, i);
        }
        while (e->n_clients > 0)
                clients_drop(e, 0);
        return NULL;
}

/* --- life ---------------------------------------------------------------------------------------------------------*/

static void edu_free(struct soft_edu *e) {
        fd_close(e->wake);
        pthread_mutex_destroy(&e->lock);
        free(e);
}

/* Signals are for the threads of the program; the device's has them all blocked from the start. */
static int edu_thread_start(struct soft_edu *e) {
        sigset_t all, before;
        int k;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        k = pthread_create(&e->thread, NULL, edu_thread, e);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return k;
}

int soft_edu_start(struct soft_container *s, uint32_t dma_delay_us, struct soft_edu **ret, struct refusal *r) {
        struct soft_edu *e = calloc(1, sizeof *e);
        int k;

        if (!e)
                return refuse(r, REFUSAL_INTERNAL, "no memory for a software device");
        e->container = s;
        e->dma_delay_ns = (uint64_t)dma_delay_us * 1000U;
        pthread_mutex_init(&e->lock, NULL);
        config_init(e);
        e->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        k = e->wake < 0 ? errno : edu_thread_start(e);
        if (k != 0) {
                edu_free(e);
                return refuse(r, REFUSAL_INTERNAL, "a software device cannot start: %s", strerrordesc_np(k));
        }
        *ret = e;
        return 0;
}

struct soft_edu *soft_edu_stop(struct soft_edu *e) {
        if (!e)
                return NULL;
        pthread_mutex_lock(&e->lock);
        e->stop = true;
        pthread_mutex_unlock(&e->lock);
        edu_wake(e);
        pthread_join(e->thread, NULL);
        edu_free(e);
        return NULL;
}

int soft_edu_connect(struct soft_edu *e, int *ret_fd, struct refusal *r) {
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return refuse(r, REFUSAL_INTERNAL, "no socket for a software device: %s", strerrordesc_np(errno));
        LOCK_SCOPE(&e->lock);
        if (e->n_incoming == SOFT_EDU_CLIENTS) {
                fd_close(e->incoming[0]);
                memmove(&e->incoming[0], &e->incoming[1], (SOFT_EDU_CLIENTS - 1) * sizeof e->incoming[0]);
                e->n_incoming--;
        }
        e->incoming[e->n_incoming++] = pair[0];
        edu_wake(e);
        *ret_fd = pair[1];
        return 0;
}
