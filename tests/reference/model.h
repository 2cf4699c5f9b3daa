/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <iommud/iommud.h>

#include "op.h"
#include "world.h"

/*
 * What the service is, in plain arrays: each domain an array of cells (a quarter of an IOMMU page each) that say which mapping is
 * there; everything else (translations, access, balances, what the kernel holds) is counted anew from them each time it is asked
 * for. Nothing here is fast and nothing is shared with service/: the rules are those of the documents, in these files' own words.
 *
 * There are no pointers in a model, so that a copy of one is another one.
 */
#define TENANTS 2
#define CLIENTS 4               /* the first two are the first tenant's */
#define DOMAINS 3               /* of a client */
#define MEMORIES 5              /* of a client */
#define FILES 8                 /* memory that all clients can register; the driver keeps all of it in view */
#define MAPPINGS 128            /* of a domain */
#define CELLS_PER_PAGE 4
#define CELLS (1280 * CELLS_PER_PAGE)
#define RESOURCES 10            /* indexed by enum iommud_resource */
#define TABLE_LEVELS 8

#define NOBODY UINT32_MAX

struct model_mapping {
        bool there;
        bool waits;             /* unmapped in a lazy domain: for its client it is gone, for devices it is not */
        uint64_t iova, length, offset;
        uint32_t memory, access;
        uint64_t chunk;
        bool sealed;            /* its memory is */
        uint64_t page;          /* whole ones of this size are exposed for it; 0: all of its pages are its own */
};

/* Beside the default one, and like it the IOMMU's own. */
struct model_window {
        bool there;
        uint64_t page, quota;   /* quota 0: none of its own */
};

struct model_domain {
        bool there, lazy;
        bool shares_pages;      /* somebody asked for EXPOSE_PAGES: the SDK is patient with it from then on */
        uint32_t n_devices;     /* in it, each with a container of its own in the kernel */
        bool met;               /* it has had one, so what the IOMMU's windows are like is known */
        bool forgotten;         /* ... but of the IOMMU nothing else, since a restart without a device */
        struct model_window second;
        struct model_mapping mappings[MAPPINGS];
        int16_t cell[CELLS];    /* index of the mapping, -1: none */
        uint64_t tables[2][TABLE_LEVELS];       /* of each level, which were touched: bit n the n-th from where a piece begins */
};

struct model_memory {
        bool there, read_only, sealed;
        uint32_t file;
        uint64_t size;
        uint64_t view;          /* the holder's mapping of the file that it uses, by number */
        bool view_writable;
};

struct model_client {
        bool connected;
        struct model_domain domains[DOMAINS];
        struct model_memory memories[MEMORIES];
};

struct model {
        struct world world;
        struct {
                uint64_t limit[RESOURCES];
                bool allows_unsealed;
        } tenants[TENANTS];
        struct model_client clients[CLIENTS];
        struct {
                bool sealed;
        } files[FILES];
        struct {
                uint32_t client, domain;        /* NOBODY: free */
        } devices[WORLD_DEVICES];
        uint64_t views;         /* numbers given so far */
};

/* A reason that would be true, with the details that go with it. */
struct complaint {
        enum iommud_reason reason;
        enum iommud_resource resource;
        bool amounts;           /* limit, used and asked are known */
        uint64_t limit, used, asked;
        bool conflict;          /* likewise */
        uint64_t conflict_first, conflict_last;
        bool nearest;           /* likewise */
        uint64_t below, above;
        bool hole;              /* the conflict is a range in which nothing is mapped */
};

/* As a client sees one. */
struct model_window_view {
        uint64_t start, length, page, quota, table_bytes, mappings, mapped_bytes;
};

#define COMPLAINTS (MAPPINGS + 32)

/* The answer that is right. Refused: element, and any one of the complaints. */
struct verdict {
        int64_t element;        /* -1: not of an element */
        uint32_t n;             /* complaints; 0: it succeeds */
        struct complaint of[COMPLAINTS];
        uint64_t iova, mappings, locked_bytes, table_bytes;     /* of a map */
        uint64_t bytes;         /* of what unmaps or flushes */
        struct model_window_view window;        /* that was made */
        bool flush_follows;     /* what waits will be flushed by the service itself */
};

void model_begin(struct model *m, const struct world *w);

/* Does it make sense as things are? Objects that it names exist, those that it makes do not. */
bool model_allows(const struct model *m, const struct op *op);
/* What it must be answered; the model is as it must be then. */
void model_play(struct model *m, const struct op *op, struct verdict *ret);

/* After a restart of the broker: it knows the tables of those mappings that its ledger had, of which the last operation may have
 * been there or not, and not what earlier ones had touched. Which it was we hear from the service: bytes are the domain's. */
void model_learn_tables(struct model *m, uint32_t client, uint32_t domain, const struct model *at_death,
                        const struct model *before_last, uint64_t bytes);

/* ---- by looking at the arrays ---- */

struct translation {
        uint32_t access;        /* 0: there is none */
        uint32_t file;
        uint64_t offset;        /* of the page in the file */
};

/* What a device of the domain reaches at the IOMMU page with that number. */
struct translation model_translate(const struct model *m, uint32_t client, uint32_t domain, uint32_t page);

/* What a tenant is charged. */
void model_balance(const struct model *m, uint32_t tenant, uint64_t ret[RESOURCES]);

struct model_counts {
        uint64_t mappings, bytes, waiting_mappings, waiting_bytes;
        uint64_t pieces;        /* mappings of the IOMMU */
        uint64_t shared_pages;
        uint64_t table_bytes;
};

void model_count(const struct model *m, uint32_t client, uint32_t domain, struct model_counts *ret);

/* Those of a domain that has had a device, by address; returns how many. */
uint32_t model_windows(const struct model *m, const struct model_domain *d, struct model_window_view ret[2]);

bool model_is_in_second(const struct model *m, const struct model_domain *d, uint64_t iova);

/* Where windows are the IOMMU's own, the kernel pins memory as if for writing, whatever for: the holder must have it so. */
bool model_can_register(const struct model *m, uint32_t client, uint32_t memory);

uint32_t model_tenant_of(uint32_t client);
/* The IOMMU's page there, as far as it is known. */
uint64_t model_page_at(const struct model *m, const struct model_domain *d, uint64_t iova);
/* The smallest page that the domain's IOMMU is known to have, whatever its windows have. */
uint64_t model_smallest_page(const struct model *m, const struct model_domain *d);
/* Are the ranges and the budget of the IOMMU known? */
bool model_knows_constraints(const struct model *m, const struct model_domain *d);
uint64_t model_cell_bytes(const struct model *m);
/* Of a mapping: does it touch IOMMU pages in part, what devices see because of it, and the union of access in those pages. */
void model_exposure(const struct model_domain *d, const struct model_mapping *x, bool *ret_partial, uint64_t *ret_first,
                    uint64_t *ret_last, uint32_t *ret_access);
