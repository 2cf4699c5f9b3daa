/* SPDX-License-Identifier: Apache-2.0 */
/* Formats: sqlite.org/fileformat2.html, section 4, and sqlite.org/walformat.html, section 2. */
#include "wal_check.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stmt.h"
#include "util/cleanup.h"

#define WAL_MAGIC 0x377f0682U           /* and one more: checksums over big-endian words */
#define WAL_HEADER 32U
#define FRAME_HEADER 24U

struct wal_index {                      /* of the machine's byte order; twice at the beginning of the -shm */
        uint32_t version, unused, change;
        uint8_t is_init, big_endian_checksums;
        uint16_t page_size;             /* 1: 65536 */
        uint32_t last_frame, pages;
        uint32_t frame_checksum[2];     /* of the last frame */
        uint8_t salts[8];               /* as in the WAL's header */
        uint32_t checksum[2];
};

struct wal_index_file {
        struct wal_index copies[2];
        uint32_t backfilled;            /* frames that are in the database already */
};

_Static_assert(sizeof(struct wal_index) == 48, "the format of the -shm");

struct checksum {
        uint32_t a, b;
};

/* size: a multiple of 8. */
static void add(struct checksum *c, const void *data, size_t size, bool big_endian) {
        const uint8_t *p = data;

        for (size_t i = 0; i < size; i += 8) {
                uint32_t words[2];

                memcpy(words, p + i, sizeof words);
                c->a += (big_endian ? be32toh(words[0]) : le32toh(words[0])) + c->b;
                c->b += (big_endian ? be32toh(words[1]) : le32toh(words[1])) + c->a;
        }
}

static bool is_checksum(const struct checksum *c, const uint8_t *stored) {
        uint32_t words[2];

        memcpy(words, stored, sizeof words);
        return be32toh(words[0]) == c->a && be32toh(words[1]) == c->b;
}

/* What the index says; false: it says nothing that could be relied on, or nothing that is not in the database. */
static bool read_index(const char *path, struct wal_index *ret) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        const bool native_big = htobe32(1) == 1;
        struct wal_index_file f;
        struct checksum c = { 0, 0 };

        if (fd < 0 || pread(fd, &f, sizeof f, 0) != (ssize_t)sizeof f)
                return false;
        /* two copies: a writer that was killed between them leaves them different */
        if (memcmp(&f.copies[0], &f.copies[1], sizeof f.copies[0]) != 0 || f.copies[0].is_init != 1)
                return false;
        add(&c, &f.copies[0], offsetof(struct wal_index, checksum), native_big);
        if (c.a != f.copies[0].checksum[0] || c.b != f.copies[0].checksum[1])
                return false;
        *ret = f.copies[0];
        return ret->last_frame > f.backfilled;
}

static int refuse_torn(const char *path, const struct wal_index *index, uint32_t good, struct refusal *r) {
        (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                     "%s is torn: of the %u pages that were committed to it %u are left, and what is mapped is not what the "
                     "ledger would say. Nothing was touched, and holders keep what is mapped. Restore the file, or move the "
                     "ledger's folder away: then all sessions end.",
                     path, index->last_frame, good);
        r->errnum = EUCLEAN;
        return -1;
}

static bool check_header(int fd, const struct wal_index *index, struct checksum *ret, bool *ret_big) {
        uint8_t header[WAL_HEADER];
        uint32_t magic;

        if (pread(fd, header, sizeof header, 0) != (ssize_t)sizeof header)
                return false;
        memcpy(&magic, header, sizeof magic);
        magic = be32toh(magic);
        if ((magic & ~1U) != WAL_MAGIC || memcmp(header + 16, index->salts, sizeof index->salts) != 0)
                return false;
        *ret_big = magic & 1;
        *ret = (struct checksum){ 0, 0 };
        add(ret, header, 24, *ret_big);
        return is_checksum(ret, header + 24);
}

/* How many frames from the first on are as they were written. */
static uint32_t count_good(int fd, const struct wal_index *index, uint8_t *frame, uint32_t page_size) {
        const size_t size = FRAME_HEADER + page_size;
        struct checksum c;
        bool big;

        if (!check_header(fd, index, &c, &big))
                return 0;
        for (uint32_t i = 0; i < index->last_frame; i++) {
                if (pread(fd, frame, size, (off_t)(WAL_HEADER + i * (uint64_t)size)) != (ssize_t)size ||
                    memcmp(frame + 8, index->salts, sizeof index->salts) != 0)
                        return i;
                add(&c, frame, 8, big);
                add(&c, frame + FRAME_HEADER, page_size, big);
                if (!is_checksum(&c, frame + 16))
                        return i;
        }
        if (c.a != index->frame_checksum[0] || c.b != index->frame_checksum[1])
                return index->last_frame - 1;
        return index->last_frame;
}

int wal_check(const char *directory, const char *file, struct refusal *r) {
        char index_path[PATH_MAX], wal_path[PATH_MAX];
        _cleanup_free_ uint8_t *frame = NULL;
        _cleanup_close_ int fd = -1;
        struct wal_index index;
        uint32_t good = 0, page_size;

        if (db_path(index_path, directory, file, "-shm", r) < 0 || db_path(wal_path, directory, file, "-wal", r) < 0)
                return -1;
        if (!read_index(index_path, &index))
                return 0;
        page_size = index.page_size == 1 ? 65536U : index.page_size;
        frame = malloc(FRAME_HEADER + page_size);
        if (!frame || page_size % 8 != 0)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No memory to look at %s.", wal_path);
        fd = open(wal_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0)
                good = count_good(fd, &index, frame, page_size);
        else if (errno != ENOENT)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "%s cannot be read: %s.", wal_path, strerror(errno));
        return good == index.last_frame ? 0 : refuse_torn(wal_path, &index, good, r);
}
