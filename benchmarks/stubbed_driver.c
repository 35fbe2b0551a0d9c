/* libcuda.so.1 of a device that does nothing: one Hopper, on which every call succeeds at once. */
#include <stdint.h>
#include <string.h>

enum { THREADS_PER_BLOCK = 1, MULTIPROCESSORS = 16, CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76 };
static int object; /* what every handle points to */

static int succeed(void) { return 0; }
static int give_handle(void **handle) { *handle = &object; return 0; }
static int give_version(int *version) { *version = 13000; return 0; }
static int give_count(int *count) { *count = 1; return 0; }
static int give_device(int *device) { *device = 0; return 0; }
static int give_name(char *name, int length) { strncpy(name, "stub", (size_t)length); return 0; }
static int give_uuid(char *uuid) { memset(uuid, 1, 16); return 0; }
static int give_pointer_attribute(uint64_t *value, int attribute, uint64_t pointer) { *value = pointer; return 0; }

static int give_attribute(int *value, int attribute) {
  *value = attribute == MULTIPROCESSORS ? 132 : attribute == CAPABILITY_MAJOR ? 9 : attribute == CAPABILITY_MINOR ? 0
         : attribute == THREADS_PER_BLOCK ? 1024 : 1;
  return 0;
}

static const struct { const char *begin; int (*call)(); } CALLS[] = {
    {"cuDriverGetVersion", (int (*)())give_version},
    {"cuDeviceGetCount", (int (*)())give_count},
    {"cuDeviceGetAttribute", (int (*)())give_attribute},
    {"cuDeviceGetName", (int (*)())give_name},
    {"cuDeviceGetUuid", (int (*)())give_uuid},
    {"cuDeviceGet", (int (*)())give_device},
    {"cuCtxGetDevice", (int (*)())give_device},
    {"cuCtxGetCurrent", (int (*)())give_handle},
    {"cuCtxPopCurrent", (int (*)())give_handle},
    {"cuDevicePrimaryCtxRetain", (int (*)())give_handle},
    {"cuModuleLoad", (int (*)())give_handle},
    {"cuModuleGetFunction", (int (*)())give_handle},
    {"cuLibraryLoad", (int (*)())give_handle},
    {"cuLibraryGet", (int (*)())give_handle},
    {"cuKernelGetFunction", (int (*)())give_handle},
    {"cuStreamCreate", (int (*)())give_handle},
    {"cuEventCreate", (int (*)())give_handle},
    {"cuStreamGetCtx", (int (*)())succeed},
    {"cuPointerGetAttribute", (int (*)())give_pointer_attribute},
};

int cuGetProcAddress_v2(const char *symbol, void **call, int version, uint64_t flags, int *status) {
  *call = (void *)succeed;
  if (status) *status = 0;
  if (!strncmp(symbol, "cuGetProcAddress", 16)) *call = (void *)cuGetProcAddress_v2;
  for (unsigned i = 0; i < sizeof CALLS / sizeof *CALLS; i++)
    if (!strncmp(symbol, CALLS[i].begin, strlen(CALLS[i].begin))) {
      *call = (void *)CALLS[i].call;
      break;
    }
  return 0;
}

int cuGetProcAddress(const char *symbol, void **call, int version, uint64_t flags) {
  return cuGetProcAddress_v2(symbol, call, version, flags, 0);
}

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { return give_version(version); }
int cuDeviceGetCount(int *count) { return give_count(count); }
