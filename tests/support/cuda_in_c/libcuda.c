/* A CUDA driver whose device memory is the host's and whose work is done when it is queued: enough of one for the real
   cuda-python to call, so that what the adapter hands to it is what a driver gets. Names, arguments and numbers are
   those of "CUDA Driver API"; handles are pointers, results ints (0: success). Each call that makes or gives back
   something is noted on stderr. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { INVALID_VALUE = 1, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, NOT_FOUND = 500 };
enum { MAJOR = 75, MINOR = 76 };
typedef unsigned long long Address;

static __thread void *stack[16];
static __thread int depth;
static char primary;

#define NOTE(...) fprintf(stderr, __VA_ARGS__)
#define CURRENT if (!depth) return INVALID_CONTEXT

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? INVALID_DEVICE : 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Driver in C"); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == MAJOR ? 8 : which == MINOR ? 9 : 0;
  return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)8 << 30; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &primary; NOTE("retain\n"); return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { NOTE("release\n"); return 0; }
int cuCtxPushCurrent_v2(void *context) { stack[depth++] = context; return 0; }
int cuCtxPopCurrent_v2(void **context) { CURRENT; *context = stack[--depth]; return 0; }
int cuCtxGetCurrent(void **context) { *context = depth ? stack[depth - 1] : 0; return 0; }
int cuCtxSynchronize(void) { CURRENT; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
  CURRENT;
  *free = (size_t)7 << 30;
  *total = (size_t)8 << 30;
  return 0;
}

int cuMemAlloc_v2(Address *address, size_t bytes) {
  CURRENT;
  *address = (Address)aligned_alloc(512, (bytes + 511) / 512 * 512);
  NOTE("allocate %zu\n", bytes);
  return 0;
}
int cuMemFree_v2(Address address) { CURRENT; free((void *)address); NOTE("free\n"); return 0; }
int cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
  CURRENT;
  *host = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  NOTE("pin %zu flags %u\n", bytes, flags);
  return 0;
}
int cuMemFreeHost(void *host) { CURRENT; free(host); NOTE("unpin\n"); return 0; }
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream) {
  CURRENT;
  memcpy((void *)to, from, bytes);
  return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) {
  CURRENT;
  memcpy(to, (void *)from, bytes);
  return 0;
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *stream) {
  CURRENT;
  memcpy((void *)to, (void *)from, bytes);
  return 0;
}
int cuMemsetD8Async(Address to, unsigned char byte, size_t bytes, void *stream) {
  CURRENT;
  memset((void *)to, byte, bytes);
  return 0;
}

int cuStreamCreate(void **stream, unsigned flags) {
  CURRENT;
  *stream = malloc(1);
  NOTE("stream flags %u\n", flags);
  return 0;
}
int cuStreamDestroy_v2(void *stream) { CURRENT; free(stream); NOTE("no stream\n"); return 0; }
int cuStreamSynchronize(void *stream) { CURRENT; return 0; }
int cuStreamQuery(void *stream) { CURRENT; return 0; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { CURRENT; return 0; }
int cuEventCreate(void **event, unsigned flags) {
  CURRENT;
  *event = malloc(sizeof(double));
  NOTE("event flags %u\n", flags);
  return 0;
}
int cuEventDestroy_v2(void *event) { CURRENT; free(event); NOTE("no event\n"); return 0; }
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
  NOTE("module %.8s\n", (const char *)image);
  return 0;
}
int cuModuleUnload(void *module) { CURRENT; free(module); NOTE("no module\n"); return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
  CURRENT;
  *function = module;
  return strcmp(name, "kernel") ? NOT_FOUND : 0;
}
/* The kernel's parameters are a pointer, an int, a float and a byte. */
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
  CURRENT;
  NOTE("launch %u %u %u of %u %u %u, %u shared: byte %d, %d, %g, %d\n", gx, gy, gz, bx, by, bz, shared,
       *(unsigned char *)*(Address *)parameters[0], *(int *)parameters[1], *(float *)parameters[2],
       *(unsigned char *)parameters[3]);
  return 0;
}

int cuStreamBeginCapture_v2(void *stream, int mode) { CURRENT; NOTE("capture mode %d\n", mode); return 0; }
int cuStreamEndCapture(void *stream, void **graph) { CURRENT; *graph = malloc(1); return 0; }
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
  CURRENT;
  *executable = malloc(1);
  return 0;
}
int cuGraphDestroy(void *graph) { CURRENT; free(graph); NOTE("no graph\n"); return 0; }
int cuGraphLaunch(void *executable, void *stream) { CURRENT; NOTE("launch graph\n"); return 0; }
int cuGraphExecDestroy(void *executable) { CURRENT; free(executable); NOTE("no executable\n"); return 0; }

int cuGetErrorName(int error, const char **text) {
  *text = error == NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR_UNKNOWN";
  return 0;
}
int cuGetErrorString(int error, const char **text) {
  *text = error == NOT_FOUND ? "named symbol not found" : "unknown error";
  return 0;
}

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
