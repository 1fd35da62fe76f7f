/* An NVDEC without a GPU, for FFmpeg to decode with: a picture's samples follow from the bits that it was to be decoded
   from, so that a test which has the same bits knows what must be shown. It stands on the driver beside it (libcuda.c).
   Numbers, names and offsets are those of the "NVDECODE API", 64 bit; only what is looked at is declared. It refuses
   what the real one refuses, and notes each call. NVDEC_REFUSES holds codecs that this GPU cannot decode,
   NVDEC_FAILS_AT the number of a picture, from 0 on, that cannot be decoded. NVDEC_PICTURES is a file of pictures that
   were decoded elsewhere: those are shown for their bits. */
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "note.h"

enum { INVALID_VALUE = 1, INVALID_CONTEXT = 201, MAP_FAILED = 205, NOT_SUPPORTED = 801 };
enum { H264 = 4, HEVC = 8, VP8 = 9, VP9 = 10, AV1 = 11 };  /* cudaVideoCodec */
enum { CHROMA_420 = 1, NV12 = 0, P016 = 1 };
enum { SURFACES = 32, PITCH = 512, POISON = 0xEE };
typedef unsigned long long Address;

int cuCtxGetCurrent(void **context);
int cuMemAlloc_v2(Address *address, size_t bytes);
int cuMemFree_v2(Address address);

typedef struct {
  int codec, chroma;
  unsigned bits_above_8, reserved[3];
  unsigned char supported, engines;
  unsigned short formats;
  unsigned max_width, max_height, max_macroblocks;
  unsigned short min_width, min_height;
} Abilities;

typedef struct {
  unsigned long width, height, surfaces;
  int codec, chroma;
  unsigned long flags, bits_above_8, intra_only, max_width, max_height, reserved;
  short shown[4];
  int format, deinterlacing;
  unsigned long target_width, target_height, outputs;
} Wish;

typedef struct {
  int width_mbs, height_mbs, index, field, bottom, second_field;
  unsigned nbytes;
  const unsigned char *bits;
  unsigned slices;
  const unsigned *offsets;
} Order;

typedef struct {
  int progressive, fields[3];
  unsigned reserved[2];
  Address raw_input;
  unsigned raw_input_how[2];
  Address raw_output;
  unsigned raw_output_pitch, reserved_too;
  void *stream;
} Showing;

_Static_assert(offsetof(Abilities, supported) == 24 && offsetof(Abilities, min_height) == 42, "CUVIDDECODECAPS");
_Static_assert(offsetof(Wish, codec) == 24 && offsetof(Wish, bits_above_8) == 40 && offsetof(Wish, shown) == 80 &&
               offsetof(Wish, format) == 88 && offsetof(Wish, outputs) == 112, "CUVIDDECODECREATEINFO");
_Static_assert(offsetof(Order, nbytes) == 24 && offsetof(Order, bits) == 32 && offsetof(Order, offsets) == 48,
               "CUVIDPICPARAMS");
_Static_assert(offsetof(Showing, stream) == 56, "CUVIDPROCPARAMS");

typedef struct {
  Wish wish;
  void *context;
  size_t pitch, nbytes;
  int decoded[SURFACES], mapped[SURFACES];
  unsigned seeds[SURFACES], times[SURFACES], *seen, count;
  Address outputs[SURFACES];
} Decoder;

static const struct { int codec; const char *name; int bits_above_8, width, height, most; } known[] = {
  {H264, "h264", 0, 48, 16, 4096},
  {HEVC, "hevc", 4, 144, 144, 8192},
  {VP8, "vp8", 0, 48, 16, 4096},
  {VP9, "vp9", 4, 128, 128, 8192},
  {AV1, "av1", 2, 128, 128, 8192},
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int pictures;

static int say(int result, const char *format, ...) {
  char line[256];
  va_list values;
  va_start(values, format);
  vsnprintf(line, sizeof line, format, values);
  va_end(values);
  if (result) note("NVDEC REFUSED (%d) %s", result, line);
  else note("NVDEC %s", line);
  return result;
}

static void *current(void) {
  void *context = 0;
  return cuCtxGetCurrent(&context) ? 0 : context;
}

#define IN_CONTEXT(decoder, what) \
  if (!current() || ((decoder) && current() != ((Decoder *)(decoder))->context)) \
    return say(INVALID_CONTEXT, what " where the context is not current")

static void judge(Abilities *wish) {
  const char *refused = getenv("NVDEC_REFUSES");
  memset(&wish->supported, 0, sizeof *wish - offsetof(Abilities, supported));
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (known[i].codec != wish->codec || wish->chroma != CHROMA_420) continue;
    if (wish->bits_above_8 > (unsigned)known[i].bits_above_8 || (refused && strstr(refused, known[i].name))) continue;
    wish->supported = wish->engines = 1;
    wish->formats = wish->bits_above_8 ? 1 << P016 : 1 << NV12;
    wish->min_width = known[i].width;
    wish->min_height = known[i].height;
    wish->max_width = wish->max_height = known[i].most;
    wish->max_macroblocks = known[i].most / 16 * (known[i].most / 16);
  }
}

int cuvidGetDecoderCaps(Abilities *wish) {
  IN_CONTEXT(0, "abilities");
  judge(wish);
  return say(0, "abilities of codec %d, %u bits: %d", wish->codec, wish->bits_above_8 + 8, wish->supported);
}

int cuvidCreateDecoder(void **handle, Wish *wish) {
  Abilities can = {.codec = wish->codec, .chroma = wish->chroma, .bits_above_8 = wish->bits_above_8};
  size_t rows = (wish->target_height + 1) / 2 * 2;
  Decoder *decoder;
  IN_CONTEXT(0, "create");
  judge(&can);
  if (!can.supported || !(can.formats >> wish->format & 1) || wish->width < can.min_width ||
      wish->height < can.min_height || wish->width > can.max_width || wish->height > can.max_height)
    return say(NOT_SUPPORTED, "create for codec %d, %lux%lu", wish->codec, wish->width, wish->height);
  if (!wish->surfaces || wish->surfaces > SURFACES || !wish->outputs || wish->outputs > SURFACES)
    return say(INVALID_VALUE, "create with %lu surfaces, %lu outputs", wish->surfaces, wish->outputs);
  decoder = calloc(1, sizeof *decoder);
  decoder->wish = *wish;
  decoder->context = current();
  decoder->pitch = (wish->target_width * (wish->format == P016 ? 2 : 1) / PITCH + 1) * PITCH;
  decoder->nbytes = decoder->pitch * rows * 3 / 2;
  for (unsigned long i = 0; i < wish->outputs; i++) {
    if (cuMemAlloc_v2(&decoder->outputs[i], decoder->nbytes)) return say(INVALID_VALUE, "create without memory");
    memset((void *)decoder->outputs[i], POISON, decoder->nbytes);
  }
  *handle = decoder;
  return say(0, "create codec %d, %lux%lu, %lu bits", wish->codec, wish->width, wish->height, wish->bits_above_8 + 8);
}

int cuvidDestroyDecoder(void *handle) {
  Decoder *decoder = handle;
  IN_CONTEXT(handle, "destroy");
  for (unsigned long i = 0; i < decoder->wish.outputs; i++) {
    if (decoder->mapped[i]) return say(INVALID_VALUE, "destroy with a picture mapped");
    if (cuMemFree_v2(decoder->outputs[i])) return say(INVALID_VALUE, "destroy whose memory is gone");
  }
  free(decoder->seen);
  free(decoder);
  return say(0, "destroy");
}

/* FNV-1a over the bits as they were given. A second field adds to what the first one made. */
static unsigned seed_of(const Order *order, unsigned seed) {
  for (unsigned i = 0; i < order->nbytes; i++) seed = (seed ^ order->bits[i]) * 16777619u;
  return seed;
}

/* How often the decoder had such bits before. */
static void remember(Decoder *decoder, int index) {
  decoder->times[index] = 0;
  for (unsigned i = 0; i < decoder->count; i++) decoder->times[index] += decoder->seen[i] == decoder->seeds[index];
  decoder->seen = realloc(decoder->seen, (decoder->count + 1) * sizeof *decoder->seen);
  decoder->seen[decoder->count++] = decoder->seeds[index];
}

int cuvidDecodePicture(void *handle, Order *order) {
  static const unsigned char start[] = {0, 0, 1};
  Decoder *decoder = handle;
  const char *fails = getenv("NVDEC_FAILS_AT");
  int codec = decoder->wish.codec, again, number;
  IN_CONTEXT(handle, "decode");
  if (order->index < 0 || order->index >= (int)decoder->wish.surfaces || !order->nbytes || !order->slices)
    return say(INVALID_VALUE, "decode into %d of %u bytes", order->index, order->nbytes);
  for (unsigned i = 0; i < order->slices && (codec == H264 || codec == HEVC); i++)
    if (order->offsets[i] + 3 > order->nbytes || memcmp(order->bits + order->offsets[i], start, 3))
      return say(INVALID_VALUE, "decode of a slice without a start code");
  for (unsigned i = 0; i < order->slices && codec == AV1; i++)
    if (order->offsets[2 * i] >= order->offsets[2 * i + 1] || order->offsets[2 * i + 1] > order->nbytes)
      return say(INVALID_VALUE, "decode of a tile that is none");
  pthread_mutex_lock(&lock);
  number = pictures++;
  pthread_mutex_unlock(&lock);
  if (fails && number == atoi(fails)) return say(INVALID_VALUE, "decode, as asked, picture %d", number);
  again = order->field && order->second_field;
  if (again && !decoder->decoded[order->index]) return say(INVALID_VALUE, "decode of a second field alone");
  decoder->seeds[order->index] = seed_of(order, again ? decoder->seeds[order->index] : 2166136261u);
  decoder->decoded[order->index] = 1;
  remember(decoder, order->index);
  return say(0, "decode %u slices into %d: %08x", order->slices, order->index, decoder->seeds[order->index]);
}

/* The picture that the file has for such bits, 0 if it has none: its seed, the bits of a sample, the length and the
   number of its rows, and its rows, luma and then chroma. Pictures that only differ in what they refer to may have the
   same bits: the decoder's are then the file's in turn. */
static const unsigned char *recorded(unsigned seed, unsigned bits, unsigned times, unsigned head[4]) {
  static unsigned char *all;
  static long nbytes;
  const char *path = getenv("NVDEC_PICTURES");
  pthread_mutex_lock(&lock);
  if (path && !all) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) || (nbytes = ftell(file)) < 0) abort();
    all = malloc((size_t)nbytes);
    rewind(file);
    if (fread(all, 1, (size_t)nbytes, file) != (size_t)nbytes) abort();
    fclose(file);
  }
  pthread_mutex_unlock(&lock);
  long found = -1;
  for (long at = 0; at + 16 <= nbytes; at += 16 + (long)head[2] * head[3]) {
    memcpy(head, all + at, 16);
    if (head[0] != seed || head[1] != bits) continue;
    found = at;
    if (!times--) break;
  }
  if (found < 0) return 0;
  memcpy(head, all + found, 16);
  return all + found + 16;
}

/* Sample x, y of plane p (chroma: U and V beside each other) is seed >> 8 p + (3 + 4 p) x + (5 + 6 p) y, as many bits
   of it as there are, in the upper ones of 16 where there are more than eight. */
static void paint(const Decoder *decoder, unsigned seed, unsigned times, unsigned char *to) {
  unsigned long width = decoder->wish.target_width, height = (decoder->wish.target_height + 1) / 2 * 2;
  int bits = 8 + (int)decoder->wish.bits_above_8, wide = decoder->wish.format == P016;
  unsigned head[4];
  const unsigned char *from = recorded(seed, (unsigned)bits, times, head);
  if (from) {
    /* What is decoded may be larger than what is shown. */
    unsigned luma = head[3] * 2 / 3;
    for (unsigned y = 0; y < head[3]; y++)
      memcpy(to + (y < luma ? y : y - luma + height) * decoder->pitch, from + (size_t)y * head[2], head[2]);
    return;
  }
  for (unsigned p = 0; p < 2; p++)
    for (unsigned long y = 0; y < (p ? height / 2 : height); y++, to += decoder->pitch)
      for (unsigned long x = 0; x < (p ? (width + 1) / 2 * 2 : width); x++) {
        unsigned value = (unsigned)((seed >> 8 * p) + (3 + 4 * p) * x + (5 + 6 * p) * y) & ((1u << bits) - 1);
        if (wide) ((unsigned short *)to)[x] = (unsigned short)(value << (16 - bits));
        else to[x] = (unsigned char)value;
      }
}

int cuvidMapVideoFrame64(void *handle, int index, Address *address, unsigned *pitch, const Showing *how) {
  Decoder *decoder = handle;
  unsigned long i = 0;
  IN_CONTEXT(handle, "map");
  if (!how || index < 0 || index >= (int)decoder->wish.surfaces || !decoder->decoded[index])
    return say(INVALID_VALUE, "map of %d, which was not decoded", index);
  while (i < decoder->wish.outputs && decoder->mapped[i]) i++;
  if (i == decoder->wish.outputs) return say(MAP_FAILED, "map beyond %lu outputs", i);
  decoder->mapped[i] = 1;
  paint(decoder, decoder->seeds[index], decoder->times[index], (unsigned char *)decoder->outputs[i]);
  *address = decoder->outputs[i];
  *pitch = (unsigned)decoder->pitch;
  return say(0, "map %d on %s stream: %08x", index, how->stream ? "a" : "the default", decoder->seeds[index]);
}

int cuvidUnmapVideoFrame64(void *handle, Address address) {
  Decoder *decoder = handle;
  IN_CONTEXT(handle, "unmap");
  for (unsigned long i = 0; i < decoder->wish.outputs; i++)
    if (decoder->outputs[i] == address && decoder->mapped[i]) {
      decoder->mapped[i] = 0;
      memset((void *)address, POISON, decoder->nbytes);
      return say(0, "unmap");
    }
  return say(INVALID_VALUE, "unmap of what is not mapped");
}

/* FFmpeg wants these to be there and does not call them. */
#define UNUSED(name) int name(void) { return say(NOT_SUPPORTED, #name); }
UNUSED(cuvidGetDecodeStatus)
UNUSED(cuvidReconfigureDecoder)
UNUSED(cuvidCtxLockCreate)
UNUSED(cuvidCtxLockDestroy)
UNUSED(cuvidCtxLock)
UNUSED(cuvidCtxUnlock)
UNUSED(cuvidCreateVideoSource)
UNUSED(cuvidCreateVideoSourceW)
UNUSED(cuvidDestroyVideoSource)
UNUSED(cuvidSetVideoSourceState)
UNUSED(cuvidGetVideoSourceState)
UNUSED(cuvidGetSourceVideoFormat)
UNUSED(cuvidGetSourceAudioFormat)
UNUSED(cuvidCreateVideoParser)
UNUSED(cuvidParseVideoData)
UNUSED(cuvidDestroyVideoParser)
