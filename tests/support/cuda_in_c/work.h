/* Streams, events and graphs of the driver in C: what is queued is done at once, or kept where the stream is captured
   and done by each launch of the graph. The capture rules are those of the driver API's documentation
   (cuStreamBeginCapture, cuThreadExchangeStreamCaptureMode). Part of libcuda.c.

   What has a handle is never freed, so that whoever still uses one that is gone is told. With CUDA_IN_C_WORK=none
   nothing that is queued is done: what is left of the time is that of queueing it. CUDA_IN_C_DIES_AT is the number of a
   piece of work, from 0 on, that meets an illegal address. */
#include <time.h>

enum {
  ILLEGAL_STATE = 401,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_ISOLATION = 905,
  CAPTURE_IMPLICIT = 906,
  CAPTURED_EVENT = 907,
  CAPTURE_WRONG_THREAD = 908,
};
enum { GLOBAL, THREAD_LOCAL, RELAXED };
enum { NON_BLOCKING = 1, DISABLE_TIMING = 2 };

/* One piece of work. ``run`` gets the arguments, which are a copy. */
typedef struct Work {
  struct Work *next;
  int (*run)(const void *arguments);
  long long arguments[];
} Work;

typedef struct {
  int alive;
  Work *first;
} Graph;

typedef struct Capture {
  struct Capture *next;
  struct Stream *stream;
  pthread_t thread;
  int mode, invalid, over;
  Work *first, **end;
} Capture;

typedef struct Stream {
  int alive;
  unsigned flags;
  Context *context;
  Capture *capture;
} Stream;

typedef struct {
  int alive;
  unsigned flags;
  int recorded;
  double ms;
  Capture *captured;
} Event;

static Capture *captures;

/* 0 to 2 are the default streams, which nobody captures. */
#define IS_DEFAULT(stream) ((Address)(stream) <= 2)
#define STREAM \
  CURRENT; \
  if (!IS_DEFAULT(stream) && !((Stream *)stream)->alive) { \
    note("NO STREAM"); \
    return INVALID_HANDLE; \
  } \
  if (!IS_DEFAULT(stream) && ((Stream *)stream)->context != TOP) { \
    note("A STREAM OF ANOTHER CONTEXT"); \
    return INVALID_HANDLE; \
  }
#define EVENT(event) \
  if (!(event) || !((Event *)(event))->alive) { \
    note("NO EVENT"); \
    return INVALID_HANDLE; \
  }
#define CAPTURE_OF(it) (IS_DEFAULT(it) ? 0 : ((Stream *)(it))->capture)

/* Ends a capture that something was done in which it does not allow. */
static int refuse(Capture *capture, int error, const char *what) {
  note("REFUSED in a capture: %s (%d)", what, error);
  capture->invalid = 1;
  return error;
}

/* Calls that may wait for the device end captures of this thread, unless they are relaxed, and global ones. */
static int unsafe(const char *what) {
  int error = 0;
  pthread_mutex_lock(&lock);
  for (Capture *one = captures; one; one = one->next)
    if (!one->over &&
        (one->mode == GLOBAL || (one->mode == THREAD_LOCAL && pthread_equal(one->thread, pthread_self()))))
      error = refuse(one, CAPTURE_UNSUPPORTED, what);
  pthread_mutex_unlock(&lock);
  return error;
}
#define UNSAFE(what) \
  do { \
    int error = unsafe(what); \
    if (error) return error; \
  } while (0)

/* Streams that wait for the default stream cannot be captured while something is queued there. */
static int implicit(void) {
  int error = 0;
  pthread_mutex_lock(&lock);
  for (Capture *one = captures; one; one = one->next)
    if (!one->over && !(one->stream->flags & NON_BLOCKING) && one->stream->context == TOP)
      error = refuse(one, CAPTURE_IMPLICIT, "work on the default stream");
  pthread_mutex_unlock(&lock);
  return error;
}

static int does_nothing(void) {
  const char *work = getenv("CUDA_IN_C_WORK");
  return work && !strcmp(work, "none");
}

static int perform(int (*run)(const void *), const void *arguments) {
  static int count;
  const char *dies = getenv("CUDA_IN_C_DIES_AT");
  int number;
  pthread_mutex_lock(&lock);
  number = count++;
  pthread_mutex_unlock(&lock);
  if (dies && number == atoi(dies)) {
    note("ILLEGAL ADDRESS: piece of work %d", number);
    /* The calls that follow are told. */
    dead = 1;
  }
  return dead || does_nothing() ? 0 : run(arguments);
}

/* ``pageable``: the work reads or writes host memory that is not pinned, for which the caller waits. */
static int queue(void *stream, int (*run)(const void *), const void *arguments, size_t bytes, int pageable) {
  Capture *capture = CAPTURE_OF(stream);
  Work *work;
  int error = IS_DEFAULT(stream) ? implicit() : 0;
  if (error) return error;
  if (!capture) return perform(run, arguments);
  if (capture->invalid) return CAPTURE_INVALIDATED;
  if (pageable) return refuse(capture, CAPTURE_UNSUPPORTED, "a copy of memory that is not pinned");
  work = malloc(sizeof *work + bytes);
  *work = (Work){0, run};
  memcpy(work->arguments, arguments, bytes);
  *capture->end = work;
  capture->end = &work->next;
  return 0;
}

int cuStreamCreate(void **stream, unsigned flags) {
  CURRENT;
  *stream = malloc(sizeof(Stream));
  *(Stream *)*stream = (Stream){1, flags, TOP, 0};
  TOP->handles++;
  note("stream flags %u", flags);
  return 0;
}
int cuStreamDestroy_v2(void *stream) {
  STREAM;
  if (IS_DEFAULT(stream) || CAPTURE_OF(stream)) return INVALID_HANDLE;
  ((Stream *)stream)->alive = 0;
  TOP->handles--;
  note("no stream");
  return 0;
}
int cuStreamSynchronize(void *stream) {
  STREAM;
  return CAPTURE_OF(stream) ? refuse(CAPTURE_OF(stream), CAPTURE_UNSUPPORTED, "waiting for the stream") : 0;
}
int cuStreamQuery(void *stream) {
  STREAM;
  return CAPTURE_OF(stream) ? refuse(CAPTURE_OF(stream), CAPTURE_UNSUPPORTED, "asking the stream") : 0;
}
int cuCtxSynchronize(void) {
  CURRENT;
  UNSAFE("waiting for the GPU");
  return 0;
}

int cuEventCreate(void **event, unsigned flags) {
  CURRENT;
  *event = malloc(sizeof(Event));
  *(Event *)*event = (Event){1, flags, 0, 0, 0};
  TOP->handles++;
  note("event flags %u", flags);
  return 0;
}
int cuEventDestroy_v2(void *event) {
  CURRENT;
  EVENT(event);
  ((Event *)event)->alive = 0;
  TOP->handles--;
  note("no event");
  return 0;
}
int cuEventRecord(void *event, void *stream) {
  struct timespec now;
  STREAM;
  EVENT(event);
  int error = IS_DEFAULT(stream) ? implicit() : 0;
  if (error) return error;
  if (CAPTURE_OF(stream) && CAPTURE_OF(stream)->invalid) return CAPTURE_INVALIDATED;
  clock_gettime(CLOCK_MONOTONIC, &now);
  ((Event *)event)->ms = now.tv_sec * 1e3 + now.tv_nsec / 1e6;
  ((Event *)event)->recorded = 1;
  /* Such a record is an edge of the graph; launches of it do not record the event. */
  ((Event *)event)->captured = CAPTURE_OF(stream);
  return 0;
}
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
  STREAM;
  EVENT(event);
  Capture *capture = CAPTURE_OF(stream), *captured = ((Event *)event)->captured;
  if (captured == capture || (!captured && !((Event *)event)->recorded)) return 0;
  if (captured) {
    note("NOT SUPPORTED: captures of more than one stream");
    return NOT_SUPPORTED;
  }
  return refuse(capture, CAPTURE_ISOLATION, "waiting for work outside of it");
}
int cuEventQuery(void *event) {
  CURRENT;
  EVENT(event);
  Capture *captured = ((Event *)event)->captured;
  return captured ? refuse(captured, CAPTURED_EVENT, "asking an event of it") : 0;
}
int cuEventSynchronize(void *event) {
  CURRENT;
  EVENT(event);
  Capture *captured = ((Event *)event)->captured;
  return captured ? refuse(captured, CAPTURED_EVENT, "waiting for an event of it") : 0;
}
int cuEventElapsedTime(float *ms, void *from, void *to) {
  CURRENT;
  for (int i = 0; i < 2; i++) {
    Event *event = i ? to : from;
    EVENT(event);
    if (!event->recorded || event->captured || event->flags & DISABLE_TIMING) return INVALID_HANDLE;
  }
  *ms = ((Event *)to)->ms - ((Event *)from)->ms;
  return 0;
}
int cuEventElapsedTime_v2(float *ms, void *from, void *to) { return cuEventElapsedTime(ms, from, to); }

int cuStreamBeginCapture_v2(void *stream, int mode) {
  Capture *capture;
  STREAM;
  note("capture mode %d", mode);
  if (IS_DEFAULT(stream)) return CAPTURE_UNSUPPORTED;
  if (CAPTURE_OF(stream)) return ILLEGAL_STATE;
  capture = malloc(sizeof *capture);
  *capture = (Capture){captures, stream, pthread_self(), mode};
  capture->end = &capture->first;
  pthread_mutex_lock(&lock);
  captures = ((Stream *)stream)->capture = capture;
  pthread_mutex_unlock(&lock);
  return 0;
}
int cuStreamEndCapture(void *stream, void **graph) {
  STREAM;
  Capture *capture = CAPTURE_OF(stream);
  *graph = 0;
  if (!capture) return ILLEGAL_STATE;
  if (capture->mode != RELAXED && !pthread_equal(capture->thread, pthread_self())) return CAPTURE_WRONG_THREAD;
  ((Stream *)stream)->capture = 0;
  capture->over = 1;
  if (capture->invalid) return CAPTURE_INVALIDATED;
  *graph = malloc(sizeof(Graph));
  *(Graph *)*graph = (Graph){1, capture->first};
  TOP->handles++;
  return 0;
}

static int graph_is_gone(Graph *graph) {
  if (!graph || !graph->alive) note("NO GRAPH");
  return !graph || !graph->alive;
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
  CURRENT;
  UNSAFE("making a graph executable");
  if (graph_is_gone(graph)) return INVALID_VALUE;
  *executable = malloc(sizeof(Graph));
  *(Graph *)*executable = *(Graph *)graph;
  TOP->handles++;
  return 0;
}
static int drop_graph(Graph *graph, const char *what) {
  CURRENT;
  if (graph_is_gone(graph)) return INVALID_VALUE;
  graph->alive = 0;
  TOP->handles--;
  note("no %s", what);
  return 0;
}
int cuGraphDestroy(void *graph) { return drop_graph(graph, "graph"); }
int cuGraphExecDestroy(void *executable) { return drop_graph(executable, "executable"); }
int cuGraphLaunch(void *executable, void *stream) {
  STREAM;
  int error = 0;
  note("launch graph");
  if (graph_is_gone(executable)) return INVALID_VALUE;
  if (CAPTURE_OF(stream)) {
    note("NOT SUPPORTED: graphs in graphs");
    return NOT_SUPPORTED;
  }
  for (Work *work = ((Graph *)executable)->first; work && !error; work = work->next)
    error = perform(work->run, work->arguments);
  return error;
}
