-- SPDX-License-Identifier: Apache-2.0
-- What an administrator decided, and what happened. 64-bit amounts are bit patterns: -1 is 2^64 - 1, "unlimited".
CREATE TABLE tenant (
        name           TEXT PRIMARY KEY
                       CONSTRAINT tenant_name_1_to_63_bytes CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 63),
        own_socket     INTEGER NOT NULL CHECK (own_socket IN (0, 1)),
        allow_unsealed INTEGER NOT NULL CHECK (allow_unsealed IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE TABLE tenant_quota (
        tenant   TEXT NOT NULL REFERENCES tenant (name) ON DELETE CASCADE,
        resource INTEGER NOT NULL CHECK (resource > 0),
        amount   INTEGER NOT NULL,
        PRIMARY KEY (tenant, resource)
) STRICT, WITHOUT ROWID;

CREATE TABLE tenant_rule (
        tenant        TEXT NOT NULL REFERENCES tenant (name) ON DELETE CASCADE,
        position      INTEGER NOT NULL CHECK (position BETWEEN 0 AND 31),
        uid           INTEGER CHECK (uid BETWEEN 0 AND 4294967295),
        gid           INTEGER CHECK (gid BETWEEN 0 AND 4294967295),
        cgroup_prefix TEXT NOT NULL CHECK (length(CAST(cgroup_prefix AS BLOB)) <= 255),
        PRIMARY KEY (tenant, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE tenant_device (
        tenant   TEXT NOT NULL REFERENCES tenant (name) ON DELETE CASCADE,
        position INTEGER NOT NULL CHECK (position BETWEEN 0 AND 31),
        device   TEXT NOT NULL CHECK (length(CAST(device AS BLOB)) BETWEEN 1 AND 63),
        PRIMARY KEY (tenant, position)
) STRICT, WITHOUT ROWID;

-- The driver to give a device back to; empty: it had none.
CREATE TABLE device_binding (
        device          TEXT PRIMARY KEY CHECK (length(CAST(device AS BLOB)) BETWEEN 1 AND 63),
        original_driver TEXT NOT NULL CHECK (length(CAST(original_driver AS BLOB)) <= 63)
) STRICT, WITHOUT ROWID;

-- Every id below next may have been handed out. Here and not in state.db: ids go on rising over reboots and resets.
CREATE TABLE id_counter (
        one  INTEGER PRIMARY KEY CHECK (one = 1),
        next INTEGER NOT NULL CHECK (next > 0)
) STRICT;
INSERT INTO id_counter VALUES (1, 1);

-- AUTOINCREMENT: a line's number is never used twice, also after the newest lines were pruned.
CREATE TABLE audit (
        id      INTEGER PRIMARY KEY AUTOINCREMENT,
        time_ns INTEGER NOT NULL,               -- CLOCK_REALTIME
        event   TEXT NOT NULL,
        tenant  TEXT,
        uid     INTEGER NOT NULL,
        pid     INTEGER NOT NULL,
        text    TEXT NOT NULL
) STRICT;
