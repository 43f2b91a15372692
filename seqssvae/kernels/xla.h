/* As much of XLA's foreign function interface (version 0.3) as these calls need: what lies where in its C structures.
 * They begin with their size and only grow at their ends. */
#ifndef SEQSSVAE_XLA_H
#define SEQSSVAE_XLA_H

#include <stddef.h>
#include <stdint.h>

enum { METADATA = 1, ARRAY = 1, INT32 = 4, FLOAT32 = 11, BFLOAT16 = 16, EXHAUSTED = 8, INVALID = 3 };

typedef struct {
    size_t struct_size;
    int type;
    void *next;
} extension;

typedef struct {
    size_t struct_size;
    void *extension;
    int major, minor;
} version;

typedef struct {
    size_t struct_size;
    version version;
    uint32_t traits;
    int64_t state_type;
} metadata;

typedef struct {
    extension base;
    metadata *metadata;
} metadata_extension;

typedef struct {
    size_t struct_size;
    void *extension;
    const char *message;
    int code;
} error;

typedef struct {
    size_t struct_size;
    void *extension;
    version version;
    const void *internal;
    void *(*create_error)(error *);
} interface;

typedef struct {
    size_t struct_size;
    void *extension;
    int type;
    void *data;
    int64_t rank;
    int64_t *sizes;
} buffer;

typedef struct {
    size_t struct_size;
    void *extension;
    int64_t size;
    int *types;
    buffer **buffers;
} buffers;

typedef struct {
    int type;
    size_t size;
    void *data;
} array;

typedef struct {
    size_t struct_size;
    void *extension;
    int64_t size;
    int *types;
    void **names;
    array **values;
} attributes;

typedef struct {
    size_t struct_size;
    extension *extension;
    const interface *interface;
    void *context;
    int stage;
    buffers arguments, results;
    attributes attributes;
} frame;

#endif
