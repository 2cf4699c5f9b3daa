-- SPDX-License-Identifier: Apache-2.0
-- What runs now. Void after a reboot: the row of boot says which boot of the machine the rest describes.
-- state: 1 intended, 2 live, 3 ending, 4 quarantined.
CREATE TABLE boot (
        one     INTEGER PRIMARY KEY CHECK (one = 1),
        boot_id TEXT NOT NULL
) STRICT;

CREATE TABLE session (
        id                INTEGER PRIMARY KEY CHECK (id > 0),
        tenant            TEXT NOT NULL CHECK (tenant <> ''),
        client_name       TEXT NOT NULL,
        uid               INTEGER NOT NULL CHECK (uid BETWEEN 0 AND 4294967295),
        gid               INTEGER NOT NULL CHECK (gid BETWEEN 0 AND 4294967295),
        pid               INTEGER NOT NULL CHECK (pid >= 0),
        start_time        INTEGER NOT NULL,
        holder_pid        INTEGER NOT NULL CHECK (holder_pid >= 0),
        holder_uid        INTEGER NOT NULL CHECK (holder_uid BETWEEN 0 AND 4294967295),
        holder_start_time INTEGER NOT NULL,
        token_hash        BLOB NOT NULL CHECK (length(token_hash) = 32),
        secret_hash       BLOB NOT NULL CHECK (length(secret_hash) = 32),
        state             INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4)
) STRICT;

CREATE TABLE domain (
        id      INTEGER PRIMARY KEY CHECK (id > 0),
        session INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE,
        label   TEXT NOT NULL,
        state   INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4)
) STRICT;
CREATE INDEX domain_of_session ON domain (session);

-- size and page_size are known once the holder has looked: 0 is allowed until the row is live.
CREATE TABLE memory (
        id        INTEGER PRIMARY KEY CHECK (id > 0),
        session   INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE,
        size      INTEGER NOT NULL CONSTRAINT memory_size_below_2_63 CHECK (size >= 0),
        page_size INTEGER NOT NULL
                  CONSTRAINT memory_page_size_power_of_two CHECK (page_size >= 0 AND (page_size & (page_size - 1)) = 0),
        dev       INTEGER NOT NULL,
        ino       INTEGER NOT NULL,
        sealed    INTEGER NOT NULL CHECK (sealed IN (0, 1)),
        writable  INTEGER NOT NULL CHECK (writable IN (0, 1)),
        state     INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4),
        mapped    INTEGER NOT NULL DEFAULT 0 CONSTRAINT memory_mapped_not_negative CHECK (mapped >= 0),
        CONSTRAINT memory_live_has_size CHECK (state <> 2 OR size > 0)
) STRICT;
CREATE INDEX memory_of_session ON memory (session);

-- mapped counts the mappings that refer to the object. A foreign key would need an index on mapping (memory) and cost a
-- third of the time of a map; the count costs one update for each run of rows with the same memory. When a session
-- goes, its row is gone before its memory's, and all its mappings go with it.
CREATE TRIGGER memory_with_mappings_stays BEFORE DELETE ON memory
WHEN OLD.mapped > 0 AND EXISTS (SELECT 1 FROM session WHERE id = OLD.session)
BEGIN
        SELECT RAISE(ABORT, 'memory is mapped');
END;

CREATE TABLE attachment (
        id       INTEGER PRIMARY KEY CHECK (id > 0),
        domain   INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
        device   TEXT NOT NULL CHECK (device <> ''),
        group_id INTEGER NOT NULL CHECK (group_id BETWEEN 0 AND 4294967295),
        backend  INTEGER NOT NULL CHECK (backend BETWEEN 0 AND 4294967295),
        state    INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4)
) STRICT;
CREATE INDEX attachment_of_domain ON attachment (domain);

-- iova and last (inclusive) are stored as address - 2^63, so that signed order is address order. A wrapped range has
-- last < iova. The one range whose length does not fit in 64 bits, all of them, is refused as well.
-- memory: counted in memory.mapped instead of a foreign key, see there.
-- op: the MAP that made the row. No foreign key: ops without a key go when they settle.
CREATE TABLE mapping (
        domain INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
        iova   INTEGER NOT NULL,
        last   INTEGER NOT NULL,
        memory INTEGER NOT NULL,
        offset INTEGER NOT NULL CONSTRAINT mapping_offset_below_2_63 CHECK (offset >= 0),
        access INTEGER NOT NULL CONSTRAINT mapping_access_read_write CHECK (access BETWEEN 1 AND 3),
        op     INTEGER NOT NULL CHECK (op > 0),
        PRIMARY KEY (domain, iova),
        CONSTRAINT mapping_ends_after_it_starts CHECK (last >= iova),
        CONSTRAINT mapping_is_not_everything CHECK (iova > -9223372036854775808 OR last < 9223372036854775807)
) STRICT, WITHOUT ROWID;

-- ranges: of an unsettled MAP or UNMAP, an array of struct ledger_range (native byte order: the file never outlives the
-- boot). One blob, not a table: a batch of 256 then costs one row to record and one to forget.
CREATE TABLE op (
        id           INTEGER PRIMARY KEY CHECK (id > 0),
        session      INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE,
        object       INTEGER NOT NULL,
        kind         INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 8),
        key          BLOB CONSTRAINT op_key_16_bytes CHECK (length(key) = 16),
        request_hash INTEGER NOT NULL,
        settled      INTEGER NOT NULL CHECK (settled IN (0, 1)),
        answer       BLOB CONSTRAINT op_answer_1024_bytes CHECK (length(answer) <= 1024),
        ranges       BLOB CONSTRAINT op_ranges_whole CHECK (length(ranges) % 16 = 0),
        CONSTRAINT op_settled_without_ranges CHECK (settled = 0 OR ranges IS NULL),
        CONSTRAINT op_settled_with_key CHECK (settled = 0 OR key IS NOT NULL),
        UNIQUE (session, key)
) STRICT;
