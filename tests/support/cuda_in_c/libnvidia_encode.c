/* An NVENC without a GPU: what FFmpeg calls of NVIDIA's encoder library, over the driver of libcuda.c. It makes H.264
   whose pictures are the very bytes that it read, notes every call, and refuses what the real one refuses.

   It reads a picture when its packet is fetched, as late as the real one may, after a first look when the picture is
   handed in: a picture that was changed in between is noted as CHANGED.

   NVENC_IN_C=none: a GPU without NVENC, as data-centre GPUs are; =old: a driver from before this version of the API;
   =host: an NVENC that takes nothing from the GPU's memory. */
#include "h264_pcm.h"
#include "note.h"
#include "nvenc_api.h"

/* Of the driver beside this library. */
typedef unsigned long long Address;
int cuCtxPushCurrent_v2(void *context);
int cuCtxPopCurrent_v2(void **context);
int cuStreamSynchronize(void *stream);
int cuMemGetAddressRange_v2(Address *base, size_t *bytes, Address address);
int cuPointerGetAttribute(void *value, int which, Address address);
const char *cuda_in_c_name(void *context);

/* A buffer of the encoder's own, or registered memory: its address is its handle, that of `mapped` the handle of it
   being mapped. */
typedef struct {
  int used, own, mapped, locked, pending;
  uint32_t pitch, format;
  Address address;
} Input;
typedef struct {
  int used, locked, pending;
  Input *input;
  PictureCall call;
  uint32_t sum;
  Bits stream;
} Output;
typedef struct {
  void *context, *stream;
  uint32_t width, height, gop, lookahead, repeats, since_idr, idrs;
  unsigned submitted, fetched, waiting;
  Colours colours;
  Input inputs[ROOM];
  Output outputs[ROOM];
} Session;

#define REFUSE(error, ...) return note("nvenc REFUSED: " __VA_ARGS__), error
#define CHECK(pointer, number) \
  if ((pointer)->version != (number)) REFUSE(INVALID_VERSION, "%s version %x", __func__, (pointer)->version)

static int inside(const Session *session, const Input *input) {
  Address base = 0;
  size_t bytes = 0, wanted = (size_t)input->pitch * session->height * 3 / 2;
  void *context = 0;
  int type = 0, known;
  if (input->own) return 1;
  if (cuCtxPushCurrent_v2(session->context)) return 0;
  known = !cuMemGetAddressRange_v2(&base, &bytes, input->address) && !cuPointerGetAttribute(&context, 1, input->address)
          && !cuPointerGetAttribute(&type, 2, input->address);
  cuCtxPopCurrent_v2(0);
  return known && type == 2 && context == session->context && input->address + wanted <= base + bytes;
}

/* The work that was queued before on the stream of this session is done. */
static int ordered(Session *session) {
  int error = cuCtxPushCurrent_v2(session->context);
  if (!error) error = cuStreamSynchronize(session->stream), cuCtxPopCurrent_v2(0);
  return !error;
}

static Source source_of(const Session *session, const Input *input) {
  const uint8_t *y = (const uint8_t *)input->address, *chroma = y + (size_t)input->pitch * session->height;
  if (input->format == NV12)
    return (Source){y, chroma, chroma + 1, input->pitch, input->pitch, 2, session->width, session->height};
  return (Source){y, chroma + (size_t)input->pitch / 2 * (session->height / 2), chroma, input->pitch, input->pitch / 2,
                  1, session->width, session->height};
}

static uint32_t sum_of(const Source *source) {
  uint32_t sum = 2166136261u;
  for (unsigned y = 0; y < source->height; y++)
    for (unsigned x = 0; x < source->width; x++) {
      const size_t chroma = (size_t)(y / 2) * source->chroma_pitch + x / 2 * source->step;
      sum = (sum ^ source->y[(size_t)y * source->pitch + x]) * 16777619u;
      sum = (sum ^ source->u[chroma] ^ source->v[chroma] << 8) * 16777619u;
    }
  return sum;
}

static int is(const char *kind) {
  const char *asked = getenv("NVENC_IN_C");
  return asked && !strcmp(asked, kind);
}

/* --- sessions */

static int open_session(OpenCall *call, void **session) {
  Session *made;
  CHECK(call, VERSION(1));
  if (call->api != 13 || call->kind != CUDA) REFUSE(INVALID_PARAM, "api %x, device type %u", call->api, call->kind);
  if (cuCtxPushCurrent_v2(call->device)) REFUSE(INVALID_DEVICE, "no context");
  cuCtxPopCurrent_v2(0);
  if (is("none")) REFUSE(UNSUPPORTED_DEVICE, "a GPU without an encoder");
  made = calloc(1, sizeof *made);
  made->context = call->device;
  *session = made;
  note("nvenc session on %s", cuda_in_c_name(call->device));
  return SUCCESS;
}
static int guid_count(Session *session, uint32_t *count) { *count = 1; return SUCCESS; }
static int guids(Session *session, Guid *found, uint32_t room, uint32_t *count) {
  *found = H264;
  *count = 1;
  return SUCCESS;
}
/* B-frames, rate control modes, CABAC, largest and smallest sizes, lossless, lookahead and the like: by number. */
static int capability(Session *session, Guid codec, CapsCall *call, int *value) {
  static const struct { uint32_t which; int value; } known[] = {
    {0, 4}, {1, 63}, {7, 1}, {16, 4096}, {17, 4096}, {20, 1}, {34, 1}, {37, 1}, {38, 1}, {43, 3}, {45, 145}, {46, 49},
    {47, 1}};
  CHECK(call, VERSION(1));
  *value = 0;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i].which == call->which) *value = known[i].value;
  return SUCCESS;
}
/* The best two presets look ahead, as the real ones do. */
static int preset_config(Session *session, Guid codec, Guid preset, int tuning, PresetCall *call) {
  CHECK(call, NEWER(5));
  CHECK(&call->config, NEWER(9));
  call->config.gop = 250;
  call->config.interval = 1;
  call->config.mode = 1;
  call->config.flags = (preset.a == presets[5] || preset.a == presets[6]) << 5;
  call->config.lookahead = call->config.flags ? 8 : 0;
  return SUCCESS;
}
static int start(Session *session, StartCall *call) {
  int preset = 0;
  Config *config = call->config;
  CHECK(call, NEWER(7));
  CHECK(config, NEWER(9));
  while (preset < 7 && presets[preset] != call->preset.a) preset++;
  if (memcmp(&call->codec, &H264, sizeof H264) || preset == 7) REFUSE(UNSUPPORTED_PARAM, "codec or preset");
  if (call->width < 145 || call->height < 49 || call->width > 4096 || call->height > 4096 ||
      (call->width | call->height) & 1)
    REFUSE(INVALID_PARAM, "size %ux%u", call->width, call->height);
  session->width = call->width;
  session->height = call->height;
  session->gop = config->gop;
  session->lookahead = config->flags >> 5 & 1 ? config->lookahead : 0;
  session->repeats = config->h264_flags >> 12 & 1;
  session->colours = config->colours;
  note("nvenc start %ux%u p%d tuning %u, %u/%u Hz, mode %u qp %u quality %u bit rate %u, gop %u interval %u "
       "lookahead %u", call->width, call->height, preset + 1, call->tuning, call->rate, call->rate_per, config->mode,
       config->qp[0], config->quality, config->bit_rates[0], config->gop, config->interval, session->lookahead);
  return SUCCESS;
}
static int reconfigure(Session *session, void *call) { REFUSE(UNIMPLEMENTED, "reconfigure"); }
static int streams(Session *session, void **in, void **out) {
  session->stream = *in;
  note("nvenc streams: %s, %s", *in ? "own" : "default", *in == *out ? "the same" : "ANOTHER");
  return SUCCESS;
}
static int sequence_headers(Session *session, HeadersCall *call) {
  Bits stream = {0};
  CHECK(call, VERSION(1));
  if (!session->width) REFUSE(NOT_INITIALIZED, "headers");
  headers(&stream, session->width, session->height, &session->colours);
  if (stream.size > call->room) abort();
  memcpy(call->data, stream.data, stream.size);
  *call->bytes = stream.size;
  free(stream.data);
  return SUCCESS;
}
static int close_session(Session *session) {
  int registered = 0, mapped = 0, own = 0, outputs = 0;
  for (int i = 0; i < ROOM; i++) {
    registered += session->inputs[i].used && !session->inputs[i].own;
    own += session->inputs[i].used && session->inputs[i].own;
    mapped += session->inputs[i].mapped;
    outputs += session->outputs[i].used;
  }
  note("nvenc closed: %u pictures, %u packets; left: %d registered, %d mapped, %d inputs, %d outputs",
       session->submitted, session->fetched, registered, mapped, own, outputs);
  free(session);
  return SUCCESS;
}
static const char *last_error(Session *session) { return "see the notes"; }

/* --- pictures */

#define FREE(place, things) \
  place = things; \
  while (place < things + ROOM && place->used) place++; \
  if (place == things + ROOM) abort()
#define KNOWN(thing, things) ((thing) >= things && (thing) < things + ROOM && (thing)->used)

static int new_input(Session *session, InputCall *call) {
  Input *input;
  CHECK(call, VERSION(2));
  if (call->format != NV12 && call->format != YV12) REFUSE(UNSUPPORTED_PARAM, "format %x", call->format);
  if (call->width != session->width || call->height != session->height) REFUSE(INVALID_PARAM, "size of a buffer");
  FREE(input, session->inputs);
  *input = (Input){1, 1, 1, 0, 0, (call->width + 255) / 256 * 256, call->format};
  input->address = (Address)malloc((size_t)input->pitch * session->height * 3 / 2);
  call->buffer = input;
  return SUCCESS;
}
static int no_input(Session *session, Input *input) {
  if (!KNOWN(input, session->inputs) || !input->own) REFUSE(INVALID_PARAM, "no such input");
  free((void *)input->address);
  input->used = input->mapped = 0;
  return SUCCESS;
}
static int lock_input(Session *session, LockCall *call) {
  Input *input = call->input;
  CHECK(call, VERSION(1));
  if (!KNOWN(input, session->inputs) || !input->own || input->locked) REFUSE(INVALID_PARAM, "lock of an input");
  if (input->pending) REFUSE(LOCK_BUSY, "input is being encoded");
  memset((void *)input->address, 0xCD, (size_t)input->pitch * session->height * 3 / 2);
  input->locked = 1;
  call->data = (void *)input->address;
  call->pitch = input->pitch;
  return SUCCESS;
}
static int unlock_input(Session *session, Input *input) {
  if (!KNOWN(input, session->inputs) || !input->locked) REFUSE(INVALID_PARAM, "unlock of an input");
  input->locked = 0;
  return SUCCESS;
}
static int register_resource(Session *session, RegisterCall *call) {
  Input *input;
  CHECK(call, VERSION(5));
  note("nvenc register %p pitch %u %ux%u format %x", call->resource, call->pitch, call->width, call->height,
       call->format);
  if (call->type != 1 || call->usage || call->format != NV12 || is("host")) REFUSE(UNSUPPORTED_PARAM, "kind of memory");
  if (call->pitch < call->width || call->pitch % 4) REFUSE(INVALID_PARAM, "pitch %u", call->pitch);
  if (call->width != session->width || call->height != session->height) REFUSE(INVALID_PARAM, "size of the memory");
  FREE(input, session->inputs);
  *input = (Input){1, 0, 0, 0, 0, call->pitch, call->format, (Address)call->resource};
  if (!inside(session, input)) {
    input->used = 0;
    REFUSE(REGISTER_FAILED, "%p is no device memory of this context, or too little", call->resource);
  }
  call->registered = input;
  return SUCCESS;
}
static int unregister_resource(Session *session, Input *input) {
  if (!KNOWN(input, session->inputs) || input->own) REFUSE(NOT_REGISTERED, "unregister");
  if (input->mapped) REFUSE(INVALID_CALL, "unregister of what is mapped");
  note("nvenc unregister %p%s", (void *)input->address, inside(session, input) ? "" : ", which was FREED before");
  input->used = 0;
  return SUCCESS;
}
static int map(Session *session, MapCall *call) {
  Input *input = call->registered;
  CHECK(call, VERSION(4));
  if (!KNOWN(input, session->inputs) || input->own) REFUSE(NOT_REGISTERED, "map");
  if (input->mapped || !inside(session, input)) REFUSE(MAP_FAILED, "mapped already, or gone");
  note("nvenc map %p", (void *)input->address);
  input->mapped = 1;
  call->mapped = &input->mapped;
  call->format = input->format;
  return SUCCESS;
}
static Input *of_handle(Session *session, void *handle) {
  for (Input *input = session->inputs; input < session->inputs + ROOM; input++)
    if (input->used && handle == (input->own ? (void *)input : (void *)&input->mapped)) return input;
  return 0;
}
static int unmap(Session *session, void *handle) {
  Input *input = of_handle(session, handle);
  if (!input || input->own || !input->mapped) REFUSE(NOT_MAPPED, "unmap");
  if (input->pending) REFUSE(INVALID_CALL, "unmap of what is being encoded");
  note("nvenc unmap %p", (void *)input->address);
  input->mapped = 0;
  return SUCCESS;
}

/* --- packets */

static int new_output(Session *session, OutputCall *call) {
  Output *output;
  CHECK(call, VERSION(1));
  FREE(output, session->outputs);
  *output = (Output){1};
  call->buffer = output;
  return SUCCESS;
}
static int no_output(Session *session, Output *output) {
  if (!KNOWN(output, session->outputs) || output->locked) REFUSE(INVALID_PARAM, "no such output");
  free(output->stream.data);
  output->used = 0;
  return SUCCESS;
}
static int encode(Session *session, PictureCall *call) {
  Input *input = of_handle(session, call->input);
  Output *output = call->output;
  Source source;
  CHECK(call, NEWER(7));
  if (call->flags & END_OF_STREAM) {
    /* What was handed in before is encoded by then, fetched or not. */
    note("nvenc end of stream");
    session->waiting = 0;
    for (int i = 0; i < ROOM; i++) session->inputs[i].pending = 0;
    return SUCCESS;
  }
  if (!input || !input->mapped) REFUSE(NOT_MAPPED, "a picture that is not mapped");
  if (input->locked || !KNOWN(output, session->outputs) || output->pending) REFUSE(INVALID_PARAM, "a buffer in use");
  if (call->format != input->format || call->structure != 1) REFUSE(INVALID_PARAM, "format %x", call->format);
  if (!ordered(session)) REFUSE(GENERIC, "the stream is gone");
  source = source_of(session, input);
  *output = (Output){1, 0, 1, input, *call, sum_of(&source), output->stream};
  input->pending++;
  note("nvenc encode %u at %lld from %s %p", session->submitted++, (long long)call->time,
       input->own ? "its own" : "device memory", (void *)input->address);
  if (session->waiting++ < session->lookahead) return NEED_MORE_INPUT;
  return SUCCESS;
}
static int lock_packet(Session *session, PacketCall *call) {
  Output *output = call->output;
  Source source;
  int idr;
  CHECK(call, NEWER(2));
  if (!KNOWN(output, session->outputs) || !output->pending || output->locked) REFUSE(INVALID_PARAM, "lock of a packet");
  if (!inside(session, output->input)) REFUSE(GENERIC, "%p is GONE before it was read", (void *)output->input->address);
  if (!ordered(session)) REFUSE(GENERIC, "the stream is gone");
  source = source_of(session, output->input);
  if (sum_of(&source) != output->sum) note("nvenc: %p was CHANGED before it was read", (void *)output->input->address);
  idr = !session->fetched || output->call.flags & FORCE_IDR || session->since_idr == session->gop;
  if (idr) session->since_idr = 0, session->idrs++;
  output->stream.size = 0;
  if (idr && session->repeats) headers(&output->stream, session->width, session->height, &session->colours);
  slice(&output->stream, &source, session->since_idr++, session->idrs);
  note("nvenc fetch %u", session->fetched++);
  output->locked = 1;
  if (output->input->pending) output->input->pending--;
  call->data = output->stream.data;
  call->bytes = output->stream.size;
  call->time = output->call.time;
  call->duration = output->call.duration;
  call->index = output->call.index;
  call->type = idr ? TYPE_IDR : TYPE_I;
  call->structure = call->slices = 1;
  call->qp = 1;
  return SUCCESS;
}
static int unlock_packet(Session *session, Output *output) {
  if (!KNOWN(output, session->outputs) || !output->locked) REFUSE(INVALID_PARAM, "unlock of a packet");
  output->locked = output->pending = 0;
  return SUCCESS;
}

/* --- the way in */

typedef struct { uint32_t version, reserved; void *functions[318]; } List;
_Static_assert(sizeof(List) == 2552, "NV_ENCODE_API_FUNCTION_LIST");

static int unimplemented(void) { REFUSE(UNIMPLEMENTED, "a function that FFmpeg does not call"); }

int NvEncodeAPIGetMaxSupportedVersion(uint32_t *version) {
  *version = is("old") ? 12 << 4 | 2 : 15 << 4;
  return SUCCESS;
}
int NvEncodeAPICreateInstance(List *list) {
  void *const functions[] = {
    [1] = guid_count, [4] = guids, [7] = capability, [11] = start, [12] = new_input, [13] = no_input,
    [14] = new_output, [15] = no_output, [16] = encode, [17] = lock_packet, [18] = unlock_packet, [19] = lock_input,
    [20] = unlock_input, [22] = sequence_headers, [25] = map, [26] = unmap, [27] = close_session, [29] = open_session,
    [30] = register_resource, [31] = unregister_resource, [32] = reconfigure, [37] = last_error, [38] = streams,
    [39] = preset_config};
  if (list->version != VERSION(2)) REFUSE(INVALID_VERSION, "another version of the API: %x", list->version);
  for (int i = 0; i < 43; i++)
    list->functions[i] = i < 40 && functions[i] ? functions[i] : (void *)unimplemented;
  return SUCCESS;
}
