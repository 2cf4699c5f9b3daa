-- SPDX-License-Identifier: Apache-2.0
-- Two resources more: 8, table bytes, and 9, windows. Tenants that are there get what a new one gets that names neither
-- (TENANT_TABLE_BYTES and TENANT_TABLE_SHARE in core/tenant.h): a missing row would allow nothing. Negative is unlimited.
INSERT INTO tenant_quota (tenant, resource, amount)
        SELECT t.name, 8, CASE WHEN q.amount < 0 THEN -1 ELSE max(67108864, coalesce(q.amount, 0) / 128) END
        FROM tenant t LEFT JOIN tenant_quota q ON q.tenant = t.name AND q.resource = 1
        WHERE true ON CONFLICT DO NOTHING;
INSERT INTO tenant_quota (tenant, resource, amount)
        SELECT name, 9, 64 FROM tenant WHERE true ON CONFLICT DO NOTHING;
