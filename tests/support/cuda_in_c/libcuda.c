/* A CUDA driver whose device memory is the host's and whose work is done when it is queued: enough of one for the real
   cuda-python and FFmpeg to call, so that what is handed to them is what a driver gets. Names, arguments and
   numbers are those of "CUDA Driver API"; results are ints (0: success). It knows its contexts and its memory, and
   refuses what a driver refuses: calls without a current context, contexts that are gone, addresses that it has not
   given out. Memory that is given back is filled with 0xDD first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

#include "memory.h"

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
  *free = ((size_t)7 << 30) - allocated;
  *total = (size_t)8 << 30;
  return 0;
}
int cuMemAlloc_v2(Address *address, size_t bytes) {
  CURRENT;
  note("allocate %zu", bytes);
  return take(address, bytes, DEVICE);
}
int cuMemAllocPitch_v2(Address *address, size_t *pitch, size_t width, size_t height, unsigned element) {
  CURRENT;
  *pitch = (width + 511) / 512 * 512;
  note("allocate pitch %zu of %zu, %zu rows", *pitch, width, height);
  return take(address, *pitch * height, DEVICE);
}
int cuMemFree_v2(Address address) {
  CURRENT;
  int error = address ? give_back(address, DEVICE) : 0;
  note(error ? "REFUSED to free %llx" : "free", address);
  return error;
}
int cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
  CURRENT;
  note("pin %zu flags %u", bytes, flags);
  return take((Address *)host, bytes, HOST);
}
int cuMemFreeHost(void *host) {
  CURRENT;
  int error = give_back((Address)host, HOST);
  note(error ? "REFUSED to unpin %p" : "unpin", host);
  return error;
}

/* --- copies: what is named as device memory must be some */

#define COPY(name, To, to_device, From, from_device, ...) \
  int name(To to, From from, size_t bytes __VA_ARGS__) { \
    CURRENT; \
    if (to_device && !on_device((Address)to, bytes)) return INVALID_VALUE; \
    if (from_device && !on_device((Address)from, bytes)) return INVALID_VALUE; \
    memcpy((void *)to, (const void *)from, bytes); \
    return 0; \
  }
COPY(cuMemcpyHtoD_v2, Address, 1, const void *, 0, )
COPY(cuMemcpyHtoDAsync_v2, Address, 1, const void *, 0, , void *stream)
COPY(cuMemcpyDtoH_v2, void *, 0, Address, 1, )
COPY(cuMemcpyDtoHAsync_v2, void *, 0, Address, 1, , void *stream)
COPY(cuMemcpyDtoD_v2, Address, 1, Address, 1, )
COPY(cuMemcpyDtoDAsync_v2, Address, 1, Address, 1, , void *stream)
COPY(cuMemcpy, Address, 0, Address, 0, )
COPY(cuMemcpyAsync, Address, 0, Address, 0, , void *stream)

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
int cuMemcpy2D_v2(const Copy2D *copy) {
  CURRENT;
  if (!copy->width || !copy->height) return 0;
  char *from = corner(&copy->from, copy), *to = corner(&copy->to, copy);
  if (!from || !to) return INVALID_VALUE;
  for (size_t y = 0; y < copy->height; y++) memcpy(to + y * copy->to.pitch, from + y * copy->from.pitch, copy->width);
  return 0;
}
int cuMemcpy2DAsync_v2(const Copy2D *copy, void *stream) { return cuMemcpy2D_v2(copy); }
int cuMemsetD8Async(Address to, unsigned char byte, size_t bytes, void *stream) {
  CURRENT;
  if (!on_device(to, bytes)) return INVALID_VALUE;
  memset((void *)to, byte, bytes);
  return 0;
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
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)8 << 30; return 0; }

int cuDevicePrimaryCtxRetain(void **context, int device) {
  if (!retained++) primary = (Context){primary_flags, 1};
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
int cuCtxSynchronize(void) { CURRENT; return 0; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) {
  if (created == 32) abort();
  others[created] = (Context){flags, 1};
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

/* --- streams, events, kernels and graphs */

typedef struct {
  int alive;
} Stream;

/* Streams that are gone are not freed, so that whoever still uses one is told. 0 to 2 are the default streams. */
#define STREAM \
  CURRENT; \
  if ((Address)stream > 2 && !((Stream *)stream)->alive) { \
    note("NO STREAM"); \
    return INVALID_HANDLE; \
  }

int cuStreamCreate(void **stream, unsigned flags) {
  CURRENT;
  *stream = malloc(sizeof(Stream));
  ((Stream *)*stream)->alive = 1;
  note("stream flags %u", flags);
  return 0;
}
int cuStreamDestroy_v2(void *stream) {
  STREAM;
  if ((Address)stream <= 2) return INVALID_HANDLE;
  ((Stream *)stream)->alive = 0;
  note("no stream");
  return 0;
}
int cuStreamSynchronize(void *stream) { STREAM; return 0; }
int cuStreamQuery(void *stream) { STREAM; return 0; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { STREAM; return event ? 0 : INVALID_HANDLE; }
int cuEventCreate(void **event, unsigned flags) {
  CURRENT;
  *event = malloc(sizeof(double));
  note("event flags %u", flags);
  return 0;
}
int cuEventDestroy_v2(void *event) { CURRENT; free(event); note("no event"); return 0; }
int cuEventRecord(void *event, void *stream) {
  struct timespec now;
  CURRENT;
  clock_gettime(CLOCK_MONOTONIC, &now);
  *(double *)event = now.tv_sec * 1e3 + now.tv_nsec / 1e6;
  return 0;
}
int cuEventQuery(void *event) { CURRENT; return 0; }
int cuEventSynchronize(void *event) { CURRENT; return 0; }
int cuEventElapsedTime(float *ms, void *from, void *to) {
  CURRENT;
  *ms = *(double *)to - *(double *)from;
  return 0;
}
int cuEventElapsedTime_v2(float *ms, void *from, void *to) { return cuEventElapsedTime(ms, from, to); }

int cuModuleLoadData(void **module, const void *image) {
  CURRENT;
  *module = malloc(1);
  note("module %.8s", (const char *)image);
  return 0;
}
int cuModuleUnload(void *module) { CURRENT; free(module); note("no module"); return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
  CURRENT;
  *function = module;
  return strcmp(name, "kernel") ? NOT_FOUND : 0;
}
/* The kernel's parameters are a pointer, an int, a float and a byte. */
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
  CURRENT;
  note("launch %u %u %u of %u %u %u, %u shared: byte %d, %d, %g, %d", gx, gy, gz, bx, by, bz, shared,
       *(unsigned char *)*(Address *)parameters[0], *(int *)parameters[1], *(float *)parameters[2],
       *(unsigned char *)parameters[3]);
  return 0;
}

int cuStreamBeginCapture_v2(void *stream, int mode) { CURRENT; note("capture mode %d", mode); return 0; }
int cuStreamEndCapture(void *stream, void **graph) { CURRENT; *graph = malloc(1); return 0; }
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
  CURRENT;
  *executable = malloc(1);
  return 0;
}
int cuGraphDestroy(void *graph) { CURRENT; free(graph); note("no graph"); return 0; }
int cuGraphLaunch(void *executable, void *stream) { CURRENT; note("launch graph"); return 0; }
int cuGraphExecDestroy(void *executable) { CURRENT; free(executable); note("no executable"); return 0; }

/* --- what FFmpeg's loader asks for and video needs none of */

#define NONE(name) int name(void) { note("NOT SUPPORTED: " #name); return NOT_SUPPORTED; }
NONE(cuMemAllocManaged) NONE(cuStreamAddCallback) NONE(cuModuleGetGlobal) NONE(cuLinkCreate) NONE(cuLinkAddData)
NONE(cuLinkComplete) NONE(cuLinkDestroy) NONE(cuTexObjectCreate) NONE(cuTexObjectDestroy) NONE(cuGLGetDevices_v2)
NONE(cuGraphicsGLRegisterImage) NONE(cuGraphicsUnregisterResource) NONE(cuGraphicsMapResources)
NONE(cuGraphicsUnmapResources) NONE(cuGraphicsSubResourceGetMappedArray) NONE(cuGraphicsResourceGetMappedPointer_v2)
NONE(cuArrayCreate_v2) NONE(cuArray3DCreate_v2) NONE(cuArrayDestroy) NONE(cuEGLStreamProducerConnect)
NONE(cuEGLStreamProducerDisconnect) NONE(cuEGLStreamConsumerDisconnect) NONE(cuEGLStreamProducerPresentFrame)
NONE(cuEGLStreamProducerReturnFrame)

/* --- errors, and functions by name */

static const struct { int error; const char *name, *words; } errors[] = {
  {0, "CUDA_SUCCESS", "no error"},
  {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
  {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
  {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
  {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
  {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
  {CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
  {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
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
