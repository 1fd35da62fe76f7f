/* Modules and kernels of the driver in C. What a module has is read from its PTX; what its kernels do is done by a
   library that CUDA_IN_C_KERNELS names, with the same kernels compiled for the host: a function of a kernel's name,
   called as one of cuda_shim is, and one that says how large its parameters are. Part of libcuda.c. */
#include <ctype.h>
#include <dlfcn.h>

enum { INVALID_IMAGE = 200, NO_BINARY_FOR_GPU = 209, UNSUPPORTED_PTX = 222 };
/* What it runs at most: PTX ISA 9.0, as CUDA 13.0 does, for compute capability 8.9. */
enum { PTX_VERSION = 90, TARGET = 89, PARAMETERS = 64, THREADS = 1024, SHARED_BYTES = 48 << 10 };

typedef void Host(unsigned grid_x, unsigned grid_y, unsigned threads, int backwards, void **parameters);

typedef struct Kernel {
  struct Kernel *next;
  struct Module *module;
  char name[64];
  int parameters, sizes[PARAMETERS];
  unsigned most_threads;
  Host *host;
} Kernel;
typedef struct Module {
  int alive;
  Context *context;
  Kernel *kernels;
} Module;

static const char *kernels_named(void) {
  static const char *path;
  if (!path) path = getenv("CUDA_IN_C_KERNELS") ? getenv("CUDA_IN_C_KERNELS") : "";
  return path;
}
static void *host_function(const char *name, const char *ending) {
  static void *library;
  char whole[128];
  if (!*kernels_named()) return 0;
  if (!library && !(library = dlopen(kernels_named(), RTLD_NOW | RTLD_LOCAL))) {
    note("NO KERNELS: %s", dlerror());
    return 0;
  }
  snprintf(whole, sizeof whole, "%s%s", name, ending);
  return dlsym(library, whole);
}

/* Sizes of the parameters between the brackets of ".entry name(.param .u64 a, ...)", in bytes. */
static int read_parameters(Kernel *kernel, const char *text, const char *end) {
  while ((text = strstr(text, ".param")) && text < end) {
    if (kernel->parameters == PARAMETERS) return INVALID_IMAGE;
    text += strlen(".param");
    while (isspace((unsigned char)*text)) text++;
    if (*text++ != '.' || !strchr("usfb", *text)) return INVALID_IMAGE;
    int bits = atoi(text + 1);
    if (bits != 8 && bits != 16 && bits != 32 && bits != 64) return INVALID_IMAGE;
    kernel->sizes[kernel->parameters++] = bits / 8;
  }
  return 0;
}
static int read_kernel(Module *module, const char *text, const char *limit) {
  const char *start, *end = strchr(text, ')');
  Kernel *kernel = calloc(1, sizeof *kernel);
  kernel->next = module->kernels;
  kernel->module = module;
  module->kernels = kernel;
  if (!end || sscanf(text, ".entry %63[A-Za-z0-9_$]", kernel->name) != 1) return INVALID_IMAGE;
  if (read_parameters(kernel, text, end)) return INVALID_IMAGE;
  start = strstr(end, ".maxntid");
  kernel->most_threads = start && (!limit || start < limit) ? strtoul(start + strlen(".maxntid"), 0, 10) : THREADS;
  kernel->host = (Host *)host_function(kernel->name, "");
  if (kernel->host) {
    const int *(*sizes)(void) = (const int *(*)(void))host_function(kernel->name, "_sizes");
    const int *mine = sizes ? sizes() : 0;
    int same = mine != 0;
    for (int i = 0; same && i < kernel->parameters; i++) same = mine[i] == kernel->sizes[i];
    if (!same || mine[kernel->parameters]) {
      note("ANOTHER KERNEL: %s has other parameters on the host than in the PTX", kernel->name);
      return INVALID_IMAGE;
    }
  }
  return 0;
}
int cuModuleLoadData(void **module, const void *image) {
  /* A text without kernels has this one. */
  static const char plain[] = ".entry kernel(.param .u64 a, .param .s32 b, .param .f32 c, .param .u8 d)";
  const char *text = image, *version = strstr(text, ".version"), *target, *entry;
  int major = 0, minor = 0, sm = 0, error = 0;
  Module *made;
  CURRENT;
  UNSAFE("loading kernels");
  note("module %.8s", version ? version : "REFUSED");
  if (!version || sscanf(version, ".version %d.%d", &major, &minor) != 2) return INVALID_IMAGE;
  if (major * 10 + minor > PTX_VERSION) return UNSUPPORTED_PTX;
  target = strstr(text, "\n.target sm_");
  if (target && sscanf(target, "\n.target sm_%d", &sm) == 1 && sm > TARGET) return NO_BINARY_FOR_GPU;
  made = malloc(sizeof *made);
  *made = (Module){1, TOP, 0};
  entry = strstr(text, ".entry ");
  if (!entry) entry = plain;
  while (entry && !error) {
    const char *next = strstr(entry + 1, ".entry ");
    error = read_kernel(made, entry, next);
    entry = next;
  }
  if (error) return error;
  TOP->handles++;
  *module = made;
  return 0;
}
/* Of the options only the sizes of the logs are answers: nothing is written there. */
int cuModuleLoadDataEx(void **module, const void *image, unsigned count, const int *options, void **values) {
  for (unsigned i = 0; i < count; i++)
    if (options[i] == 4 || options[i] == 6) values[i] = 0;
  return cuModuleLoadData(module, image);
}
static int module_is_gone(Module *module) {
  int gone = !module->alive || !module->context->alive;
  if (gone) note("NO MODULE");
  return gone;
}
int cuModuleUnload(void *module) {
  CURRENT;
  UNSAFE("unloading kernels");
  if (module_is_gone(module)) return INVALID_HANDLE;
  ((Module *)module)->alive = 0;
  TOP->handles--;
  note("no module");
  return 0;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
  CURRENT;
  if (module_is_gone(module)) return INVALID_HANDLE;
  for (Kernel *kernel = ((Module *)module)->kernels; kernel; kernel = kernel->next)
    if (!strcmp(kernel->name, name)) {
      *function = kernel;
      return 0;
    }
  return NOT_FOUND;
}

/* PyCUDA's, before it launches with the same shape. */
int cuFuncSetBlockShape(void *function, int x, int y, int z) {
  CURRENT;
  if (module_is_gone(((Kernel *)function)->module)) return INVALID_HANDLE;
  return x < 1 || y < 1 || z < 1 || x * y * z > THREADS ? INVALID_VALUE : 0;
}

typedef struct {
  Kernel *kernel;
  unsigned grid[3], block[3], shared;
  long long values[PARAMETERS];
} Launch;

static int run_launch(const void *it) {
  const Launch *launch = it;
  Kernel *kernel = launch->kernel;
  const unsigned *grid = launch->grid, *block = launch->block;
  void *parameters[PARAMETERS];
  if (module_is_gone(kernel->module)) return INVALID_HANDLE;
  for (int i = 0; i < kernel->parameters; i++) parameters[i] = (void *)(launch->values + i);
  if (!strcmp(kernel->name, "kernel")) {
    note("launch %u %u %u of %u %u %u, %u shared: byte %d, %d, %g, %d", grid[0], grid[1], grid[2], block[0], block[1],
         block[2], launch->shared, *(unsigned char *)*(Address *)parameters[0], *(int *)parameters[1],
         *(float *)parameters[2], *(unsigned char *)parameters[3]);
    return 0;
  }
  if (!kernel->host || grid[2] != 1 || block[1] != 1 || block[2] != 1 || launch->shared) {
    note("NOT SUPPORTED: %s on the host", kernel->name);
    return NOT_SUPPORTED;
  }
  note("launch %s, %u %u of %u", kernel->name, grid[0], grid[1], block[0]);
  kernel->host(grid[0], grid[1], block[0], 0, parameters);
  return 0;
}

/* Parameters come as pointers to them, or as one block with each at a multiple of its size: ``extra``. */
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
  enum { END, POINTER, SIZE };
  Kernel *kernel = function;
  const char *block = 0;
  size_t bytes = 0, used = 0;
  Launch made = {kernel, {gx, gy, gz}, {bx, by, bz}, shared};
  STREAM;
  if (module_is_gone(kernel->module) || kernel->module->context != TOP) return INVALID_HANDLE;
  if (!gx || !gy || !gz || !bx || !by || !bz || gx > 0x7FFFFFFF || gy > 65535 || gz > 65535 || bz > 64 ||
      bx * by * bz > kernel->most_threads || shared > SHARED_BYTES || (parameters && extra))
    return INVALID_VALUE;
  for (void **at = extra; at && *at != (void *)END; at += 2) {
    if (*at == (void *)POINTER) block = at[1];
    if (*at == (void *)SIZE) bytes = *(size_t *)at[1];
  }
  if (!parameters && !block && kernel->parameters) return INVALID_VALUE;
  for (int i = 0; i < kernel->parameters; i++) {
    size_t size = kernel->sizes[i];
    used = (used + size - 1) / size * size + size;
    if (!parameters && used > bytes) return INVALID_VALUE;
    memcpy(made.values + i, parameters ? parameters[i] : block + used - size, size);
  }
  if (block && bytes > (used + 7) / 8 * 8) return INVALID_VALUE;
  return queue(stream, run_launch, &made, sizeof made, 0);
}
