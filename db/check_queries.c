/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "util/cleanup.h"

#define LIVE "2"
#define MAPPING_TEXT "address(m.iova) || '-' || address(m.last) || ' in domain ' || m.domain"

/* Those that have a place: not the ones that the IOMMU is about to place, nor a default window that a reset is about to put where
 * others still are. last is inclusive, as in mapping. Signed arithmetic ends at 2^63, sizes do not: in steps that stay below it. */
#define WINDOWS                                                                                                        \
        "WITH windows (id, domain, start, last) AS MATERIALIZED (SELECT id, domain, start, "                           \
        "CASE WHEN size > 0 THEN start + (size - 1) "                                                                  \
        "WHEN size < 0 THEN (size + 9223372036854775807 + 1 + start) + 9223372036854775807 "                           \
        "ELSE 9223372036854775807 END FROM window WHERE state <> 1 OR (NOT is_default AND start <> 9223372036854775807)) "
#define WINDOW_TEXT(w) "'window ' || " w ".id || ' (' || address(" w ".start) || '-' || address(" w ".last) || ')'"

static const struct check_query queries[] = {
        { "I2", "mapping-overlap",
          "SELECT 'The mapping ' || " MAPPING_TEXT " || ' overlaps one that ends at ' || address(m.before) || '.' "
          "FROM (SELECT domain, iova, last, max(last) OVER (PARTITION BY domain ORDER BY iova "
          "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM mapping) m WHERE m.before >= m.iova" },
        { "I2", "mapping-beyond-memory",
          "SELECT 'The mapping ' || " MAPPING_TEXT
          " || ' reaches beyond the ' || o.size || ' bytes of memory ' || o.id "
          "|| '.' FROM mapping m JOIN memory o ON o.id = m.memory WHERE m.last - m.iova >= o.size - m.offset" },
        { "I2", "mapping-writes-read-only",
          "SELECT 'The mapping ' || " MAPPING_TEXT
          " || ' lets a device write memory ' || o.id || ', which is read-only.' "
          "FROM mapping m JOIN memory o ON o.id = m.memory WHERE m.access & 2 AND NOT o.writable" },
        { "I2", "mapping-of-other-session",
          "SELECT 'The mapping ' || " MAPPING_TEXT " || ' (session ' || d.session || ') shows memory ' || o.id || "
          "' of session ' || o.session || '.' FROM mapping m JOIN memory o ON o.id = m.memory "
          "JOIN domain d ON d.id = m.domain WHERE o.session <> d.session" },
        { "I2", "mapping-of-intended-memory",
          "SELECT 'The mapping ' || " MAPPING_TEXT
          " || ' shows memory ' || o.id || ', whose registration never ended.' "
          "FROM mapping m JOIN memory o ON o.id = m.memory WHERE o.state = 1" },
        { "I2", "mapping-outside-window",
          WINDOWS "SELECT 'The mapping ' || " MAPPING_TEXT " || ' is not inside one of its windows.' FROM mapping m "
          "WHERE m.domain IN (SELECT domain FROM windows) AND NOT EXISTS "
          "(SELECT 1 FROM windows w WHERE w.domain = m.domain AND w.start <= m.iova AND m.last <= w.last)" },
        { "I2", "window-overlap",
          WINDOWS "SELECT 'In domain ' || a.domain || ', ' || " WINDOW_TEXT("a") " || ' overlaps ' || "
          WINDOW_TEXT("b") " || '.' FROM windows a JOIN windows b ON b.domain = a.domain AND b.id > a.id "
          "AND a.start <= b.last AND b.start <= a.last" },
        { "I2", "window-size",
          "SELECT 'Window ' || id || ' of domain ' || domain || ' has ' || printf('0x%x', size) || ' bytes, which is '"
          "|| 'no power of two.' FROM window WHERE NOT is_default AND size <> -9223372036854775808 "
          "AND (size < 0 OR (size & (size - 1)) <> 0)" },
        { "I3", "mapping-without-memory",
          "SELECT 'The mapping ' || " MAPPING_TEXT " || ' shows memory ' || m.memory || ', which has no row.' "
          "FROM mapping m WHERE m.memory NOT IN (SELECT id FROM memory)" },
        { "I3", "memory-count",
          "SELECT 'Memory ' || o.id || ' counts ' || o.mapped || ' mappings, ' || coalesce(c.n, 0) || ' are there.' "
          "FROM memory o LEFT JOIN (SELECT memory, count(*) AS n FROM mapping GROUP BY memory) c ON c.memory = o.id "
          "WHERE o.mapped <> coalesce(c.n, 0)" },
        { "I4", "exposed-pages-shifted",
          "SELECT 'The mapping ' || " MAPPING_TEXT " || ' exposes IOMMU pages of 2^' || m.page_shift || ' bytes, but '"
          "|| 'begins at another place of one than its offset ' || printf('0x%x', m.offset) || ' does.' FROM mapping m "
          "WHERE m.page_shift > 0 AND (m.iova & ~(-1 << m.page_shift)) <> (m.offset & ~(-1 << m.page_shift))" },
        { "I6", "mapping-of-foreign-intent",
          "SELECT 'The mapping ' || " MAPPING_TEXT
          " || ' names operation ' || o.id || ', which is no map of that domain.' "
          "FROM op o JOIN mapping m ON m.op = o.id WHERE o.settled = 0 AND (o.kind <> 7 OR o.object <> m.domain)" },
        { "I6", "intent-without-domain",
          "SELECT 'Operation ' || o.id || ' of session ' || o.session || ' is unsettled, but domain ' || o.object || "
          "' is not the session''s.' FROM op o WHERE o.settled = 0 AND (o.kind IN (7, 8, 9) OR o.ranges IS NOT NULL) "
          "AND NOT EXISTS (SELECT 1 FROM domain d WHERE d.id = o.object AND d.session = o.session)" },
        { "I6", "number-not-reserved",
          "SELECT what || ' ' || id || ' has a number that was never handed out: the next block starts at ' || c.next "
          "|| '.' "
          "FROM (SELECT 'Session' AS what, max(id) AS id FROM session UNION ALL SELECT 'Domain', max(id) FROM domain "
          "UNION ALL SELECT 'Memory', max(id) FROM memory UNION ALL SELECT 'Attachment', max(id) FROM attachment "
          "UNION ALL SELECT 'Window', max(id) FROM window UNION ALL SELECT 'Operation', max(id) FROM op) "
          "JOIN config.id_counter c WHERE id >= c.next" },
        { "I6", "row-without-parent",
          "SELECT 'A row of ' || \"table\" || ' (' || coalesce(rowid, 'no rowid') || ') refers to a ' || parent || "
          "' that has no row.' FROM (SELECT * FROM pragma_foreign_key_check(NULL, 'main') "
          "UNION ALL SELECT * FROM pragma_foreign_key_check(NULL, 'config'))" },
        { "I6", "state-file",
          "SELECT 'state.db: ' || integrity_check FROM pragma_integrity_check(100, 'main') "
          "WHERE integrity_check <> 'ok'" },
        { "I6", "config-file",
          "SELECT 'config.db: ' || integrity_check FROM pragma_integrity_check(100, 'config') "
          "WHERE integrity_check <> 'ok'" },
        { "I7", "device-in-two-domains",
          "SELECT 'Device ' || a.device || ' is attached to domain ' || a.domain || ' and to domain ' || b.domain || "
          "'.' "
          "FROM attachment a JOIN attachment b ON b.device = a.device AND b.id > a.id AND b.domain <> a.domain "
          "WHERE a.state = " LIVE " AND b.state = " LIVE },
        { "I7", "group-in-two-domains",
          "SELECT 'IOMMU group ' || a.group_id || ' is attached to domain ' || a.domain || ' (' || a.device || "
          "') and to domain ' || b.domain || ' (' || b.device || ').' FROM attachment a JOIN attachment b "
          "ON b.backend = a.backend AND b.group_id = a.group_id AND b.id > a.id AND b.domain <> a.domain "
          "AND b.device <> a.device WHERE a.state = " LIVE " AND b.state = " LIVE },
        { "I7", "holder-of-two-sessions",
          "SELECT 'Holder process ' || a.holder_pid || ' serves session ' || a.id || ' and session ' || b.id || '.' "
          "FROM session a JOIN session b ON b.holder_pid = a.holder_pid AND b.holder_start_time = a.holder_start_time "
          "AND b.id > a.id WHERE a.holder_pid <> 0 AND a.state = " LIVE " AND b.state = " LIVE },
        { "I8", "token-of-two-sessions",
          "SELECT 'Session ' || a.id || ' and session ' || b.id || ' have the same token.' "
          "FROM session a JOIN session b "
          "ON b.token_hash = a.token_hash AND b.id > a.id "
          "WHERE a.token_hash <> zeroblob(32) AND a.state = " LIVE " AND b.state = " LIVE },
};

const struct check_query *check_queries(size_t *ret_n) {
        *ret_n = ARRAY_SIZE(queries);
        return queries;
}
