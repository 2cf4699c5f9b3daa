/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make bench: what a Map costs, beside what gRPC core costs by itself, from one run on one machine with the same client code
 * and the same number of server threads. Latencies are medians; ratios are what to compare between machines.
 *
 *   bench BUILD            the table
 *   bench --floor SOCKET   the empty gRPC server (started by bench itself)
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libsmartcols/libsmartcols.h>

#include <iommud/iommud.h>

#include "channel.h"
#include "floor.h"

#define WARM_UP 400U
#define TURN 100U
#define ROUNDS 4000U
#define BATCH 256U
#define BATCH_ROUNDS 200U
#define PAGE 4096U

static char directory[] = "/tmp/iommud-bench-XXXXXX";

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
        fprintf(stderr, "bench: %s: %s\n", what, iommud_last_error());
        exit(EXIT_FAILURE);
}

/* as many as the service has (transport/transport.c) */
static unsigned server_threads(void) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);

        return n <= 2 ? 2 : n >= 4 ? 4 : (unsigned)n;
}

static int compare(const void *a, const void *b) {
        const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

struct samples {
        uint64_t ns[WARM_UP + ROUNDS];
        size_t n;
};

static double percentile_us(struct samples *s, unsigned percent) {
        qsort(s->ns, s->n, sizeof *s->ns, compare);
        return (double)s->ns[(s->n - 1) * percent / 100] / 1000.0;
}

/* ---- processes ---- */

static pid_t start(char *const argv[], const char *log, int *ret_stdin) {
        int pair[2];
        pid_t pid;

        if (pipe2(pair, O_CLOEXEC) < 0)
                die("pipe");
        pid = fork();
        if (pid == 0) {
                int out = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);

                dup2(pair[0], STDIN_FILENO);
                dup2(out, STDERR_FILENO);
                execv(argv[0], argv);
                _exit(127);
        }
        close(pair[0]);
        *ret_stdin = pair[1];
        return pid;
}

static void wait_for_socket(const char *path) {
        struct stat st;

        for (int i = 0; i < 500 && stat(path, &st) < 0; i++)
                usleep(10000);
        usleep(100000);
}

/* ---- what is measured ---- */

/* The three are measured in turns of TURN calls, so that what else the machine does meanwhile meets all of them. */
static void floor_turn(struct sdk_channel *channel, struct samples *s) {
        struct sdk_outcome outcome = { 0 };

        for (unsigned i = 0; i < TURN; i++) {
                uint64_t begin = now_ns();

                sdk_channel_attempt(channel, METHOD_CloseSession, "", 0, (int64_t)(begin + 5000000000U), &outcome);
                if (outcome.status != 0) {
                        fprintf(stderr, "bench: the empty call failed: %s\n", outcome.message);
                        exit(EXIT_FAILURE);
                }
                s->ns[s->n++] = now_ns() - begin;
        }
        sdk_outcome_clear(&outcome);
}

static void single_turn(struct iommud_domain *domain, struct iommud_memory *memory, struct samples *map,
                        struct samples *unmap) {
        for (unsigned i = 0; i < TURN; i++) {
                uint64_t iova = 0x100000 + (uint64_t)(i % BATCH) * PAGE, t0 = now_ns(), t1;

                if (iommud_map(domain, iova, memory, (uint64_t)(i % BATCH) * PAGE, PAGE, IOMMUD_READ_WRITE) < 0)
                        die("map");
                t1 = now_ns();
                if (iommud_unmap(domain, iova, PAGE) < 0)
                        die("unmap");
                map->ns[map->n++] = t1 - t0;
                unmap->ns[unmap->n++] = now_ns() - t1;
        }
}

static void measure_single(struct iommud_domain *domain, struct iommud_memory *memory, const char *floor_path,
                           struct samples *s) {
        struct sdk_channel *channel = sdk_channel_open(floor_path, "00000000000000000000000000000000");

        for (unsigned turn = 0; turn < (WARM_UP + ROUNDS) / TURN; turn++) {
                if (turn == WARM_UP / TURN)
                        s[0].n = s[1].n = s[2].n = 0;
                floor_turn(channel, &s[0]);
                single_turn(domain, memory, &s[1], &s[2]);
        }
        sdk_channel_close(channel);
}

static void measure_batch(struct iommud_domain *domain, struct iommud_memory *memory, struct samples *map,
                          struct samples *unmap) {
        static struct iommud_map_entry entries[BATCH];
        static struct iommud_unmap_entry ranges[BATCH];

        for (unsigned k = 0; k < BATCH; k++) {
                entries[k] = (struct iommud_map_entry){ 0x10000000 + (uint64_t)k * 2 * PAGE, memory, (uint64_t)k * PAGE, PAGE,
                                                        IOMMUD_READ_WRITE };
                ranges[k] = (struct iommud_unmap_entry){ entries[k].iova, PAGE };
        }
        for (unsigned i = 0; i < 20 + BATCH_ROUNDS; i++) {
                uint64_t t0 = now_ns(), t1, t2;

                if (iommud_map_batch(domain, entries, BATCH) < 0)
                        die("map_batch");
                t1 = now_ns();
                if (iommud_unmap_batch(domain, ranges, BATCH) < 0)
                        die("unmap_batch");
                t2 = now_ns();
                if (i < 20)
                        continue;
                map->ns[map->n++] = (t1 - t0) / BATCH;
                unmap->ns[unmap->n++] = (t2 - t1) / BATCH;
        }
}

/* ---- the table ---- */

static void row(struct libscols_table *table, const char *what, struct samples *s, double floor_us) {
        struct libscols_line *line = scols_table_new_line(table, NULL);
        double median = percentile_us(s, 50);
        char text[32];

        scols_line_set_data(line, 0, what);
        (void)snprintf(text, sizeof text, "%.2f", median);
        scols_line_set_data(line, 1, text);
        (void)snprintf(text, sizeof text, "%.2f", percentile_us(s, 99));
        scols_line_set_data(line, 2, text);
        (void)snprintf(text, sizeof text, "%.3f", median / floor_us);
        scols_line_set_data(line, 3, text);
}

static void print_table(struct samples s[5]) {
        struct libscols_table *table = scols_new_table();
        double floor_us = percentile_us(&s[0], 50);

        scols_table_new_column(table, "WHAT", 0, 0);
        scols_table_new_column(table, "MEDIAN us", 0, SCOLS_FL_RIGHT);
        scols_table_new_column(table, "P99 us", 0, SCOLS_FL_RIGHT);
        scols_table_new_column(table, "x EMPTY RPC", 0, SCOLS_FL_RIGHT);
        row(table, "empty unary RPC, gRPC core alone", &s[0], floor_us);
        row(table, "Map of 4 KiB, one", &s[1], floor_us);
        row(table, "Unmap of 4 KiB, one", &s[2], floor_us);
        row(table, "Map of 4 KiB, in batches of 256, each", &s[3], floor_us);
        row(table, "Unmap of 4 KiB, in batches of 256, each", &s[4], floor_us);
        scols_print_table(table);
        scols_unref_table(table);
}

static void measure(const char *sockets, const char *floor_path, struct samples *s) {
        struct iommud_connect_options options = { .size = sizeof options, .directory = sockets };
        struct iommud_attachment *attachment = NULL;
        struct iommud_client *client = NULL;
        struct iommud_domain *domain = NULL;
        struct iommud_memory *memory = NULL;

        if (iommud_connect(&options, &client) < 0 || iommud_domain_create(client, "bench", &domain) < 0 ||
            iommud_device_attach(domain, "edu0", &attachment) < 0 ||
            iommud_memory_alloc(client, (uint64_t)BATCH * PAGE, NULL, &memory) < 0)
                die("set-up");
        measure_single(domain, memory, floor_path, s);
        measure_batch(domain, memory, &s[3], &s[4]);
        iommud_close(client);
}

int main(int argc, char **argv) {
        static struct samples s[5];
        char service[512], floor_path[512], sockets[512], private[512], self[512], log[512], path[600];
        int service_stdin, floor_stdin;
        pid_t service_pid, floor_pid;
        ssize_t n;

        if (argc == 3 && strcmp(argv[1], "--floor") == 0)
                return floor_serve(argv[2], server_threads());
        if (argc != 2 || !mkdtemp(directory) || (n = readlink("/proc/self/exe", self, sizeof self - 1)) < 0)
                return 2;
        self[n] = '\0';
        (void)snprintf(service, sizeof service, "%s/iommud", argv[1]);
        (void)snprintf(floor_path, sizeof floor_path, "%s/floor.sock", directory);
        (void)snprintf(private, sizeof private, "--private=%s", directory);
        (void)snprintf(sockets, sizeof sockets, "%s/run/client", directory);
        (void)snprintf(log, sizeof log, "%s/log", directory);
        service_pid = start((char *[]){ service, private, NULL }, log, &service_stdin);
        floor_pid = start((char *[]){ self, "--floor", floor_path, NULL }, log, &floor_stdin);
        wait_for_socket(floor_path);
        (void)snprintf(path, sizeof path, "%s/session.sock", sockets);
        wait_for_socket(path);
        measure(sockets, floor_path, s);
        print_table(s);
        kill(service_pid, SIGTERM);
        close(floor_stdin);
        waitpid(service_pid, NULL, 0);
        waitpid(floor_pid, NULL, 0);
        return EXIT_SUCCESS;
}
