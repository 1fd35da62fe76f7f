/* A CUDA driver whose device memory is the host's and whose work is done when it is queued: enough of one for the real
   cuda-python and FFmpeg to call, so that what is handed to them is what a driver gets. Names, arguments and
   numbers are those of "CUDA Driver API"; results are ints (0: success). It knows its contexts and its memory, and
   refuses what a driver refuses: calls without a current context, contexts that are gone, addresses that it has not
   given out. Memory that is given back is filled with 0xDD first. */
#define _GNU_SOURCE
#include "memory.h"

#include "work.h"

#include "kernels.h"

int cuMemGetAddressRange_v2(Address *base, size_t *bytes, Address address) {
  Memory *found;
  CURRENT;
  pthread_mutex_lock(&lock);
  found = *find(address);
  if (found && base) *base = found->address;
  if (found && bytes) *bytes = found->bytes;
  pthread_mutex_unlock(&lock);
  return found ? 0 : NOT_FOUND;
}
int cuPointerGetAttribute(void *value, int which, Address address) {
  Memory *found;
  CURRENT;
  pthread_mutex_lock(&lock);
  found = *find(address);
  if (found && which == POINTER_CONTEXT) *(Context **)value = found->context;
  if (found && which == POINTER_MEMORY_TYPE) *(unsigned *)value = found->type;
  pthread_mutex_unlock(&lock);
  return found && (which == POINTER_CONTEXT || which == POINTER_MEMORY_TYPE) ? 0 : INVALID_VALUE;
}
int cuMemGetInfo_v2(size_t *free, size_t *total) {
  CURRENT;
  *free = FREE_BYTES - allocated;
  *total = TOTAL_BYTES;
  return 0;
}
int cuMemAlloc_v2(Address *address, size_t bytes) {
  CURRENT;
  UNSAFE("allocating");
  note("allocate %zu", bytes);
  return take(address, bytes, DEVICE);
}
int cuMemAllocPitch_v2(Address *address, size_t *pitch, size_t width, size_t height, unsigned element) {
  CURRENT;
  UNSAFE("allocating");
  *pitch = (width + 511) / 512 * 512;
  note("allocate pitch %zu of %zu, %zu rows", *pitch, width, height);
  return take(address, *pitch * height, DEVICE);
}
int cuMemFree_v2(Address address) {
  CURRENT;
  UNSAFE("freeing");
  int error = address ? give_back(address, DEVICE) : 0;
  note(error ? "REFUSED to free %llx" : "free", address);
  return error;
}
int cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
  CURRENT;
  UNSAFE("pinning");
  note("pin %zu flags %u", bytes, flags);
  return take((Address *)host, bytes, HOST);
}
int cuMemFreeHost(void *host) {
  CURRENT;
  UNSAFE("unpinning");
  int error = give_back((Address)host, HOST);
  note(error ? "REFUSED to unpin %p" : "unpin", host);
  return error;
}

/* --- copies: what is named as device memory must be some */

typedef struct {
  Address to, from;
  size_t bytes;
  int to_device, from_device;
} Copy;

static int run_copy(const void *it) {
  const Copy *copy = it;
  if (copy->to_device && !on_device(copy->to, copy->bytes)) return ILLEGAL_ADDRESS;
  if (copy->from_device && !on_device(copy->from, copy->bytes)) return ILLEGAL_ADDRESS;
  memcpy((void *)copy->to, (const void *)copy->from, copy->bytes);
  return 0;
}
/* What is queued with wrong addresses is refused; what has become wrong when a graph runs is met by the GPU. */
static int queue_copy(void *stream, Copy copy) {
  if (copy.to_device && !on_device(copy.to, copy.bytes)) return INVALID_VALUE;
  if (copy.from_device && !on_device(copy.from, copy.bytes)) return INVALID_VALUE;
  int pageable = (!copy.to_device && !is_known(copy.to, copy.bytes)) ||
                 (!copy.from_device && !is_known(copy.from, copy.bytes));
  return queue(stream, run_copy, &copy, sizeof copy, pageable);
}
#define COPY(name, async_name, To, to_device, From, from_device) \
  int async_name(To to, From from, size_t bytes, void *stream) { \
    STREAM; \
    return queue_copy(stream, (Copy){(Address)to, (Address)from, bytes, to_device, from_device}); \
  } \
  int name(To to, From from, size_t bytes) { \
    CURRENT; \
    UNSAFE(#name); \
    return queue_copy(0, (Copy){(Address)to, (Address)from, bytes, to_device, from_device}); \
  }
COPY(cuMemcpyHtoD_v2, cuMemcpyHtoDAsync_v2, Address, 1, const void *, 0)
COPY(cuMemcpyDtoH_v2, cuMemcpyDtoHAsync_v2, void *, 0, Address, 1)
COPY(cuMemcpyDtoD_v2, cuMemcpyDtoDAsync_v2, Address, 1, Address, 1)
COPY(cuMemcpy, cuMemcpyAsync, Address, 0, Address, 0)

typedef struct {
  size_t x, y;
  int type;
  const void *host;
  Address device;
  void *array;
  size_t pitch;
} Side;
typedef struct {
  Side from, to;
  size_t width, height;
} Copy2D;
_Static_assert(sizeof(Copy2D) == 128 && __builtin_offsetof(Copy2D, to.device) == 88, "CUDA_MEMCPY2D");

static char *corner(const Side *side, const Copy2D *copy) {
  Address start = (side->type == HOST ? (Address)side->host : side->device) + side->y * side->pitch + side->x;
  if (side->type != HOST && side->type != DEVICE && side->type != UNIFIED) return 0;
  if (side->pitch && side->pitch < side->x + copy->width) return 0;
  if (side->type == DEVICE && !on_device(start, (copy->height - 1) * side->pitch + copy->width)) return 0;
  return (char *)start;
}
static int run_copy2d(const void *it) {
  const Copy2D *copy = it;
  char *from = corner(&copy->from, copy), *to = corner(&copy->to, copy);
  if (!from || !to) return ILLEGAL_ADDRESS;
  for (size_t y = 0; y < copy->height; y++) memcpy(to + y * copy->to.pitch, from + y * copy->from.pitch, copy->width);
  return 0;
}
int cuMemcpy2DAsync_v2(const Copy2D *copy, void *stream) {
  STREAM;
  if (!copy->width || !copy->height) return 0;
  char *from = corner(&copy->from, copy), *to = corner(&copy->to, copy);
  if (!from || !to) return INVALID_VALUE;
  return queue(stream, run_copy2d, copy, sizeof *copy, !is_known((Address)from, 1) || !is_known((Address)to, 1));
}
int cuMemcpy2D_v2(const Copy2D *copy) {
  CURRENT;
  UNSAFE("cuMemcpy2D");
  return cuMemcpy2DAsync_v2(copy, 0);
}

typedef struct {
  Address to;
  size_t bytes;
  int byte;
} Fill;
static int run_fill(const void *it) {
  const Fill *fill = it;
  if (!on_device(fill->to, fill->bytes)) return ILLEGAL_ADDRESS;
  memset((void *)fill->to, fill->byte, fill->bytes);
  return 0;
}
int cuMemsetD8Async(Address to, unsigned char byte, size_t bytes, void *stream) {
  Fill fill = {to, bytes, byte};
  STREAM;
  return on_device(to, bytes) ? queue(stream, run_fill, &fill, sizeof fill, 0) : INVALID_VALUE;
}

/* --- the device and its contexts */

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? INVALID_DEVICE : 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Driver in C"); return 0; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 8; *minor = 9; return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == MAJOR ? 8 : which == MINOR ? 9 : which == TEXTURE_ALIGNMENT ? 512 : which == UNIFIED_ADDRESSING;
  return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = TOTAL_BYTES; return 0; }

int cuDevicePrimaryCtxRetain(void **context, int device) {
  if (!retained++) primary = (Context){primary_flags, 1, 0};
  *context = &primary;
  note("retain");
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  if (!retained) return INVALID_CONTEXT;
  note("release");
  if (!--retained) end(&primary);
  return 0;
}
int cuDevicePrimaryCtxRelease(int device) { return cuDevicePrimaryCtxRelease_v2(device); }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  *flags = primary_flags;
  *active = retained > 0;
  note("primary state: flags %u active %d", *flags, *active);
  return 0;
}
int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
  note("primary flags %u", flags);
  primary_flags = flags;
  return 0;
}
int cuDevicePrimaryCtxSetFlags(int device, unsigned flags) { return cuDevicePrimaryCtxSetFlags_v2(device, flags); }
int cuDevicePrimaryCtxReset_v2(int device) { note("RESET of the primary context"); end(&primary); return 0; }
int cuDevicePrimaryCtxReset(int device) { return cuDevicePrimaryCtxReset_v2(device); }

int cuCtxPushCurrent_v2(void *context) {
  if (!is_context(context)) return INVALID_CONTEXT;
  if (!((Context *)context)->alive) return CONTEXT_IS_DESTROYED;
  if (depth == 16) abort();
  stack[depth++] = context;
  return 0;
}
int cuCtxPopCurrent_v2(void **context) {
  if (!depth) return INVALID_CONTEXT;
  depth--;
  if (context) *context = stack[depth];
  return 0;
}
int cuCtxGetCurrent(void **context) { *context = depth ? TOP : 0; return 0; }
int cuCtxSetCurrent(void *context) {
  if (depth) depth--;
  return context ? cuCtxPushCurrent_v2(context) : 0;
}
int cuCtxGetDevice(int *device) { CURRENT; *device = 0; return 0; }
int cuCtxSetLimit(int which, size_t value) { CURRENT; return 0; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) {
  if (created == 32) abort();
  others[created] = (Context){flags, 1, 0};
  *context = others + created++;
  note("context %d made, flags %u", created, flags);
  return cuCtxPushCurrent_v2(*context);
}
int cuCtxDestroy_v2(void *context) {
  int mine = is_context(context) && context != &primary && ((Context *)context)->alive;
  note(mine ? "context %d gone" : "REFUSED to destroy a context", mine ? (int)((Context *)context - others) + 1 : 0);
  if (!mine) return INVALID_CONTEXT;
  if (depth && TOP == context) depth--;
  end(context);
  return 0;
}

/* For the other libraries' notes. */
const char *cuda_in_c_name(void *context) {
  static __thread char name[16];
  snprintf(name, sizeof name, context == &primary ? "primary" : "context %d", (int)((Context *)context - others) + 1);
  return name;
}

#include "unused.h"

/* --- errors, and functions by name */

static const struct { int error; const char *name, *words; } errors[] = {
  {0, "CUDA_SUCCESS", "no error"},
  {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
  {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
  {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
  {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
  {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
  {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
  {UNSUPPORTED_PTX, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
   "the provided PTX was compiled with an unsupported toolchain."},
  {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
  {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
  {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
  {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
  {CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
  {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
  {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
  {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
   "operation failed due to a previous error during capture"},
  {CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
   "dependency created on uncaptured work in another stream"},
  {CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
   "operation would make the legacy stream depend on a capturing blocking stream"},
  {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT",
   "operation not permitted on an event last recorded in a capturing stream"},
  {CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
   "attempt to terminate a thread-local capture sequence from another thread"},
};
static const char *words_of(int error, int name) {
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
    if (errors[i].error == error) return name ? errors[i].name : errors[i].words;
  return 0;
}
int cuGetErrorName(int error, const char **text) { return (*text = words_of(error, 1)) ? 0 : INVALID_VALUE; }
int cuGetErrorString(int error, const char **text) { return (*text = words_of(error, 0)) ? 0 : INVALID_VALUE; }

/* The newest form of a function that is above. */
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status) {
  static const char *const endings[] = {"_v2", "", "WithFlags", 0};
  Dl_info own;
  char whole[128];
  void *library = dladdr((void *)cuInit, &own) ? dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD) : 0;
  *function = 0;
  for (int i = 0; library && endings[i] && !*function; i++) {
    snprintf(whole, sizeof whole, "%s%s", name, endings[i]);
    *function = dlsym(library, whole);
  }
  if (status) *status = *function ? 0 : 1;
  return *function ? 0 : NOT_FOUND;
}
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, 0);
}
