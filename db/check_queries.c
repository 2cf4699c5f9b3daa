/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "util/cleanup.h"

#define LIVE "2"
#define MAPPING_TEXT "address(m.iova) || '-' || address(m.last) || ' in domain ' || m.domain"

/* Charges are not stored, so only what rows can count is compared: locked bytes are not. Nor are tenants that only the
 * configuration file has. */
#define USAGE                                                                                                          \
        "WITH usage (tenant, resource, what, used) AS ("                                                               \
        "SELECT tenant, 6, 'sessions', count(*) FROM session GROUP BY tenant "                                         \
        "UNION ALL SELECT s.tenant, 3, 'domains', count(*) FROM domain d JOIN session s ON s.id = d.session "          \
        "GROUP BY s.tenant "                                                                                           \
        "UNION ALL SELECT s.tenant, 4, 'memory objects', count(*) FROM memory o JOIN session s ON s.id = o.session "   \
        "GROUP BY s.tenant "                                                                                           \
        "UNION ALL SELECT s.tenant, 5, 'registered bytes', total(o.size) FROM memory o "                               \
        "JOIN session s ON s.id = o.session GROUP BY s.tenant "                                                        \
        "UNION ALL SELECT s.tenant, 7, 'devices', count(*) FROM attachment a JOIN domain d ON d.id = a.domain "        \
        "JOIN session s ON s.id = d.session GROUP BY s.tenant "                                                        \
        "UNION ALL SELECT s.tenant, 2, 'mappings', sum(c.n) FROM "                                                     \
        "(SELECT domain, count(*) AS n FROM mapping GROUP BY domain) c JOIN domain d ON d.id = c.domain "              \
        "JOIN session s ON s.id = d.session GROUP BY s.tenant) "

static const struct check_query queries[] = {
        { "I1", "use-above-quota",
          USAGE
          "SELECT 'Tenant ' || u.tenant || ' uses ' || CAST(u.used AS INTEGER) || ' ' || u.what || ', its quota is ' "
          "|| coalesce(q.amount, 0) || ' (unless it was lowered meanwhile, or the configuration file has another '"
          "|| 'one).' FROM usage u "
          "JOIN config.tenant t ON t.name = u.tenant LEFT JOIN config.tenant_quota q "
          "ON q.tenant = u.tenant AND q.resource = u.resource "
          "WHERE coalesce(q.amount, 0) >= 0 AND u.used > coalesce(q.amount, 0)" },
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
        { "I3", "mapping-without-memory",
          "SELECT 'The mapping ' || " MAPPING_TEXT " || ' shows memory ' || m.memory || ', which has no row.' "
          "FROM mapping m WHERE m.memory NOT IN (SELECT id FROM memory)" },
        { "I3", "memory-count",
          "SELECT 'Memory ' || o.id || ' counts ' || o.mapped || ' mappings, ' || coalesce(c.n, 0) || ' are there.' "
          "FROM memory o LEFT JOIN (SELECT memory, count(*) AS n FROM mapping GROUP BY memory) c ON c.memory = o.id "
          "WHERE o.mapped <> coalesce(c.n, 0)" },
        { "I6", "mapping-of-foreign-intent",
          "SELECT 'The mapping ' || " MAPPING_TEXT
          " || ' names operation ' || o.id || ', which is no map of that domain.' "
          "FROM op o JOIN mapping m ON m.op = o.id WHERE o.settled = 0 AND (o.kind <> 7 OR o.object <> m.domain)" },
        { "I6", "intent-without-domain",
          "SELECT 'Operation ' || o.id || ' of session ' || o.session || ' is unsettled, but domain ' || o.object || "
          "' is not the session''s.' FROM op o WHERE o.settled = 0 AND o.kind IN (7, 8) AND NOT EXISTS "
          "(SELECT 1 FROM domain d WHERE d.id = o.object AND d.session = o.session)" },
        { "I6", "number-not-reserved",
          "SELECT what || ' ' || id || ' has a number that was never handed out: the next block starts at ' || c.next "
          "|| '.' "
          "FROM (SELECT 'Session' AS what, max(id) AS id FROM session UNION ALL SELECT 'Domain', max(id) FROM domain "
          "UNION ALL SELECT 'Memory', max(id) FROM memory UNION ALL SELECT 'Attachment', max(id) FROM attachment "
          "UNION ALL SELECT 'Operation', max(id) FROM op) JOIN config.id_counter c WHERE id >= c.next" },
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
