/* What the driver in C knows: its contexts, which are current in which thread, and its memory. Part of libcuda.c. */
#include <pthread.h>
#include <string.h>

#include "note.h"

enum {
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  ILLEGAL_ADDRESS = 700,
  CONTEXT_IS_DESTROYED = 709,
  NOT_SUPPORTED = 801,
};
enum { MAJOR = 75, MINOR = 76, TEXTURE_ALIGNMENT = 14, UNIFIED_ADDRESSING = 41 };
enum { POINTER_CONTEXT = 1, POINTER_MEMORY_TYPE = 2, HOST = 1, DEVICE = 2, UNIFIED = 4 };
typedef unsigned long long Address;

/* Of the GPU, and of that what no other process has. */
#define TOTAL_BYTES ((size_t)8 << 30)
#define FREE_BYTES ((size_t)7 << 30)

/* --- contexts: handles stay known when they are gone */

/* ``handles``: streams, events, modules and graphs that were made in it and are there. */
typedef struct {
  unsigned flags;
  int alive, handles;
} Context;

static Context primary, others[32];
static int retained, created;
static unsigned primary_flags;
static __thread Context *stack[16];
static __thread int depth;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Once work has met an illegal address, nothing works in the context any more. */
static int dead;

#define TOP (stack[depth - 1])
#define CURRENT \
  if (!depth) return INVALID_CONTEXT; \
  if (!TOP->alive) return CONTEXT_IS_DESTROYED; \
  if (dead && TOP == &primary) return ILLEGAL_ADDRESS

static int is_context(void *context) {
  return context == &primary || ((Context *)context >= others && (Context *)context < others + created);
}

/* --- memory */

typedef struct Memory {
  struct Memory *next;
  Context *context;
  Address address;
  size_t bytes;
  int type;
} Memory;

static Memory *memory;
static size_t allocated;

static Memory **find(Address address) {
  Memory **found = &memory;
  while (*found && (address < (*found)->address || address >= (*found)->address + (*found)->bytes))
    found = &(*found)->next;
  return found;
}

static int take(Address *address, size_t bytes, int type) {
  Memory *made;
  if (!bytes) return INVALID_VALUE;
  if (type == DEVICE && bytes > FREE_BYTES - allocated) return OUT_OF_MEMORY;
  made = malloc(sizeof *made);
  *made = (Memory){0, TOP, (Address)aligned_alloc(4096, (bytes + 4095) / 4096 * 4096), bytes, type};
  memset((void *)made->address, 0xCD, bytes);
  pthread_mutex_lock(&lock);
  made->next = memory;
  memory = made;
  if (type == DEVICE) allocated += bytes;
  pthread_mutex_unlock(&lock);
  *address = made->address;
  return 0;
}

static void drop(Memory **place) {
  Memory *gone = *place;
  *place = gone->next;
  if (gone->type == DEVICE) allocated -= gone->bytes;
  memset((void *)gone->address, 0xDD, gone->bytes);
  free((void *)gone->address);
  free(gone);
}

static int give_back(Address address, int type) {
  Memory **place;
  int known;
  pthread_mutex_lock(&lock);
  place = find(address);
  known = *place && (*place)->address == address && (*place)->type == type;
  if (known) drop(place);
  pthread_mutex_unlock(&lock);
  return known ? 0 : INVALID_VALUE;
}

/* Whether so many bytes from there on are device memory. */
static int on_device(Address address, size_t bytes) {
  Memory *found;
  int inside;
  pthread_mutex_lock(&lock);
  found = *find(address);
  inside = found && found->type == DEVICE && address + bytes <= found->address + found->bytes;
  pthread_mutex_unlock(&lock);
  if (!inside) note("NO DEVICE MEMORY %llx and %zu bytes", address, bytes);
  return inside;
}

/* Whether so many bytes from there on are device memory or pinned. */
static int is_known(Address address, size_t bytes) {
  Memory *found;
  int inside;
  pthread_mutex_lock(&lock);
  found = *find(address);
  inside = found && address + bytes <= found->address + found->bytes;
  pthread_mutex_unlock(&lock);
  return inside;
}

/* With a context goes what was made in it. */
static void end(Context *context) {
  context->alive = 0;
  if (context->handles) note("%d handles went with their context", context->handles);
  pthread_mutex_lock(&lock);
  for (Memory **place = &memory; *place;)
    if ((*place)->context == context) {
      note("gone with its context: %zu bytes", (*place)->bytes);
      drop(place);
    } else
      place = &(*place)->next;
  pthread_mutex_unlock(&lock);
}

__attribute__((destructor)) static void unloaded(void) {
  int living = 0;
  for (int i = 0; i < created; i++) living += others[i].alive;
  note("unloaded: %zu bytes allocated, %d contexts, primary retained %d", allocated, living, retained);
}
