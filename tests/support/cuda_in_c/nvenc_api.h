/* What FFmpeg and NVIDIA's encoder library hand to each other, in version 13.0 of the API: only what libnvidia_encode.c
   reads or writes, under names of its own. */
#include <stddef.h>
#include <stdint.h>

enum {
  SUCCESS = 0,
  UNSUPPORTED_DEVICE = 2,
  INVALID_DEVICE = 4,
  INVALID_PARAM = 8,
  INVALID_CALL = 9,
  NOT_INITIALIZED = 11,
  UNSUPPORTED_PARAM = 12,
  LOCK_BUSY = 13,
  INVALID_VERSION = 15,
  MAP_FAILED = 16,
  NEED_MORE_INPUT = 17,
  GENERIC = 20,
  UNIMPLEMENTED = 22,
  REGISTER_FAILED = 23,
  NOT_REGISTERED = 24,
  NOT_MAPPED = 25,
};
enum { NV12 = 1, YV12 = 0x10, CUDA = 1, FORCE_IDR = 2, END_OF_STREAM = 8, TYPE_I = 2, TYPE_IDR = 3, ROOM = 64 };

typedef struct {
  uint32_t a;
  uint16_t b, c;
  uint8_t d[8];
} Guid;
static const Guid H264 = {0x6bc82762, 0x4e63, 0x4ca4, {0xaa, 0x85, 0x1e, 0x50, 0xf3, 0x21, 0xf6, 0xbf}};
static const uint32_t presets[] = {0xfc0a8d3e, 0xf581cfb8, 0x36850110, 0x90a7b826, 0x21c6e6b4, 0x8e75c279, 0x84848c12};

/* The number of a struct's version, with a bit for those of the newer kind. */
#define VERSION(number) (13u | (uint32_t)(number) << 16 | 7u << 28)
#define NEWER(number) (VERSION(number) | 1u << 31)
#define AT(type, field, offset) _Static_assert(offsetof(type, field) == offset, #type "." #field)

typedef struct { uint32_t version, kind; void *device, *reserved; uint32_t api; } OpenCall;
typedef struct { uint32_t version, which; } CapsCall;
typedef struct {
  uint32_t version;
  Guid profile;
  uint32_t gop, interval, unread[4], mode, qp[3], bit_rates[2], buffers[2], flags, qps[10], layers[2];
  uint8_t quality, fraction;
  uint16_t lookahead;
  uint32_t more[9], h264_flags, other[19];
  Colours colours;
} Config;
typedef struct { uint32_t version, reserved; Config config; } PresetCall;
typedef struct {
  uint32_t version;
  Guid codec, preset;
  uint32_t width, height, aspect[2], rate, rate_per, async, decides, flags[4];
  Config *config;
  uint32_t unread[10], tuning;
} StartCall;
typedef struct { uint32_t version, width, height, heap, format, reserved; void *buffer; } InputCall;
typedef struct { uint32_t version, unread[3]; void *buffer; } OutputCall;
typedef struct {
  uint32_t version, width, height, pitch, flags, index;
  uint64_t time, duration;
  void *input, *output, *event;
  uint32_t format, structure;
} PictureCall;
typedef struct {
  uint32_t version, flags;
  void *output;
  uint32_t *offsets, index, status, slices, bytes;
  uint64_t time, duration;
  void *data;
  uint32_t type, structure, qp;
} PacketCall;
typedef struct { uint32_t version, flags; void *input, *data; uint32_t pitch; } LockCall;
typedef struct { uint32_t version, index; void *unread, *registered, *mapped; uint32_t format; } MapCall;
typedef struct {
  uint32_t version, type, width, height, pitch, index;
  void *resource, *registered;
  uint32_t format, usage;
} RegisterCall;
typedef struct { uint32_t version, room, ids[2]; void *data; uint32_t *bytes; } HeadersCall;
AT(OpenCall, api, 24); AT(Config, mode, 44); AT(Config, flags, 76); AT(Config, quality, 128);
AT(Config, lookahead, 130); AT(Config, h264_flags, 168);
AT(Config, colours, 248); AT(StartCall, width, 36); AT(StartCall, config, 88); AT(StartCall, tuning, 136);
AT(InputCall, buffer, 24); AT(OutputCall, buffer, 16); AT(PictureCall, input, 40); AT(PictureCall, format, 64);
AT(PacketCall, bytes, 36); AT(PacketCall, data, 56); AT(PacketCall, qp, 72); AT(LockCall, pitch, 24);
AT(MapCall, mapped, 24); AT(MapCall, format, 32); AT(RegisterCall, resource, 24); AT(RegisterCall, format, 40);
AT(HeadersCall, bytes, 24);
