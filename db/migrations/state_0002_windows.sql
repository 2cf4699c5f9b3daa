-- SPDX-License-Identifier: Apache-2.0
-- Windows, mappings that can be cut or that expose whole IOMMU pages, unmaps that leave rests or happen later.
ALTER TABLE domain ADD COLUMN lazy INTEGER NOT NULL DEFAULT 0 CHECK (lazy IN (0, 1));

-- Added, not rebuilt: rows that are there get the default without being written. A mapping may begin and end anywhere:
-- with page_shift the IOMMU's pages of 2^page_shift bytes that it touches are shown, and shared with its neighbours.
ALTER TABLE mapping ADD COLUMN chunk_shift INTEGER NOT NULL DEFAULT 0
        CONSTRAINT mapping_chunk_shift_0_or_12_to_63 CHECK (chunk_shift = 0 OR chunk_shift BETWEEN 12 AND 63);
ALTER TABLE mapping ADD COLUMN page_shift INTEGER NOT NULL DEFAULT 0
        CONSTRAINT mapping_page_shift_0_or_12_to_63 CHECK (page_shift = 0 OR page_shift BETWEEN 12 AND 63)
        CONSTRAINT mapping_chunked_or_exposed CHECK (chunk_shift = 0 OR page_shift = 0);

-- A window that is intended (state 1) and whose place the IOMMU will choose starts at 2^64 - 1, where none can.
-- start is stored as mapping.iova is. size, quota and table_bytes are bit patterns, size 0 is 2^64. Signed arithmetic ends
-- at 2^63, so a size from there on (negative) has a rule of its own: its start is at most 2^64 - size.
CREATE TABLE window (
        id          INTEGER PRIMARY KEY CHECK (id > 0),
        domain      INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
        start       INTEGER NOT NULL,
        size        INTEGER NOT NULL,
        page_shift  INTEGER NOT NULL CONSTRAINT window_page_shift_12_to_63 CHECK (page_shift BETWEEN 12 AND 63),
        levels      INTEGER NOT NULL CHECK (levels BETWEEN 0 AND 4294967295),
        quota       INTEGER NOT NULL,
        table_bytes INTEGER NOT NULL,
        is_default  INTEGER NOT NULL CHECK (is_default IN (0, 1)),
        state       INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4),
        CONSTRAINT window_size_power_of_two CHECK (is_default = 1 OR size = -9223372036854775808 OR
                                                   (size >= 0 AND (size & (size - 1)) = 0)),
        CONSTRAINT window_does_not_wrap CHECK (
                CASE WHEN state = 1 AND start = 9223372036854775807 THEN 1
                     WHEN size > 0 THEN start <= 9223372036854775807 - (size - 1)
                     WHEN size < 0 THEN start <= -(size + 9223372036854775807 + 1)
                     ELSE start = -9223372036854775808 END)
) STRICT;
CREATE INDEX window_of_domain ON window (domain);

-- A CHECK cannot be changed in place: the table is made again, with everything in it. Nothing refers to it.
-- ranges: of an unsettled operation on mappings, those that it makes or takes away, an array of struct ledger_range. rests:
-- what comes in the place of those that it cuts, an array of struct ledger_mapping. effect: struct ledger_effect. All in
-- native layout, as in step 1; a program with another layout needs a step that converts them.
CREATE TABLE op_2 (
        id           INTEGER PRIMARY KEY CHECK (id > 0),
        session      INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE,
        object       INTEGER NOT NULL,
        kind         INTEGER NOT NULL CONSTRAINT op_kind_1_to_13 CHECK (kind BETWEEN 1 AND 13),
        key          BLOB CONSTRAINT op_key_16_bytes CHECK (length(key) = 16),
        request_hash INTEGER NOT NULL,
        settled      INTEGER NOT NULL CHECK (settled IN (0, 1)),
        answer       BLOB CONSTRAINT op_answer_1024_bytes CHECK (length(answer) <= 1024),
        ranges       BLOB CONSTRAINT op_ranges_whole CHECK (length(ranges) % 16 = 0),
        effect       BLOB CONSTRAINT op_effect_80_bytes CHECK (length(effect) = 80),
        rests        BLOB CONSTRAINT op_rests_whole CHECK (length(rests) % 64 = 0),
        CONSTRAINT op_settled_without_parts CHECK (settled = 0 OR (ranges IS NULL AND effect IS NULL AND rests IS NULL)),
        CONSTRAINT op_rests_of_ranges CHECK (rests IS NULL OR ranges IS NOT NULL),
        CONSTRAINT op_settled_with_key CHECK (settled = 0 OR key IS NOT NULL),
        UNIQUE (session, key)
) STRICT;
INSERT INTO op_2 (id, session, object, kind, key, request_hash, settled, answer, ranges)
        SELECT id, session, object, kind, key, request_hash, settled, answer, ranges FROM op;
DROP TABLE op;
ALTER TABLE op_2 RENAME TO op;

-- What made the kernel allocate page tables: it keeps them until the domain goes, whatever is unmapped, and so does the charge.
-- A row for a mapping that needed one more; stored as mapping.iova is.
CREATE TABLE touched (
        domain INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
        first  INTEGER NOT NULL,
        last   INTEGER NOT NULL CONSTRAINT touched_ascends CHECK (last >= first),
        PRIMARY KEY (domain, first, last)
) STRICT, WITHOUT ROWID;
