/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_agent: a client of the service as a process of its own, which a test can kill, or have under another uid. It
 * reads one command a line and answers one line: "ok ..." or "err ERRNO REASON TEXT". Objects are numbered from 0 in
 * the order they are made. tests/lib/agent.h is the other end. Its second job: `client_agent --exec UID PROGRAM
 * ARGUMENT...` becomes the program, as that user (0: as it is), which then dies with its parent.
 *
 *   uid UID                                becomes that user
 *   connect DIRECTORY | close | wait-end
 *   domain [lazy] | destroy D | attach D DEVICE | detach A
 *   alloc SIZE [HUGE-PAGE-SIZE] | map D IOVA M OFFSET LENGTH ACCESS | unmap D IOVA LENGTH
 *   map-with D IOVA M OFFSET LENGTH ACCESS FLAGS CHUNK WINDOW     "ok IOVA MAPPINGS LOCKED-BYTES TABLE-BYTES"
 *   unmap-with D IOVA LENGTH SPLIT         the bytes that were unmapped; numbers are those of iommud.h
 *   map-many D IOVA M OFFSET LENGTH ACCESS FLAGS N STRIDE OFFSET-STRIDE      "ok MAPPINGS LOCKED-BYTES TABLE-BYTES"
 *   unmap-many D IOVA LENGTH N STRIDE      the bytes that were unmapped
 *   sync D                                 the bytes that had waited
 *   domain-info D                          "ok mappings=N bytes=N kernel=N shared=N deferred=N limit=N tables=N"
 *   used RESOURCE                          "ok USED LIMIT"
 *   window-create D LENGTH PAGE-SHIFT LEVELS QUOTA                "ok ID START LENGTH PAGE-SHIFT LEVELS"
 *   window-remove D ID FORCE | window-reset D
 *   window-query D                         "ok N CAN-CREATE PAGE-SIZES LARGEST LEVELS", then for each window
 *                                          ID:START:LENGTH:PAGE-SHIFT:MAPPINGS:BYTES
 *   import SIZE [populate]                 memory that nobody has touched
 *   memory-close M
 *   fill-at M OFFSET LENGTH BYTE | peek-at M OFFSET LENGTH
 *   fill M BYTE | peek M                   peek: the byte that all have, or -1
 *   dma A IOVA to|from | start A IOVA to|from
 *   reach A IOVA M OFFSET                  memory -> device -> the same memory; what of it happened: "ok both" (reads and
 *                                          writes), "ok write" (something else was written), "ok no-write"
 *   loop A IOVA M                          from now on: memory -> device -> memory at IOVA, and compares
 *   rounds                                 how many of loop or workload were done
 *   workload SEED                          from now on, at random, until it is killed
 *   session DIRECTORY                      only a session connection: its token
 */
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client_agent_memory.h"
#include "client_agent_with.h"
#include "edu.h"
#include "session_channel.h"
#include "transport/tsan.h"

#define OBJECTS 64

#ifdef TRANSPORT_TSAN
/* gRPC is not instrumented; and this program ends in the middle of everything, on purpose. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
        return "ignore_noninstrumented_modules=1 report_thread_leaks=0";
}
#endif

static struct iommud_client *client;
static struct iommud_domain *domains[OBJECTS];
static struct iommud_attachment *attachments[OBJECTS];
static struct iommud_memory *memories[OBJECTS];
static size_t n_domains, n_attachments, n_memories;
static atomic_ulong rounds;
static char loop_error[400];
static atomic_bool loop_failed;

/* ---- answers ---- */

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
        va_list args;

        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        putchar('\n');
        fflush(stdout);
}

static void say_result(int r) {
        struct iommud_error e = { .size = sizeof e };

        if (r >= 0)
                say("ok");
        else if (iommud_error_detail(&e) == 0)
                say("err %d %d %s", -r, (int)e.reason, e.text);
        else
                say("err %d 0", -r);
}

/* ---- threads ---- */

struct loop {
        struct iommud_attachment *device;
        struct iommud_memory *memory;
        uint64_t iova;
};

/* The first half of the memory goes to the device and comes back into the second. */
static int loop_round(const struct loop *l, uint8_t value) {
        uint8_t *from = iommud_memory_addr(l->memory), *to = from + iommud_memory_size(l->memory) / 2;
        uint64_t half = iommud_memory_size(l->memory) / 2;
        int r;

        memset(from, value, EDU_BLOCK);
        memset(to, 0, EDU_BLOCK);
        r = edu_transfer(l->device, l->iova, EDU_BLOCK, false);
        if (r == 0)
                r = edu_transfer(l->device, l->iova + half, EDU_BLOCK, true);
        if (r < 0)
                return r;
        for (size_t i = 0; i < EDU_BLOCK; i++)
                if (to[i] != value)
                        return -EBADMSG;
        return 0;
}

static void *loop_main(void *arg) {
        const struct loop *l = arg;

        for (uint8_t value = 1;; value = (uint8_t)(value % 250 + 1)) {
                int r = loop_round(l, value);

                if (r < 0) {
                        snprintf(loop_error, sizeof loop_error, "%d %s", -r, iommud_last_error());
                        atomic_store(&loop_failed, true);
                        return NULL;
                }
                atomic_fetch_add(&rounds, 1);
        }
}

static uint64_t next_random(uint64_t *seed) {
        *seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
        return *seed >> 33;
}

/* One step at random; what is refused (an overlap, nothing there) is part of it. False: the session is over. */
static bool workload_step(uint64_t *seed) {
        struct iommud_domain *d = n_domains ? domains[next_random(seed) % n_domains] : NULL;
        struct iommud_memory *m = n_memories ? memories[next_random(seed) % n_memories] : NULL;
        uint64_t iova = 0x100000 + next_random(seed) % 64 * 4096, length = (1 + next_random(seed) % 4) * 4096;
        struct iommud_memory *other;
        struct iommud_domain *fresh;
        int r = 0;

        switch (next_random(seed) % 8) {
        case 0:
                r = iommud_memory_alloc(client, length, NULL, &other);
                if (r == 0)
                        r = iommud_memory_close(other);
                break;
        case 1:
                r = iommud_domain_create(client, "w", &fresh);
                if (r == 0)
                        r = iommud_domain_destroy(fresh);
                break;
        case 2:
                r = d ? iommud_unmap_all(d, NULL) : 0;
                break;
        case 3:
        case 4:
                r = d ? iommud_unmap(d, iova, length) : 0;
                break;
        default:
                r = d && m ? iommud_map(d, iova, m, 0, length, IOMMUD_READ_WRITE) : 0;
                break;
        }
        return r != -ECONNRESET;
}

static void *workload_main(void *arg) {
        uint64_t seed = *(uint64_t *)arg;

        while (workload_step(&seed))
                atomic_fetch_add(&rounds, 1);
        atomic_store(&loop_failed, true);
        return NULL;
}

static void start_thread(void *(*run)(void *), void *arg) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, run, arg) == 0) {
                pthread_detach(thread);
                say("ok");
        } else
                say("err %d 0", EAGAIN);
}

/* ---- commands ---- */

static int become(uid_t uid) {
        if (setgroups(0, NULL) < 0 || setresgid((gid_t)uid, (gid_t)uid, (gid_t)uid) < 0 || setresuid(uid, uid, uid) < 0)
                return -errno;
        prctl(PR_SET_PDEATHSIG, SIGKILL);       /* a change of uid forgets it */
        return 0;
}

static void do_uid(char *args) {
        int r = become((uid_t)strtoul(args, NULL, 10));

        if (r < 0)
                say("err %d 0", -r);
        else
                say("ok");
}

static void do_connect(char *args) {
        const struct iommud_connect_options o = { .size = sizeof o, .directory = args, .client_name = "agent" };

        say_result(iommud_connect(&o, &client));
}

static void do_close(char *args) {
        (void)args;
        iommud_close(client);
        client = NULL;
        n_domains = n_attachments = n_memories = 0;
        say("ok");
}

static void do_domain(char *args) {
        const struct iommud_domain_options lazy = { .size = sizeof lazy, .flush_mode = IOMMUD_FLUSH_LAZY };
        int r = iommud_domain_create_with(client, strcmp(args, "lazy") == 0 ? &lazy : NULL, &domains[n_domains]);

        if (r < 0) {
                say_result(r);
                return;
        }
        say("ok %zu %" PRIu64, n_domains, iommud_domain_id(domains[n_domains]));
        n_domains++;
}

static void do_destroy(char *args) {
        say_result(iommud_domain_destroy(domains[strtoul(args, NULL, 10) % OBJECTS]));
}

static void do_attach(char *args) {
        unsigned d;
        char device[64];
        int r;

        if (sscanf(args, "%u %63s", &d, device) != 2 || d >= n_domains) {
                say("err %d 0", EINVAL);
                return;
        }
        r = iommud_device_attach(domains[d], device, &attachments[n_attachments]);
        if (r == 0)
                r = edu_enable(attachments[n_attachments]);
        if (r < 0) {
                say_result(r);
                return;
        }
        say("ok %zu %" PRIu64, n_attachments, iommud_attachment_id(attachments[n_attachments]));
        n_attachments++;
}

static void do_detach(char *args) {
        say_result(iommud_device_detach(attachments[strtoul(args, NULL, 10) % OBJECTS]));
}

static void do_alloc(char *args) {
        struct iommud_memory_options options = { .size = sizeof options };
        char *rest;
        uint64_t size = strtoull(args, &rest, 0);
        int r;

        options.huge_page_size = strtoull(rest, NULL, 0);
        r = iommud_memory_alloc(client, size, &options, &memories[n_memories]);
        if (r < 0) {
                say_result(r);
                return;
        }
        say("ok %zu %" PRIu64, n_memories, iommud_memory_id(memories[n_memories]));
        n_memories++;
}

static void do_map(char *args) {
        uint64_t iova, offset, length;
        unsigned d, m, access;

        if (sscanf(args, "%u %" SCNi64 " %u %" SCNi64 " %" SCNi64 " %u", &d, &iova, &m, &offset, &length,
                   &access) != 6 ||
            d >= n_domains || m >= n_memories)
                say("err %d 0", EINVAL);
        else
                say_result(iommud_map(domains[d], iova, memories[m], offset, length, (enum iommud_access)access));
}

static void do_unmap(char *args) {
        uint64_t iova, length;
        unsigned d;

        if (sscanf(args, "%u %" SCNi64 " %" SCNi64, &d, &iova, &length) != 3 || d >= n_domains)
                say("err %d 0", EINVAL);
        else
                say_result(iommud_unmap(domains[d], iova, length));
}

static void do_fill(char *args) {
        unsigned m, byte;

        if (sscanf(args, "%u %u", &m, &byte) != 2 || m >= n_memories) {
                say("err %d 0", EINVAL);
                return;
        }
        memset(iommud_memory_addr(memories[m]), (int)byte, iommud_memory_size(memories[m]));
        say("ok");
}

static void do_peek(char *args) {
        const struct iommud_memory *m = memories[strtoul(args, NULL, 10) % OBJECTS];
        const uint8_t *p = iommud_memory_addr(m);

        for (uint64_t i = 1; i < iommud_memory_size(m); i++)
                if (p[i] != p[0]) {
                        say("ok -1");
                        return;
                }
        say("ok %u", p[0]);
}

static void dma(char *args, int (*move)(struct iommud_attachment *a, uint64_t iova, size_t n, bool to_memory)) {
        char direction[8];
        uint64_t iova;
        unsigned a;

        if (sscanf(args, "%u %" SCNi64 " %7s", &a, &iova, direction) != 3 || a >= n_attachments)
                say("err %d 0", EINVAL);
        else
                say_result(move(attachments[a], iova, EDU_BLOCK, strcmp(direction, "to") == 0));
}

static void do_dma(char *args) {
        dma(args, edu_transfer);
}

static void do_start(char *args) {
        dma(args, edu_start);
}

static void do_loop(char *args) {
        static struct loop l;
        unsigned a, m;

        if (sscanf(args, "%u %" SCNi64 " %u", &a, &l.iova, &m) != 3 || a >= n_attachments || m >= n_memories) {
                say("err %d 0", EINVAL);
                return;
        }
        l.device = attachments[a];
        l.memory = memories[m];
        start_thread(loop_main, &l);
}

static void do_workload(char *args) {
        static uint64_t seed;

        seed = strtoull(args, NULL, 0);
        start_thread(workload_main, &seed);
}

static void do_rounds(char *args) {
        (void)args;
        if (atomic_load(&loop_failed))
                say("err %s", loop_error);
        else
                say("ok %lu", atomic_load(&rounds));
}

static void do_session(char *args) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        struct session_msg m;

        snprintf(a.sun_path, sizeof a.sun_path, "%s/session.sock", args);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&a, sizeof a) < 0 || recv(fd, &m, sizeof m, 0) != sizeof m)
                say("err %d 0", errno);
        else if (m.type != SESSION_TOKEN)
                say("err %d %u %.300s", EACCES, m.reason, m.text);
        else
                say("ok %.32s", m.text);        /* and the connection stays open */
}

static bool handle(char *line) {
        static const struct {
                const char *name;
                void (*run)(char *args);
        } commands[] = {
                { "uid", do_uid }, { "connect", do_connect }, { "close", do_close }, { "domain", do_domain },
                { "destroy", do_destroy }, { "attach", do_attach }, { "detach", do_detach }, { "alloc", do_alloc },
                { "map", do_map }, { "unmap", do_unmap }, { "fill", do_fill }, { "peek", do_peek }, { "dma", do_dma },
                { "start", do_start }, { "loop", do_loop }, { "rounds", do_rounds }, { "workload", do_workload },
                { "session", do_session },
        };
        const struct agent_objects objects = { client, domains, n_domains, memories, n_memories, attachments, n_attachments };
        struct agent_memories all = { client, memories, n_memories, OBJECTS };
        char *args = line + strcspn(line, " "), answer[AGENT_ANSWER_MAX];

        if (*args)
                *args++ = '\0';
        for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
                if (strcmp(line, commands[i].name) == 0) {
                        commands[i].run(args);
                        return true;
                }
        if (agent_memory(line, args, &all, answer) || agent_with(line, args, &objects, answer)) {
                n_memories = all.n;
                say("%s", answer);
                return true;
        }
        say("err %d 0 no command %s", EINVAL, line);
        return strcmp(line, "exit") != 0;
}

int main(int argc, char **argv) {
        char line[1024];

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (argc > 3 && strcmp(argv[1], "--exec") == 0) {
                if (strcmp(argv[2], "0") != 0 && become((uid_t)strtoul(argv[2], NULL, 10)) < 0)
                        return 127;
                execv(argv[3], argv + 3);
                fprintf(stderr, "%s: %m\n", argv[3]);
                return 127;
        }
        while (fgets(line, sizeof line, stdin)) {
                line[strcspn(line, "\n")] = '\0';
                if (!handle(line))
                        break;
        }
        _exit(0);       /* a client that ends without a word: the service sees to it */
}
