/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "iommud.pb-c.h"
#include "util/cleanup.h"

#define FLAGS (JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)

static bool list_is_empty;

const char *json_access_name(uint32_t access) {
        static const char *const names[] = { "", "r", "w", "rw" };

        return names[access & IOMMUD__V1__ACCESS__ACCESS_READ_WRITE];
}

static bool is_one_of(const char *name, const char *const *names, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (strcmp(name, names[i]) == 0)
                        return true;
        return false;
}

static json_object *of_number(const char *name, uint64_t value) {
        static const char *const addresses[] = { "iova", "first", "last", "start", "page_sizes" };
        char text[24];

        if (strcmp(name, "access") == 0 || strcmp(name, "exposed_access") == 0)
                return json_object_new_string(json_access_name((uint32_t)value));
        if ((strcmp(name, "limit") == 0 || strcmp(name, "promised") == 0) && value == UINT64_MAX)
                return NULL;            /* null */
        if (!is_one_of(name, addresses, ARRAY_SIZE(addresses)))
                return json_object_new_uint64(value);
        (void)snprintf(text, sizeof text, "0x%" PRIx64, value);
        return json_object_new_string(text);
}

/* RESOURCE_LOCKED_BYTES of enum Resource -> "locked_bytes", FLUSH_LAZY of enum FlushMode -> "lazy": the first word is the
 * enum's. */
static json_object *of_enum(const ProtobufCFieldDescriptor *f, int value) {
        const ProtobufCEnumDescriptor *e = f->descriptor;
        const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(e, value);
        const char *word = v ? strchr(v->name, '_') : NULL;
        char name[64];

        if (!word)
                return json_object_new_int(value);
        (void)snprintf(name, sizeof name, "%s", word + 1);
        for (char *c = name; *c; c++)
                *c = (char)tolower((unsigned char)*c);
        return json_object_new_string(name);
}

static json_object *of_message(const ProtobufCMessage *m);

static json_object *of_value(const ProtobufCFieldDescriptor *f, const void *value) {
        switch (f->type) {
        case PROTOBUF_C_TYPE_UINT32:
                return of_number(f->name, *(const uint32_t *)value);
        case PROTOBUF_C_TYPE_UINT64:
                return of_number(f->name, *(const uint64_t *)value);
        case PROTOBUF_C_TYPE_INT32:
                return json_object_new_int(*(const int32_t *)value);
        case PROTOBUF_C_TYPE_BOOL:
                return json_object_new_boolean(*(const protobuf_c_boolean *)value);
        case PROTOBUF_C_TYPE_STRING:
                return json_object_new_string(*(char *const *)value);
        case PROTOBUF_C_TYPE_ENUM:
                return of_enum(f, *(const int *)value);
        case PROTOBUF_C_TYPE_MESSAGE: {
                const ProtobufCMessage *m = *(ProtobufCMessage *const *)value;
                return m ? of_message(m) : NULL;
        }
        default:                        /* nothing that is shown has another type */
                return NULL;
        }
}

static size_t size_of(ProtobufCType type) {
        switch (type) {
        case PROTOBUF_C_TYPE_UINT32:
        case PROTOBUF_C_TYPE_INT32:
                return sizeof(uint32_t);
        case PROTOBUF_C_TYPE_UINT64:
                return sizeof(uint64_t);
        case PROTOBUF_C_TYPE_BOOL:
                return sizeof(protobuf_c_boolean);
        case PROTOBUF_C_TYPE_ENUM:
                return sizeof(int);
        default:
                return sizeof(void *);
        }
}

static json_object *of_repeated(const ProtobufCFieldDescriptor *f, const ProtobufCMessage *m) {
        size_t n = *(const size_t *)((const char *)m + f->quantifier_offset);
        const char *values = *(char *const *)((const char *)m + f->offset);
        json_object *array = json_object_new_array();

        for (size_t i = 0; i < n; i++)
                json_object_array_add(array, of_value(f, values + i * size_of(f->type)));
        return array;
}

static json_object *of_message(const ProtobufCMessage *m) {
        json_object *o = json_object_new_object();

        for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
                const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
                bool absent = (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
                              *(const uint32_t *)((const char *)m + f->quantifier_offset) != f->id;

                if (absent || strcmp(f->name, "next_page_token") == 0)
                        continue;
                json_object_object_add(o, f->name, f->label == PROTOBUF_C_LABEL_REPEATED ?
                                       of_repeated(f, m) : of_value(f, (const char *)m + f->offset));
        }
        return o;
}

static void print(const ProtobufCMessage *m) {
        json_object *o = of_message(m);

        fputs(json_object_to_json_string_ext(o, FLAGS), stdout);
        json_object_put(o);
}

void json_print(const ProtobufCMessage *m) {
        print(m);
        putchar('\n');
}

void json_list_begin(const char *name) {
        printf("{\"%s\":[", name);
        list_is_empty = true;
}

void json_list_add(const ProtobufCMessage *m) {
        fputs(list_is_empty ? "\n" : ",\n", stdout);
        list_is_empty = false;
        print(m);
}

void json_list_end(void) {
        puts(list_is_empty ? "]}" : "\n]}");
}
